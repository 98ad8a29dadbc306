//! TOML -> [`Config`], key by key, so that every mistake is found at once and none hides another. Must not
//! open a file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use larder_wire::settings::UpstreamUrl;
use larder_wire::units::parse_duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, Mode, OnUnknown, Peers};
use crate::upstream::TlsFiles;

/// One mistake in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

/// What a file says, and everything that is wrong with it.
#[derive(Debug)]
pub struct Parsed {
    /// `None` where a mistake leaves nothing to run with.
    pub config: Option<Config>,
    pub mistakes: Vec<Mistake>,
    pub unknown: Vec<Mistake>,
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5000);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5001);
/// The most requests at one time that may be configured.
const MOST: u64 = 65_536;

/// Reads a settings file's text.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut keys = Keys { text, table: document.get_ref(), asked: Vec::new(), mistakes: Vec::new() };
    if let Some(error) = errors.first() {
        keys.mistake(
            error.span().map_or(text.len(), |span| span.start),
            format!("not TOML: {}", error.message()),
        );
        return Parsed { config: None, mistakes: keys.mistakes, unknown: Vec::new() };
    }
    let config = read(&mut keys);
    let unknown = keys.unknown();
    let mut mistakes = keys.mistakes;
    mistakes.sort_by_key(|mistake| mistake.line);
    Parsed { config: config.filter(|_| mistakes.is_empty()), mistakes, unknown }
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Config> {
    let at = "an address and port like \"0.0.0.0:5000\"";
    let listen = keys.text("listen", at, parsed).unwrap_or(LISTEN);
    let admin = keys.text("admin", at, parsed).unwrap_or(ADMIN);
    if listen.port() != 0 && listen == admin {
        keys.mistake_at("admin", "expected an address of its own, not that of listen");
    }
    let url = "the registry's address like \"http://main-registry:5000\", without a path";
    let upstream =
        keys.text("upstream", url, |text| parsed(text).filter(|url: &UpstreamUrl| url.path.is_empty()));
    if !keys.table.contains_key("upstream") {
        keys.mistake(0, format!("upstream is missing: expected {url}"));
    }
    let duration = "a duration like \"2s\" or \"10m\"";
    let mode = [("indexed", Mode::Indexed), ("synchronous", Mode::Synchronous)];
    let on_unknown = [("allow", OnUnknown::Allow), ("deny", OnUnknown::Deny)];
    let config = Config {
        listen,
        admin,
        upstream: upstream.unwrap_or(UpstreamUrl {
            tls: false,
            host: String::new(),
            port: None,
            path: String::new(),
        }),
        policy_file: keys.path("policy_file").unwrap_or_else(|| "/etc/larder/policy.json".into()),
        mode: keys.text("mode", "\"indexed\" or \"synchronous\"", word(mode)).unwrap_or_default(),
        on_unknown: keys.text("on_unknown", "\"allow\" or \"deny\"", word(on_unknown)).unwrap_or_default(),
        seed_timeout: keys.text("seed_timeout", duration, span).unwrap_or(Duration::from_secs(2)),
        resync: keys.text("resync", duration, span).unwrap_or(Duration::from_secs(600)),
        max_reads: keys.count("max_reads").unwrap_or(512),
        max_writes: keys.count("max_writes").unwrap_or(128),
        credential: keys.both("username_file", "password_file"),
        events_token_file: keys.path("events_token_file"),
        peers: peers(keys),
        tls: keys.both("tls_cert_file", "tls_key_file"),
        upstream_tls: TlsFiles {
            ca: keys.path("upstream_ca_file"),
            client: keys.both("client_cert_file", "client_key_file"),
        },
    };
    Some(config)
}

fn peers(keys: &mut Keys<'_, '_>) -> Option<Peers> {
    let name = keys.text("peers", "a name and a port like \"gateway-peers:5002\"", |text| {
        let (name, port) = text.rsplit_once(':')?;
        let good =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        Some((name.to_owned(), port.parse().ok().filter(|port| *port != 0)?)).filter(|_| good)
    });
    let token_file = keys.path("peer_token_file");
    match (name, token_file) {
        (Some((name, port)), Some(token_file)) => Some(Peers { name, port, token_file }),
        (Some(_), None) if !keys.table.contains_key("peer_token_file") => {
            keys.mistake_at("peers", "expected peer_token_file as well: replicas know each other by it");
            None
        }
        _ => None,
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn span(text: &str) -> Option<Duration> {
    parse_duration(text).ok()
}

fn word<T: Copy>(words: [(&'static str, T); 2]) -> impl Fn(&str) -> Option<T> {
    move |text| words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
}

/// The file's only table while it is read.
struct Keys<'t, 'i> {
    text: &'t str,
    table: &'t DeTable<'i>,
    asked: Vec<&'static str>,
    mistakes: Vec<Mistake>,
}

impl<'t, 'i> Keys<'t, 'i> {
    fn text<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = value.get_ref().as_str().and_then(read);
        if read.is_none() {
            self.mistake_at(key, &format!("expected {expected}"));
        }
        read
    }

    fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let good = |text: &str| (!text.is_empty() && !text.contains('\0')).then(|| text.into());
        self.text(key, "a path in quotes", good)
    }

    /// Two files that are of no use alone.
    fn both(&mut self, one: &'static str, other: &'static str) -> Option<(PathBuf, PathBuf)> {
        let read = (self.path(one), self.path(other));
        for (there, missing) in [(one, other), (other, one)] {
            if self.table.contains_key(there) && !self.table.contains_key(missing) {
                self.mistake_at(there, &format!("expected {missing} as well"));
            }
        }
        read.0.zip(read.1)
    }

    fn count(&mut self, key: &'static str) -> Option<usize> {
        let integer = self.value(key)?.get_ref().as_integer();
        let number = integer.and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        let count = number.filter(|number| (1..=MOST).contains(number)).and_then(|n| usize::try_from(n).ok());
        if count.is_none() {
            self.mistake_at(key, &format!("expected a whole number from 1 to {MOST}"));
        }
        count
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    fn mistake_at(&mut self, key: &str, what: &str) {
        let at = self.table.get(key).map_or(0, |value| value.span().start);
        self.mistake(at, format!("{key}: {what}"));
    }

    fn mistake(&mut self, at: usize, what: String) {
        let line = self.line(at);
        self.mistakes.push(Mistake { line, what });
    }

    /// The keys that nobody asked for.
    fn unknown(&self) -> Vec<Mistake> {
        let mut unknown = Vec::new();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let what = format!("unknown key {}", name.escape_debug());
                unknown.push(Mistake { line: self.line(key.span().start), what });
            }
        }
        unknown.sort_by_key(|mistake| mistake.line);
        unknown
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}
