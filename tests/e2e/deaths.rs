//! The agent dies, hangs or is killed in mid-pull: containerd still pulls.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use larder_tests::chaos::{Chaos, Fault, Plan};
use larder_tests::registry::Access;
use larder_tests::registry::layers::LayeredImage;
use larder_tests::upstream::Gate;
use larder_tests::wait::{until, until_time};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::scene::{PULL, Scene, told_to_each_containerd};

told_to_each_containerd!(
    a_dead_agent_costs_no_request,
    a_hung_agent_is_taken_out_and_its_waiting_pull_succeeds_once_it_is_killed,
    an_agent_killed_in_mid_pull_fails_no_pull,
    a_file_bypass_takes_the_agent_out,
);

/// How soon a sick agent's entry is gone.
const WITHDRAWN: Duration = Duration::from_secs(10);

async fn a_dead_agent_costs_no_request(scene: &mut Scene) {
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    let without_larder = scene.registry.asked().await.unwrap();
    scene.containerd.forget(&scene.name).await.unwrap();

    let mut agent = scene.stand.agent().await.unwrap();
    let installer = scene.stand.installed(&agent).await.unwrap();
    // The worst case: nobody is left to take the entry out.
    drop(installer);
    agent.process.kill();
    assert!(scene.stand.points_at(&agent));
    let refused = TcpStream::connect(agent.mirror()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    let with_a_dead_agent = scene.registry.asked().await.unwrap();
    assert_eq!(sorted(with_a_dead_agent), sorted(without_larder));
}

async fn a_hung_agent_is_taken_out_and_its_waiting_pull_succeeds_once_it_is_killed(scene: &mut Scene) {
    let other = LayeredImage::new(2, &[100_000]).unwrap();
    let other = scene.registry.push("demo/other", "v1", &other).await.unwrap();
    let mut agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    agent.signal(Signal::SIGSTOP).unwrap();

    let waiting = scene.containerd.pull(&scene.name, PULL);
    let hosts_toml = scene.stand.hosts_toml();
    let rescue = async {
        until_time("the hung agent's entry is gone", WITHDRAWN, async || {
            (!hosts_toml.exists()).then_some(())
        })
        .await;
        scene.containerd.pull(&other, PULL).await.unwrap();
        agent.process.kill();
    };
    let (waited, ()) = tokio::join!(waiting, rescue);
    waited.unwrap();
}

async fn an_agent_killed_in_mid_pull_fails_no_pull(scene: &mut Scene) {
    // One large layer: whatever connection is stalled, it is the one that carries it.
    let large = LayeredImage::new(3, &[12 << 20]).unwrap();
    let large = scene.registry.push("demo/large", "v1", &large).await.unwrap();
    let chaos = Chaos::start(scene.registry.host().parse().unwrap()).await;
    let stall = Some((6 << 20, Gate::new()));
    chaos.always(Plan { down: Fault { stall, ..Fault::default() }, ..Plan::default() });
    scene.stand.fetch_from(&format!("http://{}", chaos.address())).unwrap();
    let mut agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();

    let containerd = &scene.containerd;
    let pull = containerd.pull(&large, PULL);
    let murder = async {
        // A third of the layer is with containerd, and no more than half of it will come.
        until("containerd has a part of a layer", async || (containerd.ingesting() > 4 << 20).then_some(()))
            .await;
        agent.process.kill();
    };
    let (pulled, ()) = tokio::join!(pull, murder);
    pulled.unwrap();
    let asked = scene.registry.asked().await.unwrap();
    assert!(
        asked.iter().any(|access| access.is_direct() && access.status == 206),
        "containerd fetched the rest of the layer from the registry itself: {asked:?}"
    );
}

async fn a_file_bypass_takes_the_agent_out(scene: &mut Scene) {
    let agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    fs::write(scene.stand.data().join("BYPASS"), "").unwrap();
    let hosts_toml = scene.stand.hosts_toml();
    until_time("the entry is gone", WITHDRAWN, async || (!hosts_toml.exists()).then_some(())).await;
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    let (direct, agents) = scene.asked().await;
    assert!(direct > 0 && agents == 0, "{direct} direct, {agents} through the agent");
}

/// What was asked, in an order that does not depend on how parallel requests fell.
fn sorted(asked: Vec<Access>) -> Vec<(String, String, u16)> {
    let mut asked: Vec<_> =
        asked.into_iter().map(|access| (access.method, access.path, access.status)).collect();
    asked.sort();
    asked
}
