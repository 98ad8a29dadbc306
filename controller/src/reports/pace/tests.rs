//! Never more than the rate, and a large cluster known in two minutes.

use proptest::prelude::*;

use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn twenty_a_second_and_the_rest_later() {
    let (mut pace, now) = (Pace::new(Rates::default()), Instant::now());
    let turns: Vec<_> = (0..60).map(|_| pace.turn(Asker::Known, now)).collect();
    let waits: Vec<Duration> = turns.iter().filter_map(|turn| turn.ok()).map(|turn| turn - now).collect();
    assert_eq!(waits.len(), 21, "one now, twenty within the second");
    assert!(waits.windows(2).all(|pair| (pair[1] - pair[0]).as_millis() == 50));
    let again: Vec<Duration> = turns.iter().filter_map(|turn| turn.err()).collect();
    assert_eq!(again[0], SOONEST);
    assert!(again.windows(2).all(|pair| pair[1] > pair[0]), "each at a time of its own");
    assert!(pace.turn(Asker::Known, now + seconds(1.0)).is_ok(), "room again");
}

#[test]
fn half_of_the_queue_is_left_to_those_who_were_good_before() {
    let (mut pace, now) = (Pace::new(Rates::default()), Instant::now());
    let mut taken = |asker, times: usize| (0..times).filter(|_| pace.turn(asker, now).is_ok()).count();
    assert_eq!(taken(Asker::New, 1000), 11);
    assert_eq!(taken(Asker::Known, 1000), 10);
    assert_eq!(taken(Asker::New, 1000), 0);
}

#[test]
fn those_sent_away_are_never_sent_far() {
    let (mut pace, now) = (Pace::new(Rates::default()), Instant::now());
    let again: Vec<Duration> = (0..5000).filter_map(|_| pace.turn(Asker::New, now).err()).collect();
    assert!(again.iter().all(|again| (SOONEST..=LATEST).contains(again)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_second_has_more_than_its_share(arrivals in prop::collection::vec(0.0_f64..10.0, 1..400)) {
        let (mut pace, start) = (Pace::new(Rates::default()), Instant::now());
        let mut arrivals = arrivals;
        arrivals.sort_by(f64::total_cmp);
        let turns: Vec<Instant> =
            arrivals.iter().filter_map(|arrival| pace.turn(Asker::Known, start + seconds(*arrival)).ok()).collect();
        for (at, turn) in turns.iter().enumerate() {
            let within = turns[at..].iter().filter(|other| **other < *turn + Duration::from_secs(1)).count();
            prop_assert!(within <= 20, "{within}");
        }
    }

    #[test]
    fn five_thousand_nodes_are_known_two_minutes_after_a_restart(seed in any::<u64>()) {
        let known = restart(5000, seed);
        prop_assert!(known < seconds(120.0), "{known:?}");
    }
}

/// When the last of `nodes` is known that report each 30 s, give or take a fifth, and all at a time of their
/// own.
fn restart(nodes: u32, mut seed: u64) -> Duration {
    let mut fraction = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(seed >> 32).unwrap()) / f64::from(u32::MAX)
    };
    let (mut pace, start) = (Pace::new(Rates::default()), Instant::now());
    pace.warm_until(start + Duration::from_secs(120));
    let mut visits: std::collections::BTreeSet<(Duration, u32)> =
        (0..nodes).map(|node| (seconds(36.0 * fraction()), node)).collect();
    let mut last = Duration::ZERO;
    while let Some((now, node)) = visits.pop_first() {
        match pace.turn(Asker::New, start + now) {
            Ok(turn) => last = last.max(turn - start),
            // As an agent does: whole seconds of Retry-After, a fifth more or less.
            Err(again) => {
                let again = seconds(again.as_secs_f64().ceil()).mul_f64(0.8 + 0.4 * fraction());
                visits.insert((now + again, node));
            }
        }
    }
    last
}
