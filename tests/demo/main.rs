//! What `make demo` shows: a real containerd pulls a real image through larder-agent, cold, warm, with the registry
//! stopped and with the agent killed. Everything stands below temporary directories and is gone at the end. Must not
//! measure what it does not show.

#![expect(clippy::print_stdout, reason = "the demonstration is what it prints")]

mod source;
mod table;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use larder_tests::containerd::stand::{Agent, Stand};
use larder_tests::containerd::{Containerd, Flavour};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use source::Source;
use table::{Row, Table};

/// Enough for a public image over a slow line.
const PULL: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> ExitCode {
    match unless_interrupted().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo ended early, and everything is cleaned up: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Leaving drops what [`show`] holds: processes end, directories and mounts go.
async fn unless_interrupted() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        shown = show() => shown,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
}

async fn show() -> Result<()> {
    let program = Flavour::One.program().map_err(anyhow::Error::msg).context("the demo cannot run here")?;
    let mut source = match std::env::var("IMAGE").ok().filter(|image| !image.is_empty()) {
        Some(image) => Source::public(&image).await?,
        None => Source::own().await?,
    };
    println!("1. {}", source.told());

    let stand = Stand::new(source.registry(), &source.url())?;
    let containerd = Containerd::start(Flavour::One, &stand.certs()).await?;
    println!("\n2. A containerd of our own: {}. Its certs.d:", version(&program)?);
    show_certs(&stand.certs())?;

    let mut agent = stand.agent().await?;
    println!(
        "\n3. larder-agent listens on {}. Nothing has probed it, so certs.d stays as it was:",
        agent.mirror()
    );
    show_certs(&stand.certs())?;

    let installer = stand.installed(&agent).await?;
    println!("\n4. larder-installer probed the agent, three times with success, and only then wrote:");
    show_certs(&stand.certs())?;
    println!();

    let mut table = Table::default();
    let node = Node { containerd: &containerd, agent: &agent };
    table.add(node.pull("cold", "5. A cold pull: everything comes from upstream, once.", &mut source).await?);
    table.add(node.pull("warm", "6. A warm pull: everything comes from the cache.", &mut source).await?);
    if source.stop().await? {
        let story = "7. The registry is stopped. The same pull:";
        table.add(node.pull("registry stopped", story, &mut source).await?);
        source.resume().await?;
    } else {
        println!("7. {} cannot be stopped from here: this pull is left out.", source.registry());
    }

    agent.process.kill();
    let story = "8. The agent is killed (SIGKILL), its entry still stands. The same pull:";
    let row =
        Node { containerd: &containerd, agent: &agent }.pull("agent killed", story, &mut source).await?;
    table.add(row);

    installer.end(Signal::SIGTERM, PULL).await?;
    println!("\n9. larder-installer was ended (SIGTERM) and took its entry out. certs.d:");
    show_certs(&stand.certs())?;
    println!("\n{table}");
    Ok(())
}

/// What a pull is measured with.
struct Node<'a> {
    containerd: &'a Containerd,
    agent: &'a Agent,
}

impl Node<'_> {
    /// Pulls the image, notes what that moved, and removes it again.
    async fn pull(&self, name: &'static str, story: &str, source: &mut Source) -> Result<Row> {
        println!("{story}");
        source.asked().await?;
        // A killed agent has moved nothing.
        let before = self.agent.traffic().await.ok();
        let took = self.containerd.pull(source.image(), PULL).await?;
        let moved = match before {
            Some(before) => Some(self.agent.traffic().await?.since(before)),
            None => None,
        };
        let upstream = match source.asked().await? {
            Some(asked) => Some(asked),
            None => moved.map(|moved| (moved.upstream_requests, moved.upstream_bytes)),
        };
        println!("   {} pulled in {:.2} s", source.image(), took.as_secs_f64());
        self.containerd.forget(source.image()).await?;
        Ok(Row { name, took, upstream, cache_bytes: moved.map_or(0, |moved| moved.cache_bytes) })
    }
}

/// Prints a directory as `find` would, with the text of its files.
fn show_certs(certs: &Path) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(certs)
        .and_then(Iterator::collect::<std::io::Result<_>>)
        .with_context(|| certs.display().to_string())?;
    entries.sort_by_key(fs::DirEntry::path);
    if entries.is_empty() {
        println!("   (empty)");
    }
    for entry in entries {
        let file = entry.path().join("hosts.toml");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        println!("   {}:", file.strip_prefix(certs).unwrap_or(&file).display());
        for line in text.lines() {
            println!("   | {line}");
        }
    }
    Ok(())
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output().context("containerd --version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
