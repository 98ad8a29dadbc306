//! The only code that touches certs.d. [`run`] adds our entry for each registry once the agent has proven itself, takes
//! it out when the agent fails, and leaves what an administrator wrote byte for byte.
//!
//! One round is [`converge`]: preflight (does containerd read certs.d?), probe (is our agent there?), plan (what to do,
//! pure), apply (do it, thin). Reading order: this file, `preflight`, `probe`, `plan`, `hosts` and `entry` (the text),
//! `tree`, `swap`, `apply` and `restore` (the disk), `run` (the loop). Must not open credential files.

mod apply;
mod entry;
#[cfg(test)]
mod fake_agent;
mod hosts;
mod lock;
mod memory;
mod places;
mod plan;
mod preflight;
mod prepare;
mod probe;
mod restore;
mod run;
mod small_file;
mod snippet;
mod state;
mod status;
mod swap;
mod tree;
mod uninstall;

use std::sync::Arc;
use std::time::Instant;

use larder_wire::settings::Settings;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;
use crate::plan::Known;

pub use prepare::{PrepareError, prepare};
pub use run::run;
pub use small_file::read_settings;
pub use state::{RegistryState, State, read};
pub use status::status;
pub use uninstall::{Uninstalled, names_certs_dir, take_out_left_over, uninstall};

/// One round; `None` when it was stopped before anything was decided. What is begun on the disk is ended.
///
/// # Errors
/// When the work on the disk panicked.
async fn converge(
    settings: &Arc<Settings>,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<Option<State>, JoinError> {
    let ground = preflight::check(&settings.installer);
    let Some(outcome) = stop.run_until_cancelled(probe::probe(settings)).await else { return Ok(None) };
    let verdict = memory.judge(outcome, Instant::now());
    let (settings, mut book) = (Arc::clone(settings), memory.take_book());
    let on_disk = move || {
        let state = match tree::look(&settings.installer.certs_dir, &ground.roots) {
            Ok(seen) => {
                book.notice(&settings, &seen, Instant::now());
                let mirror = verdict.mirror().or_else(|| probe::mirror_address(&settings));
                let known = Known { mirror, ..book.known(&ground, &verdict) };
                let plan = plan::plan(&settings, &seen, &known);
                book.carry_out(plan, &seen, &verdict, Instant::now())
            }
            Err(error) => memory::unreadable(&settings, &error),
        };
        (state, book)
    };
    let (state, book) = tokio::task::spawn_blocking(on_disk).await?;
    memory.put_book(book);
    Ok(Some(state))
}
