//! One line of docker-registry's access log. Pure.

/// A request as the registry saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub method: String,
    pub path: String,
    pub status: u16,
    /// Bytes of the reply's body that were sent.
    pub bytes: u64,
    /// The `User-Agent`.
    pub client: String,
}

/// What a request is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tag,
    Manifest,
    Blob,
    Other,
}

impl Access {
    /// Reads the combined log format: `ADDRESS - - [TIME] "METHOD PATH HTTP/1.1" STATUS BYTES "REFERER" "AGENT"`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"');
        let mut request = quoted.nth(1)?.split(' ');
        let mut numbers = quoted.next()?.split_whitespace();
        let client = quoted.nth(2)?;
        Some(Self {
            method: request.next()?.to_owned(),
            path: request.next()?.to_owned(),
            status: numbers.next()?.parse().ok()?,
            bytes: numbers.next()?.parse().ok()?,
            client: client.to_owned(),
        })
    }

    /// By the last two segments of the path.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let path = self.path.split('?').next().unwrap_or_default();
        let mut segments = path.rsplit('/');
        match (segments.next(), segments.next()) {
            (Some(_), Some("blobs")) => Kind::Blob,
            (Some(reference), Some("manifests")) if reference.contains(':') => Kind::Manifest,
            (Some(_), Some("manifests")) => Kind::Tag,
            _ => Kind::Other,
        }
    }

    /// Whether containerd itself asked, and not an agent for it.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.client.starts_with("containerd/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_who_asked_for_what_and_how_it_ended() {
        let line = r#"127.0.0.1 - - [20/Nov/2026:15:04:32 +0000] "GET /v2/demo/app/blobs/sha256:ab?ns=x HTTP/1.1" 206 512 "" "containerd/1.6.20~ds1""#;
        let access = Access::parse(line).unwrap();
        assert_eq!((access.method.as_str(), access.status, access.bytes), ("GET", 206, 512));
        assert_eq!(access.kind(), Kind::Blob);
        assert!(access.is_direct());
        assert_eq!(Access::parse("nonsense"), None);
    }

    #[test]
    fn kinds_follow_the_path() {
        let kind = |path: &str| {
            let line = format!(r#"::1 - - [t] "HEAD {path} HTTP/1.1" 200 0 "" "larder/0.1.0""#);
            Access::parse(&line).unwrap().kind()
        };
        assert_eq!(kind("/v2/a/manifests/v1"), Kind::Tag);
        assert_eq!(kind("/v2/a/manifests/sha256:ab"), Kind::Manifest);
        assert_eq!(kind("/v2/manifests/blobs/sha256:ab"), Kind::Blob);
        assert_eq!(kind("/v2/"), Kind::Other);
    }
}
