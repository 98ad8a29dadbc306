//! Reads the addresses that settings name: upstream URLs, proxies, the controller, hosts.
//! Must not resolve anything, and must not repeat a text that may hold a password.

use std::str::FromStr;

use super::{Proxy, UpstreamUrl};
use crate::name::Registry;

/// Why a text is not such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("expected a URL that starts with https:// or http://")]
    Scheme,
    #[error("expected http://[user:password@]host[:port]")]
    ProxyScheme,
    #[error("a URL here holds no user or password: use username_file and password_file")]
    UserInfo,
    #[error("a URL here has no query and no fragment")]
    Query,
    #[error("expected HOST or HOST:PORT after the scheme, an IPv6 address in brackets")]
    Host,
    #[error("expected a path of plain letters, digits and -._~!$&'()*+,;=:@ without . or .. or empty parts")]
    Path,
    #[error("expected no path after the proxy's host")]
    ProxyPath,
    #[error("expected user:password with %XX for what is not a letter, a digit or one of -._~!$&'()*+,;=")]
    Password,
}

impl FromStr for UpstreamUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (tls, rest) = match (after_scheme(text, "https://"), after_scheme(text, "http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(AddressError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(AddressError::UserInfo);
        }
        let (host, port) = host_and_port(authority)?;
        let path = path.trim_end_matches('/');
        if !path.is_empty() && !path[1..].split('/').all(is_path_part) {
            return Err(AddressError::Path);
        }
        Ok(Self { tls, host, port, path: path.to_owned() })
    }
}

impl FromStr for Proxy {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = after_scheme(text, "http://").ok_or(AddressError::ProxyScheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, rest),
        };
        if authority.contains(['/', '?', '#']) {
            return Err(AddressError::ProxyPath);
        }
        let (host, port) = host_and_port(authority)?;
        let userinfo = userinfo.filter(|userinfo| !userinfo.is_empty()).map(percent_decoded).transpose()?;
        Ok(Self { host, port: port.unwrap_or(80), userinfo })
    }
}

impl Proxy {
    /// The whole address, the password included: for files that only the agent reads, never for a log.
    pub(super) fn revealed(&self) -> String {
        let userinfo = match &self.userinfo {
            Some(userinfo) => format!("{}@", percent_encoded(userinfo)),
            None => String::new(),
        };
        format!("http://{userinfo}{}:{}", self.host, self.port)
    }
}

/// Whether a text is a host name or an IP literal (IPv6 in brackets), lower case and without a port.
pub(super) fn is_host(text: &str) -> bool {
    text.parse::<Registry>().is_ok_and(|name| name.host() == text)
}

/// What follows a scheme, which may be in capitals.
fn after_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// A host in lower case and its port: the grammar is a registry's.
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), AddressError> {
    let name: Registry = authority.to_ascii_lowercase().parse().map_err(|_| AddressError::Host)?;
    Ok((name.host().to_owned(), name.port()))
}

fn is_path_part(part: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    !part.is_empty() && part != "." && part != ".." && part.bytes().all(good)
}

fn is_userinfo(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte)
}

fn percent_decoded(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_at_checked(2).ok_or(AddressError::Password)?;
            let digit = |digit: u8| char::from(digit).to_digit(16);
            let (Some(high), Some(low)) = (digit(hex[0]), digit(hex[1])) else {
                return Err(AddressError::Password);
            };
            bytes.push(u8::try_from(high << 4 | low).map_err(|_| AddressError::Password)?);
            rest = after;
        } else if is_userinfo(byte) {
            bytes.push(byte);
        } else {
            return Err(AddressError::Password);
        }
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Password)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_userinfo(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upstream_urls() {
        for (text, written) in [
            ("https://registry-1.docker.io", "https://registry-1.docker.io"),
            ("https://registry-1.docker.io/", "https://registry-1.docker.io"),
            ("HTTPS://Registry.Example:5000/v2/hub/", "https://registry.example:5000/v2/hub"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("http://10.0.0.1", "http://10.0.0.1"),
        ] {
            assert_eq!(
                text.parse::<UpstreamUrl>().map(|url| url.to_string()),
                Ok(written.to_owned()),
                "{text}"
            );
        }
        for (text, error) in [
            ("", AddressError::Scheme),
            ("registry.example", AddressError::Scheme),
            ("ftp://registry.example", AddressError::Scheme),
            ("https://user:pw@registry.example", AddressError::UserInfo),
            ("https://registry.example?a=b", AddressError::Query),
            ("https://registry.example/#a", AddressError::Query),
            ("https://", AddressError::Host),
            ("https://registry.example:0", AddressError::Host),
            ("https://registry example", AddressError::Host),
            ("https://registry.example/a/../b", AddressError::Path),
            ("https://registry.example/a//b", AddressError::Path),
            ("https://registry.example/a%2fb", AddressError::Path),
        ] {
            assert_eq!(text.parse::<UpstreamUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn proxies() {
        let proxy: Proxy = "http://me:p%40ss%3A@proxy.example:3128/".parse().unwrap();
        assert_eq!(proxy.userinfo.as_deref(), Some("me:p@ss:"));
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert!(!format!("{proxy:?}").contains("ss"));
        let proxy: Proxy = "http://proxy.example".parse().unwrap();
        assert_eq!((proxy.port, proxy.userinfo), (80, None));
        for (text, error) in [
            ("https://proxy.example", AddressError::ProxyScheme),
            ("socks5://proxy.example", AddressError::ProxyScheme),
            ("http://proxy.example/path", AddressError::ProxyPath),
            ("http://me:%zz@proxy.example", AddressError::Password),
            ("http://me:%f@proxy.example", AddressError::Password),
            ("http://me:%ff@proxy.example", AddressError::Password),
            ("http://me:a b@proxy.example", AddressError::Password),
            ("http://:3128", AddressError::Host),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "(https?://)?\\PC{0,40}") {
            let _ = text.parse::<Proxy>();
            if let Ok(url) = text.parse::<UpstreamUrl>() {
                prop_assert_eq!(url.to_string().parse::<UpstreamUrl>(), Ok(url));
            }
        }

        #[test]
        fn passwords_survive(userinfo in "\\PC{1,20}") {
            let proxy = Proxy { host: "p".to_owned(), port: 1, userinfo: Some(userinfo) };
            prop_assert_eq!(proxy.revealed().parse::<Proxy>(), Ok(proxy));
        }
    }
}
