//! The agent as it is shipped: starting, ending, being killed, and its commands.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_tests::chaos::Dice;
use larder_tests::client::{self, End, Request};
use larder_tests::image::{Image, Object};
use larder_tests::invariants::{
    files, files_get_closed, stored_files_match, tells_no_secret, tmp_gets_empty,
};
use larder_tests::node::{REGISTRY, Site, agent_binary, metric_sum};
use larder_tests::upstream::{CANARY, Gate, Kind, Upstream};
use larder_tests::wait::{until, until_time};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;

async fn with_image() -> (Upstream, Site, Image) {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[3000, 300_000]);
    upstream.push("team/app", "1", &image);
    let site = Site::new().upstream(&upstream, "");
    (upstream, site, image)
}

async fn code(site: &Site) -> (Option<i32>, String) {
    let mut agent = site.spawn_agent();
    let code = agent.exit().await;
    (code, agent.log())
}

#[tokio::test]
async fn an_agent_serves_tells_and_ends() {
    let (upstream, site, image) = with_image().await;
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    assert_eq!(fs::read_to_string(site.run_dir().join("address")).unwrap().trim(), mirror.to_string());
    let key = fs::read(site.run_dir().join("instance")).unwrap();
    assert!(key.len() == 64 && key.iter().all(u8::is_ascii_hexdigit));
    let mode = fs::metadata(site.run_dir().join("instance")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    for _ in 0..2 {
        let reply = client::fetch(mirror, Request::blob("team/app", &image.layers[1].digest)).await;
        assert_eq!((reply.status, reply.end), (200, End::Whole));
        tmp_gets_empty(&site.data_dir()).await;
    }
    until("the agent is ready", async || (agent.admin("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(agent.admin("/livez").await.status, 200);
    let metrics = agent.admin("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let requests =
        |source| metric_sum(&text, "larder_requests_total", &[("registry", REGISTRY), ("source", source)]);
    assert_eq!((requests("upstream"), requests("cache")), (1.0, 1.0), "{text}");
    tells_no_secret("metrics", &text);
    let stats: larder_wire::report::Report =
        serde_json::from_slice(&agent.admin("/stats").await.body).unwrap();
    assert_eq!((stats.schema, stats.cache.blobs), (1, 1));
    assert!(!stats.node.is_empty() && !stats.instance.is_empty());
    assert_ne!(stats.instance.as_bytes(), key, "the key is no name");
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    assert_eq!(agent.terminate().await, Some(0));
    agent.check_log();
    assert!(
        !site.run_dir().join("instance").exists()
            || fs::read(site.run_dir().join("instance")).unwrap() == key
    );
    let _ = stored_files_match(&site.data_dir());
}

#[tokio::test]
async fn there_is_one_log_line_for_a_pull() {
    let (_upstream, site, image) = with_image().await;
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    for request in [
        Request::blob("team/app", &image.layers[0].digest),
        Request::blob("team/app", &image.layers[0].digest),
        Request::manifest("team/app", "none"),
    ] {
        let _ = client::fetch(mirror, request).await;
    }
    let lines = until("three lines", async || {
        let lines: Vec<_> =
            agent.log_lines().into_iter().filter(|line| line.get("source").is_some()).collect();
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    let of = |key: &str| {
        lines.iter().map(|line| line[key].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // A line is written when its body is done with, which may be after the client has it.
    let mut told: Vec<(String, String)> = of("source").into_iter().zip(of("kind")).collect();
    told.sort();
    let expected = [("cache", "blob"), ("none", "tag"), ("upstream", "blob")];
    assert_eq!(told, expected.map(|(source, kind)| (source.to_owned(), kind.to_owned())));
    assert!(of("registry").iter().all(|registry| registry == REGISTRY));
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn sigterm_lets_running_pulls_end() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 12 << 20);
    upstream.push_blob("a", &blob);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Blob).once(move |reply| _ = reply.hold_at(10 << 20, &held));
    let site = Site::new().upstream(&upstream, "");
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    let mut pull = client::open(mirror, Request::blob("a", &blob.digest)).await;
    assert_eq!(pull.read(1).await.1, None);
    agent.signal(Signal::SIGTERM);
    until("nothing new is accepted", async || {
        tokio::net::TcpStream::connect(mirror).await.is_err().then_some(())
    })
    .await;
    assert!(agent.is_running(), "a pull is running");
    gate.open();
    assert_eq!(pull.drain().await, (12 << 20, End::Whole));
    assert_eq!(agent.exit().await, Some(0));
    agent.check_log();
}

#[tokio::test]
async fn bad_settings_are_all_told_and_end_with_64() {
    let (_upstream, site, _) = with_image().await;
    let bad = "max_connections = \"many\"\nmin_client_rate = \"4 parsecs\"\nmirror = \"192.0.2.1:1\"\nadmin = \"127.0.0.1:0\"\n";
    let site = site.listen(bad).cache("ttl = \"1 week\"\nnonsense = 1\n");
    let (code, log) = code(&site).await;
    assert_eq!(code, Some(64), "{log}");
    let (code, out, err) = site.run(&agent_binary(), &["check"]).await;
    assert_eq!(code, Some(64));
    let told = format!("{out}{err}");
    for word in ["max_connections", "min_client_rate", "mirror", "ttl", "nonsense", "larder.toml"] {
        assert!(told.contains(word), "{word} is not told:\n{told}");
    }
    let text = site.text();
    let line = text.lines().position(|line| line.starts_with("ttl")).map(|line| line + 1).unwrap_or_default();
    assert!(told.contains(&format!(":{line}")), "line {line} is not told:\n{told}");
}

#[tokio::test]
async fn good_settings_pass_the_check() {
    let (_upstream, site, _) = with_image().await;
    let (code, out, err) = site.run(&agent_binary(), &["check"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
}

#[tokio::test]
async fn a_command_line_that_cannot_be_understood_ends_with_64() {
    let (_upstream, site, _) = with_image().await;
    for args in [&["dance"][..], &["--volume=11"], &["forget", "not a reference"], &["forget"]] {
        let (code, out, err) = site.run(&agent_binary(), args).await;
        assert_eq!(code, Some(64), "{args:?}: {out}{err}");
    }
    fs::remove_file(site.config()).unwrap();
    let (code, log) = code(&site).await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("larder.toml"), "{log}");
}

#[tokio::test]
async fn an_address_that_is_taken_ends_with_69() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    for listen in [
        format!("mirror = \"{address}\"\nadmin = \"127.0.0.1:0\"\n"),
        format!("mirror = \"127.0.0.1:0\"\nadmin = \"{address}\"\n"),
        format!("mirror = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nmetrics = \"{address}\"\n"),
    ] {
        let (_upstream, site, _) = with_image().await;
        let (code, log) = code(&site.listen(&listen)).await;
        assert_eq!(code, Some(69), "{log}");
        assert!(log.contains(&address.to_string()), "{log}");
    }
}

#[tokio::test]
async fn a_second_agent_on_the_same_store_ends_with_75() {
    let (_upstream, site, image) = with_image().await;
    let mut first = site.start_agent().await;
    let mirror = first.listening("mirror").await;
    let blob = Request::blob("team/app", &image.layers[0].digest);
    assert_eq!(client::fetch(mirror, blob.clone()).await.status, 200);
    let address = fs::read(site.run_dir().join("address")).unwrap();
    let key = fs::read(site.run_dir().join("instance")).unwrap();
    let (code, log) = code(&site).await;
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("data"), "{log}");
    assert_eq!(fs::read(site.run_dir().join("address")).unwrap(), address, "the first is not disturbed");
    assert_eq!(fs::read(site.run_dir().join("instance")).unwrap(), key, "nor its key");
    assert_eq!(client::fetch(mirror, blob).await.status, 200);
    assert_eq!(first.terminate().await, Some(0));
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_trusted_ends_with_77() {
    let (_upstream, site, _) = with_image().await;
    let real = site.run_dir().join("elsewhere");
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, site.data_dir()).unwrap();
    let (link, log) = code(&site).await;
    assert_eq!(link, Some(77), "{log}");
    assert!(log.contains("symlink") || log.contains("symbolic link"), "{log}");
    fs::remove_file(site.data_dir()).unwrap();
    fs::create_dir(site.data_dir()).unwrap();
    fs::set_permissions(site.data_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let (open, log) = code(&site).await;
    assert_eq!(open, Some(77), "{log}");
    assert!(log.contains("write"), "{log}");
    assert!(files(&site.data_dir()).is_empty(), "nothing was written there");
}

#[tokio::test]
async fn forget_drops_from_the_running_cache() {
    let (upstream, site, image) = with_image().await;
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    for name in ["team/app:1".to_owned(), "team/app".to_owned(), format!("team/app@{}", image.index.digest)] {
        let tag = Request::manifest("team/app", "1");
        assert_eq!(client::fetch(mirror, tag.clone()).await.status, 200);
        let asked = upstream.total();
        assert_eq!(client::fetch(mirror, tag.clone()).await.status, 200);
        assert_eq!(upstream.total(), asked, "fresh");
        let (code, out, err) = site.run(&agent_binary(), &["forget", &format!("{REGISTRY}/{name}")]).await;
        assert_eq!(code, Some(0), "{name}: {out}{err}");
        assert_eq!(client::fetch(mirror, tag).await.status, 200);
        assert!(upstream.total() > asked, "{name}: asked again");
    }
    assert_eq!(agent.terminate().await, Some(0));
    let (code, out, err) = site.run(&agent_binary(), &["forget", &format!("{REGISTRY}/team/app")]).await;
    assert!(code != Some(0), "nobody is running: {out}{err}");
}

#[tokio::test]
async fn the_last_good_settings_are_used_when_the_file_is_broken() {
    let (_upstream, site, image) = with_image().await;
    let mut agent = site.start_agent().await;
    assert_eq!(agent.terminate().await, Some(0));
    let site = site.cache("ttl = \"1 week\"\n");
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    assert_eq!(client::fetch(mirror, Request::blob("team/app", &image.layers[0].digest)).await.status, 200);
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn settings_are_read_again_when_the_file_changes() {
    let (upstream, site, image) = with_image().await;
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    let request = Request::blob("team/app", &image.layers[0].digest).query("ns=second.test");
    assert_eq!(client::fetch(mirror, request.clone()).await.status, 404);
    // A broken file changes nothing but a count.
    let good = site.text();
    fs::write(site.config(), "[listen").unwrap();
    until("the failure is counted", async || {
        let text = agent.admin("/metrics").await.body;
        let count = metric_sum(&String::from_utf8_lossy(&text), "larder_config_reload_failures_total", &[]);
        (count >= 1.0).then_some(())
    })
    .await;
    fs::write(site.config(), good).unwrap();
    let site = site.upstream_as("second.test", &upstream.url(), "");
    until("the new upstream is served", async || {
        (client::fetch(mirror, request.clone()).await.status == 200).then_some(())
    })
    .await;
    // As a kubelet swaps a mounted ConfigMap: a whole new file in place of the old.
    let next = site.config().with_extension("next");
    fs::write(&next, site.text().replace("second.test", "third.test")).unwrap();
    fs::rename(&next, site.config()).unwrap();
    until("the swapped file is read", async || {
        (client::fetch(mirror, request.clone().query("ns=third.test")).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn unknown_keys_and_a_bad_upstream_do_not_stop_an_agent() {
    let (_upstream, site, image) = with_image().await;
    let site = site.tables("[[upstream]]\nregistry = \"Bad Name\"\n[future]\nkey = 1\n");
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    assert_eq!(client::fetch(mirror, Request::blob("team/app", &image.layers[0].digest)).await.status, 200);
    let text = agent.admin("/metrics").await.body;
    assert!(metric_sum(&String::from_utf8_lossy(&text), "larder_config_unknown_keys", &[]) >= 1.0);
    assert!(agent.log().contains("Bad Name"), "{}", agent.log());
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn an_agent_gives_back_what_it_used() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..20).map(|seed| Object::noise(seed, 500_000)).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let site = Site::new().upstream(&upstream, "");
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    // Everything once first: what is opened once and kept is no leak.
    for blob in &blobs {
        assert_eq!(client::fetch(mirror, Request::blob("a", &blob.digest)).await.status, 200);
        tmp_gets_empty(&site.data_dir()).await;
        assert_eq!(client::fetch(mirror, Request::blob("a", &blob.digest)).await.status, 200);
    }
    files_get_closed(Some(agent.pid()), &site.data_dir()).await;
    let before = agent.open_files();
    for round in 0..3 {
        for blob in &blobs {
            let mut pull = client::open(mirror, Request::blob("a", &blob.digest)).await;
            if round == 1 {
                let _ = pull.read(1000).await;
                pull.leave();
            } else {
                assert_eq!(pull.drain().await, (500_000, End::Whole));
            }
        }
    }
    until("descriptors are back", async || (agent.open_files() <= before + 5).then_some(())).await;
    files_get_closed(Some(agent.pid()), &site.data_dir()).await;
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_small_idle_and_with_many_slow_readers() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 100 << 20);
    upstream.push_blob("a", &blob);
    let site = Site::new().upstream(&upstream, "");
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    until("the agent is ready", async || (agent.admin("/readyz").await.status == 200).then_some(())).await;
    assert!(agent.memory_bytes() < 20 << 20, "idle: {} bytes", agent.memory_bytes());
    let mut readers = Vec::new();
    for _ in 0..300 {
        let mut reader = client::open(mirror, Request::blob("a", &blob.digest)).await;
        assert_eq!(reader.read(1).await.1, None);
        readers.push(reader);
    }
    assert!(agent.memory_bytes() < 64 << 20, "with slow readers: {} bytes", agent.memory_bytes());
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    drop(readers);
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_stop_no_agent() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 200_000);
    upstream.push_blob("a", &blob);
    let site = Site::new().upstream(&upstream, "");
    let mut agent = site.spawn_agent_by("prlimit", &["--nofile=64:64"]);
    let mirror = agent.listening("mirror").await;
    let request = Request::blob("a", &blob.digest);
    let clients = (0..200).map(|_| tokio::spawn(client::try_drain(mirror, request.clone())));
    for client in futures_util::future::join_all(clients).await {
        assert!(client.is_ok(), "a client got a wrong body");
    }
    assert!(agent.is_running(), "{}", agent.log());
    until("it serves again", async || {
        (client::try_drain(mirror, request.clone()).await == Some(End::Whole)).then_some(())
    })
    .await;
    assert_eq!(agent.terminate().await, Some(0));
    agent.check_log();
}

#[tokio::test]
async fn secrets_are_in_no_log_even_at_the_finest_level() {
    let upstream = Upstream::builder().auth(larder_tests::upstream::Auth::Bearer).start().await;
    let image = Image::oci(1, &[3000]);
    upstream.push("team/app", "1", &image);
    upstream.make_private("team/app", larder_tests::upstream::Private::Unauthorized);
    let password = format!("{CANARY}-password");
    upstream.tokens().accept("robot", &password);
    let site = Site::new();
    let files = [("user", "robot"), ("password", password.as_str())].map(|(name, text)| {
        let path = site.run_dir().join(name);
        fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    });
    let more =
        format!("access = \"shared\"\nusername_file = \"{}\"\npassword_file = \"{}\"\n", files[0], files[1]);
    let site = site.upstream(&upstream, &more).tables("[log]\nlevel = \"trace\"\n");
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    let authorization = format!("Bearer {CANARY}-client");
    for request in [
        Request::manifest("team/app", "1"),
        Request::blob("team/app", &image.layers[0].digest),
        Request::manifest("other", "1"),
    ] {
        let _ = client::fetch(mirror, request.header("Authorization", &authorization)).await;
    }
    assert_eq!(upstream.served(Kind::Blob), 1);
    assert_eq!(agent.terminate().await, Some(0));
    agent.check_log();
}

/// How often the agent is killed: `KILLS`, else 20.
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_random_moments_under_load_loses_nothing_and_keeps_nothing_wrong() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..60).map(|seed| Object::noise(seed, 1000 << (seed % 12))).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let site = Site::new().upstream(&upstream, "");
    let blobs = Arc::new(blobs);
    let mut dice = Dice::new(11);
    let done = Arc::new(AtomicU64::new(0));
    for kill in 0..kills() {
        let mut agent = site.start_agent().await;
        let mirror = agent.listening("mirror").await;
        let limit = Duration::from_secs(2);
        until_time("ready", limit, async || (agent.admin("/readyz").await.status == 200).then_some(())).await;
        tmp_is_empty_of_what_was_left(&site, limit).await;
        let load: Vec<_> = (0..8)
            .map(|n| tokio::spawn(pull_on(mirror, Arc::clone(&blobs), kill * 8 + n, Arc::clone(&done))))
            .collect();
        let until_then = done.load(Ordering::SeqCst) + dice.below(25);
        until("pulls are going on", async || (done.load(Ordering::SeqCst) >= until_then).then_some(())).await;
        agent.kill().await;
        for puller in load {
            assert!(puller.await.is_ok(), "a client got a wrong body");
        }
        let _ = stored_files_match(&site.data_dir());
        agent.check_log();
    }
    // What was stored before a kill is a hit after it.
    let mut agent = site.start_agent().await;
    let mirror = agent.listening("mirror").await;
    let stored = stored_files_match(&site.data_dir());
    upstream.stop().await;
    for digest in &stored {
        assert!(client::fetch(mirror, Request::blob("a", digest)).await.is_whole());
    }
    assert!(!stored.is_empty());
    assert_eq!(agent.terminate().await, Some(0));
}

/// No file of before the start is in `tmp` any more; what is there now was begun since.
async fn tmp_is_empty_of_what_was_left(site: &Site, limit: Duration) {
    let tmp = site.data_dir().join("tmp");
    until_time("tmp is emptied", limit, async || files(&tmp).is_empty().then_some(())).await;
}

/// Pulls blobs in an order of its own until the agent is gone.
async fn pull_on(mirror: SocketAddr, blobs: Arc<Vec<Object>>, seed: u64, done: Arc<AtomicU64>) {
    let mut dice = Dice::new(seed + 1);
    loop {
        let blob = &blobs[usize::try_from(dice.below(blobs.len() as u64)).expect("small")];
        match client::try_drain(mirror, Request::blob("a", &blob.digest)).await {
            Some(End::Whole) => done.fetch_add(1, Ordering::SeqCst),
            Some(End::Fin | End::Rst) | None => return,
        };
    }
}
