//! Our entry as text: the marked block, the owned file around it, and how both are found again and taken out.
//! Works on bytes and lines alone; must not parse TOML ([`crate::hosts`]) and must not open a file.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use larder_wire::digest::hex;
use larder_wire::settings::Capability;
use sha2::{Digest, Sha256};

const OWNED: &str = "# larder: owned ";
const NOTE: &str = "# Larder wrote this file and takes it out again. Change it and it is yours: only the marked lines go then.";
const BEGIN: &str = "# BEGIN larder ";
const END: &str = "# END larder";
pub(crate) const CA: &str = "ca";
pub(crate) const CLIENT: &str = "client";
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What containerd is to be told about a registry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) mirror: SocketAddr,
    pub(crate) capabilities: &'a [Capability],
    /// Docker-style certificates beside the file, which containerd ignores once a hosts.toml says anything.
    pub(crate) certificates: Certificates,
}

/// Docker-style certificates of a registry's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    ca: Vec<String>,
    /// Each with its key; one alone holds its key, too.
    client: Vec<(String, Option<String>)>,
}

/// What we made besides the file itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// The registry's directory.
    pub(crate) dir: bool,
    /// certs.d too.
    pub(crate) root: bool,
}

/// A file that holds something of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Nothing in the file is anybody else's.
    pub(crate) whole: bool,
    pub(crate) made: Made,
    /// The block is there as it was written.
    pub(crate) intact: bool,
    /// The certificates that the block names, quoted.
    pub(crate) certificates: Vec<String>,
    /// The file without us, byte for byte.
    pub(crate) rest: Vec<u8>,
}

impl Entry<'_> {
    /// The address as containerd gets it.
    pub(crate) fn url(&self) -> String {
        mirror_url(self.mirror)
    }

    /// A file that is ours alone.
    pub(crate) fn file(&self, made: Made) -> Vec<u8> {
        let (dir, root) =
            (if made.dir { "yes" } else { "no" }, if made.root { " created_root=yes" } else { "" });
        format!("{OWNED}created_dir={dir}{root}\n{NOTE}\n{}", self.block("\n")).into_bytes()
    }

    /// The marked lines, each ended by `newline`.
    pub(crate) fn block(&self, newline: &str) -> String {
        let mut lines = self.certificates.lines();
        lines.push(format!("[host.{}]", quoted(&self.url())));
        let words: Vec<_> = self.capabilities.iter().map(|capability| quoted(word(*capability))).collect();
        lines.push(format!("  capabilities = [{}]", words.join(", ")));
        let begin = format!("{BEGIN}{}", short_digest(lines.join("\n").as_bytes()));
        lines.insert(0, begin);
        lines.push(END.to_owned());
        lines.iter().flat_map(|line| [line.as_str(), newline]).collect()
    }
}

/// `http://ADDRESS`
pub(crate) fn mirror_url(mirror: SocketAddr) -> String {
    format!("http://{mirror}")
}

/// 16 random hex digits, for names that nobody else uses.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes once it runs containers");
    hex(&bytes)
}

/// Enough of a SHA-256 to tell two contents apart that nobody forges.
pub(crate) fn short_digest(bytes: &[u8]) -> String {
    let mut text = hex(&Sha256::digest(bytes));
    text.truncate(16);
    text
}

impl Certificates {
    /// What containerd would load from a directory with these files.
    pub(crate) fn among(files: &BTreeSet<String>) -> Self {
        let client = |name: &String| {
            let key = format!("{}.key", name.strip_suffix(".cert")?);
            Some((name.clone(), files.contains(&key).then_some(key)))
        };
        Self {
            ca: files.iter().filter(|name| name.ends_with(".crt")).cloned().collect(),
            client: files.iter().filter_map(client).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ca.is_empty() && self.client.is_empty()
    }

    /// What is left of them beside keys that somebody else sets.
    pub(crate) fn beside(mut self, keys: &[&str]) -> Self {
        if keys.contains(&CA) {
            self.ca.clear();
        }
        if keys.contains(&CLIENT) {
            self.client.clear();
        }
        self
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.ca.is_empty() {
            let names: Vec<_> = self.ca.iter().map(|name| quoted(name)).collect();
            lines.push(format!("{CA} = [{}]", names.join(", ")));
        }
        if !self.client.is_empty() {
            let pair = |(cert, key): &(String, Option<String>)| match key {
                Some(key) => format!("[{}, {}]", quoted(cert), quoted(key)),
                None => quoted(cert),
            };
            let pairs: Vec<_> = self.client.iter().map(pair).collect();
            lines.push(format!("{CLIENT} = [{}]", pairs.join(", ")));
        }
        lines
    }
}

/// Finds what is ours in a file; `None` when nothing is.
pub(crate) fn find(file: &[u8]) -> Option<Held> {
    let lines = lines_of(file);
    let marker = lines.first().filter(|line| line.starts_with(OWNED.as_bytes()));
    let begin = lines.iter().position(|line| bare(line).starts_with(BEGIN.as_bytes()));
    if marker.is_none() && begin.is_none() {
        return None;
    }
    let (rest, block) = without(file, &[]);
    Some(Held {
        whole: marker.is_some() && rest.iter().all(u8::is_ascii_whitespace),
        made: marker.map(|line| made(line)).unwrap_or_default(),
        intact: block.intact,
        certificates: block.certificates,
        rest,
    })
}

/// What to leave when our entry is taken out: `None` when the file is ours alone. `certificates` are those of its
/// directory that nobody else names.
pub(crate) fn left_behind(file: &[u8], certificates: &Certificates) -> Option<Vec<u8>> {
    let held = find(file)?;
    if held.whole {
        return None;
    }
    // A file with a word of its own is read for its own sake: it needs the certificates that our block named for it.
    if !held.certificates.is_empty() && has_content(&held.rest) {
        return Some(without(file, &certificates.lines()).0);
    }
    Some(held.rest)
}

/// Whether a file says anything besides comments.
pub(crate) fn has_content(file: &[u8]) -> bool {
    lines_of(file).iter().map(|line| line.trim_ascii()).any(|line| !line.is_empty() && line[0] != b'#')
}

/// What was found of a block.
#[derive(Default)]
struct Block {
    intact: bool,
    certificates: Vec<String>,
}

/// The file without our first lines and without every block; `instead` stands in the first one's place.
fn without(file: &[u8], mut instead: &[String]) -> (Vec<u8>, Block) {
    let lines = lines_of(file);
    let mut rest = file[..file.len() - lines.iter().map(|line| line.len()).sum::<usize>()].to_vec();
    let mut block = Block::default();
    let mut next = 0;
    if lines.first().is_some_and(|line| line.starts_with(OWNED.as_bytes())) {
        next = if lines.get(1).is_some_and(|line| bare(line) == NOTE.as_bytes()) { 2 } else { 1 };
    }
    while next < lines.len() {
        let line = lines[next];
        if bare(line).starts_with(BEGIN.as_bytes()) {
            let end = block_end(&lines, next);
            block = read_block(&lines[next..end]);
            for text in std::mem::take(&mut instead) {
                rest.extend(text.as_bytes());
                rest.extend(&line[bare(line).len()..]);
            }
            if !lines[end - 1].ends_with(b"\n") {
                drop_newline(&mut rest, line);
            }
            next = end;
        } else {
            if bare(line) != END.as_bytes() {
                rest.extend(line);
            }
            next += 1;
        }
    }
    (rest, block)
}

/// A file without a final newline got one before the block, and the block none after it: see [`crate::hosts::splice`].
fn drop_newline(rest: &mut Vec<u8>, begin: &[u8]) {
    let newline: &[u8] = if begin.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
    if rest.ends_with(newline) {
        rest.truncate(rest.len() - newline.len());
    }
}

/// Where the block ends that begins at a line: after its end mark, or before what somebody put in between.
fn block_end(lines: &[&[u8]], begin: usize) -> usize {
    let closed = lines[begin..].iter().any(|line| bare(line) == END.as_bytes());
    let mut own_table: Option<&[u8]> = None;
    for (at, line) in lines.iter().enumerate().skip(begin + 1) {
        let line = line.trim_ascii();
        if line == END.as_bytes() {
            return at + 1;
        }
        if line.starts_with(b"[") {
            let table = line.trim_ascii_end().strip_suffix(b"]").unwrap_or(line);
            match own_table {
                None if table.starts_with(b"[host.\"http://") => own_table = Some(table),
                Some(own) if table.starts_with(own) => {}
                _ => return at,
            }
        } else if !closed && (line.is_empty() || line.starts_with(b"#")) {
            return at;
        }
    }
    lines.len()
}

fn read_block(lines: &[&[u8]]) -> Block {
    let certificates =
        lines.iter().filter(|line| names_certificates(line)).flat_map(|line| strings(line)).collect();
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Block::default() };
    let inside: Vec<_> =
        lines[1..].iter().take(lines.len().saturating_sub(2)).map(|line| bare(line)).collect();
    let hash = &bare(first)[BEGIN.len()..];
    let intact = bare(last) == END.as_bytes() && hash == short_digest(&inside.join(&b'\n')).as_bytes();
    Block { intact, certificates }
}

fn names_certificates(line: &[u8]) -> bool {
    line.starts_with(b"ca = ") || line.starts_with(b"client = ")
}

/// The strings in one of our lines, in their quotes.
fn strings(line: &[u8]) -> Vec<String> {
    let (mut found, mut begun, mut escaped) = (Vec::new(), None::<String>, false);
    for c in String::from_utf8_lossy(line).chars() {
        let Some(text) = &mut begun else {
            begun = (c == '"').then(|| c.to_string());
            continue;
        };
        text.push(c);
        if c == '"' && !escaped {
            found.extend(begun.take());
        }
        escaped = c == '\\' && !escaped;
    }
    found
}

fn made(marker: &[u8]) -> Made {
    let says = |word: &[u8]| bare(marker).split(|byte| *byte == b' ').any(|part| part == word);
    Made { dir: says(b"created_dir=yes"), root: says(b"created_root=yes") }
}

/// A file's lines with their ends, after a byte order mark.
fn lines_of(file: &[u8]) -> Vec<&[u8]> {
    file.strip_prefix(BOM).unwrap_or(file).split_inclusive(|byte| *byte == b'\n').collect()
}

/// A line without its end.
fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

const fn word(capability: Capability) -> &'static str {
    match capability {
        Capability::Pull => "pull",
        Capability::Resolve => "resolve",
    }
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
