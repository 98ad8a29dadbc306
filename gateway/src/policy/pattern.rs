//! Repository patterns: `team-a/*`, where `*` stands for anything within one part of the path and `**` for
//! any parts. Must not be given what it cannot hold: a pattern that exists is well formed.

/// A pattern over the parts of a repository's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<String>);

impl Pattern {
    /// Reads a pattern; `None` when no repository's name could ever be like it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"*._-".contains(&byte);
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        let well_formed =
            text.len() <= 255 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(good));
        well_formed.then_some(Self(parts))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<&str> = name.split('/').collect();
        let pattern: Vec<&str> = self.0.iter().map(String::as_str).collect();
        wild(
            &pattern,
            &name,
            |part| *part == "**",
            |pattern, part| {
                wild(pattern.as_bytes(), part.as_bytes(), |byte| *byte == b'*', |one, other| one == other)
            },
        )
    }
}

/// Whether `text` is like `pattern`, in which some items stand for any run of items. Goes back only to the
/// last such item, so the time is at most the product of both lengths.
fn wild<P, T>(pattern: &[P], text: &[T], any: impl Fn(&P) -> bool, same: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut reading) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while reading < text.len() {
        if at < pattern.len() && any(&pattern[at]) {
            back = Some((at, reading));
            at += 1;
        } else if at < pattern.len() && same(&pattern[at], &text[reading]) {
            at += 1;
            reading += 1;
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            at = star + 1;
            reading = from + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_one_part() {
        for (pattern, name, like) in [
            ("team-a/*", "team-a/app", true),
            ("team-a/*", "team-a/app/web", false),
            ("team-a/*", "team-a", false),
            ("team-a/*", "team-b/app", false),
            ("team-a/**", "team-a/app/web", true),
            ("**", "a/b/c", true),
            ("**/web", "a/b/web", true),
            ("*/app", "team-a/app", true),
            ("team-*/app-*", "team-a/app-1", true),
            ("team-*/app-*", "team-a/web", false),
            ("*a*b*", "xaybz", true),
            ("*a*b*", "xbya", false),
            ("team-a/app", "team-a/app", true),
            ("team-a/app", "team-a/app2", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(name), like, "{pattern} {name}");
        }
    }

    #[test]
    fn what_no_name_can_be_like_is_no_pattern() {
        for text in ["", "/", "a/", "/a", "a//b", "A", "a b", "a:b", "[a]"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::parse(&format!("{}b", "*a".repeat(100))).unwrap();
        assert!(!pattern.matches(&"a".repeat(255)));
    }
}
