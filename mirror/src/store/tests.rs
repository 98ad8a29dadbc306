//! The store against a model: whatever happens to its files and its index, it never shows wrong bytes, and what nobody
//! touched stays.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use larder_wire::digest::Algorithm;
use larder_wire::units::Size;
use proptest::prelude::*;

use super::*;
use crate::evict::Reason;
use crate::verify::{Hasher, Verified};

fn limits() -> Limits {
    Limits { ttl: 0, max_size: Size::Bytes(0), min_free: Size::Bytes(0), registries: HashMap::new() }
}

fn open(dir: &Path) -> Arc<Store> {
    Arc::new(Store::open(&dir.join("data"), limits(), Arc::default()).unwrap())
}

fn bytes(blob: u8) -> Vec<u8> {
    (0..usize::from(blob) * 700 + 1).map(|at| u8::try_from(at % 251).unwrap_or(0) ^ blob).collect()
}

fn key(blob: u8) -> BlobKey {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&bytes(blob));
    BlobKey { class: Class::Public, digest: hasher.finish() }
}

fn path(dir: &Path, blob: u8) -> PathBuf {
    let hex = key(blob).digest.hex();
    dir.join("data/blobs/public/sha256").join(&hex[..2]).join(hex)
}

fn put(store: &Store, blob: u8) {
    let temp = store.begin(Some(bytes(blob).len() as u64)).unwrap();
    std::io::Write::write_all(&mut &*temp.file, &bytes(blob)).unwrap();
    let proof = Verified::check(&bytes(blob), &key(blob).digest).unwrap();
    store.commit(&temp, &key(blob), &proof, &"r.test".parse().unwrap());
}

/// What a pull would serve whole.
fn get(store: &Store, blob: u8) -> Option<Vec<u8>> {
    let blob = match store.blob(&key(blob)) {
        Held::Absent => return None,
        Held::Proven(held) => held,
        Held::Unproven(held) => Some(held).filter(|held| store.hash(&key(blob), held, |_| {}))?,
    };
    let mut read = vec![0; usize::try_from(blob.size).unwrap()];
    blob.region.read_at(&mut read, 0).unwrap();
    Some(read)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8),
    Get(u8),
    Evict(u8),
    Flip(u8),
    Truncate(u8),
    Delete(u8),
    Reopen,
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8).prop_map(Step::Put),
        6 => (0..6_u8).prop_map(Step::Get),
        1 => (0..6_u8).prop_map(Step::Evict),
        1 => (0..6_u8).prop_map(Step::Flip),
        1 => (0..6_u8).prop_map(Step::Truncate),
        1 => (0..6_u8).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
    ]
}

/// Blobs that must be there, and must be right.
type Model = HashMap<u8, bool>;

async fn apply(dir: &Path, store: Arc<Store>, model: &mut Model, step: Step) -> Arc<Store> {
    match step {
        Step::Put(blob) => {
            put(&store, blob);
            model.insert(blob, true);
        }
        Step::Get(blob) => match (get(&store, blob), model.get(&blob)) {
            (Some(read), _) => assert_eq!(read, bytes(blob), "wrong bytes were shown"),
            (None, Some(true)) => panic!("blob {blob} is gone though nobody touched it"),
            (None, _) => drop(model.remove(&blob)),
        },
        Step::Evict(blob) => {
            store.evict(&key(blob), Reason::Ttl).await;
            model.remove(&blob);
        }
        Step::Flip(blob) => spoil(dir, model, blob, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1)),
        Step::Truncate(blob) => {
            spoil(dir, model, blob, |bytes| bytes.truncate(bytes.len().saturating_sub(1)));
        }
        Step::Delete(blob) => {
            let _ = fs::remove_file(path(dir, blob));
            model.remove(&blob);
        }
        Step::Reopen | Step::LoseIndex => {
            store.close().await;
            drop(store);
            if matches!(step, Step::LoseIndex) {
                for entry in fs::read_dir(dir.join("data")).unwrap().flatten() {
                    if entry.file_name().to_string_lossy().starts_with("index-") {
                        fs::remove_dir_all(entry.path()).unwrap();
                    }
                }
            }
            return open(dir);
        }
    }
    store
}

/// Changes a stored file as a broken disk or a careless person would.
fn spoil(dir: &Path, model: &mut Model, blob: u8, change: impl FnOnce(&mut Vec<u8>)) {
    let path = path(dir, blob);
    let Ok(mut read) = fs::read(&path) else { return };
    change(&mut read);
    // Another file, made while the first is there: its identity differs however coarse the file system's clock is.
    let beside = dir.join("beside");
    fs::write(&beside, read).unwrap();
    fs::rename(&beside, &path).unwrap();
    model.insert(blob, false);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_store_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            let mut model = Model::new();
            for step in steps {
                store = apply(dir.path(), store, &mut model, step).await;
            }
            for blob in 0..6 {
                store = apply(dir.path(), store, &mut model, Step::Get(blob)).await;
            }
            assert_eq!(fs::read_dir(dir.path().join("data/tmp")).unwrap().count(), 0, "nothing unfinished stays");
            store.close().await;
        });
    }
}

#[tokio::test]
async fn a_scrub_puts_away_what_is_wrong_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for blob in 0..50 {
        put(&store, blob);
    }
    let mut model = Model::new();
    for blob in (0..50).step_by(2) {
        spoil(dir.path(), &mut model, blob, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
        });
    }
    store.scrub(&mut |_| true);
    for blob in 0..50 {
        assert_eq!(path(dir.path(), blob).exists(), !blob.is_multiple_of(2), "blob {blob}");
    }
    let spoilt: u64 = (0..50).step_by(2).map(|blob| bytes(blob).len() as u64).sum();
    assert_eq!(store.stats.evicted_bytes(Reason::Corrupt), spoilt);
    store.close().await;
}

#[tokio::test]
async fn links_and_fifos_in_a_blobs_place_are_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let outside = dir.path().join("outside");
    fs::write(&outside, bytes(1)).unwrap();
    put(&store, 1);
    put(&store, 2);
    fs::remove_file(path(dir.path(), 1)).unwrap();
    std::os::unix::fs::symlink(&outside, path(dir.path(), 1)).unwrap();
    fs::remove_file(path(dir.path(), 2)).unwrap();
    let name = std::ffi::CString::new(path(dir.path(), 2).to_str().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &name, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!((get(&store, 1), get(&store, 2)), (None, None));
    let shard = path(dir.path(), 3).parent().unwrap().to_owned();
    std::os::unix::fs::symlink(dir.path(), &shard).unwrap();
    put(&store, 3);
    assert_eq!(get(&store, 3), None, "a shard that is a link is not written through");
    assert!(!dir.path().join(key(3).digest.hex()).exists());
    store.close().await;
}
