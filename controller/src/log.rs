//! The log, to stderr. Must not be started twice.

use std::io;

use tracing_subscriber::EnvFilter;

/// kube's client tells whole answers that do not read as what they should be; an answer may hold a credential.
const QUIET: &str = "kube_client=error";

/// `format` is json or text; `level` a level or a filter, `info` where it does not read.
pub fn start(format: &str, level: &str) {
    let filter =
        EnvFilter::try_new(format!("{QUIET},{level}")).unwrap_or_else(|_| "info,kube_client=error".into());
    let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(io::stderr);
    if format == "text" { lines.init() } else { lines.json().flatten_event(true).init() }
}
