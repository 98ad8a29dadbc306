//! The image that `make image` assembles: a real containerd imports it, and runc starts each program of it as a pod would,
//! not root, on a read-only root file system. Must not build anything: the tests' own programs are what is packed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use flate2::read::GzDecoder;
use larder_tests::containerd::Flavour;
use larder_tests::containerd::daemon::Daemon;
use larder_tests::containerd::stand::program;
use serde_json::Value;
use tar::Archive;
use tempfile::TempDir;

const PROGRAMS: [&str; 3] = ["larder-agent", "larder-installer", "larder-controller"];
const GATEWAY: &str = "larder-gateway";
const START: Duration = Duration::from_secs(60);

/// Assembles the programs of a directory.
fn assemble(programs: &Path, archive: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/image");
    run(Command::new(script).arg(programs).arg(archive).env("SOURCE_DATE_EPOCH", "1000000000"));
}

/// Runs it to its end; how it ended is asserted, what it printed returned.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (output, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{output}\n{errors}");
    output.into_owned()
}

/// The files of an archive by path, with owner, mode and bytes. Directories are left out.
fn entries(archive: impl Read) -> BTreeMap<String, (u64, u32, Vec<u8>)> {
    let mut archive = Archive::new(archive);
    let files =
        archive.entries().unwrap().map(Result::unwrap).filter(|entry| entry.header().entry_type().is_file());
    let read = files.map(|mut entry| {
        let path = entry.path().unwrap().strip_prefix(".").unwrap().display().to_string();
        let (owner, mode) = (entry.header().uid().unwrap(), entry.header().mode().unwrap());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, (owner, mode, bytes))
    });
    read.collect()
}

/// The blob that a descriptor names.
fn blob<'a>(image: &'a BTreeMap<String, (u64, u32, Vec<u8>)>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    let (_, _, bytes) = &image[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(descriptor["size"], bytes.len(), "{digest}");
    bytes
}

#[test]
fn the_same_programs_give_the_same_image_with_roots_and_users() {
    let dir = TempDir::new().unwrap();
    for name in PROGRAMS {
        // Any program does.
        fs::copy("/bin/true", dir.path().join(name)).unwrap();
    }
    let archives = ["one.tar", "two.tar"].map(|name| dir.path().join(name));
    let [one, two] = archives.map(|archive| {
        assemble(dir.path(), &archive);
        fs::read(archive).unwrap()
    });
    assert!(one == two, "two archives of the same programs differ");

    let image = entries(&*one);
    let index: Value = serde_json::from_slice(&image["index.json"].2).unwrap();
    let manifest: Value = serde_json::from_slice(blob(&image, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(blob(&image, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["User"], "19500:19500");

    let files = entries(GzDecoder::new(blob(&image, &manifest["layers"][0])));
    assert!(files.values().all(|(owner, mode, _)| *owner == 0 && mode & 0o022 == 0), "{:?}", files.keys());
    let text = |path: &str| String::from_utf8(files[path].2.clone()).unwrap();
    assert!(text("etc/ssl/certs/ca-certificates.crt").contains("-----BEGIN CERTIFICATE-----"));
    assert!(text("etc/passwd").contains(":19500:19500:"));
    assert!(text("etc/passwd").contains(":65532:65532:"));
}

#[tokio::test]
async fn runc_starts_each_program_of_it() {
    if let Err(missing) = Flavour::One.program() {
        let line = format!("the image was not started: {missing}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let dir = TempDir::with_prefix("larder-image-").unwrap();
    let programs = program("larder-agent").unwrap().parent().unwrap().to_owned();
    let archive = dir.path().join("image.tar");
    assemble(&programs, &archive);

    let (socket, _containerd) = containerd(dir.path()).await;
    let ctr = || {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&socket);
        ctr
    };
    run(ctr().args(["images", "import", "--snapshotter", "native"]).arg(&archive));
    let image = run(ctr().args(["images", "list", "--quiet"])).trim().to_owned();
    assert!(image.starts_with("ghcr.io/larder/larder:"), "{image}");

    let gateway = programs.join(GATEWAY).exists().then_some(GATEWAY);
    for name in PROGRAMS.into_iter().chain(gateway) {
        let mut start = ctr();
        start.args(["run", "--rm", "--read-only", "--snapshotter", "native", "--cgroup", ""]);
        start.arg("--runc-root").arg(dir.path().join("runc"));
        let printed = run(start.args([&image, name, &format!("/{name}"), "--version"]));
        assert!(printed.starts_with(name), "{printed}");
    }
}

/// A containerd that only imports and runs, below `dir`; its socket.
async fn containerd(dir: &Path) -> (PathBuf, Daemon) {
    let (settings, socket, log) = (dir.join("config.toml"), dir.join("c.sock"), dir.join("log"));
    let place = dir.display();
    let text = format!(
        "version = 2\nroot = '{place}/root'\nstate = '{place}/state'\nimports = []\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{place}/c.sock'\n\
         [plugins.'io.containerd.internal.v1.opt']\npath = '{place}/opt'\n"
    );
    fs::write(&settings, text).unwrap();
    let program = Flavour::One.program().unwrap();
    let mut process =
        Daemon::spawn(Command::new(program).arg("--config").arg(&settings), &log, &log).unwrap();
    process
        .until("containerd answers", START, async |_| {
            let asked = Command::new("ctr").arg("--address").arg(&socket).arg("version").output().unwrap();
            asked.status.success().then_some(())
        })
        .await
        .unwrap();
    (socket, process)
}
