//! What every story starts with: an image in a registry, and a containerd and a stand for it. Must not hold tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_tests::containerd::stand::Stand;
use larder_tests::containerd::{Containerd, Flavour};
use larder_tests::invariants::stored_files_match;
use larder_tests::registry::DockerRegistry;
use larder_tests::registry::layers::LayeredImage;

/// Far beyond what any pull here needs.
pub(crate) const PULL: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

pub(crate) struct Scene {
    pub(crate) registry: DockerRegistry,
    pub(crate) image: LayeredImage,
    /// The image's name at the registry.
    pub(crate) name: String,
    pub(crate) containerd: Containerd,
    pub(crate) stand: Stand,
}

/// A test for each containerd that tells it the story of this name.
macro_rules! told_to_each_containerd {
    ($($story:ident),* $(,)?) => {
        mod containerd_1 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                crate::scene::told(larder_tests::containerd::Flavour::One, super::$story).await;
            })*
        }
        mod containerd_2 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                crate::scene::told(larder_tests::containerd::Flavour::Two, super::$story).await;
            })*
        }
    };
}
pub(crate) use told_to_each_containerd;

/// Tells a story to a containerd, or says in one line why that cannot be done here.
pub(crate) async fn told(flavour: Flavour, story: impl AsyncFnOnce(&mut Scene)) {
    let missing = match flavour.program() {
        Err(why) => Some(why),
        Ok(_) if !DockerRegistry::is_installed() => Some("no Debian package `docker-registry`".to_owned()),
        Ok(_) => None,
    };
    match missing {
        None => {
            let mut scene = Scene::new(flavour).await;
            story(&mut scene).await;
            drop(stored_files_match(&scene.stand.data()));
        }
        Some(why) => {
            let version = if flavour == Flavour::One { "1.6" } else { "2.x" };
            say_once(&format!("end to end with containerd {version} did not run: {why}"));
        }
    }
}

impl Scene {
    /// An image of three layers, the registry that the stand fetches it from, nothing of Larder started yet.
    async fn new(flavour: Flavour) -> Self {
        let image = LayeredImage::new(1, &[3 * MIB, 12 * MIB, 100_000]).unwrap();
        let registry = DockerRegistry::start().await.unwrap();
        let name = registry.push("demo/app", "v1", &image).await.unwrap();
        let stand = Stand::new(registry.host(), &registry.url()).unwrap();
        let containerd = Containerd::start(flavour, &stand.certs()).await.unwrap();
        Self { registry, image, name, containerd, stand }
    }

    /// How many requests reached the registry since the last look: containerd's own, and others'.
    pub(crate) async fn asked(&mut self) -> (usize, usize) {
        let asked = self.registry.asked().await.unwrap();
        let direct = asked.iter().filter(|access| access.is_direct()).count();
        (direct, asked.len() - direct)
    }
}

/// Every entry below a directory: its mode, and its bytes if it is a file.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = metadata.is_file().then(|| fs::read(&path).unwrap());
            if metadata.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, (metadata.permissions().mode(), bytes));
        }
    }
    found
}

/// Straight to standard error: what a passing test prints is not shown otherwise.
fn say_once(line: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.iter().any(|earlier| earlier == line) {
        said.push(line.to_owned());
        std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}
