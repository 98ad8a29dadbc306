//! A real containerd of our own, apart from the machine's: root, state, socket, configuration and certs.d below one
//! temporary directory. Around it stands a node's worth of Larder ([`stand`]). Must not touch the system's containerd.

mod cri;
pub mod daemon;
pub mod stand;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::geteuid;
use tempfile::TempDir;

use cri::Cri;
use daemon::Daemon;

use crate::wait::until_time;

/// The generation of containerd that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Debian's package.
    One,
    /// Built by `make test` where Go is found.
    Two,
}

/// Killed when dropped; what it left mounted is unmounted.
pub struct Containerd {
    process: Daemon,
    cri: Cri,
    dir: TempDir,
}

const START: Duration = Duration::from_secs(60);

impl Flavour {
    /// Where its program is, or why it cannot be run here.
    ///
    /// # Errors
    /// One line saying what is missing.
    pub fn program(self) -> Result<PathBuf, String> {
        if !geteuid().is_root() {
            return Err("not root".to_owned());
        }
        let (program, missing) = match self {
            Self::One => (Some("/usr/bin/containerd".into()), "no Debian package `containerd`"),
            Self::Two => (
                in_target("tools/containerd-2/containerd"),
                "no target/tools/containerd-2 (`make test` builds it where Go is found)",
            ),
        };
        program.filter(|program| program.exists()).ok_or_else(|| missing.to_owned())
    }
}

impl Containerd {
    /// Starts one that looks for hosts.toml files below `certs`.
    ///
    /// # Errors
    /// It cannot run here, or does not answer within a minute.
    pub async fn start(flavour: Flavour, certs: &Path) -> Result<Self> {
        let program = match flavour.program() {
            Ok(program) => program,
            Err(why) => bail!("containerd cannot run here: {why}"),
        };
        // Short: a socket's path has 107 bytes.
        let dir = TempDir::with_prefix("larder-ctd-").context("a directory for containerd")?;
        let snapshotter = if overlay_works(dir.path())? { "overlayfs" } else { "native" };
        let settings = dir.path().join("config.toml");
        fs::write(&settings, configuration(flavour, dir.path(), certs, snapshotter))
            .context("containerd's configuration")?;
        let log = dir.path().join("containerd.log");
        let mut process = Daemon::spawn(Command::new(program).arg("--config").arg(&settings), &log, &log)?;
        let cri = Cri::new(&dir.path().join("containerd.sock"));
        process.until("its CRI answers", START, async |_| cri.is_up().await.then_some(())).await?;
        Ok(Self { process, cri, dir })
    }

    /// Pulls as the kubelet does; how long it took.
    ///
    /// # Errors
    /// Containerd's own words, or the time is over: the pull is cancelled then.
    pub async fn pull(&self, image: &str, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        let pull = tokio::time::timeout(within, self.cri.pull(image));
        match pull.await {
            Ok(done) => done.with_context(|| format!("pulling {image}"))?,
            Err(_) => bail!("pulling {image}: not done in {within:?}\n{}", self.process.log()),
        }
        Ok(start.elapsed())
    }

    /// Removes the image; containerd collects its garbage before this returns.
    ///
    /// # Errors
    /// Containerd's own words.
    pub async fn remove(&self, image: &str) -> Result<()> {
        self.cri.remove(image).await.with_context(|| format!("removing {image}"))
    }

    /// Removes the only image there is: the next pull fetches everything again.
    ///
    /// # Errors
    /// Containerd's own words.
    pub async fn forget(&self, image: &str) -> Result<()> {
        self.remove(image).await?;
        let blobs = self.dir.path().join("root/io.containerd.content.v1.content/blobs/sha256");
        until_time("containerd's blobs are gone", START, async || {
            fs::read_dir(&blobs).map_or(Some(()), |mut entries| entries.next().is_none().then_some(()))
        })
        .await;
        Ok(())
    }

    /// The size of the largest blob that is half fetched.
    #[must_use]
    pub fn ingesting(&self) -> u64 {
        let ingests = fs::read_dir(self.dir.path().join("root/io.containerd.content.v1.content/ingest"));
        let sizes = ingests.into_iter().flatten().filter_map(|ingest| {
            let data = fs::metadata(ingest.ok()?.path().join("data")).ok()?;
            Some(data.len())
        });
        sizes.max().unwrap_or(0)
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process.kill();
        unmount_below(self.dir.path());
    }
}

/// What a containerd of this flavour needs to know, with every path that would be the system's moved below `dir`.
fn configuration(flavour: Flavour, dir: &Path, certs: &Path, snapshotter: &str) -> String {
    let dir = dir.display();
    let certs = certs.display();
    let common = format!(
        "root = '{dir}/root'\nstate = '{dir}/state'\nimports = []\n[grpc]\naddress = '{dir}/containerd.sock'\n\
         [plugins.'io.containerd.internal.v1.opt']\npath = '{dir}/opt'\n"
    );
    let plugins = match flavour {
        Flavour::One => format!(
            "[plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = '{dir}/cni'\n\
             [plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = '{snapshotter}'\n\
             [plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '{certs}'\n"
        ),
        Flavour::Two => format!(
            "[plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir = '{dir}/cni'\n\
             [plugins.'io.containerd.cri.v1.images']\nsnapshotter = '{snapshotter}'\n\
             [plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{certs}'\n\
             [plugins.'io.containerd.nri.v1.nri']\ndisable = true\n\
             [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n\
             platform = 'linux'\nsnapshotter = '{snapshotter}'\n"
        ),
    };
    let version = if flavour == Flavour::One { 2 } else { 3 };
    format!("version = {version}\n{common}{plugins}")
}

/// A file below cargo's target directory, which our own program is in.
fn in_target(path: &str) -> Option<PathBuf> {
    std::env::current_exe().ok()?.ancestors().map(|dir| dir.join(path)).find(|path| path.exists())
}

/// Whether an overlay can be mounted below `dir`: not where `dir` is itself on one.
fn overlay_works(dir: &Path) -> Result<bool> {
    let place = |name: &str| dir.join("overlay").join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(place(name)).context("a try at an overlay mount")?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        place("lower").display(),
        place("upper").display(),
        place("work").display()
    );
    let tried =
        mount(Some("overlay"), &place("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    if tried.is_ok() {
        umount2(&place("merged"), MntFlags::MNT_DETACH).context("a try at an overlay mount")?;
    }
    Ok(tried.is_ok())
}

/// Unmounts everything below `dir`, the last mount first.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines().rev() {
        if let Some(place) = line.split(' ').nth(4).filter(|place| Path::new(place).starts_with(dir)) {
            // What cannot be unmounted stays for the directory's own removal to complain about.
            let _unmounted = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}
