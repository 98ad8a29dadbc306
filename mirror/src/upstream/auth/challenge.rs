//! Reading `WWW-Authenticate`: several schemes, several headers, quoted values. Must not decide what is answered.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    Basic,
}

impl Challenge {
    /// Whether both ask for the same kind of rights at the same place; scopes aside.
    pub(crate) fn same_realm(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Basic, Self::Basic) => true,
            (Self::Bearer { realm: a, service: b, .. }, Self::Bearer { realm: c, service: d, .. }) => {
                (a, b) == (c, d)
            }
            (Self::Basic, Self::Bearer { .. }) | (Self::Bearer { .. }, Self::Basic) => false,
        }
    }
}

/// The challenge to answer: Bearer before Basic, the first of each.
pub(crate) fn parse(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<Challenge> = texts.flat_map(challenges).collect();
    let bearer = all.iter().find(|one| matches!(one, Challenge::Bearer { .. }));
    bearer.or_else(|| all.first()).cloned()
}

/// Every challenge of one header that can be answered.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut scheme = String::new();
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = take_while(rest, |c| !matches!(c, ' ' | '\t' | ',' | '='));
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=').filter(|_| !scheme.is_empty()) {
            let (value, after) = take_value(value.trim_start());
            pairs.push((word.to_ascii_lowercase(), value));
            rest = after.trim_start_matches([',', ' ', '\t']);
        } else {
            found.extend(finish(&scheme, &mut pairs));
            scheme = word.to_ascii_lowercase();
            let next = after.trim_start_matches([',', ' ', '\t', '=']);
            // A character that starts no word must not stop us here for ever.
            rest = if word.is_empty() && next.len() == rest.len() { "" } else { next };
        }
    }
    found.extend(finish(&scheme, &mut pairs));
    found
}

fn finish(scheme: &str, pairs: &mut Vec<(String, String)>) -> Option<Challenge> {
    let pairs = std::mem::take(pairs);
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        }),
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

fn take_while(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

/// A token or a quoted string, with its backslashes taken away.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = take_while(text, |c| !matches!(c, ',' | ' ' | '\t'));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        parse(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        assert_eq!(
            read(&[hub]),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull"))
        );
        assert_eq!(read(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(
            read(&[r#"Basic realm="x", Bearer realm="https://r/", service=s"#]),
            bearer("https://r/", Some("s"), None)
        );
        assert_eq!(
            read(&["Basic realm=\"x\"", "bearer realm=\"https://r/\""]),
            bearer("https://r/", None, None)
        );
        assert_eq!(
            read(&[r#"Bearer realm="a\"b, c" , scope = "x,y""#]),
            bearer("a\"b, c", None, Some("x,y"))
        );
        for nothing in
            ["Bearer", "Bearer service=\"s\"", "Digest realm=\"x\"", "", "=", ",,,", "Bearer realm"]
        {
            assert_eq!(read(&[nothing]), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn every_header_ends(text in "[ -~]{0,80}") {
            let _ = challenges(&text);
        }
    }
}
