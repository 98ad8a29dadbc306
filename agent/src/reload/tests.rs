//! Changes of a real file in a real directory, as an editor and as a kubelet make them.

use std::fs;
use std::os::unix::fs::symlink;

use tokio::signal::unix::{SignalKind, signal};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

struct Running {
    settings: watch::Receiver<Settings>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

fn watch_file(file: &Path, data_dir: &Path) -> Running {
    let running = Settings { data_dir: data_dir.to_owned(), ..Settings::default() };
    let (sender, settings) = watch::channel(running);
    let metrics = Arc::new(Metrics::new(settings.clone(), |_| {}));
    let seen = fs::read_to_string(file).unwrap();
    let reload =
        Reload { file: Some(file.to_owned()), seen, settings: sender, metrics: Arc::clone(&metrics) };
    let stop = CancellationToken::new();
    tokio::spawn(run(reload, signal(SignalKind::hangup()).unwrap(), stop.clone()));
    Running { settings, metrics, stop }
}

impl Running {
    async fn until_generation(&mut self, generation: u64) {
        let came =
            timeout(DEADLINE, self.settings.wait_for(|settings| settings.generation == generation)).await;
        came.expect("in time").expect("still watched");
    }

    async fn until_failures(&self, count: u64) {
        let seen = async {
            while self.metrics.reload_failures.get() < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, seen).await.expect("in time");
    }
}

#[tokio::test]
async fn an_editor_replaces_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, beside) = (dir.path().join("larder.toml"), dir.path().join("larder.toml~"));
    fs::write(&file, "generation = 1").unwrap();
    let mut running = watch_file(&file, dir.path());

    fs::write(&beside, "generation = 2\ncolour = 1\n").unwrap();
    fs::rename(&beside, &file).unwrap();
    running.until_generation(2).await;
    assert_eq!(running.metrics.unknown_keys.get(), 1);
    let copy = fs::read_to_string(dir.path().join("last-good.toml")).unwrap();
    assert_eq!(copy, "generation = 2\ncolour = 1\n");

    fs::write(&file, "generation = true").unwrap();
    running.until_failures(1).await;
    assert_eq!(running.settings.borrow().generation, 2);
    assert_eq!(fs::read_to_string(dir.path().join("last-good.toml")).unwrap(), copy);

    fs::write(&file, "generation = 3").unwrap();
    running.until_generation(3).await;
    assert_eq!((running.metrics.unknown_keys.get(), running.metrics.reload_failures.get()), (0, 1));
    running.stop.cancel();
}

#[tokio::test]
async fn a_kubelet_swaps_the_link_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("settings");
    for (version, text) in [("..1", "generation = 1"), ("..2", "generation = 2")] {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("larder.toml"), text).unwrap();
    }
    symlink("..1", mount.join("..data")).unwrap();
    symlink("..data/larder.toml", mount.join("larder.toml")).unwrap();
    let mut running = watch_file(&mount.join("larder.toml"), dir.path());

    symlink("..2", mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    running.until_generation(2).await;
    running.stop.cancel();
}

#[tokio::test]
async fn without_a_file_the_settings_stay_until_the_end() {
    let (sender, settings) = watch::channel(Settings::without_file());
    let metrics = Arc::new(Metrics::new(settings.clone(), |_| {}));
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(
        Reload { file: None, seen: String::new(), settings: sender, metrics },
        signal(SignalKind::hangup()).unwrap(),
        stop.clone(),
    ));
    tokio::task::yield_now().await;
    assert!(settings.has_changed().is_ok());
    stop.cancel();
    timeout(DEADLINE, task).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_hangup_looks_at_once_where_no_bell_rings() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, real) = (dir.path().join("larder.toml"), elsewhere.path().join("real.toml"));
    fs::write(&real, "generation = 1").unwrap();
    symlink(&real, &file).unwrap();
    let mut running = watch_file(&file, dir.path());
    // The first look is over once it has told of a bad file; what comes then rings no bell.
    fs::write(&real, "generation = true").unwrap();
    running.until_failures(1).await;
    fs::write(&real, "generation = 2").unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
    running.until_generation(2).await;
    running.stop.cancel();
}
