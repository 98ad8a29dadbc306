//! The settings file as an administrator writes it, right and wrong.

use super::*;

fn lines(text: &str) -> Vec<(usize, String)> {
    let Parsed { mistakes, unknown, .. } = parse(text);
    mistakes.into_iter().chain(unknown).map(|Mistake { line, what }| (line, what)).collect()
}

#[test]
fn one_line_is_enough_and_the_rest_is_the_contract() {
    let config = parse("upstream = \"http://main-registry:5000\"\n").config.unwrap();
    assert_eq!(config.listen, "0.0.0.0:5000".parse().unwrap());
    assert_eq!(config.admin, "0.0.0.0:5001".parse().unwrap());
    assert_eq!(config.upstream.to_string(), "http://main-registry:5000");
    assert_eq!(config.policy_file, Path::new("/etc/larder/policy.json"));
    assert_eq!((config.mode, config.on_unknown), (Mode::Indexed, OnUnknown::Allow));
    assert_eq!((config.seed_timeout, config.resync), (Duration::from_secs(2), Duration::from_secs(600)));
    assert_eq!((config.max_reads, config.max_writes), (512, 128));
    assert!(config.credential.is_none() && config.peers.is_none() && config.tls.is_none());
}

#[test]
fn every_key_is_read() {
    let text = r#"
listen = "127.0.0.1:1"
admin = "127.0.0.1:2"
upstream = "https://registry.example"
policy_file = "/p"
mode = "synchronous"
on_unknown = "deny"
seed_timeout = "1s"
resync = "0s"
max_reads = 3
max_writes = 4
username_file = "/u"
password_file = "/w"
events_token_file = "/e"
peers = "gateway-peers.registry.svc:5002"
peer_token_file = "/t"
tls_cert_file = "/c"
tls_key_file = "/k"
upstream_ca_file = "/a"
client_cert_file = "/cc"
client_key_file = "/ck"
"#;
    assert_eq!(lines(text), []);
    let config = parse(text).config.unwrap();
    assert_eq!((config.mode, config.on_unknown), (Mode::Synchronous, OnUnknown::Deny));
    assert_eq!((config.max_reads, config.max_writes), (3, 4));
    assert_eq!(config.credential, Some(("/u".into(), "/w".into())));
    assert_eq!(config.events_token_file, Some("/e".into()));
    let peers = config.peers.unwrap();
    assert_eq!((peers.name.as_str(), peers.port), ("gateway-peers.registry.svc", 5002));
    assert_eq!((config.tls, peers.token_file), (Some(("/c".into(), "/k".into())), "/t".into()));
    assert_eq!(config.upstream_tls.ca, Some("/a".into()));
    assert_eq!(config.upstream_tls.client, Some(("/cc".into(), "/ck".into())));
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let text = "listen = \"here\"\nupstream = \"http://a/path\"\nmode = \"fast\"\nmax_reads = 0\n\
                resync = \"soon\"\npeers = \"gateway\"\ntls_cert_file = \"/c\"\nsize = 3\n";
    let told = lines(text);
    assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    for ((_, what), begin) in told.iter().zip([
        "listen: ",
        "upstream: ",
        "mode: ",
        "max_reads: ",
        "resync: ",
        "peers: ",
        "tls_cert_file: ",
    ]) {
        assert!(what.starts_with(begin) && what.contains("expected"), "{what}");
    }
    assert_eq!(told[7].1, "unknown key size");
    assert!(parse(text).config.is_none());
    assert!(lines("")[0].1.starts_with("upstream is missing"));
    assert!(lines("upstream = \"http://a\"\nadmin = \"0.0.0.0:5000\"")[0].1.starts_with("admin: "));
    assert!(lines("upstream = \"http://a\"\npeers = \"a:1\"")[0].1.contains("peer_token_file"));
    assert!(lines("upstream = ")[0].1.starts_with("not TOML"));
}

#[test]
fn unknown_keys_are_mistakes_only_for_a_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, "upstream = \"http://a\"\nnew = 1\n").unwrap();
    assert_eq!(load(&file).unwrap().1.len(), 1);
    let told = check(&file).unwrap_err().to_string();
    assert_eq!(told, format!("{}:2: unknown key new", file.display()));
    assert!(matches!(load(dir.path()), Err(ConfigError::Unreadable(..))));
}
