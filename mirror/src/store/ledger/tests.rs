//! The ledger against a model, over sled and over memory alike.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::index::{MemoryRows, SledRows};
use super::*;

fn key(n: u8) -> BlobKey {
    let class =
        if n.is_multiple_of(3) { Class::Shared("private.test".parse().unwrap()) } else { Class::Public };
    BlobKey { class, digest: Digest::Sha256([n; 32]) }
}

fn registry(n: u8) -> Registry {
    format!("r{}.test", n % 3).parse().unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Use { blob: u8, by: u8, at: u16 },
    Adopt { blob: u8, at: u16 },
    Remove(u8),
    Tag { tag: u8, to: u8 },
    ForgetTags,
    Link(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8, 0..3_u8, any::<u16>()).prop_map(|(blob, by, at)| Step::Use { blob, by, at }),
        2 => (0..12_u8, any::<u16>()).prop_map(|(blob, at)| Step::Adopt { blob, at }),
        3 => (0..12_u8).prop_map(Step::Remove),
        1 => (0..3_u8, 0..12_u8).prop_map(|(tag, to)| Step::Tag { tag, to }),
        1 => Just(Step::ForgetTags),
        1 => (0..12_u8).prop_map(Step::Link),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    blobs: HashMap<u8, (u64, Vec<String>)>,
    tags: HashMap<u8, u8>,
    links: std::collections::HashSet<u8>,
}

fn size(blob: u8) -> u64 {
    u64::from(blob) * 1000 + 1
}

impl Model {
    fn apply(&mut self, ledger: &mut Ledger, step: &Step) {
        let (home, repository) = (registry(0), "a/b".parse().unwrap());
        match *step {
            Step::Use { blob, by, at } => {
                let at = u64::from(at);
                let one = Use { key: key(blob), registry: Some(registry(by)), size: size(blob), at };
                ledger.used(&[one]).unwrap();
                let (used, names) = self.blobs.entry(blob).or_insert((at, Vec::new()));
                rows::join(names, registry(by).as_str());
                *used = at.max(*used);
            }
            Step::Adopt { blob, at } => {
                let one = Use { key: key(blob), registry: None, size: size(blob), at: u64::from(at) };
                ledger.adopt(&[one]).unwrap();
                self.blobs.entry(blob).or_insert_with(|| (u64::from(at), Vec::new()));
            }
            Step::Remove(blob) => {
                ledger.remove(&key(blob)).unwrap();
                self.blobs.remove(&blob);
                if blob.is_multiple_of(3) {
                    self.links.remove(&blob);
                }
            }
            Step::Tag { tag, to } => {
                let row =
                    TagRow { digest: key(to).digest, checked: 7, size: 9, media_type: "a/b".to_owned() };
                let tag_name = format!("t{tag}").parse().unwrap();
                ledger.set_tag((&home, &repository, &tag_name), Some(&row)).unwrap();
                self.tags.insert(tag, to);
            }
            Step::ForgetTags => {
                assert_eq!(ledger.forget_tags(&home, &repository).unwrap().len(), self.tags.len());
                self.tags.clear();
            }
            Step::Link(blob) => {
                let private = "private.test".parse().unwrap();
                ledger.link(&private, &repository, &[key(blob).digest]).unwrap();
                self.links.insert(blob);
            }
            Step::Reopen => {}
        }
    }

    fn check(&self, ledger: &Ledger) {
        let groups = ledger.groups().unwrap();
        let bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        assert_eq!(bytes, self.blobs.keys().map(|&blob| size(blob)).sum::<u64>());
        let mut seen = HashMap::new();
        for group in &groups {
            let aged = ledger.oldest(group.id, 1000).unwrap();
            assert_eq!(aged.len() as u64, group.blobs);
            assert!(aged.is_sorted_by_key(|one| one.used));
            seen.extend(aged.into_iter().map(|one| (one.key, (one.used, group.registries.clone()))));
        }
        let expected: HashMap<_, _> =
            self.blobs.iter().map(|(&blob, row)| (key(blob), row.clone())).collect();
        assert_eq!(seen, expected);
        let (home, repository) = (registry(0), "a/b".parse().unwrap());
        for tag in 0..3_u8 {
            let row = ledger.tag(&home, &repository, &format!("t{tag}").parse().unwrap()).unwrap();
            assert_eq!(row.map(|row| row.digest), self.tags.get(&tag).map(|&to| key(to).digest));
        }
        for blob in 0..12_u8 {
            let private = "private.test".parse().unwrap();
            assert_eq!(
                ledger.linked(&private, &repository, &key(blob).digest).unwrap(),
                self.links.contains(&blob)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_in_memory_agree_with_the_model(steps in proptest::collection::vec(step(), 1..50)) {
        let (mut ledger, _) = Ledger::open(Box::<MemoryRows>::default(), Arc::default()).unwrap();
        let mut model = Model::default();
        for step in &steps {
            model.apply(&mut ledger, step);
            model.check(&ledger);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn rows_in_sled_agree_with_the_model(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ledger::open(Box::new(free(&dir.path().join("index-1"))), Arc::default()).unwrap();
        let (mut ledger, clean) = open();
        prop_assert!(!clean);
        let mut model = Model::default();
        for step in &steps {
            if matches!(step, Step::Reopen) {
                ledger.close().unwrap();
                drop(ledger);
                let (again, clean) = open();
                prop_assert!(clean);
                ledger = again;
            }
            model.apply(&mut ledger, step);
        }
        model.check(&ledger);
    }
}

/// Opens rows once their owner before let go: sled gives its lock back in a thread of its own.
fn free(path: &std::path::Path) -> SledRows {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        match SledRows::open(path) {
            Ok(rows) => return rows,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn rows_stay_under_256_bytes() {
    let long: Repository = "a".repeat(255).parse().unwrap();
    let registry: Registry = format!("{}.test", "a".repeat(60)).parse().unwrap();
    let row = TagRow {
        digest: Digest::Sha512([1; 64]),
        checked: 1,
        size: 1,
        media_type: "application/vnd.docker.distribution.manifest.list.v2+json".to_owned(),
    };
    let tag = rows::tag(&registry, &long, &"t".repeat(128).parse().unwrap());
    let id = rows::shared_id(&registry, &row.digest);
    let repository = rows::repository(&registry, &long);
    assert_eq!(rows::read_tag(&rows::write_tag(&row)), Some(row.clone()));
    assert!(tag.len() + rows::write_tag(&row).len() < 256);
    assert!(rows::link_back(&id, &repository).len() < 256);
    assert!(rows::order(1, 1, &id).len() < 256);
}

#[test]
fn what_is_old_or_points_nowhere_is_forgotten() {
    let (mut ledger, _) = Ledger::open(Box::<MemoryRows>::default(), Arc::default()).unwrap();
    let (home, repository): (Registry, Repository) =
        ("private.test".parse().unwrap(), "a/b".parse().unwrap());
    let row = |checked| TagRow { digest: key(1).digest, checked, size: 1, media_type: "a/b".to_owned() };
    let (old, new): (Tag, Tag) = ("old".parse().unwrap(), "new".parse().unwrap());
    ledger.set_tag((&home, &repository, &old), Some(&row(10))).unwrap();
    ledger.set_tag((&home, &repository, &new), Some(&row(20))).unwrap();
    ledger.used(&[Use { key: key(3), registry: None, size: 1, at: 1 }]).unwrap();
    let stored = Use { key: key(0), registry: Some(home.clone()), size: 1, at: 1 };
    ledger.used(&[stored]).unwrap();
    ledger.link(&home, &repository, &[key(0).digest, key(6).digest]).unwrap();
    ledger.prune(20).unwrap();
    assert!(ledger.tag(&home, &repository, &old).unwrap().is_none());
    assert!(ledger.tag(&home, &repository, &new).unwrap().is_some());
    assert!(ledger.linked(&home, &repository, &key(0).digest).unwrap());
    assert!(!ledger.linked(&home, &repository, &key(6).digest).unwrap());
    ledger.unlink(&home).unwrap();
    assert!(!ledger.linked(&home, &repository, &key(0).digest).unwrap());
}
