//! The one table that the demonstration ends with.

use std::fmt;
use std::time::Duration;

/// What one pull took and moved.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    /// Requests and bytes; `None` where nobody counts them.
    pub(crate) upstream: Option<(u64, u64)>,
    pub(crate) cache_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["pull", "seconds", "upstream requests", "bytes from upstream", "bytes from cache"];
        let [pull, seconds, requests, upstream, cache] = heads;
        writeln!(f, "{pull:<18} {seconds:>8} {requests:>18} {upstream:>20} {cache:>17}")?;
        for row in &self.0 {
            let counted =
                |number: Option<u64>| number.map_or_else(|| "not counted".to_owned(), |n| n.to_string());
            writeln!(
                f,
                "{:<18} {:>8.2} {:>18} {:>20} {:>17}",
                row.name,
                row.took.as_secs_f64(),
                counted(row.upstream.map(|(requests, _)| requests)),
                counted(row.upstream.map(|(_, bytes)| bytes)),
                row.cache_bytes
            )?;
        }
        Ok(())
    }
}
