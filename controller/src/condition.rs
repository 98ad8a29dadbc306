//! metav1 conditions: kept in the order they were set, stamped only when they flip. Must not decide what is true.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

pub const AVAILABLE: &str = "Available";
pub const PROGRESSING: &str = "Progressing";
pub const DEGRADED: &str = "Degraded";
pub const READY: &str = "Ready";

/// A part of an object's state, as conditions tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::True } else { Self::False }
    }
}

/// The longest message that a condition may carry (metav1).
const LONGEST_MESSAGE: usize = 32_768;

/// The conditions of one status in the making.
#[derive(Clone, Debug)]
pub struct Conditions {
    before: Vec<Condition>,
    now: Timestamp,
    generation: Option<i64>,
    set: Vec<Condition>,
}

/// A condition that flipped, or that is there for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub type_: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Conditions {
    /// `before` is what the object's status has; what is not set again is dropped.
    #[must_use]
    pub fn of(before: &[Condition], generation: Option<i64>) -> Self {
        Self { before: before.to_vec(), now: Timestamp::now(), generation, set: Vec::new() }
    }

    /// Sets a condition; a later call for the same type wins.
    #[must_use]
    pub fn set(mut self, type_: &str, truth: Truth, reason: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            let end = (0..=LONGEST_MESSAGE - 4).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
            message.push_str(" ...");
        }
        let since = self.before.iter().find(|old| old.type_ == type_ && old.status == truth.as_str());
        let condition = Condition {
            last_transition_time: since.map_or(Time(self.now), |old| old.last_transition_time.clone()),
            message,
            observed_generation: self.generation,
            reason: reason.to_owned(),
            status: truth.as_str().to_owned(),
            type_: type_.to_owned(),
        };
        match self.set.iter_mut().find(|set| set.type_ == type_) {
            Some(set) => *set = condition,
            None => self.set.push(condition),
        }
        self
    }

    #[must_use]
    pub fn is(&self, type_: &str) -> bool {
        self.set.iter().any(|set| set.type_ == type_ && set.status == "True")
    }

    /// What flipped, for events.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        let is_new = |condition: &&Condition| {
            !self.before.iter().any(|old| old.type_ == condition.type_ && old.status == condition.status)
        };
        let transition = |condition: &Condition| Transition {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        };
        self.set.iter().filter(is_new).map(transition).collect()
    }

    #[must_use]
    pub fn into_vec(self) -> Vec<Condition> {
        self.set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_flips() {
        let first = Conditions::of(&[], Some(1)).set(AVAILABLE, Truth::True, "Ready", "3/3").into_vec();
        let mut aged = first;
        aged[0].last_transition_time = Time(Timestamp::UNIX_EPOCH);
        let same = Conditions::of(&aged, Some(2)).set(AVAILABLE, Truth::True, "Other", "2/3");
        assert!(same.transitions().is_empty());
        let same = same.into_vec();
        assert_eq!(same[0].last_transition_time, Time(Timestamp::UNIX_EPOCH));
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("Other", Some(2)));
        let flipped = Conditions::of(&aged, Some(2)).set(AVAILABLE, Truth::False, "Gone", "");
        assert_eq!(flipped.transitions()[0].reason, "Gone");
        assert_ne!(flipped.into_vec()[0].last_transition_time, Time(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn a_message_without_end_is_cut_at_a_character() {
        let set = Conditions::of(&[], None).set(DEGRADED, Truth::True, "Long", "é".repeat(40_000)).into_vec();
        assert!(set[0].message.len() <= LONGEST_MESSAGE && set[0].message.ends_with(" ..."));
    }

    #[test]
    fn the_later_word_wins() {
        let set = Conditions::of(&[], None).set(READY, Truth::True, "Ready", "").set(
            READY,
            Truth::False,
            "NotReady",
            "",
        );
        assert!(!set.is(READY));
        assert_eq!(set.into_vec().len(), 1);
    }
}
