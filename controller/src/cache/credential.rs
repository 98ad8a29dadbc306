//! What a Cache's Secret must hold: `username` and `password`, as a registry takes them. Must not let either reach a
//! message: what is wrong is told without its value.

use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

const USERNAME: &str = "username";
const PASSWORD: &str = "password";

/// Google's user name for a service account's key; the key, a JSON object, is the password.
const JSON_KEY: &str = "_json_key";

/// Longer than any registry's token or key, and so many of them fit into one Secret.
const LONGEST: usize = 16 * 1024;

/// A user name and a password that can be sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) username: ByteString,
    pub(crate) password: ByteString,
}

/// Why a Secret is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCredential {
    #[error("there is no such Secret")]
    Missing,
    #[error("the Secret must have exactly the keys username and password")]
    Keys,
    #[error("the username must be text without white space, at most {LONGEST} bytes")]
    Username,
    #[error("the password must be one line of text, at most {LONGEST} bytes")]
    Password,
    #[error(
        "the password for _json_key must be a service account's key: a JSON object with \"type\": \"service_account\""
    )]
    JsonKey,
}

impl Credential {
    /// Reads a Secret; `None` is one that is not there.
    pub(crate) fn read(secret: Option<&Secret>) -> Result<Self, NoCredential> {
        let data = secret.ok_or(NoCredential::Missing)?.data.as_ref().ok_or(NoCredential::Keys)?;
        let (Some(username), Some(password), 2) = (data.get(USERNAME), data.get(PASSWORD), data.len()) else {
            return Err(NoCredential::Keys);
        };
        let name = text(username).ok_or(NoCredential::Username)?;
        if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == ':') {
            return Err(NoCredential::Username);
        }
        let word = text(password).ok_or(NoCredential::Password)?;
        match name {
            JSON_KEY => is_service_account(word).then_some(()).ok_or(NoCredential::JsonKey)?,
            // The agent cuts line ends off, as `echo` and editors leave them.
            _ if word.trim_end_matches(['\r', '\n']).chars().any(char::is_control) => {
                return Err(NoCredential::Password);
            }
            _ => {}
        }
        Ok(Self { username: username.clone(), password: password.clone() })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

fn text(bytes: &ByteString) -> Option<&str> {
    let text = std::str::from_utf8(&bytes.0).ok()?;
    (!text.trim().is_empty() && text.len() <= LONGEST).then_some(text)
}

fn is_service_account(key: &str) -> bool {
    serde_json::from_str::<Value>(key).is_ok_and(|key| key["type"] == "service_account")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Credential, NoCredential> {
        let data =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Credential::read(Some(&Secret { data: Some(data.collect()), ..Secret::default() }))
    }

    #[test]
    fn a_secret_has_a_username_and_a_password_and_nothing_else() {
        let good = read(&[("username", "robot$pull"), ("password", "s3cret\n")]).unwrap();
        assert_eq!(good.password.0, b"s3cret\n");
        for (pairs, wrong) in [
            (vec![("username", "a")], NoCredential::Keys),
            (vec![("username", "a"), ("password", "b"), ("token", "c")], NoCredential::Keys),
            (vec![("username", "a b"), ("password", "b")], NoCredential::Username),
            (vec![("username", "a\n"), ("password", "b")], NoCredential::Username),
            (vec![("username", "a:b"), ("password", "b")], NoCredential::Username),
            (vec![("username", "a"), ("password", "")], NoCredential::Password),
            (vec![("username", "a"), ("password", "b\nc")], NoCredential::Password),
            (vec![("username", "_json_key"), ("password", "b")], NoCredential::JsonKey),
            (vec![("username", "_json_key"), ("password", "{\"type\":\"user\"}")], NoCredential::JsonKey),
        ] {
            assert_eq!(read(&pairs), Err(wrong), "{}", pairs.len());
        }
        assert_eq!(Credential::read(None), Err(NoCredential::Missing));
        assert_eq!(Credential::read(Some(&Secret::default())), Err(NoCredential::Keys));
    }

    #[test]
    fn a_service_accounts_key_may_have_many_lines() {
        let key = "{\n  \"type\": \"service_account\",\n  \"project_id\": \"p\"\n}\n";
        assert!(read(&[("username", "_json_key"), ("password", key)]).is_ok());
    }

    #[test]
    fn a_password_is_not_shown() {
        let credential = read(&[("username", "robot"), ("password", "s3cret")]).unwrap();
        assert!(!format!("{credential:?}").contains("s3cret"));
        assert!(!format!("{credential:?}").contains("robot"));
    }
}
