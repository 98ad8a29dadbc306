//! What this agent tells: the report of the contract, for `/stats` and for the controller.
//! Must not count anything: the mirror and the installer did.

pub(crate) mod push;

use std::time::SystemTime;

use larder_mirror::Mirror;
use larder_wire::report::{Report, SCHEMA};
use larder_wire::settings::Settings;
use tokio::sync::watch;

use crate::config;

/// Where a report's parts come from.
pub(crate) struct Facts {
    pub(crate) mirror: Mirror,
    pub(crate) settings: watch::Receiver<Settings>,
    /// Random, new at each start; not the key.
    pub(crate) instance: String,
    pub(crate) started: SystemTime,
}

impl Facts {
    /// The report as of now. Reads the installer's small state file.
    pub(crate) fn report(&self) -> Report {
        let settings = self.settings.borrow().clone();
        let snapshot = self.mirror.snapshot();
        let mut registries = snapshot.registries;
        let told = larder_installer::read(&settings.run_dir).map(|state| state.registries);
        for told in told.unwrap_or_default() {
            if let Some(report) = registries.iter_mut().find(|report| report.registry == told.registry) {
                report.state = told.state;
                report.reason = told.reason;
            }
        }
        Report {
            schema: SCHEMA,
            node: config::node_name(&settings.report),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            started: humantime::format_rfc3339_seconds(self.started).to_string(),
            generation: settings.generation,
            cache: snapshot.cache,
            evicted_bytes: snapshot.evicted_bytes,
            registries,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
