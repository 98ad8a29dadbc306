//! The configuration that the controller writes for a main registry, read by real registries: Debian's docker-registry
//! 2.8, and Distribution 3 where it was built. Only paths and addresses differ from those in a cluster.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what a test calls is a test, which clippy sees only in functions marked so; what did not run is said"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use larder_controller::registry::config_file::{
    Auth, DescriptorCache, KeyPair, Listen, Notifications, S3, Settings, Store, render,
};
use larder_controller::registry::version::Major;
use larder_tests::client::connect;
use larder_tests::containerd::daemon::Daemon;
use larder_tests::registry::layers::{LayeredImage, MANIFEST};
use larder_tests::wait::{until_time, within};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const START: Duration = Duration::from_secs(20);
/// bcrypt of `U*U` and `U*U*`: the test vectors of bcrypt's own authors.
const ALICE: &str = "alice:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
const BOB: &str = "bob:$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK\n";

/// A registry to start.
struct Program {
    path: PathBuf,
    major: Major,
}

/// Those that are here; what is not says so in a line.
fn programs() -> Vec<Program> {
    let mut found = Vec::new();
    let debian = PathBuf::from("/usr/bin/docker-registry");
    if debian.exists() {
        found.push(Program { path: debian, major: Major::Two });
    } else {
        eprintln!("did not run with 2.8: no Debian package `docker-registry`");
    }
    let exe = std::env::current_exe().unwrap();
    let built =
        exe.ancestors().map(|dir| dir.join("tools/distribution-3/registry")).find(|path| path.exists());
    match built {
        Some(path) => found.push(Program { path, major: Major::Three }),
        None => eprintln!(
            "did not run with 3.x: no target/tools/distribution-3 (`make test` builds it where Go is found)"
        ),
    }
    found
}

/// A program that runs with a rendered file, and the directory that it has.
struct Running {
    process: Daemon,
    address: SocketAddr,
}

impl Program {
    fn settings(&self, dir: &Path) -> Settings {
        Settings {
            major: self.major,
            store: Store::FileSystem { root: dir.join("store").display().to_string() },
            disable_redirect: false,
            read_only: false,
            auth: Auth::None,
            cache: DescriptorCache::None,
            listen: Listen {
                address: "127.0.0.1:0".to_owned(),
                debug_address: "127.0.0.1:0".to_owned(),
                secret: "0123456789abcdef0123456789abcdef".to_owned().into(),
                tls: None,
                drain: Duration::from_secs(5),
            },
            notifications: None,
        }
    }

    async fn start(&self, dir: &Path, settings: &Settings) -> Running {
        self.start_with(dir, settings, &[]).await
    }

    async fn start_with(&self, dir: &Path, settings: &Settings, env: &[(&str, String)]) -> Running {
        let (file, log) = (dir.join("config.yml"), dir.join("registry.log"));
        fs::write(&file, render(settings)).unwrap();
        fs::write(&log, "").unwrap();
        let mut command = Command::new(&self.path);
        // What this machine tells its programs about proxies and CAs is not what a pod has.
        command.arg("serve").arg(&file).env_clear().env("OTEL_TRACES_EXPORTER", "none");
        command.envs(env.iter().map(|(name, value)| (name, value)));
        // 2.8 logs to the one, 3 to the other.
        let mut process = Daemon::spawn(&mut command, &log, &log).unwrap();
        let address = process.until("it listens", START, async |log| listening(log)).await.unwrap();
        Running { process, address }
    }
}

/// `"msg":"listening on 127.0.0.1:PORT"`, not the debug server's line.
fn listening(log: &str) -> Option<SocketAddr> {
    log.split("\"listening on ").skip(1).find_map(|rest| rest.split(['"', ',']).next()?.parse().ok())
}

/// An OCI layout with one image; and the manifest's digest.
fn layout(dir: &Path, seed: u64) -> (String, String) {
    let image = LayeredImage::new(seed, &[100_000, 3_000]).unwrap();
    let place = dir.join(format!("image-{seed}"));
    fs::create_dir_all(place.join("blobs/sha256")).unwrap();
    for piece in image.pieces() {
        let (_, hex) = piece.digest.split_once(':').unwrap();
        fs::write(place.join("blobs/sha256").join(hex), &piece.bytes).unwrap();
    }
    let digest = image.manifest.digest.clone();
    let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": image.manifest.bytes.len()});
    fs::write(place.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
        .unwrap();
    fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (format!("oci:{}", place.display()), digest)
}

/// Runs skopeo; what it said when it failed.
async fn skopeo(arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("skopeo");
    let output = within("skopeo ends", command.args(arguments).output()).await.expect("skopeo starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn push(image: &str, to: &str, more: &[&str]) -> Result<String, String> {
    let arguments = ["copy", "--insecure-policy", "--dest-tls-verify=false"];
    skopeo(&[&arguments, more, &[image, to]].concat()).await
}

async fn digest(of: &str, more: &[&str]) -> Result<String, String> {
    let arguments = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    skopeo(&[&arguments, more, &[of]].concat()).await.map(|text| text.trim().to_owned())
}

/// The whole answer as text. Our own client would mind what only Larder must never send.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = connect(address).await;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

fn has_skopeo() -> bool {
    let has = Path::new("/usr/bin/skopeo").exists();
    if !has {
        eprintln!("did not run: no Debian package `skopeo`");
    }
    has
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_and_read_only_keeps_it_so() {
    if !has_skopeo() {
        return;
    }
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let mut settings = program.settings(dir.path());
        let running = program.start(dir.path(), &settings).await;
        let (image, pushed) = layout(dir.path(), 1);
        let name = format!("docker://{}/team-a/app:v1", running.address);
        push(&image, &name, &[]).await.unwrap();
        assert_eq!(digest(&name, &[]).await.unwrap(), pushed);
        let back = format!("oci:{}", dir.path().join("back").display());
        skopeo(&["copy", "--insecure-policy", "--src-tls-verify=false", &name, &back]).await.unwrap();
        // Behind a gateway or an Ingress only a path is right.
        let opened = ask(running.address, "POST", "/v2/team-a/app/blobs/uploads/").await;
        assert!(opened.contains("\r\nLocation: /v2/team-a/app/"), "{opened}");
        // What the readiness probe asks for needs nothing.
        assert!(is_ok(&ask(running.address, "GET", "/").await));
        running.process.end(Signal::SIGTERM, START).await.unwrap();

        settings.read_only = true;
        let running = program.start(dir.path(), &settings).await;
        let name = format!("docker://{}/team-a/app:v1", running.address);
        assert_eq!(digest(&name, &[]).await.unwrap(), pushed, "the store is read on");
        let (other, _) = layout(dir.path(), 2);
        let refused = push(&other, &format!("docker://{}/team-a/app:v2", running.address), &[]).await;
        assert!(refused.is_err(), "a push into a registry for pulls only");
    }
}

#[tokio::test]
async fn users_of_the_file_are_let_in_and_new_ones_without_a_restart() {
    if !has_skopeo() {
        return;
    }
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let users = dir.path().join("htpasswd");
        fs::write(&users, ALICE).unwrap();
        let mut settings = program.settings(dir.path());
        settings.auth = Auth::Htpasswd { realm: "main-registry".into(), path: users.display().to_string() };
        let running = program.start(dir.path(), &settings).await;
        let (image, pushed) = layout(dir.path(), 1);
        let name = format!("docker://{}/team-a/app:v1", running.address);
        assert!(push(&image, &name, &[]).await.is_err(), "a push by nobody");
        assert!(push(&image, &name, &["--dest-creds=alice:wrong"]).await.is_err());
        push(&image, &name, &["--dest-creds=alice:U*U"]).await.unwrap();
        assert!(digest(&name, &["--creds=bob:U*U*"]).await.is_err(), "bob is not there yet");
        fs::write(&users, format!("{ALICE}{BOB}")).unwrap();
        assert_eq!(digest(&name, &["--creds=bob:U*U*"]).await.unwrap(), pushed);
        assert!(is_ok(&ask(running.address, "GET", "/").await), "the probe has no password");
    }
}

#[tokio::test]
async fn tls_and_a_token_service_are_understood() {
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut settings = program.settings(dir.path());
        settings.auth = Auth::Token {
            realm: "https://auth.example/token".into(),
            service: "main".into(),
            issuer: "auth.example".into(),
            root_certificates: certificate.display().to_string(),
        };
        let running = program.start(dir.path(), &settings).await;
        let asks = ask(running.address, "GET", "/v2/").await;
        assert!(asks.starts_with("HTTP/1.1 401 "), "{asks}");
        assert!(asks.contains(r#": Bearer realm="https://auth.example/token",service="main""#), "{asks}");
        drop(running);

        settings.auth = Auth::None;
        let pair = KeyPair { certificate: certificate.display().to_string(), key: key.display().to_string() };
        settings.listen.tls = Some(pair);
        let running = program.start(dir.path(), &settings).await;
        assert!(running.process.log().contains("tls"));
        if has_skopeo() {
            let (image, pushed) = layout(dir.path(), 1);
            let name = format!("docker://{}/team-a/app:v1", running.address);
            push(&image, &name, &[]).await.unwrap();
            assert_eq!(digest(&name, &[]).await.unwrap(), pushed);
        }
    }
}

fn bucket(endpoint: String) -> Store {
    Store::S3(S3 {
        bucket: "images".into(),
        region: "eu-1".into(),
        endpoint: Some(endpoint),
        path_style: true,
        encrypt: false,
        chunk_bytes: Some(10 << 20),
        access_key: "AKID".to_owned().into(),
        secret_key: "secret".to_owned().into(),
    })
}

/// Makes the registry look into its store.
async fn look_into_store(address: SocketAddr) {
    let _answer = ask(address, "GET", "/v2/team-a/app/tags/list").await;
}

/// The first bytes of what connects.
async fn first_words(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = vec![0; 4096];
    let read = within("something is said", stream.read(&mut bytes)).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn a_bucket_is_asked_at_its_endpoint_by_path() {
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = program.settings(dir.path());
        settings.store = bucket(format!("http://{}", endpoint.local_addr().unwrap()));
        let running = program.start(dir.path(), &settings).await;
        let looking = tokio::spawn(look_into_store(running.address));
        let (mut stream, _) = within("the endpoint is asked", endpoint.accept()).await.unwrap();
        let asked = first_words(&mut stream).await;
        assert!(asked.starts_with("GET /images?") || asked.starts_with("HEAD /images/"), "{asked}");
        assert!(asked.contains("Credential=AKID/"), "{asked}");
        looking.abort();
    }
}

#[tokio::test]
async fn the_ca_of_a_bucket_is_trusted_when_its_directory_is_named() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let trusted = dir.path().join("trusted-ca");
        fs::create_dir(&trusted).unwrap();
        fs::write(trusted.join("trusted-ca.crt"), made.cert.pem()).unwrap();
        let mut settings = program.settings(dir.path());
        for (is_named, directories) in
            [(false, "/etc/ssl/certs".to_owned()), (true, format!("/etc/ssl/certs:{}", trusted.display()))]
        {
            // One for each, since the first registry may have asked more than once.
            let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
            settings.store = bucket(format!("https://{}", endpoint.local_addr().unwrap()));
            let running = program.start_with(dir.path(), &settings, &[("SSL_CERT_DIR", directories)]).await;
            let looking = tokio::spawn(look_into_store(running.address));
            let (stream, _) = within("the endpoint is asked", endpoint.accept()).await.unwrap();
            let asked = match within("a handshake", acceptor.accept(stream)).await {
                Ok(mut stream) => first_words(&mut stream).await,
                Err(_) => String::new(),
            };
            assert_eq!(asked.contains("/images"), is_named, "{asked}");
            looking.abort();
        }
    }
}

#[tokio::test]
async fn redis_is_found_under_the_names_of_either_major() {
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = program.settings(dir.path());
        settings.cache = DescriptorCache::Redis {
            addresses: vec![redis.local_addr().unwrap().to_string()],
            password: Some("valkey-password".to_owned().into()),
            database: 2,
        };
        let running = program.start(dir.path(), &settings).await;
        let blob = format!("/v2/team-a/app/blobs/sha256:{}", "0".repeat(64));
        let address = running.address;
        let asking = tokio::spawn(async move { ask(address, "HEAD", &blob).await });
        let said = until_time("the password is said", START, async || {
            let (mut stream, _) = within("redis is asked", redis.accept()).await.ok()?;
            let said = first_words(&mut stream).await;
            stream.write_all(b"+OK\r\n").await.ok()?;
            said.contains("valkey-password").then_some(said)
        })
        .await;
        assert!(said.to_lowercase().contains("auth"), "{said}");
        asking.abort();
    }
}

#[tokio::test]
async fn whoever_is_to_be_told_hears_of_a_push() {
    if !has_skopeo() {
        return;
    }
    for program in programs() {
        let dir = TempDir::with_prefix("larder-main-registry-").unwrap();
        let ear = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = program.settings(dir.path());
        settings.notifications = Some(Notifications {
            url: format!("http://{}/events", ear.local_addr().unwrap()),
            authorization: "Bearer told".to_owned().into(),
        });
        let running = program.start(dir.path(), &settings).await;
        let (image, _) = layout(dir.path(), 1);
        push(&image, &format!("docker://{}/team-a/app:v1", running.address), &[]).await.unwrap();
        let (mut stream, _) = within("the ear is told", ear.accept()).await.unwrap();
        let told = first_words(&mut stream).await;
        assert!(told.starts_with("POST /events ") && told.contains("Bearer told"), "{told}");
    }
}
