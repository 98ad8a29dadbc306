//! A process of ours: its output goes to a file, and it ends with its owner. Ends only what it started, by its id; must
//! not know what the process is.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::interval;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Killed and reaped when dropped.
pub struct Daemon {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts a process whose standard output and standard error are appended to these files.
    ///
    /// # Errors
    /// The program cannot be started or a file not be opened.
    pub fn spawn(command: &mut Command, output: &Path, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(appended(output)?).stderr(appended(log)?);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Everything it has written to its log, earlier processes on the same log included.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).expect("process ids are positive and fit i32");
        kill(Pid::from_raw(id), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// Its state cannot be had.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Sends the signal and waits for the end.
    ///
    /// # Errors
    /// It does not end within the time; it is killed then.
    pub async fn end(mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        let end = Instant::now() + within;
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{}: still there {within:?} after {signal}\n{}", self.name, self.log());
            }
        }
    }

    /// Kills and reaps it. One that is gone already is fine, and nothing can be done about one that cannot be killed.
    pub fn kill(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Waits for a condition and gives up at once when the process ends: its log is in the error then.
    ///
    /// # Errors
    /// The process ended or the time is over.
    pub async fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut look: impl AsyncFnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + within;
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if let Some(found) = look(&self.log()).await {
                return Ok(found);
            }
            if let Some(status) = self.ended()? {
                bail!("{} ended ({status}) before {what}:\n{}", self.name, self.log());
            }
            if Instant::now() > end {
                bail!("{}: not within {within:?}: {what}\n{}", self.name, self.log());
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn appended(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be opened", path.display()))
}
