//! The disk: what outlives a restart, what happens without an index, when the disk is full or read-only, and what goes
//! when there is too much.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use larder_mirror::{Mirror, OpenError};
use larder_tests::chaos::Dice;
use larder_tests::client::{End, Exchange, Request};
use larder_tests::image::{Image, Object, noise};
use larder_tests::invariants::files;
use larder_tests::node::{KEY, NODE, Node, REGISTRY, SmallDisk, temp_dir};
use larder_tests::upstream::{Kind, Upstream};
use larder_tests::wait::until;
use larder_wire::proof;
use larder_wire::route::Reference;
use larder_wire::units::Size;

const MIB: usize = 1 << 20;

async fn pull(node: &Node, image: &Image) {
    let manifests = [&image.index, &image.manifest].map(|manifest| Request::manifest("a", &manifest.digest));
    for request in manifests.into_iter().chain(image.blobs().map(|blob| Request::blob("a", &blob.digest))) {
        let reply = node.fetch(request).await;
        assert_eq!((reply.status, reply.end), (200, End::Whole), "{:?}", reply.body);
    }
}

/// A stopped node that has pulled an image, its upstream gone.
async fn filled() -> (Upstream, larder_tests::node::Builder, Image) {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[3000, 200_000]);
    upstream.push("a", "1", &image);
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
    pull(&node, &image).await;
    for blob in image.blobs() {
        node.stored(&blob.digest).await;
    }
    let stopped = node.stop().await;
    upstream.stop().await;
    (upstream, stopped, image)
}

fn indexes(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir).expect("the data directory is there");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("index-")))
        .collect()
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let (upstream, stopped, image) = filled().await;
    let asked = upstream.total();
    let node = stopped.start().await;
    pull(&node, &image).await;
    for method in ["HEAD", "GET"] {
        let reply = node.fetch(Request::manifest("a", "1").method(method)).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some(image.index.media_type.as_str()))
        );
    }
    assert_eq!(upstream.total(), asked);
    node.finish().await;
}

#[tokio::test]
async fn without_its_index_everything_is_still_served_by_digest() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("removed", |index| fs::remove_dir_all(index).expect("the index is there")),
        ("truncated", |index| files(index).iter().for_each(|file| cut(file, 0))),
        ("cut in half", |index| {
            for file in files(index) {
                cut(&file, fs::metadata(&file).map_or(0, |meta| meta.len() / 2));
            }
        }),
        ("overwritten", |index| {
            for file in files(index) {
                let size = fs::metadata(&file).map_or(0, |meta| meta.len());
                fs::write(&file, noise(size, usize::try_from(size).expect("small"))).expect("ours");
            }
        }),
    ];
    for (what, damage) in damages {
        let (upstream, stopped, image) = filled().await;
        let asked = upstream.total();
        for index in indexes(stopped.path()) {
            damage(&index);
        }
        let node = stopped.start().await;
        pull(&node, &image).await;
        let type_of = node.fetch(Request::manifest("a", &image.manifest.digest)).await;
        assert_eq!(
            type_of.header("content-type"),
            Some(image.manifest.media_type.as_str()),
            "{what}: from beside the file"
        );
        assert_eq!(upstream.total(), asked, "{what}");
        node.finish().await;
    }
}

#[tokio::test]
async fn no_damage_to_the_index_stops_a_start() {
    let mut dice = Dice::new(5);
    let (upstream, mut stopped, image) = filled().await;
    let asked = upstream.total();
    for round in 0..30 {
        let index = indexes(stopped.path()).pop();
        let candidates = index.map(|index| files(&index)).unwrap_or_default();
        if !candidates.is_empty() {
            let file = &candidates[usize::try_from(dice.below(candidates.len() as u64)).expect("small")];
            let mut bytes = fs::read(file).unwrap();
            match dice.below(3) {
                _ if bytes.is_empty() => fs::write(file, b"noise").unwrap(),
                0 => {
                    let at = usize::try_from(dice.below(bytes.len() as u64)).expect("small");
                    bytes[at] ^= 1 << dice.below(8);
                    fs::write(file, bytes).unwrap();
                }
                1 => cut(file, dice.below(bytes.len() as u64)),
                _ => fs::remove_file(file).unwrap(),
            }
        }
        let node = stopped.start().await;
        let reply = node.fetch(Request::blob("a", &image.layers[1].digest)).await;
        assert_eq!((reply.status, reply.end), (200, End::Whole), "round {round}");
        stopped = node.stop().await;
    }
    assert_eq!(upstream.total(), asked);
}

#[tokio::test]
async fn what_a_dead_agent_left_behind_is_cleared() {
    let (_upstream, stopped, image) = filled().await;
    let tmp = stopped.path().join("tmp");
    fs::write(tmp.join("left-1"), noise(1, 5000)).unwrap();
    fs::write(tmp.join("left-2"), "").unwrap();
    let odd = stopped.path().join("blobs/public/sha256/zz");
    fs::create_dir_all(&odd).unwrap();
    let node = stopped.start().await;
    until("tmp is emptied", async || files(&tmp).is_empty().then_some(())).await;
    pull(&node, &image).await;
    node.finish().await;
}

#[tokio::test]
async fn a_store_belongs_to_one_agent() {
    let upstream = Upstream::start().await;
    let node = Node::with(&upstream).await;
    let mut settings = larder_wire::settings::Settings::default();
    node.data_dir().clone_into(&mut settings.data_dir);
    let second = Mirror::open(&settings, NODE, KEY.to_vec()).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    node.finish().await;
}

#[tokio::test]
async fn a_directory_that_others_can_change_is_refused() {
    let dir = temp_dir();
    let make = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("a directory can be made");
        path
    };
    let open = make("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(make("target"), &link).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut bad = vec![open, link, file];
    if larder_tests::node::is_root("the test of a data directory of another owner") {
        let foreign = make("foreign");
        std::os::unix::fs::chown(&foreign, Some(12345), None).unwrap();
        bad.push(foreign);
    }
    for path in bad {
        let mut settings = larder_wire::settings::Settings::default();
        path.clone_into(&mut settings.data_dir);
        let opened = Mirror::open(&settings, NODE, KEY.to_vec()).await;
        let Err(error) = opened else { unreachable!("{} was taken", path.display()) };
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_never_fails_a_pull() {
    let Some(disk) = SmallDisk::mount("size=8m") else { return };
    let upstream = Upstream::start().await;
    let (big, unknown, small) =
        (Object::noise(1, 20 * MIB), Object::noise(2, 20 * MIB), Object::noise(3, MIB / 2));
    for blob in [&big, &unknown, &small] {
        upstream.push_blob("a", blob);
    }
    // Without a length nobody can tell that it will not fit.
    upstream.on(Kind::Blob).reference(&unknown.digest).always(|reply| _ = reply.chunked());
    let node = Node::builder().upstream(&upstream).data_dir(&disk.path().join("data")).start().await;
    for blob in [&big, &unknown] {
        let clients = [
            node.open(Request::blob("a", &blob.digest)).await,
            node.open(Request::blob("a", &blob.digest)).await,
        ];
        for (length, end) in futures_util::future::join_all(clients.map(Exchange::drain)).await {
            assert_eq!((length, end), (blob.len(), End::Whole));
        }
        assert!(!node.has_stored(&blob.digest));
    }
    assert!(node.metrics().sum("larder_store_errors_total", &[("kind", "enospc")]) >= 1.0);
    assert_eq!(node.fetch(Request::blob("a", &small.digest)).await.status, 200);
    node.stored(&small.digest).await;
    node.finish().await;
}

#[tokio::test]
async fn a_disk_without_inodes_never_fails_a_pull() {
    let Some(disk) = SmallDisk::mount("size=64m,nr_inodes=40") else { return };
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..40).map(|seed| Object::noise(seed, 2000)).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let node = Node::builder().upstream(&upstream).data_dir(&disk.path().join("data")).start().await;
    for blob in &blobs {
        assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes);
    }
    node.finish().await;
}

#[tokio::test]
async fn a_disk_that_takes_no_new_names_never_fails_a_pull() {
    let Some(disk) = SmallDisk::mount("size=64m") else { return };
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..4).map(|seed| Object::noise(seed, MIB)).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let node = Node::builder().upstream(&upstream).data_dir(&disk.path().join("data")).start().await;
    assert!(node.fetch(Request::blob("a", &blobs[0].digest)).await.is_whole());
    node.stored(&blobs[0].digest).await;
    larder_tests::invariants::tmp_gets_empty(node.data_dir()).await;
    // A read-only mount over the directory of blobs: names cannot be made there any more.
    let refused = ReadOnly::new(&node.data_dir().join("blobs/public/sha256"));
    for blob in &blobs[..3] {
        let reply = node.fetch(Request::blob("a", &blob.digest)).await;
        assert_eq!((reply.status, &reply.body), (200, &blob.bytes));
    }
    drop(refused);
    until("storing works again without a restart", async || {
        assert!(node.fetch(Request::blob("a", &blobs[3].digest)).await.is_whole());
        node.has_stored(&blobs[3].digest).then_some(())
    })
    .await;
    node.finish().await;
}

/// A directory mounted read-only over itself.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(dir: &Path) -> Self {
        use nix::mount::{MsFlags, mount};
        let none: Option<&str> = None;
        let bind = mount(Some(dir), dir, none, MsFlags::MS_BIND, none);
        assert!(bind.is_ok(), "{}: {bind:?}", dir.display());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let read_only = mount(none, dir, none, flags, none);
        assert!(read_only.is_ok(), "{}: {read_only:?}", dir.display());
        Self(dir.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn what_nobody_has_used_for_long_goes_and_what_is_used_stays() {
    let upstream = Upstream::start().await;
    let (used, unused) = (Object::noise(1, 2000), Object::noise(2, 2000));
    upstream.push_blob("a", &used);
    upstream.push_blob("a", &unused);
    let node =
        Node::builder().upstream(&upstream).settings(|settings| settings.cache.ttl = Duration::from_secs(12));
    let node = node.start().await;
    for blob in [&used, &unused] {
        assert!(node.fetch(Request::blob("a", &blob.digest)).await.is_whole());
        node.stored(&blob.digest).await;
    }
    until("the unused blob goes", async || {
        assert!(node.fetch(Request::blob("a", &used.digest)).await.is_whole());
        (!node.has_stored(&unused.digest)).then_some(())
    })
    .await;
    assert!(node.has_stored(&used.digest));
    assert_eq!(upstream.count(Kind::Blob, "GET"), 2);
    assert_eq!(node.metrics().sum("larder_evicted_bytes_total", &[("reason", "ttl")]), 2000.0);
    assert_eq!(node.mirror().snapshot().evicted_bytes.ttl, 2000);
    // And it comes back when it is wanted.
    assert_eq!(node.fetch(Request::blob("a", &unused.digest)).await.body, unused.bytes);
    node.finish().await;
}

#[tokio::test]
async fn a_manifest_goes_with_what_stands_beside_it() {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    upstream.push("a", "1", &image);
    let node =
        Node::builder().upstream(&upstream).settings(|settings| settings.cache.ttl = Duration::from_secs(1));
    let node = node.start().await;
    pull(&node, &image).await;
    until("everything goes", async || files(&node.data_dir().join("blobs")).is_empty().then_some(())).await;
    pull(&node, &image).await;
    node.finish().await;
}

#[tokio::test]
async fn what_was_used_longest_ago_goes_when_there_is_too_much() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..5).map(|seed| Object::noise(seed, MIB)).collect();
    let node = Node::builder()
        .upstream(&upstream)
        .settings(|settings| settings.cache.max_size = Size::Bytes(4 << 20));
    let node = node.start().await;
    for (n, blob) in blobs.iter().enumerate() {
        upstream.push_blob("a", blob);
        // Uses are told apart by the second.
        let second = seconds();
        until("another second", async || (seconds() > second).then_some(())).await;
        if n == 4 {
            // The first is used again before there is too much, so that the second is the oldest.
            assert!(node.fetch(Request::blob("a", &blobs[0].digest)).await.is_whole());
        }
        assert!(node.fetch(Request::blob("a", &blob.digest)).await.is_whole());
        // Not until it is stored: by then it may have gone already.
        larder_tests::invariants::tmp_gets_empty(node.data_dir()).await;
    }
    until("the oldest goes", async || (!node.has_stored(&blobs[1].digest)).then_some(())).await;
    assert!(node.has_stored(&blobs[0].digest), "used again");
    assert!(node.has_stored(&blobs[4].digest), "just come");
    let total: u64 = files(&node.data_dir().join("blobs"))
        .iter()
        .map(|file| fs::metadata(file).map_or(0, |m| m.len()))
        .sum();
    assert!(total <= 4 << 20, "{total}");
    assert!(node.metrics().sum("larder_evicted_bytes_total", &[("reason", "size")]) >= MIB as f64);
    node.finish().await;
}

#[tokio::test]
async fn a_registry_may_have_a_size_of_its_own() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..4).map(|seed| Object::noise(seed, MIB)).collect();
    let node = Node::builder()
        .upstream_as("small.test", &upstream, |settings| settings.max_size = Some(Size::Bytes(2 << 20)))
        .upstream(&upstream);
    let node = node.start().await;
    let other = Object::noise(77, MIB);
    upstream.push_blob("a", &other);
    assert!(node.fetch(Request::blob("a", &other.digest)).await.is_whole());
    node.stored(&other.digest).await;
    for blob in &blobs {
        upstream.push_blob("a", blob);
        assert!(node.fetch(Request::blob("a", &blob.digest).query("ns=small.test")).await.is_whole());
    }
    let of_small = || blobs.iter().filter(|blob| node.has_stored(&blob.digest)).count();
    until("the small registry is back under its size", async || (of_small() <= 2).then_some(())).await;
    assert!(node.has_stored(&other.digest), "the neighbour is left alone");
    node.finish().await;
}

#[tokio::test]
async fn a_blob_that_is_being_read_may_go() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 8 * MIB);
    upstream.push_blob("a", &blob);
    let mut node = Node::with(&upstream).await;
    assert!(node.fetch(Request::blob("a", &blob.digest)).await.is_whole());
    node.stored(&blob.digest).await;
    let mut readers = Vec::new();
    for _ in 0..32 {
        let mut reader = node.open(Request::blob("a", &blob.digest)).await;
        assert_eq!(reader.read(1).await.1, None);
        readers.push(reader);
    }
    node.apply(|settings| settings.cache.ttl = Duration::from_secs(1));
    until("the blob goes", async || (!node.has_stored(&blob.digest)).then_some(())).await;
    for reader in readers {
        assert_eq!(reader.drain().await, (blob.len(), End::Whole));
    }
    node.finish().await;
}

#[tokio::test]
async fn where_too_little_is_free_nothing_is_kept() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, MIB);
    upstream.push_blob("a", &blob);
    let node = Node::builder()
        .upstream(&upstream)
        .settings(|settings| settings.cache.min_free = Size::Bytes(1 << 50));
    let node = node.start().await;
    for n in 1..=2 {
        assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes);
        assert_eq!(upstream.count(Kind::Blob, "GET"), n);
    }
    assert!(!node.has_stored(&blob.digest));
    node.finish().await;
}

#[tokio::test]
async fn the_kill_switch_fails_the_probe_and_no_pull() {
    let upstream = Upstream::start().await;
    let (cold, warm) = (Object::noise(1, 2000), Object::noise(2, 2000));
    upstream.push_blob("a", &cold);
    upstream.push_blob("a", &warm);
    let node = Node::with(&upstream).await;
    assert!(node.fetch(Request::blob("a", &warm.digest)).await.is_whole());
    let switch = node.data_dir().join("BYPASS");
    fs::write(&switch, "").unwrap();
    let canary = Request::head(proof::CANARY_PATH).header(proof::CHALLENGE, &"0a".repeat(32));
    until("the probe fails", async || (node.fetch(canary.clone()).await.status == 503).then_some(())).await;
    let refused = node.fetch(canary.clone().method("GET")).await;
    assert_eq!(refused.header("larder-bypass"), Some("1"));
    assert!(refused.oci_error().1.contains("BYPASS"), "{:?}", refused.body);
    assert_eq!(node.fetch(canary.clone()).await.header("larder-bypass"), Some("1"));
    assert!(node.mirror().health().is_err_and(|reason| reason.contains("BYPASS")));
    for blob in [&cold, &warm] {
        assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes, "still served");
    }
    fs::remove_file(&switch).unwrap();
    until("the probe is good again", async || (node.fetch(canary.clone()).await.status == 200).then_some(()))
        .await;
    assert_eq!(node.mirror().health(), Ok(()));
    node.finish().await;
}

#[tokio::test]
async fn what_is_forgotten_is_asked_for_again() {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    upstream.push("a", "1", &image);
    upstream.push("a", "2", &image);
    let node = Node::with(&upstream).await;
    let registry = REGISTRY.parse().unwrap();
    let repository = "a".parse().unwrap();
    for (reference, again) in
        [(Some("1"), "1"), (Some(image.index.digest.as_str()), image.index.digest.as_str()), (None, "2")]
    {
        for tag in ["1", "2"] {
            assert_eq!(node.fetch(Request::manifest("a", tag)).await.status, 200);
        }
        // A manifest is answered from memory while it is on its way to the disk.
        node.stored(&image.index.digest).await;
        let reference = reference.map(|text| Reference::parse(text).unwrap());
        let gone = node.mirror().forget(&registry, &repository, reference.as_ref()).await;
        assert!(gone >= 1, "{reference:?}");
        let asked = upstream.total();
        assert_eq!(node.fetch(Request::manifest("a", again)).await.status, 200);
        assert!(upstream.total() > asked, "{reference:?}");
    }
    assert_eq!(node.mirror().forget(&registry, &"none".parse().unwrap(), None).await, 0);
    node.finish().await;
}

#[tokio::test]
async fn the_report_tells_what_is_stored() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..3).map(|seed| Object::noise(seed, 10_000)).collect();
    let node = Node::with(&upstream).await;
    for blob in &blobs {
        upstream.push_blob("a", blob);
        assert!(node.fetch(Request::blob("a", &blob.digest)).await.is_whole());
        node.stored(&blob.digest).await;
    }
    until("three blobs are counted", async || {
        let cache = node.mirror().snapshot().cache;
        (cache.blobs == 3 && cache.bytes == 30_000).then_some(())
    })
    .await;
    let snapshot = node.mirror().snapshot();
    assert!(snapshot.cache.capacity_bytes >= snapshot.cache.free_bytes && snapshot.cache.free_bytes > 0);
    assert!(!snapshot.cache.index_degraded);
    let report = snapshot.registries.iter().find(|report| report.registry == REGISTRY).cloned();
    let report = report.expect("every configured registry is reported");
    assert_eq!((report.requests.upstream, report.served_bytes, report.upstream_bytes), (3, 30_000, 30_000));
    assert!(report.upstream_up && report.containerd_seen.is_none());
    let request = Request::blob("a", &blobs[0].digest).header("User-Agent", "containerd/1.6.20");
    assert!(node.fetch(request).await.is_whole());
    let seen = node.mirror().snapshot().registries.into_iter().find(|report| report.registry == REGISTRY);
    assert!(seen.is_some_and(|report| report.containerd_seen.is_some()), "containerd was here");
    assert_eq!(node.metrics().sum("larder_cache_bytes", &[]), 30_000.0);
    assert_eq!(node.metrics().sum("larder_cache_blobs", &[]), 3.0);
    node.finish().await;
}

#[tokio::test]
async fn stored_files_are_where_and_as_the_contract_says() {
    let (_upstream, stopped, image) = filled().await;
    let public = stopped.path().join("blobs/public/sha256");
    for object in image.blobs().chain([&image.index, &image.manifest]) {
        let path = public.join(&object.hex()[..2]).join(object.hex());
        assert_eq!(fs::read(&path).unwrap(), object.bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o222, 0, "read-only");
    }
    for manifest in [&image.index, &image.manifest] {
        assert!(public.join(&manifest.hex()[..2]).join(format!("{}.meta", manifest.hex())).exists());
    }
    assert!(stopped.path().join("lock").exists());
    let mode = fs::metadata(stopped.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn cut(file: &Path, size: u64) {
    let file = fs::File::options().write(true).open(file).expect("ours");
    file.set_len(size).expect("ours");
}
