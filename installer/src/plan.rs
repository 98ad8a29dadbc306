//! What to do about every registry, and what to tell about it: a pure rule from the settings, what lies on disk and
//! what the probes say. Must not touch the disk or the clock.

mod ours;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use larder_wire::name::Registry;
use larder_wire::settings::{InstallerMode, Settings, UpstreamSettings};

use crate::entry::{Certificates, Entry, Held, Made};
use crate::hosts;
use crate::preflight::Ground;
use crate::probe::Verdict;
use crate::state::{Reason, Standing, Told};
use crate::tree::{Dir, Hosts, Seen};

pub(crate) use ours::{Removal, is_about, is_in, is_out, removals};
use ours::{held, is_wholly_ours, names, names_vanished, place, removal};

const DEFAULT: &str = "_default";

/// What to do, registry by registry, and entries of ours that no registry of the settings wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) decisions: Vec<Decision>,
    pub(crate) strays: Vec<Removal>,
}

/// What to do about a registry, and what is true once that is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) registry: Registry,
    pub(crate) install: Option<Install>,
    pub(crate) removal: Option<Removal>,
    pub(crate) standing: Standing,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: String,
}

/// A write that puts our entry in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Install {
    /// A directory with an owned file, both at once; certs.d too if it is not there.
    NewDir {
        dir: String,
        file: Vec<u8>,
    },
    /// An owned file in a directory that is there.
    NewFile {
        dir: String,
        file: Vec<u8>,
    },
    Change {
        dir: String,
        old: Vec<u8>,
        new: Vec<u8>,
    },
}

/// What is known besides what lies on disk.
pub(crate) struct Known<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) verdict: &'a Verdict,
    pub(crate) mirror: Option<SocketAddr>,
    /// Registries that were written less than 30 s ago.
    pub(crate) recent: &'a BTreeSet<Registry>,
    /// Registries whose entry has been in since the installer started.
    pub(crate) once_in: &'a BTreeSet<Registry>,
    /// Registries whose file somebody else keeps changing back.
    pub(crate) fought: &'a BTreeSet<Registry>,
}

/// Decides for all registries.
pub(crate) fn plan(settings: &Settings, seen: &Seen, known: &Known<'_>) -> Plan {
    let decide = |upstream| Case::of(upstream, seen, known).decide(settings.installer.mode);
    let decisions = settings.upstreams.iter().map(decide).collect();
    let wanted: BTreeSet<_> =
        settings.upstreams.iter().map(|upstream| place(&upstream.registry, seen).0).collect();
    let stray = |(name, dir): (&String, &Dir)| (!wanted.contains(name)).then(|| removal(name, dir)).flatten();
    let strays = match settings.installer.mode {
        InstallerMode::Observe => Vec::new(),
        InstallerMode::Manage | InstallerMode::Absent => seen.dirs.iter().filter_map(stray).collect(),
    };
    Plan { decisions, strays }
}

/// One registry and everything that is known about it.
struct Case<'a> {
    upstream: &'a UpstreamSettings,
    seen: &'a Seen,
    known: &'a Known<'a>,
    name: String,
    dir: Option<&'a Dir>,
    held: Option<Held>,
}

/// What the disk says: our entry is right, or what would make it so.
enum Aim {
    Right,
    Write(Install),
}

impl<'a> Case<'a> {
    fn of(upstream: &'a UpstreamSettings, seen: &'a Seen, known: &'a Known<'a>) -> Self {
        let (name, dir) = place(&upstream.registry, seen);
        Self { upstream, seen, known, held: dir.and_then(held), name, dir }
    }

    fn decide(&self, mode: InstallerMode) -> Decision {
        match mode {
            InstallerMode::Manage => self.manage(),
            InstallerMode::Observe => self.observe(),
            InstallerMode::Absent => {
                self.told(Standing::Withdrawn, None, "mode is absent: our entries are kept out").and_out(self)
            }
        }
    }

    fn manage(&self) -> Decision {
        let aim = self.aim();
        if let Err(told) = aim {
            // A file that does not parse is left as it is while the agent is well: containerd ignores it, our lines in
            // it included, and whoever breaks it may be about to mend it.
            let untouched =
                told.reason == Reason::Unparsable && !matches!(self.known.verdict, Verdict::Out(_));
            let refused = self.because(Standing::Refused, told);
            return if untouched { refused } else { refused.and_out(self) };
        }
        match (self.known.verdict, aim) {
            (Verdict::Out(why), _) => self.because(self.away(why), why.clone()).and_out(self),
            (_, Ok(Aim::Write(_))) if !self.may_write_now() && self.names_vanished() => self
                .told(Standing::Withdrawn, None, "a certificate that our entry names changed")
                .and_out(self),
            _ if self.known.fought.contains(&self.upstream.registry) => {
                self.because(Standing::Refused, self.fought())
            }
            (_, Ok(Aim::Right)) => self.told(Standing::Installed, None, &self.known.ground.note),
            (Verdict::In(_), Ok(Aim::Write(install))) if self.may_write_now() => Decision {
                install: Some(install),
                ..self.told(Standing::Installed, None, &self.known.ground.note)
            },
            (Verdict::In(_), _) => self.pending("written less than 30s ago; the next write follows"),
            (Verdict::Unsure(None), _) => self.pending("waiting for good probes in a row"),
            (Verdict::Unsure(Some(why)), _) if self.in_place() => {
                self.told(Standing::Installed, None, &why.words)
            }
            (Verdict::Unsure(Some(why)), _) => self.because(Standing::Waiting, why.clone()),
        }
    }

    /// Writes nothing, and tells who sends containerd to us.
    fn observe(&self) -> Decision {
        let trouble = match self.known.verdict {
            Verdict::In(_) | Verdict::Unsure(None) => None,
            Verdict::Unsure(Some(why)) | Verdict::Out(why) => Some(why.clone()),
        };
        if self.in_place() {
            return self.told(Standing::Installed, None, "our own entry is there; observe leaves it");
        }
        let dir = self.dir.map(|dir| (&self.name, dir));
        let read = dir.or_else(|| self.seen.dirs.get_key_value(DEFAULT));
        if let (Some((name, Dir { hosts: Hosts::Text(text), .. })), Some(mirror)) = (read, self.known.mirror)
            && hosts::lists(text, mirror)
        {
            let words = format!("{} sends containerd to {mirror}", self.shown(name));
            return match trouble {
                Some(why) => {
                    self.told(Standing::External, Some(why.reason), &format!("{words}, but {}", why.words))
                }
                None => self.told(Standing::External, None, &words),
            };
        }
        match (self.aim(), trouble) {
            (Err(told), _) => self.because(Standing::Refused, told),
            (Ok(_), Some(why)) => self.because(Standing::Waiting, why),
            (Ok(_), None) => {
                self.told(Standing::Waiting, None, "observe writes nothing, and no entry leads to us")
            }
        }
    }

    /// What would make our entry right.
    fn aim(&self) -> Result<Aim, Told> {
        let refusal = self.known.ground.refusal.as_ref();
        match refusal.filter(|told| told.reason == Reason::ConfigPathUnset) {
            Some(unset) => return Err(unset.clone()),
            None => self.shadows()?,
        }
        if let Some(told) = refusal {
            return Err(told.clone());
        }
        let Some(dir) = self.dir else {
            let root = self.root_is_ours();
            let file = self.entry(&BTreeSet::new()).file(Made { dir: true, root });
            return Ok(Aim::Write(Install::NewDir { dir: self.name.clone(), file }));
        };
        let name = self.name.clone();
        match &dir.hosts {
            Hosts::Unreadable(told) | Hosts::Untouchable(told) => Err(told.clone()),
            Hosts::Absent => {
                let file = self.entry(&dir.files).file(Made::default());
                Ok(Aim::Write(Install::NewFile { dir: name, file }))
            }
            Hosts::Text(old) => {
                let new = self.rewritten(dir, old)?;
                let right = new == *old;
                Ok(if right {
                    Aim::Right
                } else {
                    Aim::Write(Install::Change { dir: name, old: old.clone(), new })
                })
            }
        }
    }

    /// The file with our entry as it should be.
    fn rewritten(&self, dir: &Dir, text: &[u8]) -> Result<Vec<u8>, Told> {
        if let Some(held) = self.held.as_ref().filter(|held| held.whole) {
            return Ok(self.entry(&dir.files).file(held.made));
        }
        let path = self.shown(&self.name);
        let rest = self.held.as_ref().map_or(text, |held| &held.rest);
        let place = hosts::judge(rest, &path, self.upstream, self.known.mirror)?;
        let named =
            place.says_nothing || self.held.as_ref().is_some_and(|held| !held.certificates.is_empty());
        let nothing = BTreeSet::new();
        let mut entry = self.entry(if named { &dir.files } else { &nothing });
        entry.certificates = entry.certificates.beside(&place.sets);
        hosts::splice(rest, &path, &place, &entry)
    }

    /// Whether an entry of ours would hide what an administrator wrote for others, or be hidden itself.
    fn shadows(&self) -> Result<(), Told> {
        let registry = &self.upstream.registry;
        let new = self.dir.is_none_or(is_wholly_ours);
        if new && self.seen.dirs.contains_key(DEFAULT) {
            return Err(Reason::DefaultShadowed.because(format!(
                "a directory of its own for {registry} would hide {}, which containerd uses for it now; make {} \
                 yourself to let Larder in",
                self.shown_dir(DEFAULT),
                self.shown_dir(&self.name)
            )));
        }
        if let Some(unseen) = self.seen.others.iter().find(|other| new && other.names.is_none()) {
            let root = unseen.path.display();
            return Err(Reason::SecondRootShadowed
                .because(format!("{root} cannot be read from here; mount it read-only")));
        }
        let names = [names(registry), vec![DEFAULT.to_owned()]].concat();
        let hidden = self.seen.others.iter().filter(|other| new || other.first).find_map(|other| {
            let there = other.names.as_ref()?;
            names.iter().find(|name| there.contains(*name)).map(|name| (other, other.path.join(name)))
        });
        let Some((other, path)) = hidden else { return Ok(()) };
        Err(Reason::SecondRootShadowed.because(if other.first {
            format!(
                "containerd finds {} first, so our entry would not be read; set certs_dir to that root",
                path.display()
            )
        } else {
            format!(
                "a directory for {registry} would hide {}, which containerd uses for it now",
                path.display()
            )
        }))
    }

    fn entry(&self, files: &BTreeSet<String>) -> Entry<'_> {
        // Without an address nothing is written; the entry is then only compared with what is there.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Entry {
            mirror: self.known.mirror.unwrap_or(nowhere),
            capabilities: &self.upstream.capabilities,
            certificates: Certificates::among(files),
        }
    }

    /// We made certs.d when it is not there yet, or when another file of ours says so.
    fn root_is_ours(&self) -> bool {
        let marked = |dir: &Dir| held(dir).is_some_and(|held| held.made.root);
        !self.seen.exists || self.seen.dirs.values().any(marked)
    }

    fn in_place(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.intact)
    }

    /// Whether an entry may be put in or changed in this round.
    fn may_write_now(&self) -> bool {
        let registry = &self.upstream.registry;
        matches!(self.known.verdict, Verdict::In(_))
            && !self.known.recent.contains(registry)
            && !self.known.fought.contains(registry)
    }

    fn names_vanished(&self) -> bool {
        self.held.as_ref().zip(self.dir).is_some_and(|(held, dir)| names_vanished(held, dir))
    }

    /// How an entry that belongs out is told of.
    fn away(&self, why: &Told) -> Standing {
        let was_in = self.held.is_some() || self.known.once_in.contains(&self.upstream.registry);
        if was_in || why.reason == Reason::Bypass { Standing::Withdrawn } else { Standing::Waiting }
    }

    fn fought(&self) -> Told {
        Reason::FightingWriter.because(format!(
            "another program keeps changing {} back; find it (a configuration agent?), then restart the installer",
            self.shown(&self.name)
        ))
    }

    fn pending(&self, words: &str) -> Decision {
        let standing = if self.in_place() { Standing::Installed } else { Standing::Waiting };
        self.told(standing, None, words)
    }

    fn because(&self, standing: Standing, told: Told) -> Decision {
        self.told(standing, Some(told.reason), &told.words)
    }

    fn told(&self, standing: Standing, reason: Option<Reason>, message: &str) -> Decision {
        let registry = self.upstream.registry.clone();
        Decision { registry, install: None, removal: None, standing, reason, message: message.to_owned() }
    }

    fn shown(&self, name: &str) -> String {
        self.seen.path.join(name).join(crate::tree::HOSTS).display().to_string()
    }

    fn shown_dir(&self, name: &str) -> String {
        self.seen.path.join(name).display().to_string()
    }
}

impl Decision {
    fn and_out(self, case: &Case<'_>) -> Self {
        Self { removal: case.dir.and_then(|dir| removal(&case.name, dir)), ..self }
    }
}

#[cfg(test)]
mod tests;
