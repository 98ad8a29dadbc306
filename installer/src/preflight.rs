//! Whether containerd reads the directory we would write to: `config_path` in its config, imports included, and the
//! two-root trap. Reads only: containerd's config is never touched, and never written from here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use larder_wire::settings::InstallerSettings;
use toml::{Table, Value};

use crate::state::{Reason, Told};

/// More files than any node has; a ring of imports ends here.
const MOST_FILES: usize = 100;

/// What is known of the ground that we would build on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    /// The directories that containerd looks a registry up in, in its order; ours is among them.
    pub(crate) roots: Vec<PathBuf>,
    /// containerd would not see what we write.
    pub(crate) refusal: Option<Told>,
    /// What could not be found out, for a person; or empty.
    pub(crate) note: String,
}

/// Looks at containerd's config.
pub(crate) fn check(installer: &InstallerSettings) -> Ground {
    let ours = vec![installer.certs_dir.clone()];
    let files = match read_config(&installer.containerd_config) {
        Ok(files) => files,
        Err(why) => {
            let note = format!("{why}, so it cannot be told whether containerd reads certs.d");
            return Ground { roots: ours, refusal: None, note };
        }
    };
    let config = installer.containerd_config.display();
    let Some(config_path) = config_path(&files) else {
        let refusal =
            Some(unset(&format!("no config_path in the section that {config} is read for{}", hint(&files))));
        return Ground { roots: ours, refusal, note: String::new() };
    };
    let roots: Vec<PathBuf> =
        config_path.split(':').filter(|root| !root.is_empty()).map(PathBuf::from).collect();
    let refusal = if !roots.iter().any(|root| same_dir(root, &installer.certs_dir)) {
        let certs_dir = installer.certs_dir.display();
        Some(unset(&format!("config_path in {config} is {config_path}, and certs_dir is {certs_dir}")))
    } else if roots.len() > 1 && !pulls_locally(&files) && !Path::new(&config_path).exists() {
        Some(Reason::TwoRoots.because(format!(
            "containerd 2.1 and later ignore certs.d when config_path has two roots ({config_path}); leave one in \
             {config}, or set use_local_image_pull = true, and restart containerd; pulls go direct, unharmed"
        )))
    } else {
        None
    };
    Ground { roots, refusal, note: String::new() }
}

/// Whether two paths are one directory, as far as can be seen from here.
pub(crate) fn same_dir(one: &Path, other: &Path) -> bool {
    one == other
        || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

fn unset(why: &str) -> Told {
    Reason::ConfigPathUnset.because(format!(
        "containerd ignores certs.d; set config_path and restart containerd; pulls go direct, unharmed ({why})"
    ))
}

/// The config and what it imports, in the order in which later ones win.
fn read_config(path: &Path) -> Result<Vec<Table>, String> {
    let main = read_table(path)?;
    let mut files = vec![main];
    let mut pending = imports(path, &files[0]);
    let mut seen = BTreeSet::from([path.to_owned()]);
    while let Some(path) = pending.pop() {
        if seen.len() >= MOST_FILES || !seen.insert(path.clone()) {
            continue;
        }
        // containerd would not have started with an import that does not parse; the others still tell.
        if let Ok(table) = read_table(&path) {
            pending.extend(imports(&path, &table));
            files.push(table);
        }
    }
    Ok(files)
}

fn read_table(path: &Path) -> Result<Table, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{} does not parse: {}", path.display(), error.message()))
}

/// The files that a config imports, last first; one that names none has containerd 2.2's own `conf.d` beside it.
fn imports(config: &Path, table: &Table) -> Vec<PathBuf> {
    let beside = config.parent().unwrap_or_else(|| Path::new("/"));
    let patterns: Vec<PathBuf> = match table.get("imports").and_then(Value::as_array) {
        Some(imports) => imports.iter().filter_map(Value::as_str).map(|import| beside.join(import)).collect(),
        None => vec![beside.join("conf.d/*.toml")],
    };
    let mut files: Vec<PathBuf> = patterns.iter().flat_map(|pattern| matching(pattern)).collect();
    files.reverse();
    files
}

/// The files that a pattern with `*` in its last part names, by name.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    if !name.contains('*') {
        return vec![pattern.to_owned()];
    }
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let fits = |found: &str| fits(name, found);
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && fits(rest, &name[at..]))
        }),
    }
}

/// The last `config_path` that stands in the section its file's version is read for.
fn config_path(files: &[Table]) -> Option<String> {
    let found = |table: &Table| {
        let registry = plugin(table, version(files, table))?.get("registry")?;
        registry.get("config_path")?.as_str().map(ToOwned::to_owned)
    };
    files.iter().rev().find_map(found).filter(|path| !path.is_empty())
}

/// Says so when a `config_path` stands in a section that this version does not read.
fn hint(files: &[Table]) -> &'static str {
    let has = |table: &Table, version| {
        plugin(table, version).and_then(|plugin| plugin.get("registry")?.get("config_path")).is_some()
    };
    let elsewhere = files.iter().any(|table| (1..=3).any(|version| has(table, version)));
    if elsewhere { "; there is one in a section for another config version" } else { "" }
}

fn version(files: &[Table], table: &Table) -> i64 {
    let of = |table: &Table| table.get("version").and_then(Value::as_integer);
    of(table).or_else(|| of(files.first()?)).unwrap_or(1)
}

/// The section that holds the image settings in a config of that version.
fn plugin(table: &Table, version: i64) -> Option<&Table> {
    let name = match version {
        ..=1 => "cri",
        2 => "io.containerd.grpc.v1.cri",
        3.. => "io.containerd.cri.v1.images",
    };
    table.get("plugins")?.get(name)?.as_table()
}

/// Whether containerd pulls images itself, not by its transfer service, which takes two roots for one path. What makes
/// it do so is what `CheckLocalImagePullConfigs` of containerd 2.1 looks at.
fn pulls_locally(files: &[Table]) -> bool {
    files.iter().any(|table| {
        let Some(plugin) = plugin(table, version(files, table)) else { return false };
        let sections = [Some(plugin), plugin.get("containerd").and_then(Value::as_table)];
        let is = |key: &str, wanted: bool| {
            sections.iter().flatten().any(|section| section.get(key).and_then(Value::as_bool) == Some(wanted))
        };
        let registry = plugin.get("registry").and_then(Value::as_table);
        let downloads = plugin.get("max_concurrent_downloads").and_then(Value::as_integer);
        is("use_local_image_pull", true)
            || is("discard_unpacked_layers", true)
            || is("disable_snapshot_annotations", false)
            || is("image_pull_with_sync_fs", true)
            || downloads.is_some_and(|downloads| downloads != 3)
            || ["mirrors", "configs", "auths"].iter().any(|key| {
                registry
                    .and_then(|registry| registry.get(*key)?.as_table())
                    .is_some_and(|table| !table.is_empty())
            })
    })
}

#[cfg(test)]
mod tests;
