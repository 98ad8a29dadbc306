//! How fast blobs may go by age. A jump of the wall clock makes everything look old at once, so after a jump, and after
//! a start (where none can be seen), at most 5 % of the bytes go a minute until the backlog is gone. Times in seconds.

/// What is remembered between sweeps.
pub(crate) struct Pace {
    wall: u64,
    monotonic: u64,
    limited: bool,
    /// Bytes that may go by age, saved up so that even a large blob can go some day.
    credit: u64,
    /// Seconds since the credit was last filled; a first sweep has a minute's worth.
    unpaid: u64,
}

/// Clocks that drift apart by less are being adjusted, not set.
const JUMP: u64 = 60;

impl Pace {
    pub(crate) fn new(wall: u64, monotonic: u64) -> Self {
        Self { wall, monotonic, limited: true, credit: 0, unpaid: 60 }
    }

    /// Compares the clocks before a sweep.
    pub(crate) fn observe(&mut self, wall: u64, monotonic: u64) {
        let passed = monotonic.saturating_sub(self.monotonic);
        let expected = self.wall.saturating_add(passed);
        if wall.abs_diff(expected) > JUMP {
            tracing::warn!(seconds = wall.abs_diff(expected), forward = wall > expected, "the clock jumped");
            (self.limited, self.credit, self.unpaid) = (true, 0, 0);
        }
        self.unpaid = self.unpaid.saturating_add(passed);
        (self.wall, self.monotonic) = (wall, monotonic);
    }

    /// Bytes that may go by age in this sweep, of `total` stored.
    pub(super) fn budget(&mut self, total: u64) -> u64 {
        if !self.limited {
            return u64::MAX;
        }
        let earned = (total / 20).saturating_mul(std::mem::take(&mut self.unpaid)) / 60;
        self.credit = self.credit.saturating_add(earned).min(total);
        self.credit
    }

    /// What the sweep left of its budget, and whether something due had to stay for want of it.
    pub(super) fn settle(&mut self, left: u64, held_back: bool) {
        self.credit = left;
        self.limited &= held_back;
    }
}
