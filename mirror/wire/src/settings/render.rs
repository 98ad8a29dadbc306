//! Settings -> TOML that [`super::parse`] reads back as the same settings, in the contract's order.
//! A proxy's password is written out: the result is for files that only the agent and its controller read, never for
//! a log.

use std::fmt::Display;
use std::path::Path;

use super::words::word_for;
use super::{
    Access, CacheSettings, Capability, Distribution, InstallerMode, InstallerSettings, Listen, LogFormat,
    ReportSettings, Settings, UpstreamSettings,
};
use crate::units::{format_bytes, format_duration};

/// Writes settings as a settings file. What has no value is left out, everything else is written, defaults too.
#[must_use]
pub fn render(settings: &Settings) -> String {
    let mut page = Page(String::new());
    page.plain("generation", settings.generation);
    page.path("data_dir", Some(&settings.data_dir));
    page.path("run_dir", Some(&settings.run_dir));
    page.path("ca_file", settings.ca_file.as_deref());
    page.text("proxy", settings.proxy.as_ref().map(super::Proxy::revealed));
    if settings.upstreams.is_empty() {
        page.plain("upstream", "[]");
    }
    listen(&mut page, &settings.listen);
    cache(&mut page, &settings.cache);
    for settings in &settings.upstreams {
        upstream(&mut page, settings);
    }
    installer(&mut page, &settings.installer);
    report(&mut page, &settings.report);
    page.header("[log]");
    page.text("format", Some(word_for(LogFormat::WORDS, &settings.log.format)));
    page.text("level", Some(&settings.log.level));
    page.0
}

fn listen(page: &mut Page, listen: &Listen) {
    page.header("[listen]");
    page.text("mirror", Some(listen.mirror));
    page.text("admin", Some(listen.admin));
    page.text("metrics", listen.metrics);
    page.plain("max_connections", listen.max_connections);
    page.text("min_client_rate", Some(format_bytes(listen.min_client_rate)));
}

fn cache(page: &mut Page, cache: &CacheSettings) {
    page.header("[cache]");
    page.text("ttl", Some(format_duration(cache.ttl)));
    page.text("max_size", Some(cache.max_size));
    page.text("min_free", Some(cache.min_free));
    page.text("tag_ttl", Some(format_duration(cache.tag_ttl)));
    page.text("max_stale", Some(format_duration(cache.max_stale)));
}

fn upstream(page: &mut Page, upstream: &UpstreamSettings) {
    page.header("[[upstream]]");
    page.text("registry", Some(&upstream.registry));
    page.text("url", Some(&upstream.url));
    page.text("access", Some(word_for(Access::WORDS, &upstream.access)));
    page.list("capabilities", upstream.capabilities.iter().map(|value| word_for(Capability::WORDS, value)));
    page.plain("max_concurrent", upstream.max_concurrent);
    page.text("head_timeout", Some(format_duration(upstream.head_timeout)));
    page.text("first_byte_timeout", Some(format_duration(upstream.first_byte_timeout)));
    page.path("username_file", upstream.username_file.as_deref());
    page.path("password_file", upstream.password_file.as_deref());
    page.path("ca_file", upstream.ca_file.as_deref());
    page.text("proxy", upstream.proxy.as_ref().map(super::Proxy::revealed));
    page.list("token_hosts", upstream.token_hosts.iter());
    page.list("allow_cidrs", upstream.allow_cidrs.iter());
    page.text("ttl", upstream.ttl.map(format_duration));
    page.text("max_size", upstream.max_size);
    page.text("tag_ttl", upstream.tag_ttl.map(format_duration));
    page.text("max_stale", upstream.max_stale.map(format_duration));
    for (key, value) in [("override_existing", upstream.override_existing), ("default", upstream.default)] {
        if value {
            page.plain(key, value);
        }
    }
}

fn installer(page: &mut Page, installer: &InstallerSettings) {
    page.header("[installer]");
    page.plain("enabled", installer.enabled);
    page.text("mode", Some(word_for(InstallerMode::WORDS, &installer.mode)));
    page.text("distribution", Some(word_for(Distribution::WORDS, &installer.distribution)));
    page.path("certs_dir", Some(&installer.certs_dir));
    page.path("containerd_config", Some(&installer.containerd_config));
    page.plain("keep_on_shutdown", installer.keep_on_shutdown);
}

fn report(page: &mut Page, report: &ReportSettings) {
    page.header("[report]");
    page.text("controller", report.controller.as_ref());
    page.path("token_file", Some(&report.token_file));
    page.text("interval", Some(format_duration(report.interval)));
    page.text("node", Some(&report.node));
}

/// The file while it is written.
struct Page(String);

impl Page {
    fn header(&mut self, header: &str) {
        self.0.push('\n');
        self.0.push_str(header);
        self.0.push('\n');
    }

    /// A number, a boolean, or TOML as it stands.
    fn plain(&mut self, key: &str, value: impl Display) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.plain(key, quoted(&value.to_string()));
        }
    }

    fn path(&mut self, key: &str, value: Option<&Path>) {
        self.text(key, value.map(Path::display));
    }

    /// Nothing for an empty list.
    fn list(&mut self, key: &str, values: impl Iterator<Item = impl Display>) {
        let values: Vec<_> = values.map(|value| quoted(&value.to_string())).collect();
        if !values.is_empty() {
            self.plain(key, format_args!("[{}]", values.join(", ")));
        }
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
