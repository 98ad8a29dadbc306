//! Who asks: what upstream is shown on the client's behalf, and what the audit line calls it. Must never let
//! a password or a token out: only the name before the colon is readable.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

/// The longest name that is repeated in a log line.
const LONGEST_NAME: usize = 128;

/// One client for the time of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As it came, marked as sensitive.
    pub authorization: Option<HeaderValue>,
    /// The user's name of Basic credentials, `-` for anything else.
    pub actor: String,
    pub remote: IpAddr,
}

impl Caller {
    #[must_use]
    pub fn new(headers: &HeaderMap, remote: IpAddr) -> Self {
        let authorization = headers.get(AUTHORIZATION).cloned().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let actor = authorization.as_ref().and_then(user).unwrap_or_else(|| "-".to_owned());
        Self { authorization, actor, remote: remote.to_canonical() }
    }
}

fn user(authorization: &HeaderValue) -> Option<String> {
    let (scheme, credentials) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let (user, _password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let readable = !user.is_empty() && user.len() <= LONGEST_NAME && !user.contains(char::is_control);
    readable.then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(authorization: Option<&str>) -> Caller {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        Caller::new(&headers, "::ffff:10.0.0.1".parse().unwrap())
    }

    #[test]
    fn a_caller_has_the_name_of_basic_credentials_and_nothing_else() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(caller(Some(&basic("anna:secret:word"))).actor, "anna");
        for nameless in ["anna", ":secret", "an\nna:x"] {
            assert_eq!(caller(Some(&basic(nameless))).actor, "-");
        }
        for other in [None, Some("Bearer abc"), Some("Basic %%%"), Some("Basic")] {
            assert_eq!(caller(other).actor, "-");
        }
        assert_eq!(caller(None).remote, "10.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn no_part_of_a_secret_can_be_printed() {
        let shown = format!("{:?}", caller(Some(&format!("Basic {}", STANDARD.encode("anna:secret")))));
        assert!(!shown.contains(&STANDARD.encode("anna:secret")) && !shown.contains("secret"), "{shown}");
    }
}
