//! nginx as a plain file server, and what a server's processes cost. Must not make load.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use larder_tests::containerd::daemon::Daemon;
use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Gone when dropped.
pub(crate) struct Nginx {
    process: Daemon,
    address: SocketAddr,
    _dir: TempDir,
}

impl Nginx {
    /// Serves these files, with sendfile, a worker per core and an access log, as larder-agent logs too.
    pub(crate) async fn start(files: &[(&str, &[u8])]) -> Result<Self> {
        let dir = TempDir::with_prefix("larder-nginx-").context("a directory for nginx")?;
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).with_context(|| format!("{name} for nginx"))?;
        }
        // nginx cannot tell which port it was given: take one, let it go, and use it.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("a free port")?;
        let settings = dir.path().join("nginx.conf");
        let root = dir.path().display();
        fs::write(
            &settings,
            format!(
                "user root; daemon off; worker_processes auto; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{ sendfile on; tcp_nopush on; keepalive_requests 1000000; access_log {root}/access.log;\n\
                 server {{ listen {address}; root {root}; }} }}\n"
            ),
        )
        .context("nginx's configuration")?;
        let log = dir.path().join("nginx.log");
        let mut process =
            Daemon::spawn(Command::new("nginx").arg("-c").arg(&settings).args(["-e", "stderr"]), &log, &log)?;
        let up = async |_: &str| TcpStream::connect(address).await.ok();
        process.until("nginx listens", Duration::from_secs(10), up).await?;
        Ok(Self { process, address, _dir: dir })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nginx {
    /// Its workers outlive a killed master, so it is asked to end them, and killed only where it does not listen.
    fn drop(&mut self) {
        let _asked = self.process.signal(Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(self.process.ended(), Ok(None)) {
            std::thread::yield_now();
        }
    }
}

/// Processor time that a process and its children have used.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK).context("clock ticks")?.context("clock ticks")?;
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let mut sum = 0;
    for id in children.split_whitespace().map(str::to_owned).chain([process.to_string()]) {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).with_context(|| format!("process {id}"))?;
        // Fields 14 and 15, counted behind the name in parentheses, which may hold spaces.
        let behind = stat.rsplit_once(')').with_context(|| format!("process {id}"))?.1;
        let times = behind.split_whitespace().skip(11).take(2);
        sum += times.filter_map(|time| time.parse::<i64>().ok()).sum::<i64>();
    }
    Ok(sum as f64 / ticks as f64)
}
