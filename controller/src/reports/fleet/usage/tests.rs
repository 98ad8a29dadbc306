//! Counters that only grow, and sums that forget after a day.

use super::*;

fn counters(requests: u64, hits: u64, served_bytes: u64, fetched_bytes: u64) -> Counters {
    Counters { requests, hits, served_bytes, fetched_bytes }
}

fn at(hours: i64, minutes: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 / HOUR * HOUR + hours * HOUR + minutes * 60).unwrap()
}

fn add(book: &mut Book, registry: &str, now: Timestamp, growth: Counters) {
    book.add(now, &[(Arc::from(registry), growth)], 7);
}

#[test]
fn what_went_back_counts_nothing_and_does_not_set_the_base_back() {
    let base = counters(10, 5, 100, 50);
    assert_eq!(counters(12, 4, 130, 50).since(base), counters(2, 0, 30, 0));
    assert_eq!(counters(12, 4, 130, 50).or_later(base), counters(12, 5, 130, 50));
}

#[test]
fn no_node_is_believed_more_than_a_node_can_do() {
    let absurd = counters(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
    let believed = absurd.within(Duration::from_secs(100));
    assert_eq!(believed, counters(100_000_000, 100_000_000, 6_400 << 30, 6_400 << 30));
    assert_eq!(
        absurd.within(Duration::ZERO),
        absurd.within(SHORTEST),
        "reports may come in quick succession"
    );
    assert_eq!(evicted_within(u64::MAX, SHORTEST), believed.served_bytes / 100 * 60);
    let honest = counters(1000, 900, 10 << 30, 1 << 30);
    assert_eq!(honest.within(Duration::ZERO), honest);
}

#[test]
fn a_ratio_needs_a_request_and_is_never_above_one() {
    assert_eq!(counters(0, 0, 0, 0).hit_ratio(), None);
    assert_eq!(counters(4, 3, 0, 0).hit_ratio(), Some(0.75));
    assert_eq!(counters(4, 9, 0, 0).hit_ratio(), Some(1.0));
}

#[test]
fn sums_are_of_the_last_day() {
    let mut book = Book::default();
    add(&mut book, "docker.io", at(0, 59), counters(1, 1, 10, 0));
    add(&mut book, "docker.io", at(1, 0), counters(2, 0, 20, 20));
    add(&mut book, "quay.io", at(1, 30), counters(4, 4, 40, 0));
    assert_eq!(book.all(at(2, 0)), counters(7, 5, 70, 20));
    assert_eq!(book.registry("docker.io", at(23, 59)), counters(3, 1, 30, 20));
    assert_eq!(book.registry("docker.io", at(24, 0)), counters(2, 0, 20, 20));
    assert_eq!(begins(at(24, 30)), at(1, 0));
    assert_eq!((book.all(at(25, 0)), book.evicted_bytes(at(24, 59))), (counters(0, 0, 0, 0), 14));
    assert_eq!(
        (book.registry("ghcr.io", at(2, 0)), book.evicted_bytes(at(2, 0))),
        (counters(0, 0, 0, 0), 21)
    );
}

#[test]
fn yesterday_takes_no_memory() {
    let mut book = Book::default();
    (0..100).for_each(|hour| add(&mut book, "quay.io", at(hour, 0), counters(1, 1, 1, 1)));
    assert_eq!((book.evicted.steps.len(), book.registries["quay.io"].steps.len()), (24, 24));
}

#[test]
fn a_clock_that_was_set_back_loses_nothing() {
    let mut book = Book::default();
    add(&mut book, "docker.io", at(5, 0), counters(1, 0, 0, 0));
    add(&mut book, "docker.io", at(2, 0), counters(1, 0, 0, 0));
    assert_eq!(book.all(at(5, 0)).requests, 2);
}

#[test]
fn a_node_that_names_ever_new_registries_fills_no_memory() {
    let mut book = Book::default();
    for registry in 0..3 * REGISTRIES {
        add(&mut book, &registry.to_string(), at(0, 0), counters(1, 0, 0, 0));
    }
    assert_eq!(book.registries.len(), REGISTRIES);
    add(&mut book, "later.example", at(24, 0), counters(1, 0, 0, 0));
    assert_eq!(book.registries.len(), 1, "those of yesterday make room");
}
