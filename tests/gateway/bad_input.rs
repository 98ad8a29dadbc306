//! What no honest client sends: a clear OCI error, and nothing of it reaches the registry.

use larder_tests::gateway::Site;
use larder_tests::image::{Image, OCI_INDEX, OCI_MANIFEST, Object, sha256};
use larder_tests::wait::within;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::registry::{Registry, programs};
use crate::web::{Web, raw, text};

/// Status and code of the only answer in what came back.
fn error(told: &str) -> (u16, String) {
    assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{told}");
    let status = told.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = told.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let json: Value = serde_json::from_str(body.trim()).unwrap_or_default();
    assert!(json["errors"][0]["message"].as_str().is_some_and(|words| words.len() > 10), "{told}");
    (status, json["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: gateway\r\n{headers}Connection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn what_breaks_the_grammar_gets_words_and_goes_no_further() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let web = Web::new();
        let mut site = Site::new(&registry.host, &json!({"limits": {"image_bytes": 1 << 20, "tags": 9}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        registry.asked(&web).await;
        let long = "t".repeat(129);
        let deep = "a/".repeat(200);
        for (line, headers, expected) in [
            ("GET /v2/../../etc/passwd/manifests/v1", "", (400, "NAME_INVALID")),
            ("GET /v2/team-a/../team-b/manifests/v1", "", (400, "NAME_INVALID")),
            ("GET /v2/team-a/%2e%2e/team-b/manifests/v1", "", (400, "NAME_INVALID")),
            ("PUT /v2/team-a%2fapp/manifests/v1", "", (400, "NAME_INVALID")),
            ("GET /v2/Team/App/tags/list", "", (400, "NAME_INVALID")),
            ("GET /v2//app/tags/list", "", (400, "NAME_INVALID")),
            (&format!("POST /v2/{deep}app/blobs/uploads/"), "", (400, "NAME_INVALID")),
            ("PUT /v2/team-a/app/manifests/..", "", (400, "TAG_INVALID")),
            ("PUT /v2/team-a/app/manifests/.v1", "", (400, "TAG_INVALID")),
            ("PUT /v2/team-a/app/manifests/a%20b", "", (400, "TAG_INVALID")),
            (&format!("PUT /v2/team-a/app/manifests/{long}"), "", (400, "TAG_INVALID")),
            ("PUT /v2/team-a/app/manifests/v1?tag=-bad", "", (400, "TAG_INVALID")),
            ("GET /v2/team-a/app/blobs/sha256:short", "", (400, "DIGEST_INVALID")),
            ("GET /v2/team-a/app/manifests/md5:0123", "", (400, "DIGEST_INVALID")),
            ("PATCH /v2/team-a/app/blobs/uploads/..", "", (400, "BLOB_UPLOAD_INVALID")),
            ("PATCH /v2/team-a/app/blobs/uploads/x", "Content-Range: 9-1\r\n", (400, "BLOB_UPLOAD_INVALID")),
            ("PATCH /v2/team-a/app/blobs/uploads/x", "Content-Range: x\r\n", (400, "BLOB_UPLOAD_INVALID")),
            (
                "PATCH /v2/team-a/app/blobs/uploads/x",
                "Content-Range: 0-18446744073709551615\r\n",
                (400, "BLOB_UPLOAD_INVALID"),
            ),
            (
                "PATCH /v2/team-a/app/blobs/uploads/x",
                "Content-Range: 0-9\r\nContent-Length: 5\r\n",
                (400, "SIZE_INVALID"),
            ),
            ("GET /v2/", "Host: other\r\n", (400, "UNSUPPORTED")),
            // 300 MB, of which nothing is read.
            ("PUT /v2/team-a/app/manifests/v1", "Content-Length: 300000000\r\n", (413, "MANIFEST_INVALID")),
        ] {
            let told = raw(&host, &request(line, headers)).await;
            assert!(!told.is_empty(), "{line} {headers}: no answer");
            let (status, code) = error(&told);
            assert_eq!((status, code.as_str()), expected, "{line} {headers}");
        }
        assert_eq!(registry.asked(&web).await, []);
        assert_eq!(web.get(&host, "/v2/").await.status, 200, "everybody else is served");
        gateway.process.check_log();
    }
}

#[tokio::test]
async fn two_requests_are_never_hidden_in_one() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let web = Web::new();
        let mut site = Site::new(&registry.host, &json!({}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        let head = "POST /v2/team-a/app/blobs/uploads/ HTTP/1.1\r\nHost: gateway\r\n";
        let hidden = "GET /v2/hidden/tags/list HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
        for frame in [
            "Content-Length: 0\r\nContent-Length: 60\r\n\r\n",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked, identity\r\n\r\n",
            "Transfer-Encoding: gzip\r\n\r\n",
            "Content-Length: +5\r\n\r\n",
            "Content-Length : 5\r\n\r\n",
        ] {
            let told = raw(&host, format!("{head}{frame}{hidden}").as_bytes()).await;
            assert!(told.matches("HTTP/1.1 ").count() <= 1, "{frame}: {told}");
            let asked = registry.asked(&web).await;
            assert!(asked.iter().all(|access| !access.path.contains("hidden")), "{frame}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn a_manifest_without_end_is_stopped() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let web = Web::new();
        let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 9}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        registry.asked(&web).await;
        let mut stream = TcpStream::connect(&host).await.unwrap();
        let head = format!("Content-Type: {OCI_MANIFEST}\r\nTransfer-Encoding: chunked\r\n");
        stream.write_all(&request("PUT /v2/team-a/app/manifests/v1", &head)).await.unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let (mut reading, mut writing) = stream.into_split();
        // Until nobody listens any more.
        let endless = tokio::spawn(async move { while writing.write_all(&chunk).await.is_ok() {} });
        let mut told = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut told);
        let _reset_or_end = within("an answer", read).await;
        assert_eq!(error(&String::from_utf8_lossy(&told)), (413, "MANIFEST_INVALID".to_owned()));
        within("the connection ends", endless).await.unwrap();
        assert_eq!(registry.asked(&web).await, []);
        let memory = gateway.process.memory_bytes();
        assert!(memory < 64 << 20, "{memory} bytes");

        // And one that breaks off.
        let mut stream = TcpStream::connect(&host).await.unwrap();
        let head = format!("Content-Type: {OCI_MANIFEST}\r\nContent-Length: 100\r\n");
        stream.write_all(&request("PUT /v2/team-a/app/manifests/v1", &head)).await.unwrap();
        stream.write_all(b"{").await.unwrap();
        stream.shutdown().await.unwrap();
        let told = text(&mut stream).await;
        assert!(told.is_empty() || error(&told).0 == 400, "{told}");
        assert_eq!(registry.asked(&web).await, []);
    }
}

#[tokio::test]
async fn what_is_no_manifest_is_told_so() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let mut site = Site::new(&registry.host, &json!({"limits": {"image_bytes": 1 << 20, "tags": 9}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        web.upload_all(&host, "team-a/app", &image).await;
        let good = image.manifest.bytes.clone();
        let config = image.config.descriptor();
        let twice = json!({"schemaVersion": 2, "config": config, "layers": [
            {"mediaType": "x", "digest": image.layers[0].digest, "size": 2000},
            {"mediaType": "x", "digest": image.layers[0].digest, "size": 2001},
        ]});
        let both = json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []});
        let digest = json!({"schemaVersion": 2, "config": {"digest": "../../x", "size": 1}, "layers": []});
        let negative = json!({"schemaVersion": 2, "config": {"digest": image.config.digest, "size": -1}});
        registry.asked(&web).await;
        for (media_type, body, code) in [
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", good.clone(), "MANIFEST_INVALID"),
            ("text/plain", good.clone(), "MANIFEST_INVALID"),
            (OCI_INDEX, good, "MANIFEST_INVALID"),
            (OCI_MANIFEST, "".into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, "[1,2".into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, "[".repeat(100_000).into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, vec![0xff; 1000].into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, both.to_string().into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, digest.to_string().into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, negative.to_string().into(), "MANIFEST_INVALID"),
            (OCI_MANIFEST, twice.to_string().into(), "SIZE_INVALID"),
        ] {
            let what = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let answer = web.put_manifest(&host, "team-a/app", "v1", &Object::new(media_type, body)).await;
            assert_eq!(answer.refused(), (400, code.to_owned()), "{media_type} {what}: {answer:?}");
        }
        assert_eq!(registry.asked(&web).await, []);
    }
}

#[tokio::test]
async fn what_a_manifest_names_must_be_there() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let limits = json!({"image_bytes": 1 << 20, "tags": 9});
        let mut site = Site::new(
            &registry.host,
            &json!({"limits": limits, "overrides": [
                {"repositories": ["index/*"], "limits": {"scope": "index"}},
            ]}),
        );
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        assert_eq!(web.upload(&host, "team-a/app", &image.config).await.status, 201);
        let answer = web.put_manifest(&host, "team-a/app", "v1", &image.manifest).await;
        let (status, code, words) = answer.error();
        assert!((400..500).contains(&status) && code == "MANIFEST_BLOB_UNKNOWN", "{answer:?}");
        assert!(words.contains(&image.layers[0].digest), "{words}");
        // An index whose children nobody has pushed: told by the gateway where it looks, else by the registry.
        let child = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"nowhere"), "size": 7});
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]});
        let index = Object::new(OCI_INDEX, index.to_string());
        for repository in ["index/app", "team-a/app"] {
            let answer = web.put_manifest(&host, repository, "v1", &index).await;
            let (status, code, words) = answer.error();
            assert!((400..500).contains(&status) && !code.is_empty() && !words.is_empty(), "{answer:?}");
            assert_eq!(registry.tags(&web, repository).await, [""; 0]);
        }
        // None of them has taken a place.
        assert_eq!(gateway.metric("larder_gateway_index_tags").await, 0);
    }
}
