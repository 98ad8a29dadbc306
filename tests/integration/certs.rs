//! What installer and agent do to certs.d as processes: only after a probe that proves the agent, gone when the agent is
//! not well, and an administrator's bytes as they were.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use larder_tests::chaos::Dice;
use larder_tests::invariants::files;
use larder_tests::node::{Process, REGISTRY, Site, installer_binary};
use larder_tests::upstream::Upstream;
use larder_tests::wait::{until, until_time};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn hosts(site: &Site) -> PathBuf {
    site.certs_dir().join(REGISTRY).join("hosts.toml")
}

fn text(site: &Site) -> Option<String> {
    fs::read_to_string(hosts(site)).ok()
}

async fn installed(site: &Site, agent: &mut Process) -> String {
    let entry = format!("[host.\"http://{}\"]", agent.listening("mirror").await);
    // There is at most one installing write in half a minute.
    let limit = Duration::from_secs(90);
    until_time("our entry is installed", limit, async || text(site).filter(|text| text.contains(&entry)))
        .await
}

/// Waits until a running installer has told its state.
async fn has_looked(site: &Site) {
    let told = site.run_dir().join("installer.json");
    until("the installer has looked", async || told.exists().then_some(())).await;
}

async fn removed(site: &Site) {
    until("our entry is taken out", async || {
        text(site).is_none_or(|text| !text.contains("[host.\"http://127.0.0.1:")).then_some(())
    })
    .await;
}

async fn status(site: &Site) -> (Option<i32>, Vec<String>) {
    let (code, out, _) = site.run(&installer_binary(), &["status"]).await;
    let line = out.lines().find(|line| line.starts_with(REGISTRY)).unwrap_or_default();
    (code, line.split('\t').map(str::to_owned).collect())
}

/// A file as an administrator writes it, for this upstream, with nothing of ours.
fn administrators_file(upstream: &Upstream) -> String {
    format!(
        "# kept by hand, do not touch\n\n  server   = \"{}\"   # the real one\r\n\n\t# a mirror of our own\n[ host . \"http://10.9.8.7:5000\" ]\n    capabilities=[ 'pull' ,\"resolve\"]  \n\n# the end, without a line end",
        upstream.url()
    )
}

#[tokio::test]
async fn an_entry_comes_after_the_probe_and_goes_with_the_installer() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "");
    let mut installer = site.start_installer();
    until("the installer tells that it waits", async || {
        let (code, fields) = status(&site).await;
        (code == Some(1) && fields.get(1).is_some_and(|state| state == "waiting")).then_some(())
    })
    .await;
    assert_eq!(text(&site), None, "nobody answers the probe");
    let mut agent = site.start_agent().await;
    let entry = installed(&site, &mut agent).await;
    assert!(entry.contains("capabilities = [\"pull\", \"resolve\"]"), "{entry}");
    assert!(!entry.contains("skip_verify") && !entry.contains("dial_timeout"), "{entry}");
    let (code, fields) = status(&site).await;
    assert_eq!((code, fields.get(1).map(String::as_str)), (Some(0), Some("installed")), "{fields:?}");
    assert_eq!(installer.terminate().await, Some(0));
    assert!(files(&site.certs_dir()).is_empty());
    assert!(!site.certs_dir().join(REGISTRY).exists(), "the directory was ours");
    assert_eq!(agent.terminate().await, Some(0));
    installer.check_log();
}

#[tokio::test]
async fn an_agent_that_hangs_or_dies_loses_its_entry() {
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        let upstream = Upstream::start().await;
        let site = Site::new().upstream(&upstream, "");
        let _installer = site.start_installer();
        let mut agent = site.start_agent().await;
        let _ = installed(&site, &mut agent).await;
        agent.signal(signal);
        removed(&site).await;
        let (code, fields) = status(&site).await;
        assert_eq!(
            (code, fields.get(1).map(String::as_str)),
            (Some(1), Some("withdrawn")),
            "{signal}: {fields:?}"
        );
    }
}

#[tokio::test]
async fn the_kill_switch_takes_the_entry_out() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "");
    let _installer = site.start_installer();
    let mut agent = site.start_agent().await;
    let _ = installed(&site, &mut agent).await;
    fs::write(site.data_dir().join("BYPASS"), "").unwrap();
    removed(&site).await;
    let (_, fields) = status(&site).await;
    assert_eq!(fields.get(2).map(String::as_str), Some("Bypass"), "{fields:?}");
}

#[tokio::test]
async fn an_administrators_file_is_the_same_after_kills_and_uninstall() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "override_existing = true\n");
    let original = administrators_file(&upstream);
    fs::create_dir(site.certs_dir().join(REGISTRY)).unwrap();
    fs::write(hosts(&site), &original).unwrap();
    let mut agent = site.start_agent().await;
    let mut dice = Dice::new(3);
    for round in 0..10 {
        let mut installer = site.start_installer();
        let looks = dice.below(400);
        let mut looked = 0;
        until("the moment to kill", async || {
            looked += 1;
            (looked > looks || round % 3 == 0 && text(&site).is_some_and(|text| text != original))
                .then_some(())
        })
        .await;
        installer.kill().await;
        let now = text(&site).expect("the file is always there");
        let ours: usize = now.matches("[host.\"http://127.0.0.1:").count();
        assert!(ours <= 1, "round {round}: our entry once\n{now}");
        assert!(ours == 1 || now == original, "round {round}: the old or the new, nothing between\n{now}");
    }
    let mut installer = site.start_installer();
    let with_us = installed(&site, &mut agent).await;
    let before_table = with_us.find("[host.\"http://127.0.0.1:").expect("our entry");
    assert!(before_table < with_us.find("10.9.8.7").expect("theirs"), "ours is asked first");
    let (busy, _, _) = site.run(&installer_binary(), &["uninstall"]).await;
    assert_eq!(busy, Some(75), "a run holds the lock");
    installer.kill().await;
    let (code, out, err) = site.run(&installer_binary(), &["uninstall"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(fs::read(hosts(&site)).unwrap(), original.as_bytes(), "byte for byte");
    assert_eq!(files(&site.certs_dir()), [hosts(&site)], "and nothing beside it");
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn what_cannot_be_changed_safely_is_left_alone_and_told() {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    for (reason, content) in [
        ("Unparsable", "server = \n[host".to_owned()),
        (
            "InlineHosts",
            format!(
                "server = \"{url}\"\nhost = {{ \"http://10.0.0.1\" = {{ capabilities = [\"pull\"] }} }}\n"
            ),
        ),
        (
            "Generated",
            format!(
                "# File generated by k3s. DO NOT EDIT.\nserver = \"{url}\"\n[host.\"http://10.0.0.1\"]\n"
            ),
        ),
        (
            "OtherUpstream",
            "server = \"https://elsewhere.test\"\n[host.\"https://mirror.elsewhere.test\"]\n".to_owned(),
        ),
    ] {
        let site = Site::new().upstream(&upstream, "");
        fs::create_dir(site.certs_dir().join(REGISTRY)).unwrap();
        fs::write(hosts(&site), &content).unwrap();
        let mut agent = site.start_agent().await;
        let mut installer = site.start_installer();
        until(format!("{reason} is told"), async || {
            let (code, fields) = status(&site).await;
            (code == Some(1) && fields.get(1..).is_some_and(|rest| rest[0] == "refused" && rest[1] == reason))
                .then_some(())
        })
        .await;
        has_looked(&site).await;
        assert_eq!(fs::read_to_string(hosts(&site)).unwrap(), content, "{reason}");
        assert_eq!(installer.terminate().await, Some(0));
        assert_eq!(agent.terminate().await, Some(0));
        assert_eq!(fs::read_to_string(hosts(&site)).unwrap(), content, "{reason}");
    }
}

#[tokio::test]
async fn a_default_is_never_hidden() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "");
    let default = site.certs_dir().join("_default");
    fs::create_dir(&default).unwrap();
    fs::write(default.join("hosts.toml"), "[host.\"http://10.0.0.1:5000\"]\n").unwrap();
    let _agent = site.start_agent().await;
    let _installer = site.start_installer();
    until("the default is told", async || {
        let (_, fields) = status(&site).await;
        (fields.get(2).map(String::as_str) == Some("DefaultShadowed")).then_some(())
    })
    .await;
    assert!(!site.certs_dir().join(REGISTRY).exists());
}

#[tokio::test]
async fn a_squatter_on_the_port_is_not_installed() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "");
    let mut agent = site.start_agent().await;
    let address = agent.listening("mirror").await;
    agent.kill().await;
    let listener = TcpListener::bind(address).await.expect("the port is free again");
    let squatter = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let proof = "00".repeat(32);
            let reply = format!(
                "HTTP/1.1 200 OK\r\nLarder-Proof: {proof}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    let mut installer = site.start_installer();
    until("the squatter is found out", async || {
        let (_, fields) = status(&site).await;
        (fields.get(2).map(String::as_str) == Some("NotOurAgent")).then_some(())
    })
    .await;
    assert_eq!(text(&site), None);
    assert_eq!(installer.terminate().await, Some(0));
    squatter.abort();
}

#[tokio::test]
async fn observing_writes_nothing_and_absent_takes_out() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "");
    let mut agent = site.start_agent().await;
    let mut installer = site.start_installer();
    let _ = installed(&site, &mut agent).await;
    installer.kill().await;
    assert!(text(&site).is_some(), "a killed installer leaves its entry");
    let site = site.installer("mode = \"absent\"\n");
    let mut installer = site.start_installer();
    removed(&site).await;
    assert_eq!(installer.terminate().await, Some(0));
    fs::write(site.config(), site.text().replace("absent", "observe")).unwrap();
    fs::remove_file(site.run_dir().join("installer.json")).unwrap();
    let mut installer = site.start_installer();
    has_looked(&site).await;
    assert_eq!(installer.terminate().await, Some(0));
    assert!(files(&site.certs_dir()).is_empty());
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn the_agent_can_run_the_installer_itself() {
    let upstream = Upstream::start().await;
    let site = Site::new().upstream(&upstream, "").installer("enabled = true\n");
    let mut agent = site.start_agent().await;
    let _ = installed(&site, &mut agent).await;
    let stats = until("the state is in the report", async || {
        let body = agent.admin("/stats").await.body;
        let report: larder_wire::report::Report = serde_json::from_slice(&body).ok()?;
        report
            .registries
            .into_iter()
            .find(|report| report.registry == REGISTRY && report.state == "installed")
    });
    assert_eq!(stats.await.reason, "");
    assert_eq!(agent.terminate().await, Some(0));
    assert!(files(&site.certs_dir()).is_empty(), "taken out before the end");
}
