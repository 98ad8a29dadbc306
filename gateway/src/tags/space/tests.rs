//! The ledger against a registry that does what it likes in between.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::limits::Counted;
use crate::policy::Policy;

fn app() -> Repository {
    "team-a/app".parse().unwrap()
}

fn limits(policy: &str) -> Limits {
    Policy::parse(policy).unwrap().limits(&app())
}

fn tag(number: u8) -> Tag {
    format!("v{number}").parse().unwrap()
}

fn push_to(repository: &str, number: u8) -> Push {
    let (repository, digest) = (repository.parse().unwrap(), Digest::Sha256([number; 32]));
    Push { repository, tags: vec![tag(number)], digest }
}

fn push(number: u8) -> Push {
    push_to("team-a/app", number)
}

fn found(numbers: &[u8]) -> HashSet<Tag> {
    numbers.iter().copied().map(tag).collect()
}

/// A space whose one repository has these tags.
fn with_tags(limits: &Limits, numbers: &[u8]) -> Space {
    let mut space = Space::default();
    read_tags(&mut space, limits, &app(), numbers);
    space
}

fn read_tags(space: &mut Space, limits: &Limits, repository: &Repository, numbers: &[u8]) {
    let reading = space.shelf(Instant::now(), repository, limits).tags.begin();
    space.tags_read(repository, reading, found(numbers), false);
}

fn is_full(answer: Result<Vec<Used>, Denial>) -> bool {
    matches!(answer, Err(Denial::Full(_)))
}

#[test]
fn the_last_place_is_given_once() {
    let limits = limits(r#"{"limits":{"tags":2}}"#);
    let (mut space, now) = (with_tags(&limits, &[1]), Instant::now());
    let used = space.reserve(now, 1, &push(2), &limits).unwrap();
    assert_eq!(used.iter().map(|used| used.used).collect::<Vec<_>>(), [2]);
    assert!(is_full(space.reserve(now, 2, &push(3), &limits)));
    assert!(space.reserve(now, 3, &push(1), &limits).is_ok(), "it is there");
    assert!(space.reserve(now, 4, &push(2), &limits).is_ok(), "it is on its way");
    space.release(1);
    assert!(is_full(space.reserve(now, 5, &push(3), &limits)), "the other push of the same tag holds it");
    space.release(4);
    assert!(space.reserve(now, 6, &push(3), &limits).is_ok());
}

#[test]
fn every_tag_of_a_push_counts_and_none_counts_nothing() {
    let limits = limits(r#"{"limits":{"tags":2}}"#);
    let (mut space, now) = (with_tags(&limits, &[1, 2]), Instant::now());
    let many = |tags: &[u8]| Push { tags: tags.iter().copied().map(tag).collect(), ..push(9) };
    assert!(is_full(space.reserve(now, 1, &many(&[1, 3]), &limits)));
    assert!(space.reserve(now, 2, &many(&[]), &limits).is_ok());
    space.tag_deleted(&app(), &tag(2));
    assert!(is_full(space.reserve(now, 3, &many(&[3, 4]), &limits)));
    assert!(space.reserve(now, 4, &many(&[3, 3]), &limits).is_ok());
}

#[test]
fn above_the_limit_what_is_there_may_be_pushed_again() {
    let limits = limits(r#"{"limits":{"tags":2}}"#);
    let (mut space, now) = (with_tags(&limits, &[1, 2, 3]), Instant::now());
    assert!(space.reserve(now, 1, &push(3), &limits).is_ok());
    assert!(is_full(space.reserve(now, 2, &push(4), &limits)));
}

#[test]
fn a_place_that_nobody_gives_back_is_held_until_a_reading_tells() {
    let limits = limits(r#"{"limits":{"tags":1}}"#);
    let (mut space, now) = (with_tags(&limits, &[]), Instant::now());
    let later = now + HOLD;
    space.reserve(now, 1, &push(1), &limits).unwrap();
    let early = space.existing(&app()).unwrap().tags.begin();
    assert_eq!(space.reserve(later, 2, &push(2), &limits), Err(Denial::TagsUnknown));
    space.tags_read(&app(), early, found(&[]), false);
    assert_eq!(space.reserve(later, 3, &push(2), &limits), Err(Denial::TagsUnknown), "it was read too early");
    read_tags(&mut space, &limits, &app(), &[]);
    assert!(space.reserve(later, 4, &push(2), &limits).is_ok());
}

#[test]
fn tags_that_were_not_read_to_the_end() {
    let limits = limits(r#"{"limits":{"tags":2}}"#);
    let (mut space, now) = (with_tags(&limits, &[]), Instant::now());
    let reading = space.existing(&app()).unwrap().tags.begin();
    space.tags_read(&app(), reading, found(&[1, 2, 3]), true);
    assert!(space.reserve(now, 1, &push(1), &limits).is_ok());
    assert!(matches!(space.reserve(now, 2, &push(4), &limits), Err(Denial::FullUnlessThere(_))));
    let higher = self::limits(r#"{"limits":{"tags":9}}"#);
    assert_eq!(space.reserve(now, 3, &push(4), &higher), Err(Denial::TagsUnknown));
}

#[test]
fn another_pattern_means_other_tags() {
    let limits = limits(r#"{"limits":{"tags":2}}"#);
    let mut space = with_tags(&limits, &[1]);
    let other = self::limits(r#"{"limits":{"tags":2,"exclude_tags":"^x"}}"#);
    assert_eq!(space.reserve(Instant::now(), 1, &push(1), &other), Err(Denial::TagsUnknown));
}

#[test]
fn a_namespace_is_counted_over_its_repositories() {
    let limits = limits(r#"{"namespaces":{"team-a":{"tags":3,"repos":2}}}"#);
    let (mut space, now) = (with_tags(&limits, &[1]), Instant::now());
    let web: Repository = "team-a/web".parse().unwrap();
    assert_eq!(space.reserve(now, 1, &push(2), &limits), Err(Denial::NamespaceUnknown));
    let names = space.names.begin();
    space.names.finish(names, HashSet::from([app()]), false);
    assert!(space.reserve(now, 2, &push(2), &limits).is_ok());
    read_tags(&mut space, &limits, &web, &[]);
    assert!(space.reserve(now, 3, &push_to("team-a/web", 1), &limits).is_ok());
    assert!(
        is_full(space.reserve(now, 4, &push_to("team-a/web", 2), &limits)),
        "three tags are there or coming"
    );
    let third: Repository = "team-a/third".parse().unwrap();
    read_tags(&mut space, &limits, &third, &[]);
    let untagged = Push { tags: vec![], ..push_to("team-a/third", 1) };
    let refused = space.reserve(now, 5, &untagged, &limits);
    assert!(matches!(
        refused,
        Err(Denial::Full(Used { counted: Counted::NamespaceRepositories, used: 3, .. }))
    ));
    space.commit(Some(3), &push_to("team-a/web", 1));
    assert_eq!(space.total(Counted::NamespaceRepositories), Some(2));
    assert_eq!(space.total(Counted::NamespaceTags), Some(2));
}

#[test]
fn images_are_counted_by_digest() {
    let limits = limits(r#"{"namespaces":{"team-a":{"images_per_repo":2}}}"#);
    let (mut space, now) = (with_tags(&limits, &[1]), Instant::now());
    assert_eq!(space.reserve(now, 1, &push(1), &limits), Err(Denial::ImagesUnknown));
    let ImagesToRead { reading, tags, pushed } = space.begin_images(&app()).unwrap();
    assert_eq!((tags, pushed), (vec![tag(1)], vec![]));
    space.images_read(&app(), reading, HashSet::from([Digest::Sha256([1; 32])]));
    assert!(space.reserve(now, 2, &push(1), &limits).is_ok(), "it is there");
    assert!(space.reserve(now, 3, &push(2), &limits).is_ok());
    assert!(is_full(space.reserve(now, 4, &push(3), &limits)));
    space.commit(Some(3), &push(2));
    space.commit(Some(2), &push(1));
    space.image_deleted(&app(), &Digest::Sha256([1; 32]));
    assert!(space.reserve(now, 5, &push(3), &limits).is_ok());
}

#[test]
fn what_nobody_uses_is_forgotten_unless_something_is_held() {
    let limits = limits(r#"{"limits":{"tags":5}}"#);
    let (mut space, now) = (with_tags(&limits, &[1]), Instant::now());
    let later = now + Duration::from_secs(3600);
    space.reserve(now, 1, &push(2), &limits).unwrap();
    space.forget_idle(later);
    assert_eq!(space.size(), (1, 1));
    space.release(1);
    space.forget_idle(later);
    assert!(space.is_empty());
}

/// What can happen, in any order.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u8),
    /// The registry has it; nobody has said so yet.
    Land(usize),
    Commit(usize),
    /// The registry refuses it, if it has not taken it.
    Release(usize),
    Unclear(usize),
    Delete(u8),
    /// A manifest and all its tags go at once.
    DeleteImage(u8),
    /// All holds run out; what has not landed until now never will.
    Expire,
    Begin,
    /// The moment that a reading shows.
    Look,
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8_u8).prop_map(Step::Reserve),
        3 => (0..6_usize).prop_map(Step::Land),
        4 => (0..6_usize).prop_map(Step::Commit),
        2 => (0..6_usize).prop_map(Step::Release),
        2 => (0..6_usize).prop_map(Step::Unclear),
        2 => (0..8_u8).prop_map(Step::Delete),
        1 => (0..8_u8).prop_map(Step::DeleteImage),
        1 => Just(Step::Expire),
        2 => Just(Step::Begin),
        2 => Just(Step::Look),
        2 => Just(Step::Finish),
    ]
}

struct World {
    limits: Limits,
    space: Space,
    /// What the registry has.
    real: BTreeSet<u8>,
    /// Admitted, and not over: the ticket, the tag, whether the registry has taken it.
    under_way: Vec<(Ticket, u8, bool)>,
    reading: Option<(Reading, Option<BTreeSet<u8>>)>,
    next: Ticket,
    now: Instant,
}

impl World {
    fn new(limit: u64) -> Self {
        let limits = limits(&format!(r#"{{"limits":{{"tags":{limit}}}}}"#));
        let space = with_tags(&limits, &[0]);
        let (real, now) = (BTreeSet::from([0]), Instant::now());
        Self { limits, space, real, under_way: Vec::new(), reading: None, next: 0, now }
    }

    fn take(&mut self, at: usize) -> Option<(Ticket, u8, bool)> {
        (at < self.under_way.len()).then(|| self.under_way.remove(at))
    }

    fn happen(&mut self, step: &Step) {
        match *step {
            Step::Reserve(number) => {
                self.next += 1;
                if self.space.reserve(self.now, self.next, &push(number), &self.limits).is_ok() {
                    self.under_way.push((self.next, number, false));
                }
            }
            Step::Land(at) => {
                if let Some(push) = self.under_way.get_mut(at).filter(|push| !push.2) {
                    push.2 = true;
                    self.real.insert(push.1);
                }
            }
            Step::Commit(at) => {
                if let Some((ticket, number, _)) = self.take(at) {
                    self.real.insert(number);
                    self.space.commit(Some(ticket), &push(number));
                }
            }
            Step::Release(at) => {
                if self.under_way.get(at).is_some_and(|push| !push.2) {
                    let (ticket, ..) = self.under_way.remove(at);
                    self.space.release(ticket);
                }
            }
            Step::Unclear(at) => {
                if let Some((ticket, ..)) = self.take(at) {
                    self.space.doubt(ticket);
                }
            }
            Step::Delete(number) => {
                self.real.remove(&number);
                self.space.tag_deleted(&app(), &tag(number));
            }
            Step::DeleteImage(number) => {
                self.real.remove(&number);
                self.space.image_deleted(&app(), &Digest::Sha256([number; 32]));
            }
            Step::Expire => {
                self.now += HOLD;
                self.under_way.clear();
                self.space.expire(self.now);
            }
            Step::Begin => {
                if self.reading.is_none() {
                    self.reading = Some((self.space.existing(&app()).unwrap().tags.begin(), None));
                }
            }
            Step::Look => {
                if let Some((_, seen @ None)) = &mut self.reading {
                    *seen = Some(self.real.clone());
                }
            }
            Step::Finish => {
                if let Some((reading, seen)) = self.reading.take() {
                    let seen: Vec<u8> = seen.unwrap_or_else(|| self.real.clone()).into_iter().collect();
                    self.space.tags_read(&app(), reading, found(&seen), false);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn there_are_never_more_tags_than_the_limit(limit in 1..5_u64, steps in vec(step(), 0..80)) {
        let mut world = World::new(limit);
        for (number, step) in steps.iter().enumerate() {
            world.happen(step);
            let known = world.space.existing(&app()).unwrap().tags.len().unwrap();
            prop_assert!(world.real.len() as u64 <= limit, "after {:?}: {:?}", &steps[..=number], world.real);
            prop_assert!(known <= limit.max(1), "after {:?}: {known} are known", &steps[..=number]);
        }
    }

    #[test]
    fn places_come_back_when_all_is_over(limit in 1..5_u64, steps in vec(step(), 0..80)) {
        let mut world = World::new(limit);
        steps.iter().for_each(|step| world.happen(step));
        for step in [Step::Finish, Step::Expire, Step::Begin, Step::Finish] {
            world.happen(&step);
        }
        let known = world.space.existing(&app()).unwrap().tags.items().unwrap().clone();
        prop_assert_eq!(known, found(&world.real.iter().copied().collect::<Vec<_>>()));
        prop_assert!(world.space.held.is_empty());
    }
}
