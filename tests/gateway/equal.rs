//! The same requests to two empty registries, to one of them through the gateway: every answer is the same, apart from
//! what no two answers have in common.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_tests::gateway::Site;
use larder_tests::image::{Image, OCI_MANIFEST, Object, sha256};
use serde_json::json;

use crate::registry::{Registry, programs};
use crate::web::{Answer, Web, finish};

/// A registry asked directly and another asked through the gateway.
struct Twins {
    web: Web,
    direct: String,
    through: String,
    steps: usize,
}

/// What must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Bytes,
    is_whole: bool,
}

impl Twins {
    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> [Answer; 2] {
        self.ask_each(method, [path, path], headers, body).await
    }

    async fn ask_each(
        &mut self,
        method: &str,
        paths: [&str; 2],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> [Answer; 2] {
        let body = Bytes::copy_from_slice(body);
        let direct = self.web.send(&self.direct, method, paths[0], headers, body.clone()).await;
        let through = self.web.send(&self.through, method, paths[1], headers, body).await;
        assert_eq!(
            seen(&through, &self.through),
            seen(&direct, &self.direct),
            "{method} {} {headers:?}",
            paths[0]
        );
        self.steps += 1;
        [direct, through]
    }

    /// A request to the upload that the answers before lead to.
    async fn go_on(
        &mut self,
        method: &str,
        at: &[Answer; 2],
        (digest, headers): (Option<&str>, &[(&str, &str)]),
        body: &[u8],
    ) -> [Answer; 2] {
        let path = |answer: &Answer| match digest {
            Some(digest) => finish(&answer.location(), digest),
            None => answer.location(),
        };
        let paths = [path(&at[0]), path(&at[1])];
        self.ask_each(method, [&paths[0], &paths[1]], headers, body).await
    }

    async fn upload(&mut self, repository: &str, blob: &Object) {
        let opened = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").await;
        let headers = [("content-type", "application/octet-stream")];
        let ended = self.go_on("PUT", &opened, (Some(&blob.digest), &headers), &blob.bytes).await;
        assert_eq!(ended[0].status, 201, "{ended:?}");
    }

    async fn put(&mut self, path: &str, it: &Object) -> u16 {
        self.ask("PUT", path, &[("content-type", &it.media_type)], &it.bytes).await[0].status
    }
}

fn seen(answer: &Answer, host: &str) -> Seen {
    let mut headers = BTreeMap::new();
    for (name, value) in &answer.headers {
        let value = value.to_str().unwrap().replace(host, "HOST");
        let value = match name.as_str() {
            "date" | "connection" => continue,
            "docker-upload-uuid" => "an id".to_owned(),
            "location" if value.contains("/blobs/uploads/") => {
                let path = value.strip_prefix("http://HOST").unwrap_or(&value);
                let begin = path.split_once("/blobs/uploads/").map(|(begin, _)| begin);
                format!("{}/blobs/uploads/ID, with state: {}", begin.unwrap(), path.contains("_state="))
            }
            // An address at the registry is right at the gateway when it is a path or names the gateway.
            "location" => value.strip_prefix("http://HOST").unwrap_or(&value).to_owned(),
            _ => value,
        };
        assert_eq!(headers.insert(name.to_string(), value), None, "{name} twice");
    }
    // An error may name the upload.
    let text = String::from_utf8_lossy(&answer.body).replace(host, "HOST");
    let body = if answer.headers.get("content-type").is_some_and(|kind| kind == "application/json") {
        Bytes::from(text)
    } else {
        answer.body.clone()
    };
    Seen { status: answer.status, headers, body, is_whole: answer.is_whole }
}

async fn uploads(twins: &mut Twins) {
    let blob = Object::noise(7, 30_000);
    let opened = twins.ask("POST", "/v2/team-a/app/blobs/uploads/", &[], b"").await;
    let kind = ("content-type", "application/octet-stream");
    let first = [kind, ("content-range", "0-9999")];
    let went = twins.go_on("PATCH", &opened, (None, &first), &blob.bytes[..10_000]).await;
    assert_eq!(went[1].status, 202);
    let asked = twins.go_on("GET", &went, (None, &[]), b"").await;
    assert_eq!((asked[1].status, asked[1].header("range")), (204, "0-9999"));
    let second = [kind, ("content-range", "10000-29999")];
    let went = twins.go_on("PATCH", &asked, (None, &second), &blob.bytes[10_000..]).await;
    let ended = twins.go_on("PUT", &went, (Some(&blob.digest), &[]), b"").await;
    assert_eq!(ended[1].status, 201, "{ended:?}");

    // Given up, and wrong at the end.
    let opened = twins.ask("POST", "/v2/team-a/app/blobs/uploads/", &[], b"").await;
    assert_eq!(twins.go_on("DELETE", &opened, (None, &[]), b"").await[1].status, 204);
    assert_eq!(twins.go_on("GET", &opened, (None, &[]), b"").await[1].status, 404);
    let opened = twins.ask("POST", "/v2/team-a/app/blobs/uploads/", &[], b"").await;
    let wrong = twins.go_on("PUT", &opened, (Some(&sha256(b"other")), &[kind]), b"this").await;
    assert_eq!(wrong[1].refused(), (400, "DIGEST_INVALID".to_owned()));
    // In one request, which the registries may take or answer with a session.
    let small = Object::noise(8, 100);
    let path = format!("/v2/team-a/app/blobs/uploads/?digest={}", small.digest);
    twins.ask("POST", &path, &[kind], &small.bytes).await;

    // From another repository: there, and not there.
    let mount = |digest: &str| format!("/v2/team-a/other/blobs/uploads/?mount={digest}&from=team-a/app");
    assert_eq!(twins.ask("POST", &mount(&blob.digest), &[], b"").await[1].status, 201);
    assert_eq!(twins.ask("POST", &mount(&sha256(b"nowhere")), &[], b"").await[1].status, 202);
}

async fn blobs(twins: &mut Twins, blob: &Object) {
    let path = format!("/v2/team-a/app/blobs/{}", blob.digest);
    let whole = twins.ask("GET", &path, &[], b"").await;
    assert_eq!((whole[1].status, &whole[1].body), (200, &blob.bytes));
    let head = twins.ask("HEAD", &path, &[], b"").await;
    assert_eq!(head[1].header("content-length"), blob.bytes.len().to_string());
    for (range, status) in [
        ("bytes=0-99", 206),
        ("bytes=100-", 206),
        ("bytes=-5", 206),
        ("bytes=99999999-", 416),
        ("nonsense", 416),
    ] {
        assert_eq!(twins.ask("GET", &path, &[("range", range)], b"").await[1].status, status, "{range}");
    }
    let same = format!("\"{}\"", blob.digest);
    assert_eq!(twins.ask("GET", &path, &[("if-none-match", &same)], b"").await[1].status, 304);
    let unknown = format!("/v2/team-a/app/blobs/{}", sha256(b"unknown"));
    for method in ["GET", "HEAD", "DELETE"] {
        assert_eq!(twins.ask(method, &unknown, &[], b"").await[1].status, 404, "{method}");
    }
}

async fn manifests(twins: &mut Twins, image: &Image, docker: &Image) {
    let base = "/v2/team-a/app/manifests";
    assert_eq!(twins.put(&format!("{base}/v1"), &image.manifest).await, 201);
    assert_eq!(twins.put(&format!("{base}/{}", image.manifest.digest), &image.manifest).await, 201);
    assert_eq!(twins.put(&format!("{base}/multi"), &image.index).await, 201);
    assert_eq!(twins.put(&format!("{base}/docker"), &docker.manifest).await, 201);
    assert_eq!(twins.put(&format!("{base}/list"), &docker.index).await, 201);
    let other = format!("{base}/{}", sha256(b"another"));
    assert_ne!(twins.put(&other, &image.manifest).await, 201, "a digest that is not that of the body");
    let same = format!("\"{}\"", image.manifest.digest);
    for reference in ["v1", "multi", "docker", "list", "unknown", &image.manifest.digest, &sha256(b"unknown")]
    {
        for accept in [OCI_MANIFEST, "application/vnd.oci.image.index.v1+json", "*/*", ""] {
            for method in ["GET", "HEAD"] {
                let headers = [("accept", accept), ("if-none-match", &same)];
                let headers = if accept.is_empty() { &headers[..0] } else { &headers[..1] };
                twins.ask(method, &format!("{base}/{reference}"), headers, b"").await;
            }
        }
    }
    let unchanged = [("accept", OCI_MANIFEST), ("if-none-match", same.as_str())];
    assert_eq!(twins.ask("GET", &format!("{base}/v1"), &unchanged, b"").await[1].status, 304);
}

async fn lists(twins: &mut Twins) {
    for path in [
        "/v2/",
        "/v2/_catalog",
        "/v2/_catalog?n=1",
        "/v2/_catalog?n=1&last=team-a/app",
        "/v2/_catalog?n=nonsense",
        "/v2/team-a/app/tags/list",
        "/v2/team-a/app/tags/list?n=1",
        "/v2/team-a/app/tags/list?n=2&last=docker",
        "/v2/team-a/unknown/tags/list",
        &format!("/v2/team-a/app/referrers/{}", sha256(b"unknown")),
    ] {
        twins.ask("GET", path, &[], b"").await;
    }
    let first = twins.ask("GET", "/v2/_catalog?n=1", &[], b"").await;
    assert!(first[1].header("link").contains("rel=\"next\""), "{first:?}");
}

async fn deletions(twins: &mut Twins, image: &Image, docker: &Image) {
    let base = "/v2/team-a/app";
    // By a tag only the newer version can.
    twins.ask("DELETE", &format!("{base}/manifests/multi"), &[], b"").await;
    for path in [
        format!("{base}/manifests/{}", docker.index.digest),
        format!("{base}/manifests/{}", image.manifest.digest),
        format!("{base}/blobs/{}", image.layers[0].digest),
    ] {
        assert_eq!(twins.ask("DELETE", &path, &[], b"").await[1].status, 202, "{path}");
        assert_eq!(twins.ask("GET", &path, &[], b"").await[1].status, 404, "{path}");
        assert_eq!(twins.ask("DELETE", &path, &[], b"").await[1].status, 404, "{path}");
    }
    twins.ask("GET", &format!("{base}/tags/list"), &[], b"").await;
}

#[tokio::test]
async fn every_route_answers_through_the_gateway_as_it_does_directly() {
    for program in programs() {
        let (direct, behind) = (Registry::start(&program).await, Registry::start(&program).await);
        // Limits that hold for everything and stop nothing: the whole way of a push is gone.
        let limits = json!({"image_bytes": 1 << 30, "tags": 1000});
        let mut site = Site::new(&behind.host, &json!({"limits": limits}));
        let gateway = site.start().await;
        let through = gateway.address.to_string();
        let mut twins = Twins { web: Web::new(), direct: direct.host.clone(), through, steps: 0 };
        let (image, docker) = (Image::oci(1, &[5000, 200_000]), Image::docker(2, &[3000]));
        lists_of_nothing(&mut twins).await;
        for blob in image.blobs().chain(docker.blobs()) {
            twins.upload("team-a/app", blob).await;
        }
        uploads(&mut twins).await;
        blobs(&mut twins, &image.layers[1]).await;
        manifests(&mut twins, &image, &docker).await;
        twins.upload("team-b/app", &image.config).await;
        lists(&mut twins).await;
        deletions(&mut twins, &image, &docker).await;
        assert!(twins.steps > 100, "{}", twins.steps);
        gateway.process.check_log();
    }
}

async fn lists_of_nothing(twins: &mut Twins) {
    for path in ["/v2/", "/v2/_catalog", "/v2/team-a/app/tags/list", "/v2/team-a/app/manifests/v1"] {
        twins.ask("GET", path, &[], b"").await;
    }
}
