//! Every kind of mistake with its line, the contract's example, and that what is rendered reads back.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::{Access, Capability, USUAL_REGISTRIES, render};
use super::*;
use crate::units::Size;

/// The settings section of the contract, with every commented key given.
const EXAMPLE: &str = r#"
generation = 0
data_dir = "/var/lib/larder"
run_dir  = "/run/larder"
[listen]
mirror = "127.0.0.1:19500"
admin  = "127.0.0.1:19501"
max_connections = 512
min_client_rate = "4KiB"
[cache]
ttl = "168h"
max_size = "20%"
min_free = "25%"
tag_ttl = "60s"
max_stale = "24h"
[[upstream]]
registry = "docker.io"
url = "https://registry-1.docker.io"
access = "public"
capabilities = ["pull", "resolve"]
max_concurrent = 32
head_timeout = "5s"
first_byte_timeout = "10s"
[installer]
enabled = false
mode = "manage"
distribution = "custom"
certs_dir = "/etc/containerd/certs.d"
containerd_config = "/etc/containerd/config.toml"
keep_on_shutdown = false
[report]
controller = "http://10.96.0.7:8080"
token_file = "/var/run/secrets/larder/token"
interval = "30s"
node = ""
[log]
format = "json"
level = "info"
"#;

/// Every key that the example leaves out.
const REST: &str = r#"
ca_file = "ca.pem"
proxy = "http://me:pw@proxy.example:3128"
[listen]
metrics = "[::]:19502"
[[upstream]]
registry = "registry.example:5000"
username_file = "/u"
password_file = "/p"
ca_file = "/ca"
proxy = "http://proxy.example"
token_hosts = ["auth.example"]
allow_cidrs = ["10.0.0.0/8", "fd00::/8"]
ttl = "0s"
max_size = "0"
tag_ttl = "0s"
max_stale = "0s"
override_existing = true
default = true
"#;

fn lines(text: &str) -> Vec<(usize, String)> {
    parse(text).mistakes.into_iter().map(|mistake| (mistake.line, mistake.what)).collect()
}

/// One mistake on that line that says so.
#[track_caller]
fn tells(text: &str, line: usize, words: &str) {
    let mistakes = lines(text);
    assert!(
        matches!(&mistakes[..], [(at, what)] if *at == line && what.contains(words)),
        "{text}\n{mistakes:?}"
    );
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(
        parse(""),
        Parsed { settings: Settings::default(), mistakes: Vec::new(), unknown: Vec::new() }
    );
    assert_eq!(parse("# nothing\n").settings.upstreams.len(), USUAL_REGISTRIES.len());
}

#[test]
fn the_contracts_example_shows_the_defaults() {
    let Parsed { settings, mistakes, unknown } = parse(EXAMPLE);
    assert_eq!((mistakes, unknown), (Vec::new(), Vec::new()));
    let mut expected = Settings::default();
    expected.upstreams.truncate(1);
    expected.report.controller = Some("http://10.96.0.7:8080".to_owned());
    assert_eq!(settings, expected);
}

#[test]
fn every_other_key_is_read() {
    let Parsed { settings, mistakes, unknown } = parse(REST);
    assert_eq!((mistakes, unknown), (Vec::new(), Vec::new()));
    assert_eq!(settings.ca_file, Some("ca.pem".into()));
    assert_eq!(settings.proxy.and_then(|proxy| proxy.userinfo), Some("me:pw".to_owned()));
    assert_eq!(settings.listen.metrics, Some("[::]:19502".parse().unwrap()));
    let [upstream] = &settings.upstreams[..] else { panic!("{:?}", settings.upstreams) };
    assert_eq!(upstream.url.to_string(), "https://registry.example:5000");
    assert_eq!(
        (upstream.username_file.clone(), upstream.password_file.clone()),
        (Some("/u".into()), Some("/p".into()))
    );
    assert_eq!(
        (upstream.ca_file.clone(), upstream.proxy.as_ref().map(|p| p.port)),
        (Some("/ca".into()), Some(80))
    );
    assert_eq!(upstream.token_hosts, ["auth.example"]);
    assert_eq!(upstream.allow_cidrs, ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    assert_eq!((upstream.ttl, upstream.max_size), (Some(Duration::ZERO), Some(Size::Bytes(0))));
    assert_eq!((upstream.tag_ttl, upstream.max_stale), (Some(Duration::ZERO), Some(Duration::ZERO)));
    assert!(upstream.override_existing && upstream.default);
}

#[test]
fn what_depends_on_another_key() {
    let shared = parse("[[upstream]]\nregistry = \"a.example\"\naccess = \"shared\"").settings;
    assert_eq!(shared.upstreams[0].capabilities, [Capability::Pull]);
    let shared =
        parse("[[upstream]]\nregistry = \"a.example\"\naccess = \"shared\"\ncapabilities = [\"resolve\"]")
            .settings;
    assert_eq!(shared.upstreams[0].capabilities, [Capability::Resolve]);

    let installer =
        parse("[installer]\ncontainerd_config = \"/c\"\ndistribution = \"k3s\"").settings.installer;
    assert_eq!(installer.certs_dir, PathBuf::from("/var/lib/rancher/k3s/agent/etc/containerd/certs.d"));
    assert_eq!(installer.containerd_config, PathBuf::from("/c"));
}

#[test]
fn addresses_may_be_ipv6_and_ports_zero() {
    let settings = parse("[listen]\nmirror = \"[::1]:0\"\nadmin = \"[::1]:0\"\nmetrics = \"[::1]:0\"");
    assert_eq!(settings.mistakes, []);
    assert_eq!(settings.settings.listen.mirror, "[::1]:0".parse().unwrap());
}

#[test]
fn each_wrong_value_is_told_with_its_line() {
    tells("\ngeneration = \"7\"", 2, "generation: expected a whole number from 0 to");
    tells("generation = -1", 1, "found -1");
    tells("data_dir = 1", 1, "data_dir: expected a path in quotes, found 1");
    tells("run_dir = \"\"", 1, "run_dir: expected a path");
    tells("listen = 1", 1, "expected a table [listen], found 1");
    tells("[[listen]]\n", 1, "expected a table [listen]");
    tells("[listen]\nmirror = \"localhost:1\"", 2, "listen.mirror: expected an address and port");
    tells("[listen]\n\nmirror = \"0.0.0.0:19500\"", 3, "listen.mirror: expected a loopback address");
    tells("[listen]\nadmin = \"127.0.0.1:19500\"", 2, "listen.admin: expected an address of its own");
    tells("[listen]\nmetrics = \"127.0.0.1:19501\"", 2, "listen.metrics: expected an address of its own");
    tells("[listen]\nmax_connections = 0", 2, "a whole number from 1 to");
    tells("[listen]\nmax_connections = 1.5", 2, "found a number with a point");
    tells(
        "[listen]\nmin_client_rate = \"4kb\"",
        2,
        "listen.min_client_rate: expected a size: an integer with B",
    );
    tells(
        "[cache]\nttl = \"7d\"",
        2,
        "cache.ttl: expected a duration like \"1h30m\", \"168h\" or \"0s\", found \"7d\"",
    );
    tells("[cache]\nttl = 60", 2, "found 60");
    tells("[cache]\nmax_size = \"101%\"", 2, "cache.max_size: expected a size like");
    tells("[cache]\nmax_size = \"0%\"", 2, "\"0\" for no limit");
    tells("[cache]\nmin_free = true", 2, "found true");
    tells("[installer]\nenabled = \"yes\"", 2, "installer.enabled: expected true or false, found \"yes\"");
    tells(
        "[installer]\nmode = \"auto\"",
        2,
        "expected one of \"manage\", \"observe\", \"absent\", found \"auto\"",
    );
    tells("[installer]\ndistribution = \"kind\"", 2, "\"microk8s\", \"custom\", found \"kind\"");
    tells(
        "[report]\ncontroller = \"10.0.0.1:80\"",
        2,
        "report.controller: expected a URL that starts with https://",
    );
    tells("[report]\ncontroller = \"http://u:p@c\"", 2, "no user or password");
    tells("[report]\ninterval = \"0s\"", 2, "report.interval: expected a duration of at least");
    tells("[report]\nnode = \"a b\"", 2, "report.node: expected a node's name");
    tells("[log]\nformat = \"xml\"", 2, "expected one of \"json\", \"text\", found \"xml\"");
    tells("[log]\nlevel = \"loud\"", 2, "log.level: expected error, warn");
    assert_eq!(lines("[log]\nlevel = \"info,larder_mirror=debug\""), []);
}

#[test]
fn each_wrong_upstream_is_told_and_left_out() {
    let good = "[[upstream]]\nregistry = \"good.example\"\ndefault = true\n";
    for (wrong, line, words) in [
        ("access = \"public\"", 4, "upstream.registry: expected what containerd calls the registry"),
        (
            "registry = \"https://a.example\"",
            5,
            "upstream.registry: expected a registry as containerd calls it",
        ),
        ("registry = \"good.example\"", 5, "has an [[upstream]] already"),
        ("registry = \"a.example\"\ndefault = true", 6, "another [[upstream]] is the default already"),
        ("registry = \"a.example\"\ndefault = 1", 6, "upstream.default: expected true or false"),
        (
            "registry = \"a.example\"\nurl = \"a.example\"",
            6,
            "upstream.url: expected a URL that starts with https://",
        ),
        ("registry = \"a.example\"\nurl = \"https://me:pw@a.example\"", 6, "no user or password"),
        ("registry = \"a.example\"\nurl = \"https://a.example?x\"", 6, "no query and no fragment"),
        ("registry = \"a.example\"\nurl = \"https://a.example#x\"", 6, "no query and no fragment"),
        ("registry = \"a.example\"\nurl = \"ftp://a.example\"", 6, "starts with https://"),
        ("registry = \"a.example\"\nurl = 7", 6, "upstream.url: expected a URL in quotes, found 7"),
        (
            "registry = \"a.example\"\nproxy = \"https://p.example\"",
            6,
            "expected http://[user:password@]host[:port]",
        ),
        (
            "registry = \"a.example\"\naccess = \"open\"",
            6,
            "expected one of \"public\", \"shared\", found \"open\"",
        ),
        ("registry = \"a.example\"\ncapabilities = []", 6, "found an empty list"),
        ("registry = \"a.example\"\ncapabilities = [\n\"pull\",\n\"push\"]", 8, "found \"push\""),
        ("registry = \"a.example\"\ncapabilities = [\"pull\", \"pull\"]", 6, "each once"),
        ("registry = \"a.example\"\ncapabilities = \"pull\"", 6, "expected a list"),
        ("registry = \"a.example\"\nmax_concurrent = 0", 6, "a whole number from 1"),
        ("registry = \"a.example\"\nhead_timeout = \"0s\"", 6, "up to \"20s\", found \"0s\""),
        ("registry = \"a.example\"\nhead_timeout = \"21s\"", 6, "up to \"20s\", found \"21s\""),
        ("registry = \"a.example\"\nfirst_byte_timeout = \"1m\"", 6, "up to \"20s\", found \"1m\""),
        ("registry = \"a.example\"\nusername_file = \"/u\"", 6, "expected a password_file"),
        ("registry = \"a.example\"\npassword_file = \"/p\"", 6, "expected a username_file"),
        (
            "registry = \"a.example\"\ntoken_hosts = [\"auth.example:443\"]",
            6,
            "a host in lower case without port",
        ),
        ("registry = \"a.example\"\nallow_cidrs = [\"10.0.0.1\"]", 6, "an address range like"),
        ("registry = \"a.example\"\nmax_size = \"much\"", 6, "upstream.max_size: expected a size"),
        ("registry = \"a.example\"\nttl = \"-1s\"", 6, "upstream.ttl: expected a duration"),
    ] {
        let text = format!("{good}[[upstream]]\n{wrong}\n");
        tells(&text, line, words);
        let parsed = parse(&text);
        assert!(parsed.is_usable(), "{text}");
        let registries: Vec<_> =
            parsed.settings.upstreams.iter().map(|upstream| upstream.registry.as_str()).collect();
        assert_eq!(registries, ["good.example"], "{text}");
    }
}

#[test]
fn without_a_good_upstream_there_is_none() {
    let parsed = parse("[[upstream]]\nregistry = \"A\"");
    assert_eq!(parsed.settings.upstreams, []);
    assert!(parsed.is_usable());
    assert_eq!(
        parse("upstream = []"),
        Parsed { settings: Settings { upstreams: Vec::new(), ..Settings::default() }, ..parse("") }
    );
    tells("upstream = [1]", 1, "[[upstream]] tables only");
    tells("[upstream]\n", 1, "in double brackets");
    assert!(!parse("[upstream]\n").is_usable());
}

#[test]
fn every_mistake_is_told_at_once_by_line() {
    let text = "generation = true\n[log]\nlevel = \"x\"\n[cache]\nttl = 1\n[[upstream]]\nurl = \"x\"\naccess = 1\n[listen]\nadmin = 1";
    assert_eq!(lines(text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 5, 6, 7, 8, 10]);
    assert!(!parse(text).is_usable());
}

#[test]
fn unknown_keys_are_told_apart_from_mistakes() {
    let parsed = parse(
        "data_dri = \"/d\"\n[cache]\ntll = \"1h\"\n[[upstream]]\nregistry = \"a.example\"\nzzz = 1\n[colour]\nred = 1",
    );
    assert_eq!(parsed.mistakes, []);
    assert_eq!(parsed.settings.upstreams.len(), 1);
    let unknown: Vec<_> =
        parsed.unknown.iter().map(|unknown| (unknown.line, unknown.what.as_str())).collect();
    assert_eq!(
        unknown,
        [
            (1, "unknown key data_dri, did you mean data_dir?"),
            (3, "unknown key cache.tll, did you mean ttl?"),
            (6, "unknown key upstream.zzz"),
            (7, "unknown key colour"),
        ]
    );
}

#[test]
fn what_is_no_toml_is_one_mistake() {
    let parsed = parse("generation = 1\n[listen\nmirror = \"127.0.0.1:1\"\nx = = 1");
    assert_eq!(parsed.settings, Settings::default());
    assert!(
        matches!(&parsed.mistakes[..], [only] if only.line == 2 && only.what.starts_with("not TOML: ")),
        "{parsed:?}"
    );
    assert!(!parsed.is_usable());
    tells("a = 1\nb = 2\na = 3", 3, "not TOML: duplicate key");
    tells("a = ", 1, "not TOML");
    let parsed = parse("data_dir = \"/d\"\n[listen]\nmirror = 127.0.0.1:1\n");
    assert_eq!(parsed.settings, Settings { data_dir: "/d".into(), ..Settings::default() });
}

#[test]
fn a_mirror_address_off_the_loopback_can_be_seen() {
    let parsed = parse("[listen]\nmirror = \"192.0.2.1:19500\"");
    assert_eq!(parsed.settings.listen.mirror, "192.0.2.1:19500".parse().unwrap());
    assert!(!parsed.is_usable());
}

#[test]
fn no_mistake_shows_a_password() {
    for text in
        ["proxy = \"http://me:hunter2@\"", "[[upstream]]\nregistry=\"a.b\"\nurl = \"https://me:hunter2@a.b\""]
    {
        assert!(!format!("{:?}", parse(text)).contains("hunter2"), "{text}");
    }
}

fn duration_() -> impl Strategy<Value = Duration> {
    (0..9_000_000_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn head_wait() -> impl Strategy<Value = Duration> {
    (1..=20_000_000_000_u64).prop_map(Duration::from_nanos)
}

fn limit_() -> impl Strategy<Value = Size> {
    prop_oneof![any::<u64>().prop_map(Size::Bytes), (1..=100_u8).prop_map(Size::Percent)]
}

fn path_() -> impl Strategy<Value = PathBuf> {
    "[^\0]{1,20}".prop_map(PathBuf::from)
}

fn proxy() -> impl Strategy<Value = Proxy> {
    ("[a-z]{1,9}", 1..=u16::MAX, option::of("\\PC{1,12}")).prop_map(|(host, port, userinfo)| Proxy {
        host,
        port,
        userinfo,
    })
}

fn url() -> impl Strategy<Value = UpstreamUrl> {
    (
        any::<bool>(),
        "[a-z]{1,9}(\\.[a-z]{1,3})?|\\[::1\\]",
        option::of(1..=u16::MAX),
        "(/[a-z0-9@]{1,4}){0,2}",
    )
        .prop_map(|(tls, host, port, path)| UpstreamUrl { tls, host, port, path })
}

prop_compose! {
    fn listen()(
        ports in select(vec![(0, 0, 0), (1, 2, 3), (19500, 19501, 19502)]),
        mirror in select(vec!["127.0.0.1", "::1", "127.8.8.8"]),
        admin in any::<IpAddr>(),
        metrics in option::of(any::<IpAddr>()),
        max_connections in 1..=65_536_usize,
        min_client_rate in any::<u64>(),
    ) -> Listen {
        Listen {
            mirror: SocketAddr::new(mirror.parse().unwrap(), ports.0),
            admin: SocketAddr::new(admin, ports.1),
            metrics: metrics.map(|ip| SocketAddr::new(ip, ports.2)),
            max_connections,
            min_client_rate,
        }
    }
}

prop_compose! {
    fn an_upstream()(
        (registry, url, access) in ("[a-z]{1,9}(:[1-9][0-9]{0,3})?", url(), select(vec![Access::Public, Access::Shared])),
        capabilities in subsequence(vec![Capability::Pull, Capability::Resolve], 1..=2),
        (max_concurrent, head_timeout, first_byte_timeout) in (1..=65_536_usize, head_wait(), head_wait()),
        credential in option::of((path_(), path_())),
        (ca_file, proxy) in (option::of(path_()), option::of(proxy())),
        token_hosts in vec("[a-z]{1,5}\\.example", 0..3),
        allow_cidrs in vec(select(vec!["10.0.0.0/8", "fd00::/8", "0.0.0.0/0"]), 0..3),
        ttl in option::of(duration_()),
        max_size in option::of(limit_()),
        (tag_ttl, max_stale) in (option::of(duration_()), option::of(duration_())),
        override_existing in any::<bool>(),
    ) -> UpstreamSettings {
        let (username_file, password_file) = credential.unzip();
        UpstreamSettings {
            registry: registry.parse().unwrap(),
            url, access, capabilities, max_concurrent, head_timeout, first_byte_timeout,
            username_file, password_file, ca_file, proxy, token_hosts,
            allow_cidrs: allow_cidrs.into_iter().map(|range| range.parse().unwrap()).collect(),
            ttl, max_size, tag_ttl, max_stale, override_existing,
            default: false,
        }
    }
}

prop_compose! {
    fn upstreams()(
        mut upstreams in vec(an_upstream(), 0..4),
        default in option::of(0..4_usize),
    ) -> Vec<UpstreamSettings> {
        upstreams.sort_by(|a, b| a.registry.cmp(&b.registry));
        upstreams.dedup_by(|a, b| a.registry == b.registry);
        if let Some(upstream) = default.and_then(|at| upstreams.get_mut(at)) {
            upstream.default = true;
        }
        upstreams
    }
}

prop_compose! {
    fn settings()(
        generation in any::<u64>(),
        (data_dir, run_dir, ca_file, proxy) in (path_(), path_(), option::of(path_()), option::of(proxy())),
        listen in listen(),
        (ttl, max_size, min_free, tag_ttl, max_stale) in (duration_(), limit_(), limit_(), duration_(), duration_()),
        upstreams in upstreams(),
        (enabled, keep_on_shutdown) in any::<(bool, bool)>(),
        mode in select(InstallerMode::WORDS),
        distribution in select(Distribution::WORDS),
        (certs_dir, containerd_config) in (path_(), path_()),
        controller in option::of(url()),
        (token_file, interval, node) in (path_(), duration_(), "[a-z0-9.-]{0,12}"),
        (format, level) in (select(LogFormat::WORDS), select(vec!["info", "off", "warn,larder_mirror=trace"])),
    ) -> Settings {
        Settings {
            generation, data_dir, run_dir, ca_file, proxy, listen,
            cache: CacheSettings { ttl, max_size, min_free, tag_ttl, max_stale },
            upstreams,
            installer: InstallerSettings {
                enabled, mode: mode.1, distribution: distribution.1, certs_dir, containerd_config, keep_on_shutdown,
            },
            report: ReportSettings {
                controller: controller.map(|url| url.to_string()),
                token_file,
                interval: interval.max(Duration::from_millis(100)),
                node,
            },
            log: LogSettings { format: format.1, level: level.to_owned() },
        }
    }
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back(settings in settings()) {
        let text = render(&settings);
        let parsed = parse(&text);
        prop_assert_eq!((&parsed.mistakes, &parsed.unknown), (&Vec::new(), &Vec::new()), "{}", text);
        prop_assert_eq!(parsed.settings, settings);
    }

    #[test]
    fn no_text_panics(text in "(\\PC|[\n\"\\[\\]=.'0-9a-z]){0,80}") {
        let parsed = parse(&text);
        prop_assert!(parsed.mistakes.iter().all(|mistake| mistake.line <= text.lines().count().max(1) + 1));
    }

    #[test]
    fn no_damage_to_a_good_file_panics(at in 0..REST.len() + EXAMPLE.len(), len in 0..30_usize, noise in "\\PC{0,5}") {
        let mut text = format!("{REST}{EXAMPLE}");
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &noise);
        let _ = parse(&text);
    }
}
