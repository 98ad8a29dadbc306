//! The log, to stderr. Must not be started twice.

use std::io;

use tracing_subscriber::EnvFilter;

/// `format` is json or text; `level` a level or a filter, `info` where it does not read.
pub fn start(format: &str, level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| "info".into());
    let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(io::stderr);
    if format == "text" { lines.init() } else { lines.json().flatten_event(true).init() }
}
