//! What `make bench` shows: a warm larder-agent and nginx serving the same bytes from files, on this machine, one after
//! the other, under the same load by wrk; then, or alone with `larder-bench fleet [NODES]`, the controller under many
//! nodes' reports. Must not claim more: load and servers share the machine's cores.

#![expect(clippy::print_stdout, reason = "the benchmark is what it prints")]

mod fleet;
mod server;

use std::env;
use std::process::{Command, ExitCode};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail, ensure};
use larder_tests::containerd::stand::Stand;
use larder_tests::registry::DockerRegistry;
use larder_tests::registry::layers::LayeredImage;

use server::{Nginx, cpu_seconds};

const MIB: usize = 1 << 20;
const SECONDS: u32 = 5;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("The benchmark ended early: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            compare().await?;
            println!();
            fleet::measure(fleet::NODES).await
        }
        ["fleet"] => fleet::measure(fleet::NODES).await,
        ["fleet", nodes] => fleet::measure(nodes.parse().context("a number of nodes")?).await,
        _ => bail!("expected nothing, or `fleet [NODES]`"),
    }
}

/// What one server did with one load.
struct Measured {
    requests_per_second: f64,
    cpu_per_request: f64,
}

async fn compare() -> Result<()> {
    ensure!(DockerRegistry::is_installed(), "Debian's package `docker-registry` is not installed");
    let image = LayeredImage::new(1, &[16 * MIB])?;
    let registry = DockerRegistry::start().await?;
    registry.push("bench/app", "v1", &image).await?;
    let stand = Stand::new(registry.host(), &registry.url())?;
    let agent = stand.agent().await?;
    let layer = &image.layers[0];
    let nginx = Nginx::start(&[("manifest", &image.manifest.bytes), ("blob", &layer.bytes)]).await?;

    let cores = available_parallelism().context("the number of cores")?;
    println!(
        "{cores} cores, shared by wrk (1 thread, 16 connections) and the server; {SECONDS} s each, warm\n"
    );
    println!("{:<18} {:<7} {:>12} {:>10} {:>16}", "what", "server", "requests/s", "MiB/s", "CPU µs/request");
    let kinds = [("manifest", "manifests", &image.manifest), ("blob", "blobs", layer)];
    for (name, kind, piece) in kinds {
        let path = format!("/v2/bench/app/{kind}/{}?ns={}", piece.digest, registry.host());
        let larder = format!("http://{}{path}", agent.mirror());
        let beside = format!("http://{}/{name}", nginx.address());
        load(&larder, agent.process.id(), 1)?;
        for (server, url, id) in [("larder", &larder, agent.process.id()), ("nginx", &beside, nginx.id())] {
            let got = load(url, id, SECONDS)?;
            println!(
                "{:<18} {server:<7} {:>12.0} {:>10.0} {:>16.1}",
                format!("{name}, {}", size(piece.bytes.len())),
                got.requests_per_second,
                got.requests_per_second * piece.bytes.len() as f64 / MIB as f64,
                got.cpu_per_request * 1e6,
            );
        }
    }
    Ok(())
}

/// Runs wrk against a URL. Anything but 200 everywhere is an error: it would be fast for the wrong reason.
fn load(url: &str, server: u32, seconds: u32) -> Result<Measured> {
    let before = cpu_seconds(server)?;
    let output = Command::new("wrk")
        .args(["-t1", "-c16", &format!("-d{seconds}s"), url])
        .output()
        .context("wrk, of Debian's package `wrk`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk {url}:\n{text}");
    }
    let number = |before: &str, after: &str| -> Option<f64> {
        let (_, rest) = text.split_once(before)?;
        rest.split_once(after)?.0.trim().parse().ok()
    };
    let requests_per_second = number("Requests/sec:", "\n").context("wrk told no requests per second")?;
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok())
        .context("wrk told no requests")?;
    Ok(Measured { requests_per_second, cpu_per_request: (cpu_seconds(server)? - before) / requests })
}

fn size(bytes: usize) -> String {
    if bytes < MIB { format!("{bytes} B") } else { format!("{} MiB", bytes / MIB) }
}
