//! Reads metrics as a scraper does, from the text form. Must not know which metrics there are.

use larder_mirror::Mirror;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The metrics of a mirror in this process.
pub struct Metrics(Registry);

impl Metrics {
    pub(super) fn of(mirror: &Mirror) -> Self {
        let mut registry = Registry::default();
        mirror.register(&mut registry);
        Self(registry)
    }

    /// What a scraper gets.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("writing to a string does not fail");
        text
    }

    /// The sum of a metric's samples that have all these labels; 0 when there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.text(), name, labels)
    }

    /// How many requests were answered from a source (`cache`, `upstream`, `follow`, `stale`, `bypass`, `none`).
    #[must_use]
    pub fn requests(&self, source: &str) -> u64 {
        // Counters are whole numbers far below 2^52.
        self.sum("larder_requests_total", &[("source", source)]) as u64
    }
}

/// The same on a text that was scraped.
#[must_use]
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (have, rest) = series.split_once('{').unwrap_or((series, "}"));
        let has = |(key, value): &(&str, &str)| rest.contains(&format!("{key}=\"{value}\""));
        (have == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}
