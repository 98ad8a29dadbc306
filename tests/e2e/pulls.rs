//! Pulls with everything in its place, and with a disk or an upstream that fails.

use std::fs;
use std::path::{Path, PathBuf};

use larder_tests::registry::layers::LayeredImage;
use larder_tests::registry::{DockerRegistry, Kind};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::scene::{PULL, Scene, told_to_each_containerd};

told_to_each_containerd!(
    without_larder_a_pull_goes_direct,
    a_cold_pull_asks_upstream_once_for_each_part,
    a_warm_pull_needs_no_registry,
    a_full_disk_fails_no_pull,
    wrong_bytes_from_upstream_reach_no_pull,
    wrong_bytes_of_a_large_blob_are_never_taken_for_it,
);

/// The harness itself: what the other stories measure, measured without Larder.
async fn without_larder_a_pull_goes_direct(scene: &mut Scene) {
    for _ in ["the first time", "again once it is forgotten"] {
        scene.containerd.pull(&scene.name, PULL).await.unwrap();
        let (direct, others) = scene.asked().await;
        // By tag, then everything by digest.
        assert_eq!((direct, others), (1 + scene.image.pieces().count(), 0));
        scene.containerd.forget(&scene.name).await.unwrap();
    }
}

async fn a_cold_pull_asks_upstream_once_for_each_part(scene: &mut Scene) {
    let agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    scene.containerd.pull(&scene.name, PULL).await.unwrap();

    let asked = scene.registry.asked().await.unwrap();
    assert!(asked.iter().all(|access| !access.is_direct()), "containerd went around the agent: {asked:?}");
    for blob in scene.image.layers.iter().chain([&scene.image.config]) {
        let fetched =
            asked.iter().filter(|access| access.method == "GET" && access.path.contains(&blob.digest));
        assert_eq!(fetched.count(), 1, "{}: {asked:?}", blob.digest);
    }
    let manifests = asked.iter().filter(|access| access.method == "GET" && access.kind() == Kind::Manifest);
    assert!(manifests.count() <= 2, "index and manifest: {asked:?}");
}

async fn a_warm_pull_needs_no_registry(scene: &mut Scene) {
    let agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    scene.containerd.forget(&scene.name).await.unwrap();

    scene.registry.stop().await.unwrap();
    let before = agent.traffic().await.unwrap();
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    let moved = agent.traffic().await.unwrap().since(before);
    assert_eq!((moved.upstream_requests, moved.upstream_bytes), (0, 0));
    let whole = u64::try_from(scene.image.size()).unwrap();
    assert!(moved.cache_bytes >= whole, "{} of {whole} bytes from the cache", moved.cache_bytes);
}

async fn a_full_disk_fails_no_pull(scene: &mut Scene) {
    let _small = SmallDisk::mount(&scene.stand.data(), "8m");
    let mut agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
    assert_eq!(agent.process.ended().unwrap(), None, "the agent lives on");
    assert!(scene.stand.points_at(&agent), "a full disk is no reason to leave");
}

async fn wrong_bytes_from_upstream_reach_no_pull(scene: &mut Scene) {
    // Below 8 MiB: nothing is sent before it is verified.
    let _bad = behind_a_damaged_registry(scene, 0).await;
    let agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    scene.containerd.pull(&scene.name, PULL).await.unwrap();

    let damaged = &scene.image.layers[0].digest;
    let asked = scene.registry.asked().await.unwrap();
    assert!(
        asked.iter().any(|access| access.is_direct() && access.path.contains(damaged)),
        "containerd got the layer from the registry itself: {asked:?}"
    );
    assert!(!is_stored(&scene.stand.data(), damaged));
}

async fn wrong_bytes_of_a_large_blob_are_never_taken_for_it(scene: &mut Scene) {
    // Above 8 MiB the body streams while it is fetched, so the damage in its middle is already sent when it is found: the
    // body ends short, containerd fetches the rest from the registry itself, and refuses the whole.
    let _bad = behind_a_damaged_registry(scene, 1).await;
    let other = LayeredImage::new(2, &[100_000]).unwrap();
    let other = scene.registry.push("demo/other", "v1", &other).await.unwrap();
    let agent = scene.stand.agent().await.unwrap();
    let _installer = scene.stand.installed(&agent).await.unwrap();
    let refused = scene.containerd.pull(&scene.name, PULL).await.unwrap_err();
    assert!(format!("{refused:#}").contains("unexpected commit digest"), "{refused:#}");
    assert!(!is_stored(&scene.stand.data(), &scene.image.layers[1].digest));

    // Containerd keeps what it refused and tries it again until its garbage collection, which a removal brings about.
    // After that nothing stands in the way: the agent does not serve this blob.
    scene.containerd.pull(&other, PULL).await.unwrap();
    scene.containerd.remove(&other).await.unwrap();
    scene.containerd.pull(&scene.name, PULL).await.unwrap();
}

/// Makes the stand fetch from a second registry, where that layer of the same image is damaged.
async fn behind_a_damaged_registry(scene: &Scene, layer: usize) -> DockerRegistry {
    let bad = DockerRegistry::start().await.unwrap();
    bad.push("demo/app", "v1", &scene.image).await.unwrap();
    bad.damage(&scene.image.layers[layer].digest).unwrap();
    scene.stand.fetch_from(&bad.url()).unwrap();
    bad
}

/// Whether a blob lies in the agent's store.
fn is_stored(data: &Path, digest: &str) -> bool {
    let (algorithm, hex) = digest.split_once(':').unwrap();
    data.join("blobs/public").join(algorithm).join(&hex[..2]).join(hex).exists()
}

/// A tmpfs; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        assert!(fs::read_dir(place).unwrap().next().is_none());
        Self(place.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached: it goes when the last process that uses it ends.
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}
