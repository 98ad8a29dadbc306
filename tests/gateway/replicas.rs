//! Two replicas that find each other by a name, in a mount namespace each in which the hosts file is the test's own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_tests::gateway::{Gateway, Site};
use larder_tests::image::Image;
use larder_tests::wait::until_time;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::race::{storm, taken};
use crate::registry::{Registry, programs};
use crate::web::Web;

const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
/// Ownership changes within ten seconds; a machine with other work may take its time.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(60);

struct Replicas {
    dir: TempDir,
    sites: [Site; 2],
    running: Vec<Gateway>,
}

impl Replicas {
    async fn start(registry: &Registry, policy: &Value) -> Self {
        let dir = TempDir::with_prefix("larder-replicas-").unwrap();
        let token = dir.path().join("token");
        fs::write(&token, "of-the-replicas").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings = format!(
            "on_unknown = \"deny\"\nseed_timeout = \"20s\"\npeers = \"gateway-peers:{port}\"\n\
             peer_token_file = {token:?}\n"
        );
        let site = || Site::new(&registry.host, policy).settings(&settings);
        let mut replicas = Self { dir, sites: [site(), site()], running: Vec::new() };
        replicas.are(&ADDRESSES);
        let hosts = replicas.hosts_file();
        for (site, address) in replicas.sites.iter_mut().zip(ADDRESSES) {
            let gateway = site.start_replica(address, &hosts).await;
            replicas.running.push(gateway);
        }
        replicas
    }

    /// What the name of the replicas leads to from now on.
    fn are(&self, addresses: &[&str]) {
        let lines = addresses.iter().map(|address| format!("{address} gateway-peers\n"));
        // The same file, which is what a namespace holds.
        fs::write(self.hosts_file(), lines.collect::<String>()).unwrap();
    }

    fn hosts_file(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }

    fn hosts(&self) -> Vec<String> {
        self.running.iter().map(|gateway| gateway.address.to_string()).collect()
    }

    /// Waits until every replica finds an owner for a namespace.
    async fn until_owned(&self, web: &Web, namespace: &str, image: &Image) {
        for host in self.hosts() {
            until_time(format!("{namespace} has an owner"), SETTLED, async || {
                let answer = web.push(&host, &format!("{namespace}/app"), "first", image).await;
                (answer.status == 201).then_some(())
            })
            .await;
        }
    }
}

/// Whether a process may have a hosts file of its own here.
fn has_namespaces() -> bool {
    let tried = Command::new("/usr/bin/unshare")
        .args(["-rm", "mount", "--bind", "/etc/hosts", "/etc/hosts"])
        .output();
    let has = Path::new("/usr/bin/unshare").exists() && tried.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("did not run with two replicas: no mount namespaces here");
    }
    has
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_give_fifty_places_fifty_times() {
    if !has_namespaces() {
        return;
    }
    for program in programs().into_iter().take(1) {
        let registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let replicas = Replicas::start(&registry, &json!({"limits": {"tags": 50}})).await;
        // One of these names is owned by the one and one by the other, by far most likely.
        for namespace in ["team-a", "team-b", "team-c", "team-d"] {
            replicas.until_owned(&web, namespace, &image).await;
            let repository = format!("{namespace}/app");
            let answers = storm(&web, &replicas.hosts(), &repository, 100).await;
            assert_eq!(taken(&answers), 49, "besides the first");
            assert_eq!(registry.tags(&web, &repository).await.len(), 50);
        }
        for gateway in &replicas.running {
            gateway.process.check_log();
            assert_eq!(gateway.metric("larder_gateway_over_admitted_total").await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_dies_the_other_counts_on() {
    if !has_namespaces() {
        return;
    }
    for program in programs().into_iter().take(1) {
        let registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let mut replicas = Replicas::start(&registry, &json!({"limits": {"tags": 2}})).await;
        let namespaces = ["team-a", "team-b", "team-c", "team-d", "team-e", "team-f"];
        for namespace in namespaces {
            replicas.until_owned(&web, namespace, &image).await;
        }
        let mut dead = replicas.running.remove(0);
        dead.process.kill().await;
        replicas.are(&ADDRESSES[1..]);
        let host = replicas.hosts().remove(0);
        for namespace in namespaces {
            let repository = format!("{namespace}/app");
            until_time(format!("{namespace} has an owner again"), SETTLED, async || {
                let answer = web.push(&host, &repository, "second", &image).await;
                assert!(matches!(answer.status, 201 | 503), "{answer:?}");
                (answer.status == 201).then_some(())
            })
            .await;
            let third = web.push(&host, &repository, "third", &image).await;
            assert_eq!(third.refused(), (403, "DENIED".to_owned()), "{namespace}");
            assert_eq!(registry.tags(&web, &repository).await, ["first", "second"]);
        }
    }
}
