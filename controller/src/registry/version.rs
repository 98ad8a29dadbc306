//! The version of Distribution that an image holds, read from its tag or told beside it. Pure; asks no registry.

use std::fmt;

/// `3.1.1`, `2.8`, or `2` alone: what the tag does not say is not guessed. Ordered by what is known; `2` stands for the
/// newest 2.x, as the tag does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    major: u64,
    minor: Option<u64>,
    patch: Option<u64>,
    text: String,
}

/// Which of the two configuration formats a version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Major {
    Two,
    Three,
}

/// The image's version cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    #[error("the image {0} names no version of Distribution; use a tag such as 3.1.1, or write spec.version")]
    Unknown(String),
    #[error("Distribution {0} is not supported; 2.8 and 3.x are")]
    Version(String),
}

/// The version of `image`: what is written beside it, else its tag.
///
/// # Errors
/// When there is none, or none that this controller can configure.
pub fn of_image(image: &str, written: Option<&str>) -> Result<Version, Unsupported> {
    let text = written.or_else(|| tag(image)).unwrap_or_default();
    let version = Version::parse(text).ok_or_else(|| Unsupported::Unknown(image.to_owned()))?;
    let is_old = version.major == 2 && version.minor.is_some_and(|minor| minor < 8);
    if is_old || version.major < 2 || version.major > 3 {
        return Err(Unsupported::Version(version.text));
    }
    Ok(version)
}

/// What stands between the last colon and a digest, unless it is a port.
fn tag(image: &str) -> Option<&str> {
    let (name, _digest) = image.split_once('@').unwrap_or((image, ""));
    name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'))
}

impl Version {
    /// One to three numbers, a `v` before and a suffix behind allowed: `v3.1.1-alpine`.
    fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let numbers = bare.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(|part| {
            // u64 would also read "+3".
            if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse::<u64>().ok() } else { None }
        });
        let major = parts.next()??;
        let (minor, patch) = (parts.next(), parts.next());
        if matches!(minor, Some(None)) || matches!(patch, Some(None)) || parts.next().is_some() {
            return None;
        }
        Some(Self { major, minor: minor.flatten(), patch: patch.flatten(), text: bare.to_owned() })
    }

    #[must_use]
    pub fn major(&self) -> Major {
        if self.major == 2 { Major::Two } else { Major::Three }
    }

    /// As it was written, without a leading `v`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the store of `self` may be given to `next`. Within a major, and to the next one, it may.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        next.major >= self.major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_says_the_version() {
        for (image, version, major) in [
            ("registry:2", "2", Major::Two),
            ("registry:2.8.3", "2.8.3", Major::Two),
            ("docker.io/library/registry:3.1.1", "3.1.1", Major::Three),
            ("host:5000/mirror/registry:v3.0.0-rc.1", "3.0.0-rc.1", Major::Three),
            ("registry:3-alpine@sha256:0011", "3-alpine", Major::Three),
        ] {
            let found = of_image(image, None).unwrap();
            assert_eq!((found.as_str(), found.major()), (version, major), "{image}");
        }
    }

    #[test]
    fn what_is_written_beside_the_image_wins() {
        assert_eq!(of_image("registry@sha256:0011", Some("2.8.3")).unwrap().as_str(), "2.8.3");
        assert_eq!(of_image("registry:stable", Some("v3.1.1")).unwrap().as_str(), "3.1.1");
    }

    #[test]
    fn a_tag_that_is_no_version_is_refused() {
        for image in [
            "registry",
            "registry:latest",
            "host:5000/registry",
            "registry@sha256:0011",
            "registry:3.x",
            "registry:",
        ] {
            assert_eq!(of_image(image, None), Err(Unsupported::Unknown(image.to_owned())), "{image}");
        }
        for image in ["registry:2.7.1", "registry:1.0", "registry:4.0.0", "registry:2026.11.20", "registry:0"]
        {
            assert!(matches!(of_image(image, None), Err(Unsupported::Version(_))), "{image}");
        }
        let long = "9".repeat(1_000_000);
        assert!(of_image(&format!("registry:{long}"), None).is_err());
    }

    #[test]
    fn a_store_goes_forward_between_majors_only() {
        let version = |tag: &str| of_image(&format!("registry:{tag}"), None).unwrap();
        assert!(version("2.8.3").may_become(&version("3.1.1")));
        assert!(version("3.1.1").may_become(&version("3.0.0")));
        assert!(!version("3.0.0").may_become(&version("2.8.3")));
    }
}
