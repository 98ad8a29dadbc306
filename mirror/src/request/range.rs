//! Byte ranges: reading the header and fitting it to a size. Pure. A range that is malformed or not single is no range.

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    From { first: u64, last: Option<u64> },
    Last(u64),
}

/// Bytes `from..to` of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub from: u64,
    pub to: u64,
}

impl Range {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |text: &str| match text {
            "" => Some(None),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
            _ => None,
        };
        match (number(first)?, number(last)?) {
            (None, None) => None,
            (None, Some(length)) => Some(Self::Last(length)),
            (Some(first), last) if last.is_some_and(|last| last < first) => None,
            (Some(first), last) => Some(Self::From { first, last }),
        }
    }

    /// Whether a reply that ignores the range begins with what was asked for.
    pub(crate) fn begins_at_zero(self) -> bool {
        matches!(self, Self::From { first: 0, .. })
    }

    /// The bytes it means of something that large; `None` when it means none (416).
    pub(crate) fn of(self, size: u64) -> Option<Span> {
        match self {
            Self::From { first, .. } if first >= size => None,
            Self::From { first, last } => {
                Some(Span { from: first, to: last.map_or(size, |last| last.saturating_add(1).min(size)) })
            }
            Self::Last(0) => None,
            Self::Last(_) if size == 0 => None,
            Self::Last(length) => Some(Span { from: size.saturating_sub(length), to: size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_as_rfc_9110_has_them() {
        for (text, size, expected) in [
            ("bytes=0-", 10, Some((0, 10))),
            ("bytes=0-0", 10, Some((0, 1))),
            ("bytes=3-5", 10, Some((3, 6))),
            ("bytes=3-99", 10, Some((3, 10))),
            ("bytes=9-", 10, Some((9, 10))),
            ("bytes=10-", 10, None),
            ("bytes=-3", 10, Some((7, 10))),
            ("bytes=-30", 10, Some((0, 10))),
            ("bytes=-0", 10, None),
            ("bytes=0-", 0, None),
        ] {
            let span = Range::parse(text).unwrap().of(size).map(|span| (span.from, span.to));
            assert_eq!(span, expected, "{text} of {size}");
        }
        for none in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=5-3",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "chars=0-1",
            "bytes=+1-2",
            "bytes=1 -2",
        ] {
            assert_eq!(Range::parse(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn a_span_lies_within_and_is_not_empty(first in any::<u64>(), last in any::<u64>(), size in any::<u64>()) {
            for text in [format!("bytes={first}-{last}"), format!("bytes={first}-"), format!("bytes=-{last}")] {
                if let Some(span) = Range::parse(&text).and_then(|range| range.of(size)) {
                    prop_assert!(span.from < span.to && span.to <= size);
                }
            }
        }
    }
}
