//! What to do about every registry, and what to tell about it: a pure rule from the settings, what lies on disk and
//! what the probes say. Must not touch the disk or the clock.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use larder_wire::name::Registry;
use larder_wire::settings::{InstallerMode, Settings, UpstreamSettings};

use crate::entry::{self, Certificates, Entry, Held, Made};
use crate::hosts;
use crate::preflight::Ground;
use crate::probe::Verdict;
use crate::state::{Reason, Standing, Told};
use crate::tree::{Dir, Hosts, Seen};

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

/// A write that takes our entry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    Change {
        dir: String,
        old: Vec<u8>,
        new: Vec<u8>,
    },
    File {
        dir: String,
        old: Vec<u8>,
    },
    /// The directory that we made and its file, both at once; certs.d too if we made it and it is empty then.
    Dir {
        dir: String,
        old: Vec<u8>,
        root: bool,
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

/// Everything of ours in certs.d, taken out.
pub(crate) fn removals(seen: &Seen) -> Vec<Removal> {
    seen.dirs.iter().filter_map(|(name, dir)| removal(name, dir)).collect()
}

/// Whether a registry's entry is there as we wrote it.
pub(crate) fn is_in(registry: &Registry, seen: &Seen) -> bool {
    place(registry, seen).1.and_then(held).is_some_and(|held| held.intact)
}

/// What containerd looks a registry's directory up by, in its order.
fn names(registry: &Registry) -> Vec<String> {
    match registry.port() {
        Some(port) => vec![format!("{}_{port}_", registry.host()), registry.as_str().to_owned()],
        None => vec![registry.as_str().to_owned()],
    }
}

/// The directory that containerd would read for a registry, or the name to make it under.
fn place<'a>(registry: &Registry, seen: &'a Seen) -> (String, Option<&'a Dir>) {
    let names = names(registry);
    let others = |name: &&String| seen.dirs.get(*name).is_some_and(|dir| !is_wholly_ours(dir));
    let name = names.iter().find(others).unwrap_or(&names[0]);
    (name.clone(), seen.dirs.get(name))
}

fn held(dir: &Dir) -> Option<Held> {
    match &dir.hosts {
        Hosts::Text(text) => entry::find(text),
        Hosts::Absent | Hosts::Untouchable(_) => None,
    }
}

/// A directory that would not be there without us.
fn is_wholly_ours(dir: &Dir) -> bool {
    dir.names.is_empty() && held(dir).is_some_and(|held| held.whole && held.made.dir)
}

fn removal(name: &str, dir: &Dir) -> Option<Removal> {
    let Hosts::Text(text) = &dir.hosts else { return None };
    let (held, old, name) = (entry::find(text)?, text.clone(), name.to_owned());
    Some(match entry::left_behind(text) {
        Some(new) => Removal::Change { dir: name, old, new },
        None if is_wholly_ours(dir) => Removal::Dir { dir: name, old, root: held.made.root },
        None => Removal::File { dir: name, old },
    })
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
            // A file that does not parse is left as it is: containerd ignores it, our lines in it included.
            let untouched = told.reason == Reason::Unparsable;
            let refused = self.because(Standing::Refused, told);
            return if untouched { refused } else { refused.and_out(self) };
        }
        match (self.known.verdict, aim) {
            (Verdict::Out(why), _) => self.because(self.away(why), why.clone()).and_out(self),
            _ if self.known.fought.contains(&self.upstream.registry) => {
                self.because(Standing::Refused, self.fought())
            }
            (_, Ok(Aim::Right)) => self.told(Standing::Installed, None, &self.known.ground.note),
            (Verdict::In(_), Ok(Aim::Write(install)))
                if !self.known.recent.contains(&self.upstream.registry) =>
            {
                Decision {
                    install: Some(install),
                    ..self.told(Standing::Installed, None, &self.known.ground.note)
                }
            }
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
            Hosts::Untouchable(told) => Err(told.clone()),
            Hosts::Absent => {
                let file = self.entry(&dir.names).file(Made::default());
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
            return Ok(self.entry(&dir.names).file(held.made));
        }
        let path = self.shown(&self.name);
        let rest = self.held.as_ref().map_or(text, |held| &held.rest);
        let place = hosts::judge(rest, &path, self.upstream, self.known.mirror)?;
        let named = place.says_nothing || self.held.as_ref().is_some_and(|held| held.certificates);
        let nothing = BTreeSet::new();
        hosts::splice(rest, &path, &place, &self.entry(if named { &dir.names } else { &nothing }))
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
        let names = [names(registry), vec![DEFAULT.to_owned()]].concat();
        let hidden = self.seen.others.iter().filter(|other| new || other.first).find_map(|other| {
            names.iter().find(|name| other.names.contains(*name)).map(|name| (other, other.path.join(name)))
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

    fn entry(&self, names: &BTreeSet<String>) -> Entry<'_> {
        // Without an address nothing is written; the entry is then only compared with what is there.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Entry {
            mirror: self.known.mirror.unwrap_or(nowhere),
            capabilities: &self.upstream.capabilities,
            certificates: Certificates::among(names),
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

impl Removal {
    /// The registry's directory.
    pub(crate) fn dir(&self) -> &str {
        match self {
            Self::Change { dir, .. } | Self::File { dir, .. } | Self::Dir { dir, .. } => dir,
        }
    }
}

impl Decision {
    fn and_out(self, case: &Case<'_>) -> Self {
        Self { removal: case.dir.and_then(|dir| removal(&case.name, dir)), ..self }
    }
}

#[cfg(test)]
mod tests;
