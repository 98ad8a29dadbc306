//! One `[[upstream]]` of a settings file. A wrong one is left out as a whole: half of it could send a pull, or a
//! credential, where it does not belong.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::address::{AddressError, is_host};
use super::reader::{
    Section, Value, Wrong, boolean, count, duration, duration_within, limit, list, parsed, path, text_where,
    word,
};
use super::{Access, Capability, LONGEST_HEAD_WAIT, Proxy, UpstreamSettings, UpstreamUrl};
use crate::name::Registry;

const HEAD_WAIT: RangeInclusive<Duration> = Duration::from_nanos(1)..=LONGEST_HEAD_WAIT;

/// The most requests that one registry may be asked at once.
const MOST_REQUESTS: u64 = 65_536;

/// What earlier upstreams of the file have taken.
#[derive(Default)]
pub(super) struct Taken {
    registries: HashSet<Registry>,
    default: bool,
}

/// Reads an upstream whose table begins at `at`; `None` when anything in it is wrong, or clashes with those before it.
pub(super) fn read(mut section: Section<'_, '_>, at: usize, taken: &mut Taken) -> Option<UpstreamSettings> {
    let before = section.mistakes();
    let registry: Option<Registry> = section
        .read("registry", parsed("a registry as containerd calls it: HOST or HOST:PORT in lower case"));
    if section.value("registry").is_none() {
        section.mistake("registry", at, "expected what containerd calls the registry, like \"docker.io\"");
    }
    // A stand-in, so that everything else in a nameless upstream is looked at as well.
    let name = registry.clone().or_else(|| "unnamed".parse().ok())?;
    let mut upstream = UpstreamSettings::new(name);
    read_source(&mut section, &mut upstream);
    read_credentials(&mut section, &mut upstream, at);
    read_cache(&mut section, &mut upstream);
    section.set(&mut upstream.override_existing, "override_existing", boolean);
    section.set(&mut upstream.default, "default", boolean);

    if registry.as_ref().is_some_and(|registry| taken.registries.contains(registry)) {
        section.mistake("registry", at, "this registry has an [[upstream]] already");
    }
    if upstream.default && taken.default {
        section.mistake("default", at, "another [[upstream]] is the default already");
    }
    let good = section.mistakes() == before;
    section.finish();
    taken.registries.extend(registry);
    taken.default |= upstream.default;
    good.then_some(upstream)
}

/// An address of a type that reads itself and says what is wrong without repeating a password.
pub(super) fn address<T: FromStr<Err = AddressError>>(value: &Value<'_>) -> Result<T, Wrong> {
    let text = value.get_ref().as_str().ok_or_else(|| Wrong::expected("a URL in quotes", value))?;
    text.parse().map_err(|error: AddressError| Wrong::hidden(error.to_string(), value.span()))
}

/// Where from, in which way, and within what time.
fn read_source(section: &mut Section<'_, '_>, upstream: &mut UpstreamSettings) {
    section.set(&mut upstream.url, "url", address::<UpstreamUrl>);
    section.set(&mut upstream.access, "access", word(Access::WORDS));
    if upstream.access == Access::Shared {
        upstream.capabilities = vec![Capability::Pull];
    }
    section.set(&mut upstream.capabilities, "capabilities", capabilities);
    section.set(&mut upstream.max_concurrent, "max_concurrent", count(1..=MOST_REQUESTS));
    let wait = "a duration above \"0s\" and up to \"20s\"";
    section.set(&mut upstream.head_timeout, "head_timeout", duration_within(HEAD_WAIT, wait));
    section.set(&mut upstream.first_byte_timeout, "first_byte_timeout", duration_within(HEAD_WAIT, wait));
    section.set_some(&mut upstream.ca_file, "ca_file", path);
    section.set_some(&mut upstream.proxy, "proxy", address::<Proxy>);
    section.set(
        &mut upstream.allow_cidrs,
        "allow_cidrs",
        list(parsed("an address range like \"10.0.0.0/8\" or \"fd00::/8\"")),
    );
}

fn read_credentials(section: &mut Section<'_, '_>, upstream: &mut UpstreamSettings, at: usize) {
    section.set_some(&mut upstream.username_file, "username_file", path);
    section.set_some(&mut upstream.password_file, "password_file", path);
    let (username, password) =
        (section.value("username_file").is_some(), section.value("password_file").is_some());
    if username && !password {
        section.mistake("username_file", at, "expected a password_file beside it");
    }
    if password && !username {
        section.mistake("password_file", at, "expected a username_file beside it");
    }
    section.set(
        &mut upstream.token_hosts,
        "token_hosts",
        list(text_where("a host in lower case without port, like \"auth.example\"", is_host)),
    );
}

/// What follows `[cache]` where it is not given.
fn read_cache(section: &mut Section<'_, '_>, upstream: &mut UpstreamSettings) {
    section.set_some(&mut upstream.ttl, "ttl", duration);
    section.set_some(&mut upstream.max_size, "max_size", limit);
    section.set_some(&mut upstream.tag_ttl, "tag_ttl", duration);
    section.set_some(&mut upstream.max_stale, "max_stale", duration);
}

fn capabilities(value: &Value<'_>) -> Result<Vec<Capability>, Wrong> {
    let words = list(word(Capability::WORDS))(value)?;
    let repeated = words.iter().enumerate().any(|(i, word)| words[..i].contains(word));
    if words.is_empty() || repeated {
        return Err(Wrong::expected("\"pull\", \"resolve\" or both, each once", value));
    }
    Ok(words)
}
