//! An administrator's files are theirs: what Larder adds to certs.d can be taken out again, byte for byte.

use std::fs;
use std::path::Path;

use larder_tests::containerd::stand::Stand;
use larder_tests::wait::within;

use crate::scene::{PULL, Scene, told_to_each_containerd, tree};

told_to_each_containerd!(uninstall_leaves_nothing, an_admins_own_hosts_toml_is_kept,);

async fn uninstall_leaves_nothing(scene: &mut Scene) {
    let certs = scene.stand.certs();
    fs::create_dir(certs.join("registry.example")).unwrap();
    fs::write(certs.join("registry.example/ca.crt"), "an administrator's file").unwrap();
    let before = tree(&certs);

    let agent = scene.stand.agent().await.unwrap();
    let installer = scene.stand.installed(&agent).await.unwrap();
    let (_, told) = scene.stand.installer_says("status").unwrap();
    assert_eq!(told.split('\t').take(2).collect::<Vec<_>>(), [scene.registry.host(), "installed"]);
    let (busy, _) = scene.stand.installer_says("uninstall").unwrap();
    assert_eq!(busy.code(), Some(75), "a running installer would only put it back");

    // Killed: it cannot clean up after itself.
    drop(installer);
    assert!(scene.stand.points_at(&agent));
    let (done, _) = scene.stand.installer_says("uninstall").unwrap();
    assert_eq!(done.code(), Some(0));
    assert_eq!(tree(&certs), before);
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
}

async fn an_admins_own_hosts_toml_is_kept(scene: &mut Scene) {
    let hosts_toml = scene.stand.hosts_toml();
    fs::create_dir(hosts_toml.parent().unwrap()).unwrap();
    let own = admins_own(&scene.registry.url());
    fs::write(&hosts_toml, &own).unwrap();
    let before = tree(&scene.stand.certs());

    let agent = scene.stand.agent().await.unwrap();
    let installer = scene.stand.installed(&agent).await.unwrap();
    let spliced = fs::read_to_string(&hosts_toml).unwrap();
    assert_ne!(spliced, own);
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    let (direct, agents) = scene.asked().await;
    assert!(direct == 0 && agents > 0, "{direct} direct, {agents} through the agent, with:\n{spliced}");

    drop(installer);
    let (done, _) = scene.stand.installer_says("uninstall").unwrap();
    assert_eq!(done.code(), Some(0));
    assert_eq!(tree(&scene.stand.certs()), before);
    assert_eq!(fs::read_to_string(&hosts_toml).unwrap(), own);
}

#[tokio::test]
async fn kill_9_of_the_installer_at_any_moment_leaves_the_old_file_or_the_new() {
    let url = "http://127.0.0.1:9";
    let stand = Stand::new("registry.example:5000", url).unwrap();
    let hosts_toml = stand.hosts_toml();
    let own = admins_own(url);
    fs::create_dir(hosts_toml.parent().unwrap()).unwrap();
    fs::write(&hosts_toml, &own).unwrap();
    let before = tree(&stand.certs());
    let agent = stand.agent().await.unwrap();
    drop(stand.installed(&agent).await.unwrap());
    let spliced = fs::read_to_string(&hosts_toml).unwrap();
    for round in 0..6 {
        let (done, _) = stand.installer_says("uninstall").unwrap();
        assert_eq!((done.code(), tree(&stand.certs())), (Some(0), before.clone()), "round {round}");
        let installer = stand.installer().unwrap();
        // The moment of the kill: something appears beside the file, or the file is the new one.
        let beside = |dir: &Path| fs::read_dir(dir).unwrap().count() > 1;
        within("the installer writes", async {
            loop {
                let now = fs::read_to_string(&hosts_toml).unwrap();
                assert!(now == own || now == spliced, "neither old nor new:\n{now}");
                if now == spliced || (round % 2 == 0 && beside(hosts_toml.parent().unwrap())) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(installer);
        let now = fs::read_to_string(&hosts_toml).unwrap();
        assert!(now == own || now == spliced, "neither old nor new:\n{now}");
    }
    let (done, _) = stand.installer_says("uninstall").unwrap();
    assert_eq!((done.code(), tree(&stand.certs())), (Some(0), before));
}

/// A file such as only a person writes: comments, odd spacing, mixed line ends, no end of line at the end.
fn admins_own(url: &str) -> String {
    format!(
        "# ours: ask before changing\r\nserver   =  \"{url}\"   # the registry\n\n\n\
         [ host.\"{url}\" ]\n  capabilities = [ 'pull',\"resolve\" ]\n\t# the end"
    )
}
