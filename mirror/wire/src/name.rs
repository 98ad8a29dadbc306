//! What registries, repositories and tags are called, by the grammar of the OCI distribution specification.
//! Must not normalise: a name is right as it stands or it is refused.

use std::fmt;
use std::str::FromStr;

/// A registry as containerd calls it: a host, with a port where the reference has one (`docker.io`,
/// `registry.example:5000`). Lower case; never a path, a user or a scheme.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registry(Box<str>);

/// A repository within a registry: `library/alpine`. At most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Box<str>);

/// A tag: at most 128 bytes of letters, digits, `_`, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

/// Why a text is not such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a registry is HOST or HOST:PORT in lower case, without scheme, path or user")]
    Registry,
    #[error("a repository is lower-case words of letters and digits, joined by one of . _ __ - and /")]
    Repository,
    #[error("a repository's name is at most 255 bytes long")]
    TooLong,
    #[error("a tag is at most 128 letters, digits, '_', '.' and '-', and starts with none of the last two")]
    Tag,
}

macro_rules! text_type {
    ($type:ty) => {
        impl $type {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(Registry);
text_type!(Repository);
text_type!(Tag);

impl Registry {
    /// The host without the port; an IPv6 literal keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        split_port(&self.0).0
    }

    /// The port, where the name has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        split_port(&self.0).1.and_then(|port| port.parse().ok())
    }
}

impl FromStr for Registry {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (host, port) = split_port(text);
        let good_port = port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p != 0)
        });
        let good_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        if good_host && good_port { Ok(Self(text.into())) } else { Err(NameError::Registry) }
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > 255 {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_path_component) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Repository)
        }
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good = (1..=128).contains(&text.len())
            && word(text.as_bytes()[0])
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if good { Ok(Self(text.into())) } else { Err(NameError::Tag) }
    }
}

/// `HOST:PORT` apart, where the colon is not inside an IPv6 literal.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// A DNS name or an IPv4 literal, lower case, at most 253 bytes.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(first) || !word(last) {
        return false;
    }
    bytes.split(|&b| word(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn registries() {
        for good in
            ["docker.io", "registry.example:5000", "localhost", "127.0.0.1:5000", "[::1]:5000", "a-b.c"]
        {
            assert_eq!(good.parse::<Registry>().map(|r| r.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            ".",
            "docker.io.",
            "Docker.io",
            "docker.io/x",
            "user@docker.io",
            "docker.io#",
            "a..b",
            "a:0",
            "a:",
            "a:+1",
            "a:70000",
            "https://a",
            "a b",
            "a%2fb",
            "-a",
            "[::1",
            "::1",
            "[zz]:1",
            "a:1:2",
        ] {
            assert_eq!(bad.parse::<Registry>(), Err(NameError::Registry), "{bad}");
        }
        let registry: Registry = "[::1]:5000".parse().unwrap();
        assert_eq!((registry.host(), registry.port()), ("[::1]", Some(5000)));
    }

    #[test]
    fn repositories() {
        for good in ["a", "library/alpine", "a.b_c__d-e---f/0", "blobs/manifests"] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
        }
        for bad in
            ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "a/../b", "a%2fb", "a\0"]
        {
            assert_eq!(bad.parse::<Repository>(), Err(NameError::Repository), "{bad}");
        }
        assert_eq!("a".repeat(256).parse::<Repository>(), Err(NameError::TooLong));
    }

    #[test]
    fn tags() {
        for good in ["latest", "_", "V1.0-rc.1", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "é", &"a".repeat(129)] {
            assert_eq!(bad.parse::<Tag>(), Err(NameError::Tag), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn grammar_words_are_repositories(name in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,5}){0,4}") {
            prop_assert!(name.parse::<Repository>().is_ok());
        }

        #[test]
        fn any_text_is_taken_as_it_stands_or_refused(text in "\\PC{0,300}") {
            if let Ok(name) = text.parse::<Repository>() { prop_assert_eq!(name.as_str(), &text); }
            if let Ok(name) = text.parse::<Registry>() { prop_assert_eq!(name.as_str(), &text); }
            if let Ok(name) = text.parse::<Tag>() { prop_assert_eq!(name.as_str(), &text); }
        }
    }
}
