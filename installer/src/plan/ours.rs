//! What of ours lies in certs.d, under which name, and what takes it out again. Must not decide whether it should.

use std::collections::BTreeSet;
use std::path::Path;

use larder_wire::name::Registry;

use crate::entry::{self, Certificates, Held, quoted};
use crate::hosts;
use crate::tree::{Dir, Hosts, Seen};

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

impl Removal {
    /// The registry's directory.
    pub(crate) fn dir(&self) -> &str {
        match self {
            Self::Change { dir, .. } | Self::File { dir, .. } | Self::Dir { dir, .. } => dir,
        }
    }
}

/// Everything of ours in certs.d, taken out.
pub(crate) fn removals(seen: &Seen) -> Vec<Removal> {
    seen.dirs.iter().filter_map(|(name, dir)| removal(name, dir)).collect()
}

/// Whether a registry's entry is there as we wrote it.
pub(crate) fn is_in(registry: &Registry, seen: &Seen) -> bool {
    place(registry, seen).1.and_then(held).is_some_and(|held| held.intact)
}

/// Whether it can be seen that a registry's entry is not there as we wrote it.
pub(crate) fn is_out(registry: &Registry, seen: &Seen) -> bool {
    let unreadable = |dir: &Dir| matches!(dir.hosts, Hosts::Unreadable(_));
    !is_in(registry, seen) && !place(registry, seen).1.is_some_and(unreadable)
}

/// Whether a path in certs.d belongs to a registry.
pub(crate) fn is_about(path: &Path, registry: &str) -> bool {
    let names = registry.parse().map(|registry| names(&registry)).unwrap_or_default();
    path.components().any(|part| names.iter().any(|name| part.as_os_str() == name.as_str()))
}

/// What containerd looks a registry's directory up by, in its order.
pub(super) fn names(registry: &Registry) -> Vec<String> {
    match registry.port() {
        Some(port) => vec![format!("{}_{port}_", registry.host()), registry.as_str().to_owned()],
        None => vec![registry.as_str().to_owned()],
    }
}

/// The directory that containerd would read for a registry, or the name to make it under.
pub(super) fn place<'a>(registry: &Registry, seen: &'a Seen) -> (String, Option<&'a Dir>) {
    let names = names(registry);
    let others = |name: &&String| seen.dirs.get(*name).is_some_and(|dir| !is_wholly_ours(dir));
    let name = names.iter().find(others).unwrap_or(&names[0]);
    (name.clone(), seen.dirs.get(name))
}

pub(super) fn held(dir: &Dir) -> Option<Held> {
    match &dir.hosts {
        Hosts::Text(text) => entry::find(text),
        Hosts::Absent | Hosts::Unreadable(_) | Hosts::Untouchable(_) => None,
    }
}

/// A directory that would not be there without us.
pub(super) fn is_wholly_ours(dir: &Dir) -> bool {
    dir.names.is_empty() && held(dir).is_some_and(|held| held.whole && held.made.dir)
}

pub(super) fn removal(name: &str, dir: &Dir) -> Option<Removal> {
    let Hosts::Text(text) = &dir.hosts else { return None };
    let (held, old, name) = (entry::find(text)?, text.clone(), name.to_owned());
    let certificates = Certificates::among(&dir.files).beside(&hosts::sets(&held.rest));
    Some(match entry::left_behind(text, &certificates) {
        Some(new) => Removal::Change { dir: name, old, new },
        None if is_wholly_ours(dir) => Removal::Dir { dir: name, old, root: held.made.root },
        None => Removal::File { dir: name, old },
    })
}

/// Whether our entry names a certificate that is not there any more: containerd then reads nothing of the file.
pub(super) fn names_vanished(held: &Held, dir: &Dir) -> bool {
    let there: BTreeSet<_> = dir.files.iter().map(|name| quoted(name)).collect();
    held.certificates.iter().any(|name| !there.contains(name))
}
