//! A bearer token: what it is remembered by, and when it ends by its own word. Must not be shown anywhere,
//! nor believed: only the API server says whose it is.

use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::refuse::Refusal;

/// A hash that stands for a token, and for what is asked with it.
pub(super) type Key = [u8; 32];

/// The token of one request.
#[derive(Clone, Debug)]
pub(super) struct Token(SecretString);

#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

impl Token {
    /// The request's token.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let (scheme, token) = header.and_then(|header| header.split_once(' ')).ok_or(Refusal::NoToken)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(Refusal::NoToken);
        }
        Ok(Self(token.into()))
    }

    /// `purpose` keeps answers to different questions apart.
    pub(super) fn key(&self, purpose: &str) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.0.expose_secret());
        hash.update([0]);
        hash.update(purpose);
        hash.finalize().into()
    }

    /// For the review alone.
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// How long it still holds by its own `exp`; `None` when it names no end.
    pub(super) fn left(&self, now: Timestamp) -> Option<Duration> {
        let claims = self.0.expose_secret().split('.').nth(1)?;
        let bytes = decoded(claims)?;
        let claims: Claims = serde_json::from_slice(&bytes).ok()?;
        let left = claims.exp - f64::from(u32::try_from(now.as_second()).ok()?);
        Some(Duration::try_from_secs_f64(left).unwrap_or_default())
    }
}

/// Base64 for URLs without padding, as in tokens; Kubernetes' own type reads the other alphabet.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut text = text.replace('-', "+").replace('_', "/");
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    serde_json::from_value(text.into()).ok().map(|ByteString(bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn token(text: &str) -> Token {
        Token(text.into())
    }

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_a_bearer_token_is_one() {
        assert_eq!(Token::of(&headers("bearer  abc ")).unwrap().expose(), "abc");
        for other in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert!(matches!(Token::of(&headers(other)), Err(Refusal::NoToken)), "{other}");
        }
        assert!(matches!(Token::of(&HeaderMap::new()), Err(Refusal::NoToken)));
    }

    #[test]
    fn a_token_ends_when_it_says_so() {
        let now = Timestamp::from_second(1_000).unwrap();
        // {"exp":1600,"sub":"ÿ?"} and {"exp":900}: one needs padding and both letters that differ for URLs.
        let left = |claims: &str| token(&format!("e30.{claims}.sig")).left(now);
        assert_eq!(left("eyJleHAiOjE2MDAsInN1YiI6IsO_PyJ9"), Some(Duration::from_secs(600)));
        assert_eq!(left("eyJleHAiOjkwMH0"), Some(Duration::ZERO));
        assert_eq!(left("eyJzdWIiOiJhIn0"), None);
        assert_eq!(left("%%%"), None);
        assert_eq!(token("opaque").left(now), None);
    }

    #[test]
    fn a_token_is_not_shown_and_a_purpose_changes_its_key() {
        let token = token("very-secret");
        assert!(!format!("{token:?}").contains("very-secret"));
        assert_ne!(token.key("agent"), token.key("/v1/nodes"));
        assert_eq!(token.key("agent"), token.clone().key("agent"));
    }
}
