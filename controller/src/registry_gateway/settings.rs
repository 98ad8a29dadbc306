//! The gateway's settings file. Pure; a setting that nobody wrote is left to the gateway's own default.

use crate::crd::{GatewayTagIndex, OnUnknown, TagIndexMode};

pub(super) const PORT: i32 = 5000;
pub(super) const ADMIN_PORT: i32 = 5001;
/// Where settings and policy are mounted.
pub(super) const DIR: &str = "/etc/larder";
pub(super) const SETTINGS_FILE: &str = "gateway.toml";
pub(super) const POLICY_FILE: &str = "policy.json";
pub(super) const TLS_DIR: &str = "/etc/larder-tls";
pub(super) const UPSTREAM_CA_DIR: &str = "/etc/larder-upstream";

/// What the file depends on besides the tag index.
pub(super) struct Wiring<'a> {
    pub(super) upstream: &'a str,
    pub(super) trusts_upstream_ca: bool,
    pub(super) serves_tls: bool,
}

pub(super) fn render(wiring: &Wiring<'_>, index: Option<&GatewayTagIndex>) -> String {
    let mut lines = vec![
        line("listen", &format!("[::]:{PORT}")),
        line("admin", &format!("[::]:{ADMIN_PORT}")),
        line("upstream", wiring.upstream),
        line("policy_file", &format!("{DIR}/{POLICY_FILE}")),
    ];
    if let Some(index) = index {
        let mode = index.mode.map(|mode| match mode {
            TagIndexMode::Indexed => "indexed",
            TagIndexMode::Synchronous => "synchronous",
        });
        let on_unknown = index.on_unknown.map(|what| match what {
            OnUnknown::Allow => "allow",
            OnUnknown::Deny => "deny",
        });
        let written = [
            ("mode", mode),
            ("on_unknown", on_unknown),
            ("seed_timeout", index.seed_timeout.as_deref()),
            ("resync", index.resync_interval.as_deref()),
        ];
        lines.extend(written.into_iter().filter_map(|(key, value)| Some(line(key, value?))));
    }
    if wiring.serves_tls {
        lines.push(line("tls_cert_file", &format!("{TLS_DIR}/tls.crt")));
        lines.push(line("tls_key_file", &format!("{TLS_DIR}/tls.key")));
    }
    if wiring.trusts_upstream_ca {
        lines.push(line("upstream_ca_file", &format!("{UPSTREAM_CA_DIR}/ca.crt")));
    }
    lines.join("\n") + "\n"
}

/// Nothing that comes here holds a quote or a backslash: names, paths, durations.
fn line(key: &str, value: &str) -> String {
    format!("{key} = \"{value}\"")
}
