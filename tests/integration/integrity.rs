//! A wrong byte is never served as a whole blob and never kept under a digest, wherever it comes from. The client
//! checks each whole body against the digest it asked for; these tests bring the wrong bytes.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use futures_util::future::join_all;
use larder_tests::client::{End, Request};
use larder_tests::image::{Image, OCI_MANIFEST, Object, noise, sha512};
use larder_tests::node::{Node, REGISTRY};
use larder_tests::upstream::{Kind, Reply, Upstream};
use larder_tests::wait::until;

const SMALL: usize = 100_000;
/// Beyond what is held back until it is verified.
const LARGE: usize = 9 << 20;

async fn serving(size: usize) -> (Upstream, Node, Object) {
    let upstream = Upstream::start().await;
    let blob = Object::noise(size as u64, size);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    (upstream, node, blob)
}

async fn cached(size: usize) -> (Upstream, Node, Object) {
    let (upstream, node, blob) = serving(size).await;
    assert!(node.fetch(Request::blob("a", &blob.digest)).await.is_whole());
    node.stored(&blob.digest).await;
    (upstream, node, blob)
}

#[tokio::test]
async fn one_wrong_byte_anywhere_never_makes_a_whole_body() {
    for size in [SMALL, LARGE] {
        for at in [0, size / 2, size - 1] {
            let (upstream, node, blob) = serving(size).await;
            upstream.on(Kind::Blob).always(move |reply| _ = reply.corrupt(at as u64));
            let clients = join_all((0..5).map(|_| node.open(Request::blob("a", &blob.digest)))).await;
            for client in clients {
                // A small body may be known to be wrong before its head left: then it is refused in words.
                if size == SMALL && client.status == 503 {
                    continue;
                }
                assert_eq!(client.status, 200);
                let (length, end) = client.drain().await;
                assert_eq!(end, End::Fin, "{size} {at}: ended by FIN, which containerd can go on from");
                let most = if size == SMALL { 0 } else { size as u64 - 1 };
                assert!(length <= most, "{size} {at}: {length} bytes");
            }
            assert!(!node.has_stored(&blob.digest));
            // containerd comes back for the rest and is sent to the registry itself.
            let asked = upstream.total();
            for request in [
                Request::blob("a", &blob.digest),
                Request::blob("a", &blob.digest).range("bytes=10-"),
                Request::blob("a", &blob.digest).method("HEAD"),
            ] {
                assert_eq!(node.fetch(request).await.status, 404, "{size} {at}");
            }
            assert_eq!(upstream.total(), asked, "and upstream is left alone");
            assert_eq!(node.metrics().sum("larder_digest_mismatches_total", &[("registry", REGISTRY)]), 1.0);
            node.finish().await;
        }
    }
}

#[tokio::test]
async fn a_wrong_manifest_is_never_served() {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    upstream.push("a", "1", &image);
    upstream.on(Kind::Manifest).always(|reply| _ = reply.corrupt(5));
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::manifest("a", &image.manifest.digest)).await;
    assert!(reply.status != 200 || reply.end == End::Fin && reply.body.is_empty(), "{}", reply.status);
    assert!(!node.has_stored(&image.manifest.digest));
    node.finish().await;
}

#[tokio::test]
async fn odd_manifests_harm_nobody() {
    let layer = format!(r#"{{"digest":"{}","size":1}},"#, Object::noise(1, 1).digest);
    let texts = [
        ("deep", format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20))),
        (
            "deep inside",
            format!(r#"{{"schemaVersion":2,"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)),
        ),
        (
            "many layers",
            format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layer.repeat(30_000).trim_end_matches(',')),
        ),
        (
            "the same key twice",
            r#"{"schemaVersion":2,"layers":[],"layers":[],"config":{},"config":{}}"#.to_owned(),
        ),
        ("half a character", r#"{"schemaVersion":2,"x":"\ud800"}"#.to_owned()),
        (
            "a bad digest",
            r#"{"schemaVersion":2,"config":{"digest":"sha256:../../etc"},"layers":[{"digest":7}]}"#
                .to_owned(),
        ),
        ("numbers", r#"{"schemaVersion":1e999,"layers":[{"size":-1}],"config":5}"#.to_owned()),
        ("not JSON", "hello".to_owned()),
        ("empty", String::new()),
    ];
    for (what, text) in texts {
        let upstream = Upstream::start().await;
        let manifest = Object::new(OCI_MANIFEST, text);
        upstream.push_tag("a", "1", &manifest);
        let node = Node::with(&upstream).await;
        for reference in ["1", manifest.digest.as_str()] {
            let reply = node.fetch(Request::manifest("a", reference)).await;
            assert!(matches!(reply.status, 200 | 404 | 503), "{what}: {}", reply.status);
            assert!(reply.status != 200 || reply.body == manifest.bytes, "{what}: as upstream sent it");
        }
        assert_eq!(node.fetch(Request::get("/v2/")).await.status, 200, "{what}");
        node.finish().await;
    }
}

/// Replies that are wrong from the head on, or only show it later. No client may hang, be reset or get a whole wrong
/// body, and nothing may be kept.
#[tokio::test]
async fn replies_that_cannot_be_right_are_refused_or_end_short() {
    type Change = fn(&mut Reply);
    let before_the_head: [(&str, Change); 8] = [
        ("gzip", |reply| _ = reply.gzip()),
        ("206 unasked", |reply| _ = reply.part(0, 99)),
        ("204", |reply| _ = reply.status(204)),
        ("304 unasked", |reply| _ = reply.status(304)),
        ("300 without a location", |reply| _ = reply.status(302)),
        ("negative length", |reply| _ = reply.content_length("-1")),
        ("lengths that differ", |reply| {
            _ = reply.extra_header("Content-Length", "100000").extra_header("Content-Length", "5");
        }),
        ("another digest", |reply| {
            _ = reply.header("Docker-Content-Digest", Object::noise(77, 10).digest);
        }),
    ];
    let in_the_body: [(&str, Change); 6] = [
        ("short", |reply| _ = reply.shorten(1)),
        ("long", |reply| _ = reply.lengthen(1)),
        ("shorter than told", |reply| _ = reply.content_length("200000")),
        ("empty", |reply| _ = reply.shorten(SMALL)),
        ("HTML", |reply| _ = reply.body("text/html", "<h1>log in</h1>")),
        ("chunks without end", |reply| _ = reply.unterminated_chunks()),
    ];
    for (what, change) in before_the_head.into_iter().chain(in_the_body) {
        let (upstream, node, blob) = serving(SMALL).await;
        upstream.on(Kind::Blob).method("GET").always(change);
        let reply = node.fetch(Request::blob("a", &blob.digest)).await;
        if reply.status == 200 {
            assert!(
                in_the_body.iter().any(|(name, _)| *name == what),
                "{what}: to be refused before the head"
            );
            assert_eq!((reply.end, reply.body.len()), (End::Fin, 0), "{what}");
        } else {
            assert_eq!(reply.status, 503, "{what}");
            assert!(reply.oci_error().1.contains(REGISTRY), "{what}");
        }
        assert!(!node.has_stored(&blob.digest), "{what}");
        node.finish().await;
    }
}

#[tokio::test]
async fn odd_but_right_replies_are_served() {
    type Change = fn(&mut Reply);
    let odd: [(&str, Change); 7] = [
        ("a malformed digest header", |reply| _ = reply.header("Docker-Content-Digest", "sha256:zz")),
        ("chunked", |reply| _ = reply.chunked()),
        ("ended by the connection", |reply| _ = reply.without_length()),
        ("no digest header", |reply| {
            _ = reply.without_header("Docker-Content-Digest").without_header("ETag");
        }),
        ("hints before it", |reply| _ = reply.informational(3)),
        ("another type", |reply| _ = reply.header("Content-Type", "application/x-tar")),
        ("the same length twice", |reply| {
            _ = reply.extra_header("Content-Length", "100000").extra_header("Content-Length", "100000");
        }),
    ];
    for (what, change) in odd {
        let (upstream, node, blob) = serving(SMALL).await;
        upstream.on(Kind::Blob).always(change);
        let reply = node.fetch(Request::blob("a", &blob.digest)).await;
        assert_eq!((reply.status, reply.end, reply.body.len()), (200, End::Whole, SMALL), "{what}");
        node.stored(&blob.digest).await;
        assert_eq!(
            node.fetch(Request::blob("a", &blob.digest)).await.header("content-length"),
            Some("100000")
        );
        assert_eq!(upstream.count(Kind::Blob, "GET"), 1, "{what}");
        node.finish().await;
    }
}

#[tokio::test]
async fn a_flood_of_hints_ends() {
    let (upstream, node, blob) = serving(SMALL).await;
    upstream.on(Kind::Blob).always(|reply| _ = reply.informational(10_000));
    let reply = node.fetch(Request::blob("a", &blob.digest)).await;
    assert!(matches!(reply.status, 200 | 503), "{}", reply.status);
    node.finish().await;
}

#[tokio::test]
async fn a_stored_file_that_was_changed_is_a_miss() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("a bit", |path| flip(path, SMALL as u64 / 2)),
        ("the first bit", |path| flip(path, 0)),
        ("the last bit", |path| flip(path, SMALL as u64 - 1)),
        ("shorter", |path| truncate(path, 500)),
        ("empty", |path| truncate(path, 0)),
        ("longer", |path| truncate(path, SMALL as u64 + 1)),
        ("gone", |path| fs::remove_file(path).expect("the file is there")),
    ];
    for (what, damage) in damages {
        let (upstream, node, blob) = cached(SMALL).await;
        // Once more, so that the file is known as verified.
        assert!(node.fetch(Request::blob("a", &blob.digest)).await.is_whole());
        damage(&node.public_path(&blob.digest));
        // The first may end short, the second must be right again.
        let first = node.fetch(Request::blob("a", &blob.digest)).await;
        assert_ne!(first.end, End::Rst, "{what}");
        let second = node.fetch(Request::blob("a", &blob.digest)).await;
        assert_eq!((second.status, second.end, second.body), (200, End::Whole, blob.bytes.clone()), "{what}");
        assert_eq!(upstream.count(Kind::Blob, "GET"), 2, "{what}: fetched again");
        node.stored(&blob.digest).await;
        node.finish().await;
    }
}

#[tokio::test]
async fn a_file_changed_while_nobody_ran_is_never_served_whole() {
    for at in [0, LARGE as u64 / 2, LARGE as u64 - 1] {
        let (upstream, node, blob) = cached(LARGE).await;
        let path = node.public_path(&blob.digest);
        let stopped = node.stop().await;
        let modified = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap();
        flip(&path, at);
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        drop(file);
        let node = stopped.start().await;
        // Size and times are as they were: only the bytes tell.
        let first = node.fetch(Request::blob("a", &blob.digest)).await;
        assert_ne!(first.end, End::Rst);
        let second = until("the blob is fetched again", async || {
            let reply = node.fetch(Request::blob("a", &blob.digest)).await;
            (reply.status == 200 && reply.is_whole()).then_some(reply)
        });
        assert_eq!(second.await.body, blob.bytes);
        assert_eq!(upstream.count(Kind::Blob, "GET"), 2);
        node.stored(&blob.digest).await;
        node.finish().await;
    }
}

#[tokio::test]
async fn without_upstream_a_changed_file_is_not_served() {
    let (upstream, node, blob) = cached(SMALL).await;
    upstream.stop().await;
    flip(&node.public_path(&blob.digest), 7);
    let first = node.fetch(Request::blob("a", &blob.digest)).await;
    assert!(first.status != 200 || first.end == End::Fin);
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 503);
    assert!(node.metrics().sum("larder_evicted_bytes_total", &[("reason", "corrupt")]) > 0.0);
    node.finish().await;
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_blob_is_not_followed() {
    type Place = fn(&Path, &Path);
    let places: [(&str, Place); 3] = [
        ("a symlink", |path, outside| {
            std::os::unix::fs::symlink(outside, path).expect("a symlink can be made");
        }),
        ("a directory", |path, _| fs::create_dir(path).expect("a directory can be made")),
        ("a pipe", |path, _| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe can be made");
        }),
    ];
    for (what, place) in places {
        let (_upstream, node, blob) = cached(SMALL).await;
        let outside = node.data_dir().parent().expect("a directory of the test's").join("outside");
        fs::write(&outside, noise(1, SMALL)).unwrap();
        let path = node.public_path(&blob.digest);
        fs::remove_file(&path).unwrap();
        place(&path, &outside);
        for _ in 0..2 {
            let reply = node.fetch(Request::blob("a", &blob.digest)).await;
            assert_eq!((reply.status, reply.body), (200, blob.bytes.clone()), "{what}");
        }
        assert_eq!(fs::read(&outside).unwrap(), noise(1, SMALL), "{what}: nothing outside is touched");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        } else if !path.metadata().is_ok_and(|meta| meta.is_file()) {
            let _ = fs::remove_file(&path);
        }
        node.finish().await;
    }
}

#[tokio::test]
async fn a_digest_of_another_algorithm_is_another_blob() {
    let (upstream, node, blob) = cached(SMALL).await;
    let long = Object { digest: sha512(&blob.bytes), ..blob.clone() };
    let reply = node.fetch(Request::blob("a", &long.digest)).await;
    assert_eq!(reply.status, 404, "not served from the sha256 file");
    upstream.push_blob("a", &long);
    let reply = until("sha512 is fetched on its own", async || {
        let reply = node.fetch(Request::blob("a", &long.digest)).await;
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(reply.await.body, blob.bytes);
    node.stored(&long.digest).await;
    node.finish().await;
}

fn flip(path: &Path, at: u64) {
    make_writable(path);
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[usize::try_from(at).expect("small")] ^= 1;
    let mut file = fs::File::options().write(true).open(path).expect("the file is there");
    file.seek(SeekFrom::Start(at)).expect("files can be sought");
    file.write_all(&bytes[usize::try_from(at).expect("small")..=usize::try_from(at).expect("small")])
        .expect("the file can be written");
}

fn truncate(path: &Path, size: u64) {
    make_writable(path);
    let file = fs::File::options().write(true).open(path).expect("the file is there");
    file.set_len(size).expect("the file can be cut");
}

/// Stored files are read-only, also for their owner.
fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("the file is ours");
}
