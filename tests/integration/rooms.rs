//! The house's rules that no compiler checks: which crate may see which, what stands in one file only, how files begin,
//! are named and how long they get. Reads the sources; runs nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Crate and the crates of ours that it may use. Who is not here is not of the house.
const ARROWS: [(&str, &[&str]); 7] = [
    ("mirror/wire", &[]),
    ("mirror", &["larder-wire"]),
    ("installer", &["larder-wire"]),
    ("agent", &["larder-wire", "larder-mirror", "larder-installer"]),
    ("controller", &["larder-wire"]),
    ("gateway", &["larder-wire"]),
    ("tests", &["larder-wire", "larder-mirror", "larder-installer", "larder-controller", "larder-gateway"]),
];

/// Crates that have one door: the crate, the rooms that may depend on it (tests only where it is tried by itself), and
/// the only files that may name it.
const DOORS: [(&str, &[&str], &[&str]); 4] = [
    ("sled", &["mirror"], &["mirror/src/store/index.rs", "mirror/src/store/index/"]),
    ("toml_edit", &["installer"], &["installer/src/hosts.rs", "installer/src/hosts/"]),
    ("kube", &["controller", "tests"], &["controller/", "tests/"]),
    ("k8s_openapi", &["controller", "tests"], &["controller/", "tests/"]),
];

/// Everything that may stand at the top, apart from hidden files and what is built.
const TOP: [&str; 20] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "agent",
    "charts",
    "clippy.toml",
    "controller",
    "deny.toml",
    "docs",
    "gateway",
    "installer",
    "mirror",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "target",
];

/// Names that say nothing about what is inside.
const VAGUE: [&str; 12] = [
    "util",
    "utils",
    "common",
    "helper",
    "helpers",
    "manager",
    "misc",
    "shared_code",
    "stuff",
    "core",
    "base",
    "types",
];

/// The stories: read from top to bottom they tell what happens.
const STORIES: [&str; 3] = ["mirror/src/pull.rs", "gateway/src/admit.rs", "installer/src/lib.rs"];

const LONGEST_FILE: usize = 400;
const LONGEST_TEST_FILE: usize = 700;
const LONGEST_STORY: usize = 60;
const LONGEST_INLINE_TESTS: usize = 110;

struct Source {
    /// From the workspace's root.
    path: String,
    text: String,
}

impl Source {
    /// The lines before the tests that stand at the end.
    fn code(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests =
            lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests"));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    fn is_test(&self) -> bool {
        let test_dirs =
            ["tests/integration/", "tests/cluster/", "tests/gateway/", "tests/e2e/", "tests/bench/"];
        self.path.ends_with("tests.rs")
            || self.path.contains("/tests/") && !self.path.starts_with("tests/src")
            || test_dirs.iter().any(|dir| self.path.starts_with(dir))
    }

    /// Lines that are not comments.
    fn statements(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests stand in the workspace").to_owned()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).expect("the sources can be read");
    for path in entries.map(|entry| entry.expect("the sources can be read").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "larder-data" {
            continue;
        }
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &mut found);
    let rust = found.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = rust.map(|path| Source {
        path: path.strip_prefix(&root).expect("below the root").display().to_string(),
        text: fs::read_to_string(&path).expect("sources are text"),
    });
    read.collect()
}

/// The manifests of the crates that are there, with their directories.
fn manifests() -> Vec<(String, toml::Table)> {
    let workspace: toml::Table = manifest(&root());
    let members = workspace["workspace"]["members"].as_array().expect("members are a list").clone();
    let names = members.iter().filter_map(|member| member.as_str().map(str::to_owned));
    names.map(|name| (name.clone(), manifest(&root().join(&name)))).collect()
}

fn manifest(dir: &Path) -> toml::Table {
    let text = fs::read_to_string(dir.join("Cargo.toml")).expect("a crate has a manifest");
    text.parse().expect("manifests are TOML")
}

fn dependencies(manifest: &toml::Table) -> Vec<(String, toml::Value)> {
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"].map(|name| manifest.get(name));
    let tables = tables.into_iter().flatten().filter_map(toml::Value::as_table);
    tables.flat_map(|table| table.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
}

/// Collects what breaks a rule, so that one run shows all of it.
fn check(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn rooms_see_only_the_rooms_they_may() {
    let mut broken = Vec::new();
    for (room, manifest) in manifests() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{room} is not a room of the house"));
            continue;
        };
        let ours = dependencies(&manifest).into_iter().filter(|(name, _)| name.starts_with("larder-"));
        broken.extend(
            ours.filter(|(name, _)| !allowed.contains(&name.as_str()))
                .map(|(name, _)| format!("{room} -> {name}")),
        );
    }
    check("arrows between rooms", broken);
}

#[test]
fn versions_stand_in_one_table() {
    let mut broken = Vec::new();
    for (room, manifest) in manifests() {
        for (name, value) in dependencies(&manifest) {
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                broken.push(format!("{room}: {name}"));
            }
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if manifest["package"].get(key).is_none_or(|value| value.get("workspace").is_none()) {
                broken.push(format!("{room}: package.{key}"));
            }
        }
        if manifest.get("lints").is_none_or(|lints| lints.get("workspace").is_none()) {
            broken.push(format!("{room}: lints"));
        }
    }
    check("taken from the workspace", broken);
}

#[test]
fn special_crates_have_one_door() {
    let mut broken = Vec::new();
    let (manifests, sources) = (manifests(), sources());
    for (name, rooms, files) in DOORS {
        let package = name.replace('_', "-");
        for (other, manifest) in manifests.iter().filter(|(other, _)| !rooms.contains(&other.as_str())) {
            if dependencies(manifest).iter().any(|(have, _)| *have == name || *have == package) {
                broken.push(format!("{other} depends on {name}"));
            }
        }
        let (path_use, import) = (format!("{name}::"), format!("use {name}"));
        let names_it = |source: &&Source| {
            source.path != "tests/integration/rooms.rs"
                && source.statements().any(|line| {
                    let at = line.find(&path_use);
                    let whole_word = |at: usize| {
                        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    };
                    at.is_some_and(whole_word) || line.starts_with(&import)
                })
        };
        let naming: Vec<&str> = sources.iter().filter(names_it).map(|source| source.path.as_str()).collect();
        let outside = naming.iter().filter(|path| !files.iter().any(|file| path.starts_with(file)));
        broken.extend(outside.map(|path| format!("{path} names {name}")));
        if !rooms.contains(&"controller") && naming.len() > 1 {
            broken.push(format!("{name} is named in {naming:?}"));
        }
    }
    check("one door", broken);
}

#[test]
fn unsafe_stands_in_one_file_at_most() {
    let is_unsafe = |source: &&Source| {
        source.path != "tests/integration/rooms.rs"
            && source.statements().any(|line| {
                line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
            })
    };
    let files: Vec<String> = sources().iter().filter(is_unsafe).map(|source| source.path.clone()).collect();
    assert!(files.len() <= 1, "unsafe in {files:?}");
}

#[test]
fn files_begin_with_what_they_are_for() {
    let bare = sources().into_iter().filter(|source| {
        let first = source.text.lines().next().unwrap_or_default();
        !first.starts_with("//! ") || first.len() < 20
    });
    check(
        "a file starts with //!: what it does and what it must not do",
        bare.map(|source| source.path).collect(),
    );
}

#[test]
fn files_and_stories_stay_short() {
    let mut broken = Vec::new();
    for source in sources() {
        let code = source.code();
        let limit = if source.is_test() { LONGEST_TEST_FILE } else { LONGEST_FILE };
        if code.len() > limit {
            broken.push(format!("{}: {} lines, not {limit}", source.path, code.len()));
        }
        let tests = source.text.lines().count() - code.len();
        if tests > LONGEST_INLINE_TESTS {
            broken.push(format!("{}: {tests} lines of tests, which go to a file of their own", source.path));
        }
        let counted = |line: &&&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let length = code.iter().filter(counted).count();
        if STORIES.contains(&source.path.as_str()) && length > LONGEST_STORY {
            broken.push(format!("{}: a story of {length} lines, not {LONGEST_STORY}", source.path));
        }
    }
    check("length", broken);
}

#[test]
fn names_say_what_is_inside() {
    let mut broken = Vec::new();
    for source in sources() {
        if source.path.ends_with("/mod.rs") {
            broken.push(format!("{}: foo.rs, not foo/mod.rs", source.path));
        }
        let words = source.path.trim_end_matches(".rs").split('/');
        broken
            .extend(words.filter(|word| VAGUE.contains(word)).map(|word| format!("{}: {word}", source.path)));
    }
    let entries = fs::read_dir(root()).expect("the root can be read");
    let names =
        entries.map(|entry| entry.expect("the root can be read").file_name().to_string_lossy().into_owned());
    let odd =
        names.filter(|name| !name.starts_with('.') && name != "larder-data" && !TOP.contains(&name.as_str()));
    broken.extend(odd.map(|name| format!("{name} at the top")));
    check("names", broken);
}

#[test]
fn nothing_is_left_for_later_or_waits_for_time() {
    // Put together here, so that this file does not find itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X"],
        ["unimpl", "emented!"],
        ["to", "do!("],
        ["#[ign", "ore"],
        ["#[al", "low("],
    ];
    let everywhere = words.map(|parts| parts.concat());
    let in_tests = [["thread::", "sleep"], ["time::", "sleep"]].map(|parts| parts.concat());
    let mut broken = Vec::new();
    for source in sources() {
        let here = source.path.starts_with("tests/") || source.is_test();
        for (number, line) in source.text.lines().enumerate() {
            let found = everywhere
                .iter()
                .chain(in_tests.iter().filter(|_| here))
                .find(|word| line.contains(word.as_str()));
            broken.extend(found.map(|word| format!("{}:{}: {word}", source.path, number + 1)));
        }
    }
    check("nothing for later", broken);
}
