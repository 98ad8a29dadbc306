//! Numbers beside their goals: over a time, piece by piece, as a table and as JSON. Must not know what is counted.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, interval_at};

use super::controller::{Controller, Counts};

const PIECE: Duration = Duration::from_secs(10);

/// What a number has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    Below(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// A number, over the whole time and in its worst ten seconds.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    what: &'static str,
    unit: &'static str,
    goal: Option<String>,
    value: f64,
    worst: Option<f64>,
    met: Option<bool>,
}

/// What a controller did in a time, in pieces of ten seconds.
pub(super) struct Window(Vec<Counts>);

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::Below(most) => value < most,
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Below(most) => format!("< {most}"),
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
        }
    }
}

impl Figure {
    pub(super) fn single(what: &'static str, unit: &'static str, goal: Option<Goal>, value: f64) -> Self {
        let met = goal.map(|goal| goal.is_met(value));
        Self { what, unit, goal: goal.map(Goal::words), value, worst: None, met }
    }
}

impl Window {
    pub(super) async fn observe(controller: &Controller, time: Duration) -> Result<Self> {
        let mut marks = vec![controller.counts().await?];
        let mut pieces = interval_at(Instant::now() + PIECE, PIECE);
        for _ in 0..time.div_duration_f64(PIECE) as usize {
            pieces.tick().await;
            marks.push(controller.counts().await?);
        }
        Ok(Self(marks))
    }

    /// A number a second. The goal is for the whole time.
    pub(super) fn figure(
        &self,
        what: &'static str,
        unit: &'static str,
        goal: Option<Goal>,
        count: impl Fn(&Counts) -> f64,
    ) -> Figure {
        let rate = |from: &Counts, to: &Counts| (count(to) - count(from)) / (to.at - from.at).as_secs_f64();
        let ends = self.0.first().zip(self.0.last());
        let mean = ends.map_or(0.0, |(first, last)| rate(first, last));
        let worst = self.0.windows(2).map(|pair| rate(&pair[0], &pair[1])).reduce(f64::max);
        Figure { worst, ..Figure::single(what, unit, goal, mean) }
    }
}

pub(super) fn show(figures: &[Figure]) {
    println!("{:<28} {:>8} {:>10} {:>12}  {:<6}", "what", "goal", "mean", "worst 10 s", "unit");
    for Figure { what, unit, goal, value, worst, met } in figures {
        let goal = goal.as_deref().unwrap_or("-");
        let worst = worst.map_or("-".to_owned(), |worst| format!("{worst:.2}"));
        let missed = if *met == Some(false) { "MISSED" } else { "" };
        println!("{what:<28} {goal:>8} {value:>10.2} {worst:>12}  {unit:<6} {missed}");
    }
}

pub(super) fn write(path: &Path, nodes: usize, figures: &[Figure]) -> Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "nodes": nodes, "figures": figures }))?;
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text + "\n"))
        .with_context(|| format!("{} cannot be written", path.display()))
}
