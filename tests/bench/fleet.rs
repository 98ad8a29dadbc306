//! What `make bench` shows of the controller: how it does with as many nodes as a large cluster has. A real API server,
//! the program as it is shipped, an agent played on every node. Must not claim more: all of them share the machine's
//! cores, and nobody else may need them meanwhile.

mod agents;
mod controller;
mod figures;
mod stand;

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use larder_tests::cluster::Cluster;
use tokio::time::Instant;

use agents::Agents;
use controller::{Addresses, Controller};
use figures::{Figure, Goal, Window};

/// As many as the controller is made for.
pub(crate) const NODES: usize = 5000;

const AT_REST: Duration = Duration::from_secs(90);
const ROLLING: Duration = Duration::from_secs(60);
/// Far beyond the goal.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures, prints a table, and writes it beside. Where Kubernetes' programs are not, one line says so.
pub(crate) async fn measure(nodes: usize) -> Result<()> {
    let Some((cluster, _plane)) = Cluster::private().await else { return Ok(()) };
    let cores = available_parallelism().context("the number of cores")?;
    println!(
        "{nodes} nodes that report every 30 s ± 20 %; {cores} cores, shared by their agents, etcd, the API server and \
         the controller; some six minutes\n"
    );
    let figures = play(&cluster, nodes).await?;
    figures::show(&figures);
    let ours = std::env::current_exe().context("our own path")?;
    let target = ours.ancestors().nth(2).context("our own path")?;
    figures::write(&target.join("bench/fleet.json"), nodes, &figures)
}

/// Nodes come up, the controller dies and another one takes over; it is left in peace; then a Cache is added.
async fn play(cluster: &Cluster, nodes: usize) -> Result<Vec<Figure>> {
    let (kubeconfig, addresses) = (stand::prepare(cluster).await, Addresses::free()?);
    let before = Controller::start(&kubeconfig, addresses)?;
    let settings = stand::settings(cluster, stand::FIRST).await;
    let (all, beating) = stand::nodes(cluster, nodes, &settings).await?;
    let agents = Agents::start(addresses.reports, all, settings);

    before.kill().await?;
    let started = Instant::now();
    let mut controller = Controller::start(&kubeconfig, addresses)?;
    controller.until("all nodes are known", PATIENCE, |counts| counts.known >= nodes as f64).await?;
    let known = started.elapsed();
    println!("all nodes are known {:.0} s after a restart; now it is left in peace", known.as_secs_f64());

    // Two minutes after it began to lead it takes its numbers for whole.
    controller.until("all nodes are ready", PATIENCE, |counts| counts.ready >= nodes as f64).await?;
    let rest = Window::observe(&controller, AT_REST).await?;
    let ready = controller.counts().await?.ready;

    println!("a Cache is added");
    let written = controller.counts().await?.writes;
    stand::add_cache(cluster).await;
    agents.mount(stand::settings(cluster, stand::FIRST + 1).await);
    // It looks at nodes every half minute; from then on there is always one more to write about.
    let begun = written + nodes.min(25) as f64;
    controller.until("nodes are written about", PATIENCE, |counts| counts.writes >= begun).await?;
    let rollout = Window::observe(&controller, ROLLING).await?;
    let (memory, failed) = (controller.peak_memory()?, controller.counts().await?.failed);
    beating.abort();
    println!("reports were {}\n", agents.tally());

    let most = |most: f64| Some(Goal::Below(most));
    Ok(vec![
        Figure::single("all known after a restart", "s", most(120.0), known.as_secs_f64()),
        Figure::single("nodes ready", "", Some(Goal::AtLeast(nodes as f64)), ready),
        rest.figure("at rest: processor", "cores", most(1.0), |counts| counts.processor),
        rest.figure("at rest: writes", "/s", most(1.0), |counts| counts.writes),
        rest.figure("at rest: token reviews", "/s", Some(Goal::AtMost(10.0)), |counts| counts.reviews),
        rest.figure("at rest: reads", "/s", None, |counts| counts.reads),
        rest.figure("at rest: reports taken", "/s", None, |counts| counts.reports),
        rollout.figure("rollout: processor", "cores", most(1.0), |counts| counts.processor),
        rollout.figure("rollout: writes", "/s", most(6.0), |counts| counts.writes),
        rollout.figure("rollout: token reviews", "/s", Some(Goal::AtMost(10.0)), |counts| counts.reviews),
        rollout.figure("rollout: reads", "/s", None, |counts| counts.reads),
        Figure::single("peak memory", "MiB", most(250.0), memory),
        Figure::single("reconciles that failed", "", None, failed),
    ])
}
