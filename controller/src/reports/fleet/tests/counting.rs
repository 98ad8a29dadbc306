//! Counters through restarts of agents and of the controller, and through reports that overtake each other.

use super::*;

/// A report of a node that served `bytes` since the start of `instance`.
fn served(instance: &str, started: i64, bytes: u64) -> Report {
    let mut report = report("n1");
    (report.instance, report.started) = (instance.to_owned(), at(started).to_string());
    report.registries[0].served_bytes = bytes;
    report
}

fn sum(fleet: &Fleet, now: i64) -> u64 {
    fleet.summary(CACHE, at(now)).usage.bytes_served
}

#[test]
fn a_node_that_was_there_before_us_sets_the_base_and_then_counts() {
    let fleet = fleet();
    assert_eq!(tell(&fleet, &served("one", -500, 1000), 10).counted, Counted::Base);
    assert_eq!(sum(&fleet, 10), 0, "another replica was told of these");
    assert_eq!(tell(&fleet, &served("one", -500, 1100), 40).counted, Counted::Growth);
    assert_eq!(sum(&fleet, 40), 100);
}

#[test]
fn a_new_start_counts_whole() {
    let fleet = fleet();
    assert_eq!(tell(&fleet, &served("one", 5, 1000), 10).counted, Counted::Whole);
    assert_eq!(tell(&fleet, &served("two", 20, 30), 40).counted, Counted::Whole);
    assert_eq!(sum(&fleet, 40), 1030);
    assert_eq!(tell(&fleet, &served("two", 20, 35), 70).counted, Counted::Growth);
    assert_eq!(sum(&fleet, 70), 1035);
}

#[test]
fn an_agent_whose_clock_cannot_be_read_sets_the_base() {
    let fleet = fleet();
    let mut told = served("one", 5, 1000);
    told.started = "yesterday".to_owned();
    assert_eq!(tell(&fleet, &told, 10).counted, Counted::Base);
}

#[test]
fn reports_that_overtake_each_other_count_once() {
    let fleet = fleet();
    tell(&fleet, &served("one", 5, 100), 10);
    tell(&fleet, &served("one", 5, 300), 40);
    tell(&fleet, &served("one", 5, 200), 41);
    tell(&fleet, &served("one", 5, 400), 70);
    assert_eq!(sum(&fleet, 70), 400);
    tell(&fleet, &served("two", 75, 10), 80);
    assert_eq!(tell(&fleet, &served("one", 5, 500), 81).counted, Counted::Overtaken);
    tell(&fleet, &served("two", 75, 20), 110);
    assert_eq!(sum(&fleet, 110), 420);
}

#[test]
fn a_registry_that_comes_back_goes_on_where_it_was() {
    let fleet = fleet();
    tell(&fleet, &served("one", 5, 100), 10);
    let mut without = served("one", 5, 0);
    without.registries[0].registry = "quay.io".to_owned();
    tell(&fleet, &without, 40);
    tell(&fleet, &served("one", 5, 150), 70);
    assert_eq!(sum(&fleet, 70), 150);
}

#[test]
fn a_lie_is_cut_to_what_a_node_can_do() {
    let fleet = fleet();
    tell(&fleet, &served("one", -500, 0), 10);
    let mut lie = served("one", -500, u64::MAX);
    lie.evicted_bytes.size = u64::MAX;
    assert!(tell(&fleet, &lie, 40).absurd);
    let usage = fleet.summary(CACHE, at(40)).usage;
    assert_eq!((usage.bytes_served, usage.evicted_bytes), ((60 * 64) << 30, (60 * 64) << 30));
    assert!(!tell(&fleet, &lie, 70).absurd, "said once, counted once");
}

#[test]
fn evictions_are_counted_like_all_else() {
    let fleet = fleet();
    let mut told = served("one", -500, 0);
    told.evicted_bytes.ttl = 50;
    tell(&fleet, &told, 10);
    (told.evicted_bytes.size, told.evicted_bytes.corrupt) = (7, 3);
    tell(&fleet, &told, 40);
    assert_eq!(fleet.summary(CACHE, at(40)).usage.evicted_bytes, 10);
}

/// What happens in half a minute.
#[derive(Clone, Debug)]
enum Step {
    Serve(u32),
    AgentRestarts,
    ControllerRestarts,
    /// The report of this step arrives after the next one's.
    Delayed(u32),
    ReportLost(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u32>().prop_map(Step::Serve),
        1 => Just(Step::AgentRestarts),
        1 => Just(Step::ControllerRestarts),
        2 => any::<u32>().prop_map(Step::Delayed),
        1 => any::<u32>().prop_map(Step::ReportLost),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn never_more_is_counted_than_was_served(steps in steps()) {
        let mut fleet = fleet();
        let (mut instance, mut started, mut counter) = (0, 1, 0_u64);
        // Since the controller's start: what was served, and what was counted.
        let (mut served_since, mut before) = (0_u64, 0);
        let mut late: Option<Report> = None;
        for (number, step) in steps.into_iter().enumerate() {
            let now = 30 * (i64::try_from(number).unwrap() + 1);
            let bytes = match step {
                Step::Serve(bytes) | Step::Delayed(bytes) | Step::ReportLost(bytes) => u64::from(bytes),
                Step::AgentRestarts => {
                    (instance, started, counter) = (instance + 1, now, 0);
                    0
                }
                Step::ControllerRestarts => {
                    fleet = Fleet::new(at(now));
                    (served_since, before, late) = (0, 0, None);
                    0
                }
            };
            (counter, served_since) = (counter + bytes, served_since + bytes);
            let report = served(&instance.to_string(), started, counter);
            match step {
                Step::ReportLost(_) => {}
                Step::Delayed(_) if late.is_none() => late = Some(report),
                _ => {
                    tell(&fleet, &report, now);
                    if let Some(late) = late.take() {
                        tell(&fleet, &late, now + 1);
                    }
                }
            }
            let counted = sum(&fleet, now + 1);
            prop_assert!(counted >= before, "{counted} after {before}");
            prop_assert!(counted <= served_since, "{counted} of {served_since}");
            before = counted;
        }
    }

    #[test]
    fn all_is_counted_when_no_report_is_lost(
        bytes in prop::collection::vec((any::<u32>(), any::<bool>()), 1..60),
    ) {
        let fleet = fleet();
        let (mut instance, mut started, mut counter, mut all) = (0, 1, 0_u64, 0);
        for (number, (bytes, restarts)) in bytes.into_iter().enumerate() {
            let now = 30 * (i64::try_from(number).unwrap() + 1);
            if restarts {
                (instance, started, counter) = (instance + 1, now - 10, 0);
            }
            (counter, all) = (counter + u64::from(bytes), all + u64::from(bytes));
            tell(&fleet, &served(&instance.to_string(), started, counter), now);
            prop_assert_eq!(sum(&fleet, now), all);
        }
    }
}
