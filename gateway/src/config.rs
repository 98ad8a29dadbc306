//! The gateway's settings: the contract's TOML, every mistake told at once with its line. Must not open what
//! the settings name; `run` does, and tells what cannot be used.

mod read;

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_wire::settings::UpstreamUrl;

use crate::upstream::TlsFiles;
pub use read::{Mistake, Parsed, parse};

/// What an administrator, or the controller, sets. No value here is a secret, only the names of files that
/// hold them.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`, `POST /events`
    pub admin: SocketAddr,
    /// Without a path.
    pub upstream: UpstreamUrl,
    pub policy_file: PathBuf,
    pub mode: Mode,
    pub on_unknown: OnUnknown,
    /// The longest wait of a push for the counts of its repository.
    pub seed_timeout: Duration,
    /// Between two looks at a repository's real tags; zero: never.
    pub resync: Duration,
    pub max_reads: usize,
    pub max_writes: usize,
    /// The gateway's own credential, for resync: user name and password.
    pub credential: Option<(PathBuf, PathBuf)>,
    /// What the registry's notifications prove themselves with.
    pub events_token_file: Option<PathBuf>,
    pub peers: Option<Peers>,
    /// The certificate that clients see, with its chain, and its key; plain HTTP without.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub upstream_tls: TlsFiles,
}

/// Where the other replicas are, and what they know each other by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// A name with one A record for each replica.
    pub name: String,
    pub port: u16,
    pub token_file: PathBuf,
}

/// How tags are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In memory, kept up to date.
    #[default]
    Indexed,
    /// By a list at every push, for comparison.
    Synchronous,
}

/// What becomes of a push whose counts are not known in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    #[default]
    Allow,
    Deny,
}

/// Why there are no settings. The text has a line for each mistake, `FILE:LINE: WHAT`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("{}", listed(.0, .1))]
    Mistakes(PathBuf, Vec<Mistake>),
}

/// The longest settings file that is read.
const LONGEST: u64 = 1 << 20;

/// Reads the settings to run with, and the unknown keys among them, which are only told.
///
/// # Errors
/// When the file cannot be read or anything else is wrong with it.
pub fn load(file: &Path) -> Result<(Config, Vec<Mistake>), ConfigError> {
    let parsed = parse(&text(file)?);
    let told = |mistakes| ConfigError::Mistakes(file.to_owned(), mistakes);
    parsed.config.map(|config| (config, parsed.unknown)).ok_or_else(|| told(parsed.mistakes))
}

/// The same, but unknown keys are mistakes as well.
///
/// # Errors
/// When the file cannot be read or anything is wrong with it.
pub fn check(file: &Path) -> Result<Config, ConfigError> {
    let Parsed { config, mut mistakes, unknown } = parse(&text(file)?);
    mistakes.extend(unknown);
    mistakes.sort_by_key(|mistake| mistake.line);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(ConfigError::Mistakes(file.to_owned(), mistakes)),
    }
}

/// This replica's own address among its peers, where the environment says it (`POD_IP`).
#[must_use]
pub fn own_address() -> Option<IpAddr> {
    std::env::var("POD_IP").ok()?.parse().ok()
}

fn text(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable(file.to_owned(), error);
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a file of at most 1 MiB")));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

fn listed(path: &Path, mistakes: &[Mistake]) -> String {
    let mut lines = String::new();
    for Mistake { line, what } in mistakes {
        let newline = if lines.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = write!(lines, "{newline}{}:{line}: {what}", path.display());
    }
    lines
}

#[cfg(test)]
mod tests;
