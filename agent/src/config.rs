//! The only reader of the environment and of settings files: what to run with, at start and again after a change.
//! Must not apply anything, and must not know what a setting is good for.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use larder_wire::settings::{self, Mistake, Parsed, ReportSettings, Settings, Spoils};

use crate::{replace, run};

/// The copy of the last file that an agent could run with, in its data_dir.
const LAST_GOOD: &str = "last-good.toml";

/// Why no settings can be had from a file. The text has one line for each mistake, `FILE:LINE: WHAT`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{}: cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}", listed(path, mistakes))]
    Mistakes {
        path: PathBuf,
        mistakes: Vec<Mistake>,
        /// What it says all the same about where the installer's entries may lie.
        entries: Option<Box<Settings>>,
    },
}

/// Settings to run with, and what is to be told about them once there is a log.
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    /// The text they came from; `None` without a file.
    pub(crate) text: Option<String>,
    /// What the look at the file found, as [`again`] compares it.
    pub(crate) seen: String,
    /// Upstreams left out and unknown keys.
    pub(crate) remarks: Vec<Mistake>,
    /// Why the last good copy stands in for the file.
    pub(crate) instead_of: Option<Unusable>,
}

/// What a look at the file gives while the agent runs.
#[derive(Debug)]
pub(crate) enum Again {
    /// The same as at the last look.
    Same,
    /// New settings; what needs a restart stays as it was and is named.
    Changed {
        loaded: Box<Loaded>,
        restart: Vec<&'static str>,
    },
    Refused(Unusable),
}

/// Settings for an agent that starts: the file's, else those of the last good copy when there is a file and it cannot be
/// used.
///
/// # Errors
/// What is wrong with the file, when it cannot be read at all, no copy of a good one is left or the mirror would listen
/// off the loopback.
pub(crate) fn at_start(file: Option<&Path>) -> Result<Loaded, Unusable> {
    let Some(path) = file else { return Ok(Loaded::without_file()) };
    let (data_dir, seen, unusable) = match read(path).map(|text| (settings::parse(&text), text)) {
        Ok((parsed, text)) if parsed.is_usable() => return Ok(Loaded::of(parsed, text)),
        Ok((parsed, _)) if !parsed.settings.listen.mirror.ip().is_loopback() => {
            return Err(Unusable::told(path, parsed));
        }
        Ok((parsed, text)) => (parsed.settings.data_dir.clone(), text, Unusable::told(path, parsed)),
        Err(unreadable) if unreadable.is_no_text() => {
            (Settings::default().data_dir, run::chain(&unreadable), unreadable)
        }
        Err(unreadable) => return Err(unreadable),
    };
    match read(&data_dir.join(LAST_GOOD)).map(|text| (settings::parse(&text), text)) {
        Ok((parsed, text)) if parsed.is_usable() => {
            Ok(Loaded { seen, instead_of: Some(unusable), ..Loaded::of(parsed, text) })
        }
        _ => Err(unusable),
    }
}

/// What the file says, whatever an agent would do without it.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn as_written(file: Option<&Path>) -> Result<Settings, Unusable> {
    let Some(path) = file else { return Ok(Settings::without_file()) };
    let parsed = settings::parse(&read(path)?);
    if parsed.is_usable() { Ok(parsed.settings) } else { Err(Unusable::told(path, parsed)) }
}

/// Looks at the file again. `seen` is what the last look found, `running` what the agent runs with.
pub(crate) fn again(path: &Path, seen: &mut String, running: &Settings) -> Again {
    let text = match read(path) {
        Ok(text) => text,
        Err(unreadable) => {
            let told = run::chain(&unreadable);
            if *seen == told {
                return Again::Same;
            }
            *seen = told;
            return Again::Refused(unreadable);
        }
    };
    if *seen == text {
        return Again::Same;
    }
    seen.clone_from(&text);
    let parsed = settings::parse(&text);
    if !parsed.is_usable() {
        return Again::Refused(Unusable::told(path, parsed));
    }
    let mut loaded = Box::new(Loaded::of(parsed, text));
    let restart = keep(&mut loaded.settings, running);
    Again::Changed { loaded, restart }
}

/// Keeps a copy of a text that the agent runs with.
///
/// # Errors
/// When data_dir cannot be written.
pub(crate) fn keep_last_good(data_dir: &Path, text: &str) -> io::Result<()> {
    replace::file(&data_dir.join(LAST_GOOD), text.as_bytes(), 0o600)
}

/// `larder-agent check`
pub(crate) fn check(file: Option<&Path>) -> ExitCode {
    let Some(path) = file else { return ExitCode::SUCCESS };
    let found = match read(path) {
        Ok(text) => {
            let Parsed { mut mistakes, unknown, .. } = settings::parse(&text);
            mistakes.extend(unknown);
            mistakes.sort_by_key(|mistake| mistake.line);
            if mistakes.is_empty() {
                return ExitCode::SUCCESS;
            }
            listed(path, &mistakes)
        }
        Err(unreadable) => run::chain(&unreadable),
    };
    // A closed stream changes nothing about the file.
    let _ = writeln!(io::stdout(), "{found}");
    ExitCode::from(run::USAGE)
}

/// What this node is called: the setting, else `NODE_NAME`, else the host's name.
pub(crate) fn node_name(report: &ReportSettings) -> String {
    let named = Some(report.node.clone()).filter(|name| !name.is_empty());
    let environment = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    named.or_else(environment).or_else(host).unwrap_or_else(|| "unknown".to_owned())
}

impl Loaded {
    fn without_file() -> Self {
        let settings = Settings::without_file();
        Self { settings, text: None, seen: String::new(), remarks: Vec::new(), instead_of: None }
    }

    fn of(parsed: Parsed, text: String) -> Self {
        let Parsed { settings, mistakes: mut remarks, unknown } = parsed;
        remarks.extend(unknown);
        remarks.sort_by_key(|remark| remark.line);
        Self { settings, seen: text.clone(), text: Some(text), remarks, instead_of: None }
    }

    pub(crate) fn unknown_keys(&self) -> usize {
        self.remarks.iter().filter(|remark| remark.spoils == Spoils::Nothing).count()
    }
}

impl Unusable {
    fn told(path: &Path, parsed: Parsed) -> Self {
        let entries = larder_installer::names_certs_dir(&parsed).then(|| Box::new(parsed.settings));
        Self::Mistakes { path: path.to_owned(), mistakes: parsed.mistakes, entries }
    }

    /// Whether there is a file, and what it holds is no settings.
    fn is_no_text(&self) -> bool {
        let no_text = [io::ErrorKind::InvalidData, io::ErrorKind::FileTooLarge];
        matches!(self, Self::Unreadable { source, .. } if no_text.contains(&source.kind()))
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file that is not usable may hold a password where none belongs.
        f.debug_struct("Loaded")
            .field("settings", &self.settings)
            .field("remarks", &self.remarks)
            .field("instead_of", &self.instead_of)
            .finish_non_exhaustive()
    }
}

/// Puts back what only a restart can change, and names what differed.
fn keep(settings: &mut Settings, running: &Settings) -> Vec<&'static str> {
    let mut restart = Vec::new();
    if settings.listen != running.listen {
        restart.push("listen");
        settings.listen = running.listen.clone();
    }
    if settings.data_dir != running.data_dir {
        restart.push("data_dir");
        settings.data_dir.clone_from(&running.data_dir);
    }
    if settings.run_dir != running.run_dir {
        restart.push("run_dir");
        settings.run_dir.clone_from(&running.run_dir);
    }
    restart
}

fn read(path: &Path) -> Result<String, Unusable> {
    larder_installer::read_settings(path)
        .map_err(|source| Unusable::Unreadable { path: path.to_owned(), source })
}

fn listed(path: &Path, mistakes: &[Mistake]) -> String {
    let mut lines = String::new();
    for mistake in mistakes {
        let newline = if lines.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = write!(lines, "{newline}{}:{}: {}", path.display(), mistake.line, mistake.what);
    }
    lines
}

#[cfg(test)]
mod tests;
