//! Numbers as statuses show them: rounded, so that a fleet at rest writes nothing. Pure.

/// `0.934` -> `93%`
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.0}%", ratio * 100.0)
}

/// Cut to 7 binary digits: off by less than 1 %.
pub(crate) fn rounded(bytes: u64) -> i64 {
    let beyond = (u64::BITS - bytes.leading_zeros()).saturating_sub(7);
    i64::try_from(bytes >> beyond << beyond).unwrap_or(i64::MAX)
}

pub(crate) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_to_one_percent() {
        for bytes in [0, 1, 127, 128, 1000, 123_456_789, u64::MAX / 4] {
            let cut = u64::try_from(rounded(bytes)).unwrap();
            assert!(cut <= bytes && bytes - cut <= bytes / 100, "{bytes} {cut}");
        }
        assert_eq!(rounded(1_000_000_000), rounded(1_000_900_000));
        assert_eq!(rounded(u64::MAX), i64::MAX);
    }

    #[test]
    fn a_ratio_is_whole_percent() {
        assert_eq!([percent(0.0), percent(0.934), percent(1.0)], ["0%", "93%", "100%"]);
    }
}
