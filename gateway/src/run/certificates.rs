//! Watches the directories of certificates and keys, since Secrets change by swapping a link beside the
//! files, and has them read again. Must not end anything: what cannot be used is told and counted, and the
//! last good one holds on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::forward::chain;
use crate::metrics::Watched;
use crate::serve::Gateway;
use crate::server::Tls;
use crate::upstream::TlsFilesError;

/// Files are looked at once nothing has moved for this long ...
const QUIET: Duration = Duration::from_millis(200);
/// ... or once things have been moving for this many times as long.
const RESTLESS: usize = 10;
/// And now and then in any case: links that lead elsewhere and directories that are replaced ring no bell.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Who has files to read again.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) gateway: Arc<Gateway>,
    pub(super) tls: Option<Arc<Tls>>,
}

/// What files look like from outside.
type Seen = Vec<Option<(SystemTime, u64)>>;

/// Takes changes over until `stop`.
pub(super) async fn run(certificates: Certificates, stop: CancellationToken) {
    let bell = Arc::new(Notify::new());
    let (ours, upstreams) = certificates.files();
    let _watcher = match watcher(ours.iter().chain(&upstreams), Arc::clone(&bell)) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(%error, "cannot watch the certificates, looking every 30 s instead");
            None
        }
    };
    let (mut seen_ours, mut seen_upstreams) = (Seen::new(), Seen::new());
    loop {
        // The first look is for what changed between the start and the watcher.
        let (ours_now, upstreams_now) = (look(&ours), look(&upstreams));
        let changed = (ours_now != seen_ours, upstreams_now != seen_upstreams);
        (seen_ours, seen_upstreams) = (ours_now, upstreams_now);
        let reading = certificates.clone();
        if changed != (false, false) && spawn_blocking(move || reading.read(changed)).await.is_err() {
            return error!("cannot look at the certificates any more");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = bell.notified() => quiet(&bell).await,
            () = sleep(LOOK_AGAIN) => {}
        }
    }
}

impl Certificates {
    fn files(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let config = &self.gateway.config;
        let both = |pair: &Option<(PathBuf, PathBuf)>| {
            pair.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]).collect::<Vec<_>>()
        };
        let mut upstreams = both(&config.upstream_tls.client);
        upstreams.extend(config.upstream_tls.ca.clone());
        (both(&config.tls), upstreams)
    }

    fn read(&self, (ours, upstreams): (bool, bool)) {
        if let Some(tls) = self.tls.as_ref().filter(|_| ours) {
            self.told(Watched::ServerCertificate, tls.reload());
        }
        if upstreams {
            self.told(Watched::UpstreamCertificate, self.gateway.upstream.reload());
        }
    }

    fn told(&self, file: Watched, read: Result<(), TlsFilesError>) {
        match read {
            Ok(()) => info!(file = file.label(), "certificates read"),
            Err(error) => {
                self.gateway.metrics.reload_failed(file);
                error!(reason = chain(&error), "certificates cannot be used, going on with the old ones");
            }
        }
    }
}

fn look(files: &[PathBuf]) -> Seen {
    let of = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(of).collect()
}

fn watcher<'f>(
    files: impl Iterator<Item = &'f PathBuf>,
    bell: Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading a file is an event as well.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            bell.notify_one();
        }
    })?;
    let parent = |file: &'f PathBuf| file.parent().filter(|path| !path.as_os_str().is_empty());
    let directories: BTreeSet<&Path> =
        files.map(|file| parent(file).unwrap_or_else(|| Path::new("."))).collect();
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

async fn quiet(bell: &Notify) {
    for _ in 0..RESTLESS {
        if timeout(QUIET, bell.notified()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::tests::stage::{Registry, Stage, eventually, reply};

    fn write_pair(dir: &Path) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), signing_key.serialize_pem()).unwrap();
    }

    #[tokio::test]
    async fn changed_files_are_noticed_and_bad_ones_counted() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let more = format!("tls_cert_file = {certificate:?}\ntls_key_file = {key:?}\n");
        let registry = Registry::start(|_| reply(200, &[])).await;
        let open = r#"{"generation":1,"action":"enforce","limits":{}}"#;
        let stage = Stage::with(registry.address, open, &more, None).await;
        let tls = Arc::new(Tls::new((certificate.clone(), key)).unwrap());
        let certificates = Certificates { gateway: Arc::clone(&stage.gateway), tls: Some(Arc::clone(&tls)) };
        let stop = CancellationToken::new();
        let first = tls.offered();
        let watching = tokio::spawn(run(certificates, stop.clone()));
        // The first look takes over what is there.
        eventually(|| !Arc::ptr_eq(&tls.offered(), &first)).await;
        let second = tls.offered();
        write_pair(dir.path());
        eventually(|| !Arc::ptr_eq(&tls.offered(), &second)).await;
        std::fs::write(&certificate, "no certificate").unwrap();
        let failed = "certificate_reload_failures_total{file=\"tls_cert_file\"} ";
        eventually(|| !stage.gateway.metrics.page().unwrap().contains(&format!("{failed}0"))).await;
        stop.cancel();
        watching.await.unwrap();
    }
}
