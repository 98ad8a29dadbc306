//! Fresh, stale or absent: the rule for tags. Pure; digests never go stale and need no rule.

use std::time::Duration;

/// What a remembered tag is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Served without asking.
    Fresh,
    /// Asked about first; served, so old, only if upstream cannot say.
    Stale(Duration),
    /// Too old to be served without upstream's word.
    Expired,
}

/// How long tags live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TagLife {
    pub fresh: Duration,
    pub max_stale: Duration,
}

/// `checked` and `now` are seconds since 1970; a clock that went back makes a tag no older than new.
pub(crate) fn standing(checked: u64, now: u64, life: TagLife) -> Standing {
    let age = Duration::from_secs(now.saturating_sub(checked));
    // A check in the future says that the clock was set back, not that the tag is fresh for ever.
    let known = checked <= now.saturating_add(life.fresh.as_secs());
    if age < life.fresh && known {
        Standing::Fresh
    } else if age < life.fresh + life.max_stale {
        Standing::Stale(age)
    } else {
        Standing::Expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_age() {
        let life = TagLife { fresh: Duration::from_secs(60), max_stale: Duration::from_secs(100) };
        let at = |age: u64| standing(1000, 1000 + age, life);
        assert_eq!((at(0), at(59)), (Standing::Fresh, Standing::Fresh));
        assert_eq!(at(60), Standing::Stale(Duration::from_secs(60)));
        assert_eq!(at(159), Standing::Stale(Duration::from_secs(159)));
        assert_eq!(at(160), Standing::Expired);
    }

    #[test]
    fn zero_means_never() {
        let none = TagLife { fresh: Duration::ZERO, max_stale: Duration::ZERO };
        assert_eq!(standing(1000, 1000, none), Standing::Expired);
        let stale = TagLife { fresh: Duration::ZERO, max_stale: Duration::from_secs(9) };
        assert_eq!(standing(1000, 1000, stale), Standing::Stale(Duration::ZERO));
    }

    #[test]
    fn a_clock_set_back_keeps_nothing_fresh_for_ever() {
        let life = TagLife { fresh: Duration::from_secs(60), max_stale: Duration::from_secs(100) };
        assert_eq!(standing(9_000_000, 1000, life), Standing::Stale(Duration::ZERO));
    }
}
