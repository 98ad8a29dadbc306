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
    let mut told = state::read(&run_dir).unwrap_or_default();
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
        tell(state, &mut told, &run_dir);
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
fn leave(settings: &Settings, places: Places, told: &mut State) {
    let Some(left) = places.leave(settings) else { return };
    let mut state = memory::withdrawn(settings, "the installer was stopped");
    for registry in &mut state.registries {
        let is_left = |(path, _): &&(PathBuf, String)| plan::is_about(path, &registry.registry);
        let Some((_, why)) = left.iter().find(is_left) else { continue };
        if let Some(last) = told.registries.iter().find(|last| last.registry == registry.registry) {
            registry.clone_from(last);
        }
        registry.message = format!("the installer was stopped and could not take the entry out: {why}");
    }
    tell(state, told, &settings.run_dir);
}

/// Tells what changed, once.
fn tell(mut state: State, told: &mut State, run_dir: &Path) {
    state.since_then(told);
    if state == *told {
        return;
    }
    for registry in state.registries.iter().filter(|registry| !told.registries.contains(registry)) {
        log(registry);
    }
    if let Err(error) = state.write(run_dir) {
        tracing::warn!(run_dir = %run_dir.display(), %error, "cannot write installer.json");
        return;
    }
    *told = state;
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
