//! The plan against its promises, on invented rows.

use larder_wire::digest::Digest;
use proptest::prelude::*;

use super::*;
use crate::store::{BlobKey, Class};

const DAY: u64 = 86_400;

fn blob(n: u16, size: u64, used: u64) -> Aged {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&n.to_be_bytes());
    Aged { key: BlobKey { class: Class::Public, digest: Digest::Sha256(hash) }, size, used }
}

fn queue(id: u32, names: &[&str], mut oldest: Vec<Aged>) -> Queue {
    oldest.sort_by_key(|blob| blob.used);
    let registries = names.iter().map(|&name| name.to_owned()).collect();
    let (bytes, blobs) = (oldest.iter().map(|blob| blob.size).sum(), oldest.len() as u64);
    Queue { group: Group { id, registries, bytes, blobs }, oldest, more: false }
}

fn limits(ttl: u64, max_size: u64, min_free: u64) -> Limits {
    Limits {
        ttl,
        max_size: Size::Bytes(max_size),
        min_free: Size::Bytes(min_free),
        registries: HashMap::new(),
    }
}

const ROOMY: Space = Space { capacity: 1 << 40, free: 1 << 39, inodes: 0, inodes_free: 0 };

fn names(plan: &Plan) -> Vec<(u64, Reason)> {
    plan.evictions.iter().map(|one| (one.blob.used, one.reason)).collect()
}

#[test]
fn age_counts_since_last_use_and_zero_is_never() {
    let queues = [queue(1, &["a"], vec![blob(1, 10, 100), blob(2, 10, 200), blob(3, 10, 201)])];
    let due = plan(200 + 50, &limits(50, 0, 0), ROOMY, &queues, u64::MAX);
    assert_eq!(names(&due), [(100, Reason::Ttl), (200, Reason::Ttl)]);
    assert!(plan(u64::MAX, &limits(0, 0, 0), ROOMY, &queues, u64::MAX).evictions.is_empty());
}

#[test]
fn a_blob_of_several_registries_lives_by_the_longest_ttl() {
    let mut limits = limits(DAY, 0, 0);
    limits.registries.insert("long".into(), RegistryLimits { ttl: Some(9 * DAY), max_size: None });
    limits.registries.insert("ever".into(), RegistryLimits { ttl: Some(0), max_size: None });
    let queues = [
        queue(1, &["a"], vec![blob(1, 1, 1)]),
        queue(2, &["a", "long"], vec![blob(2, 1, 2)]),
        queue(3, &["a", "ever", "long"], vec![blob(3, 1, 3)]),
    ];
    assert_eq!(names(&plan(2 * DAY, &limits, ROOMY, &queues, u64::MAX)), [(1, Reason::Ttl)]);
    assert_eq!(plan(90 * DAY, &limits, ROOMY, &queues, u64::MAX).evictions.len(), 2);
}

#[test]
fn a_registrys_own_limit_takes_only_its_blobs() {
    let mut limits = limits(0, 0, 0);
    limits.registries.insert("b".into(), RegistryLimits { ttl: None, max_size: Some(Size::Bytes(10)) });
    let queues =
        [queue(1, &["a"], vec![blob(1, 100, 1)]), queue(2, &["b"], vec![blob(2, 9, 2), blob(3, 9, 3)])];
    assert_eq!(names(&plan(9, &limits, ROOMY, &queues, u64::MAX)), [(2, Reason::Size)]);
}

#[test]
fn size_stops_at_the_low_mark_and_free_space_counts_what_went_before() {
    let blobs = (0..20).map(|n| blob(n, 10, u64::from(n))).collect::<Vec<_>>();
    let queues = [queue(1, &["a"], blobs)];
    assert_eq!(
        plan(99, &limits(0, 199, 0), ROOMY, &queues, u64::MAX).evictions.len(),
        3,
        "200 passes 199 and goes to 170"
    );
    assert!(plan(99, &limits(0, 200, 0), ROOMY, &queues, u64::MAX).evictions.is_empty());
    let tight = Space { capacity: 1000, free: 70, inodes: 0, inodes_free: 0 };
    let both = plan(99, &limits(0, 199, 110), tight, &queues, u64::MAX);
    assert_eq!(both.evictions.iter().filter(|one| one.reason == Reason::Free).count(), 1);
}

#[test]
fn a_queue_that_shows_too_little_ends_the_round() {
    let mut short = queue(1, &["a"], vec![blob(1, 10, 1)]);
    (short.more, short.group.bytes) = (true, 1000);
    let queues = [short, queue(2, &["b"], vec![blob(2, 10, 500)])];
    assert_eq!(names(&plan(999, &limits(0, 100, 0), ROOMY, &queues, u64::MAX)), [(1, Reason::Size)]);
}

#[test]
fn after_a_jump_age_takes_five_percent_a_minute() {
    let mut pace = Pace::new(1000, 0);
    pace.settle(0, false);
    pace.observe(1060, 60);
    assert_eq!(pace.budget(1000), u64::MAX);
    pace.observe(1120 + 10 * 365 * DAY, 120);
    assert_eq!(pace.budget(1000), 50);
    pace.settle(0, true);
    pace.observe(1180 + 10 * 365 * DAY, 180);
    assert_eq!(pace.budget(1000), 50);
    pace.settle(30, true);
    pace.observe(1210 + 10 * 365 * DAY, 210);
    assert_eq!(pace.budget(1000), 30 + 25, "what a large blob could not use is saved up");
    pace.settle(55, false);
    assert_eq!(pace.budget(1000), u64::MAX, "no backlog, no limit");
    pace.observe(5, 270);
    assert_ne!(pace.budget(1000), u64::MAX, "a jump backward is one too");
}

proptest! {
    #[test]
    fn the_plan_keeps_its_promises(
        blobs in proptest::collection::vec((1..1000_u64, 0..10_000_u64, 0..3_u32), 0..60),
        now in 0..20_000_u64, ttl in 0..5000_u64, max in 0..20_000_u64, min_free in 0..20_000_u64, budget in 0..20_000_u64,
    ) {
        let of = |id| blobs.iter().enumerate().filter(move |(_, b)| b.2 == id)
            .map(|(n, b)| blob(u16::try_from(n).unwrap(), b.0, b.1)).collect::<Vec<_>>();
        let queues = [queue(0, &["a"], of(0)), queue(1, &["b"], of(1)), queue(2, &[], of(2))];
        let space = Space { capacity: 1 << 20, free: 10_000, inodes: 0, inodes_free: 0 };
        let limits = limits(ttl, max, min_free);
        let plan = plan(now, &limits, space, &queues, budget);
        let total: u64 = blobs.iter().map(|b| b.0).sum();
        let gone: u64 = plan.evictions.iter().map(|one| one.blob.size).sum();
        let aged: u64 = plan.evictions.iter().filter(|o| o.reason == Reason::Ttl).map(|o| o.blob.size).sum();
        prop_assert!(aged <= budget);
        let keys: std::collections::HashSet<_> = plan.evictions.iter().map(|one| &one.blob.key).collect();
        prop_assert_eq!(keys.len(), plan.evictions.len(), "nothing goes twice");
        prop_assert!(max == 0 || total - gone <= max, "the limit holds");
        prop_assert!(total == gone || space.free + gone >= min_free, "there is room, or nothing left to take");
        prop_assert!(plan.evictions.iter().all(|o| o.reason != Reason::Ttl || now.saturating_sub(o.blob.used) >= ttl));
        let lru: Vec<u64> = plan.evictions.iter().filter(|o| o.reason == Reason::Free).map(|o| o.blob.used).collect();
        prop_assert!(lru.is_sorted(), "least recently used first");
    }
}
