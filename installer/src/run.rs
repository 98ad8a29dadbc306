//! The loop: a round of [`crate::converge`] after the other, what changed told to the log and to `installer.json`, and
//! everything taken out at the end. Must not decide about a registry.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_wire::settings::Settings;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::lock::{self, Lock};
use crate::memory::{self, Memory};
use crate::places::Places;
use crate::state::{RegistryState, State};
use crate::{converge, plan, state};

/// How often the lock is asked for while another installer holds it.
const LOCK_PERIOD: Duration = Duration::from_secs(1);

/// Keeps certs.d as the settings say until `stop` is cancelled, then takes our entries out again (unless the settings
/// keep them) and returns. New settings are taken over at once; `run_dir` stays the first one.
///
/// Waits while another installer holds the lock, and while there is no `run_dir` yet.
///
/// # Errors
/// When the lock's file cannot be opened at all, or when a round panicked; our entries are taken out then, too.
pub async fn run(mut settings: watch::Receiver<Settings>, stop: CancellationToken) -> anyhow::Result<()> {
    let run_dir = settings.borrow().run_dir.clone();
    let Some(_lock) = stop.run_until_cancelled(wait_for_lock(&run_dir)).await.transpose()? else {
        return Ok(());
    };
    let mut told = Told::of(state::read(&run_dir).unwrap_or_default());
    let mut memory = Memory::new();
    let mut places = Places::default();
    let ended = loop {
        let current = Arc::new(pinned(&settings.borrow_and_update(), &run_dir));
        let begun = Instant::now();
        if places.follow(&current) {
            memory.forget_writes();
        }
        let state = match converge(&current, &mut memory, &stop).await {
            Ok(Some(state)) => state,
            Ok(None) => break Ok(()),
            Err(panic) => break Err(anyhow::Error::new(panic).context("the work on certs.d broke off")),
        };
        told.tell(state, &run_dir);
        let next = begun + memory.pause();
        let changed = async {
            if settings.changed().await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            () = changed => {}
            () = sleep_until(next) => {}
        }
    };
    let current = pinned(&settings.borrow(), &run_dir);
    leave(&current, places, &mut told);
    ended
}

async fn wait_for_lock(run_dir: &Path) -> anyhow::Result<Lock> {
    let mut waited_for = None;
    loop {
        let why = match lock::take(run_dir) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) => "another installer runs on this node",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "there is no run_dir yet",
            Err(error) => {
                let path = run_dir.display().to_string();
                return Err(anyhow::Error::new(error).context(format!("cannot lock {path}/installer.lock")));
            }
        };
        if waited_for.replace(why) != Some(why) {
            tracing::warn!(run_dir = %run_dir.display(), "waiting: {why}");
        }
        sleep(LOCK_PERIOD).await;
    }
}

fn pinned(settings: &Settings, run_dir: &Path) -> Settings {
    Settings { run_dir: run_dir.to_owned(), ..settings.clone() }
}

/// The end: what could be taken out is told as withdrawn, what is left as it was.
fn leave(settings: &Settings, places: Places, told: &mut Told) {
    let Some(left) = places.leave(settings) else { return };
    let state = left_as(settings, &left, &told.logged);
    told.tell(state, &settings.run_dir);
}

/// How things stand when this is left after everything was to go.
fn left_as(settings: &Settings, left: &[(PathBuf, String)], last: &State) -> State {
    let certs_dir = &settings.installer.certs_dir;
    let mut state = memory::withdrawn(settings, "the installer was stopped");
    for registry in &mut state.registries {
        // What is wrong with certs.d itself is wrong with each.
        let is_left =
            |(path, _): &&(PathBuf, String)| path == certs_dir || plan::is_about(path, &registry.registry);
        let Some((_, why)) = left.iter().find(is_left) else { continue };
        if let Some(last) = last.registries.iter().find(|last| last.registry == registry.registry) {
            registry.clone_from(last);
        }
        registry.message = format!("the installer was stopped and could not take the entry out: {why}");
    }
    state
}

/// What was told last: to the log, and to `installer.json`, which may be on a file system that takes nothing.
struct Told {
    logged: State,
    written: State,
    /// Why it could not be written the last time.
    trouble: Option<String>,
}

impl Told {
    fn of(read: State) -> Self {
        Self { logged: read.clone(), written: read, trouble: None }
    }

    /// Tells what changed, once.
    fn tell(&mut self, state: State, run_dir: &Path) {
        self.take_in(state).iter().for_each(log);
        if self.written == self.logged {
            return;
        }
        match self.logged.write(run_dir) {
            Ok(()) => {
                self.written.clone_from(&self.logged);
                self.trouble = None;
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(run_dir = %run_dir.display(), %error, "cannot write installer.json");
                }
                self.trouble = Some(trouble);
            }
        }
    }

    /// What is new to the log.
    fn take_in(&mut self, mut state: State) -> Vec<RegistryState> {
        state.since_then(&self.logged);
        let before = std::mem::replace(&mut self.logged, state);
        let new = self.logged.registries.iter().filter(|registry| !before.registries.contains(registry));
        new.cloned().collect()
    }
}

fn log(told: &RegistryState) {
    let RegistryState { registry, state, reason, message, .. } = told;
    if reason.is_empty() {
        tracing::info!(registry, state, "{state}: {message}");
    } else {
        tracing::warn!(registry, state, reason, "{reason}: {message}");
    }
}

#[cfg(test)]
mod tests;
