//! TOML -> settings: every key of the contract once, every mistake at once, each with its line.
//! Must not stop at the first mistake, and must not open a file.

use std::time::Duration;

use toml::de::DeTable;

use super::reader::{
    Findings, Section, boolean, bytes, count, duration, duration_within, limit, path, size, socket,
    text_where, whole, word,
};
use super::{
    CacheSettings, Distribution, InstallerMode, InstallerSettings, Listen, LogFormat, LogSettings, Proxy,
    ReportSettings, Settings, UpstreamSettings, UpstreamUrl, upstream,
};

/// One mistake in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// What is wrong and what was expected. Never shows a value that may hold a secret.
    pub what: String,
    pub spoils: Spoils,
}

/// What cannot be used because of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoils {
    /// An unknown key: the rest of the file stands.
    Nothing,
    /// One `[[upstream]]`, which is left out.
    Upstream,
    /// The file.
    File,
}

/// What a file says, as far as it can be used, and everything that is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Wrong values have their default, wrong upstreams are left out. A `listen.mirror` off the loopback is kept (and
    /// told), so that whoever starts can refuse it. A text that is no TOML gives the defaults, and its `data_dir`
    /// where that can be made out.
    pub settings: Settings,
    /// By line.
    pub mistakes: Vec<Mistake>,
    /// Unknown keys, by line.
    pub unknown: Vec<Mistake>,
}

impl Parsed {
    /// Whether an agent may run with these settings: at most upstreams are left out and keys unknown.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.mistakes.iter().all(|mistake| mistake.spoils != Spoils::File)
    }
}

/// The most connections and requests that may be configured: beyond it, nothing but memory is gained.
const MOST: u64 = 65_536;

/// Reads a settings file.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let mut found = Findings::of(text);
    let mut settings = Settings::default();
    let (document, errors) = DeTable::parse_recoverable(text);
    let place = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    if let Some(error) = errors.iter().min_by_key(|error| place(error)) {
        let mut guess = Findings::of(text);
        guess.section(document.get_ref(), "", Spoils::File).set(&mut settings.data_dir, "data_dir", path);
        found.mistake(place(error), Spoils::File, format!("not TOML: {}", error.message()));
    } else {
        let mut root = found.section(document.get_ref(), "", Spoils::File);
        read_root(&mut root, &mut settings);
        root.finish();
    }
    let Findings { mut mistakes, mut unknown, .. } = found;
    mistakes.sort_by_key(|mistake| mistake.line);
    unknown.sort_by_key(|unknown| unknown.line);
    Parsed { settings, mistakes, unknown }
}

fn read_root(root: &mut Section<'_, '_>, settings: &mut Settings) {
    root.set(&mut settings.generation, "generation", whole(0..=u64::MAX));
    root.set(&mut settings.data_dir, "data_dir", path);
    root.set(&mut settings.run_dir, "run_dir", path);
    root.set_some(&mut settings.ca_file, "ca_file", path);
    root.set_some(&mut settings.proxy, "proxy", upstream::address::<Proxy>);
    if let Some(section) = root.section("listen") {
        read_listen(section, &mut settings.listen);
    }
    if let Some(section) = root.section("cache") {
        read_cache(section, &mut settings.cache);
    }
    read_upstreams(root, &mut settings.upstreams);
    if let Some(section) = root.section("installer") {
        read_installer(section, &mut settings.installer);
    }
    if let Some(section) = root.section("report") {
        read_report(section, &mut settings.report);
    }
    if let Some(section) = root.section("log") {
        read_log(section, &mut settings.log);
    }
}

fn read_listen(mut section: Section<'_, '_>, listen: &mut Listen) {
    section.set(&mut listen.mirror, "mirror", socket);
    section.set(&mut listen.admin, "admin", socket);
    section.set_some(&mut listen.metrics, "metrics", socket);
    section.set(&mut listen.max_connections, "max_connections", count(1..=MOST));
    section.set(&mut listen.min_client_rate, "min_client_rate", bytes);
    if !listen.mirror.ip().is_loopback() {
        section.mistake("mirror", 0, "expected a loopback address: whoever reaches it reads the cache");
    }
    if listen.admin.port() != 0 && listen.admin == listen.mirror {
        section.mistake("admin", 0, "expected an address of its own, not listen.mirror's");
    }
    if listen.metrics.is_some_and(|at| at.port() != 0 && (at == listen.mirror || at == listen.admin)) {
        section.mistake(
            "metrics",
            0,
            "expected an address of its own, not that of listen.mirror or listen.admin",
        );
    }
    section.finish();
}

fn read_cache(mut section: Section<'_, '_>, cache: &mut CacheSettings) {
    section.set(&mut cache.ttl, "ttl", duration);
    section.set(&mut cache.max_size, "max_size", limit);
    section.set(&mut cache.min_free, "min_free", size);
    section.set(&mut cache.tag_ttl, "tag_ttl", duration);
    section.set(&mut cache.max_stale, "max_stale", duration);
    section.finish();
}

/// No `[[upstream]]` leaves the usual ones; `upstream = []` means none.
fn read_upstreams(root: &mut Section<'_, '_>, upstreams: &mut Vec<UpstreamSettings>) {
    let Some(value) = root.value("upstream") else { return };
    upstreams.clear();
    let mut taken = upstream::Taken::default();
    for table in value.get_ref().as_array().into_iter().flatten() {
        let Some(section) = table.get_ref().as_table() else {
            let what = "upstream: expected [[upstream]] tables only".to_owned();
            root.findings().mistake(table.span().start, Spoils::Upstream, what);
            continue;
        };
        let section = root.findings().section(section, "upstream", Spoils::Upstream);
        let read = upstream::read(section, table.span().start, &mut taken);
        upstreams.extend(read);
    }
    if value.get_ref().as_array().is_none() {
        let what = "upstream: expected [[upstream]], in double brackets".to_owned();
        root.findings().mistake(value.span().start, Spoils::File, what);
    }
}

fn read_installer(mut section: Section<'_, '_>, installer: &mut InstallerSettings) {
    section.set(&mut installer.enabled, "enabled", boolean);
    section.set(&mut installer.mode, "mode", word(InstallerMode::WORDS));
    section.set(&mut installer.distribution, "distribution", word(Distribution::WORDS));
    let (certs_dir, containerd_config) = installer.distribution.paths();
    (installer.certs_dir, installer.containerd_config) = (certs_dir.into(), containerd_config.into());
    section.set(&mut installer.certs_dir, "certs_dir", path);
    section.set(&mut installer.containerd_config, "containerd_config", path);
    section.set(&mut installer.keep_on_shutdown, "keep_on_shutdown", boolean);
    section.finish();
}

fn read_report(mut section: Section<'_, '_>, report: &mut ReportSettings) {
    let shortest = Duration::from_millis(100);
    section.set_some(&mut report.controller, "controller", |value| {
        upstream::address::<UpstreamUrl>(value).map(|url| url.to_string())
    });
    section.set(&mut report.token_file, "token_file", path);
    section.set(
        &mut report.interval,
        "interval",
        duration_within(shortest..=Duration::MAX, "a duration of at least \"100ms\", like \"30s\""),
    );
    section.set(
        &mut report.node,
        "node",
        text_where("a node's name: at most 253 letters, digits and marks, no space", |name| {
            name.len() <= 253 && !name.contains(|c: char| c.is_whitespace() || c.is_control())
        }),
    );
    section.finish();
}

fn read_log(mut section: Section<'_, '_>, log: &mut LogSettings) {
    section.set(&mut log.format, "format", word(LogFormat::WORDS));
    section.set(
        &mut log.level,
        "level",
        text_where(
            "error, warn, info, debug, trace or off, or a list like \"info,larder_mirror=debug\"",
            is_filter,
        ),
    );
    section.finish();
}

fn is_filter(text: &str) -> bool {
    let level = |word: &str| matches!(word, "error" | "warn" | "info" | "debug" | "trace" | "off");
    let target = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'))
    };
    text.split(',').all(|part| match part.split_once('=') {
        Some((name, word)) => target(name) && level(word),
        None => level(part),
    })
}

#[cfg(test)]
mod tests;
