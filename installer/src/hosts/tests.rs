//! Every refusal, every place, and the promise: the same bytes after in and out.

use super::*;
use crate::entry::{Certificates, find, left_behind};
use larder_wire::settings::Capability;
use proptest::prelude::*;

const MIRROR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 19500);

fn hub() -> UpstreamSettings {
    UpstreamSettings::new("docker.io".parse().unwrap())
}

fn entry() -> Entry<'static> {
    Entry {
        mirror: MIRROR,
        capabilities: &[Capability::Pull, Capability::Resolve],
        certificates: Certificates::default(),
    }
}

fn put_in(text: &str) -> Result<String, Told> {
    let overriding = UpstreamSettings { override_existing: true, ..hub() };
    let place = judge(text.as_bytes(), "F", &overriding, Some(MIRROR))?;
    splice(text.as_bytes(), "F", &place, &entry()).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn refused(text: &str) -> Told {
    judge(text.as_bytes(), "/certs.d/docker.io/hosts.toml", &hub(), Some(MIRROR)).unwrap_err()
}

/// In at the place that is marked with `@`, and the same bytes after taking it out.
fn goes_in_at(marked: &str) {
    let text = marked.replace('@', "");
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let expected = marked.replace('@', &entry().block(newline));
    let new = put_in(&text).unwrap();
    assert_eq!(new, expected);
    assert!(find(new.as_bytes()).unwrap().intact);
    assert_eq!(
        String::from_utf8(left_behind(new.as_bytes(), &Certificates::default()).unwrap()).unwrap(),
        text
    );
}

#[test]
fn before_the_first_table_with_its_comments() {
    goes_in_at("@[host.\"https://a\"]\n");
    goes_in_at(
        "server = \"https://a\"\n\n@# about a\n# more\n[host.\"https://a\"]\n  capabilities = [\"pull\"]\n",
    );
    goes_in_at(
        "# the file\n\n@  # about a\n  [host.\"https://a\"]\n[host.\"https://a\".header]\nx = \"y\"\n",
    );
    goes_in_at("# the file\n# about a\nca = \"x\" # said here\n@# about a\n[host.\"https://a\"]\n");
    goes_in_at("x = \"\"\"\n# no comment\n[no.table]\n# nor this\"\"\"\n@[host.\"https://a\"]\n");
    goes_in_at("x = '''\n# no comment'''\n@[other]\n[host.\"https://a\"]\n");
    goes_in_at("@[host]\n  [host.'https://a']\n    capabilities = ['pull']\n");
    goes_in_at("@[[list]]\na = 1\n[host.\"https://a\"]\n");
    goes_in_at("\u{feff}@[host.\"https://a\"]\n");
    goes_in_at("\u{feff}# c\n\n@[host.\"https://a\"]\n");
    goes_in_at(
        "@# top\n[host.\"https://b\"] # b\n[host.\"https://b\".header]\n  h = [\"1\"]\n[host.\"https://a\"]",
    );
}

#[test]
fn at_the_end_of_a_file_without_tables() {
    goes_in_at("@");
    goes_in_at("# only\n# comments\n@");
    goes_in_at("server = \"https://a\"\nskip_verify = true\n\n@");
}

#[test]
fn line_ends_are_kept() {
    goes_in_at("server = \"https://a\"\r\n\r\n@# c\r\n[host.\"https://a\"]\r\n");
    goes_in_at("# c\r\n@");
}

#[test]
fn a_file_without_a_final_newline_is_without_one_again() {
    for text in
        ["server = \"https://a\"", "# comment", "# a\r\nserver = \"https://a\"", "\u{feff}", "a = 1\nb = 2"]
    {
        let new = put_in(text).unwrap();
        assert!(new.ends_with("# END larder") && new.starts_with(text), "{new:?}");
        assert_eq!(left_behind(new.as_bytes(), &Certificates::default()).unwrap(), text.as_bytes());
        // An editor that ends the last line has ended theirs, no more.
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let edited = left_behind(format!("{new}{newline}").as_bytes(), &Certificates::default()).unwrap();
        assert_eq!(String::from_utf8(edited).unwrap(), format!("{text}{newline}"));
    }
}

#[test]
fn our_host_comes_first_and_a_second_time_changes_nothing() {
    let new = put_in("[host.\"https://a\"]\n[host.\"https://b\"]\n").unwrap();
    let document = Document::parse(&*new).unwrap();
    assert_eq!(hosts(document.as_table()), ["http://127.0.0.1:19500", "https://a", "https://b"]);
    let rest = find(new.as_bytes()).unwrap().rest;
    assert_eq!(put_in(std::str::from_utf8(&rest).unwrap()).unwrap(), new);
}

#[test]
fn certificates_go_in_where_a_file_says_nothing() {
    let names = ["a.crt".to_owned()].into();
    let entry = Entry { certificates: Certificates::among(&names), ..entry() };
    let place = judge(b"# nothing\n", "F", &hub(), Some(MIRROR)).unwrap();
    assert!(place.says_nothing);
    let new = String::from_utf8(splice(b"# nothing\n", "F", &place, &entry).unwrap()).unwrap();
    assert_eq!(new.parse::<toml::Table>().unwrap()["ca"][0].as_str(), Some("a.crt"));
    assert_eq!(left_behind(new.as_bytes(), &Certificates::default()).unwrap(), b"# nothing\n");
    assert!(!judge(b"skip_verify = true\n", "F", &hub(), Some(MIRROR)).unwrap().says_nothing);
}

#[test]
fn what_does_not_parse_is_refused_with_its_line() {
    for text in
        ["a = 1\n[host\n", "a = 1\na = 2\n", "\nserver = https://a\n", "a = 1\n[host.\"b\"]\n[host.\"b\"]\n"]
    {
        let told = refused(text);
        assert_eq!(told.reason, Reason::Unparsable, "{text}");
        assert!(
            told.words.contains("(line ") && told.words.contains("/certs.d/docker.io/hosts.toml"),
            "{}",
            told.words
        );
    }
    assert!(refused("a = 1\n[host\n").words.contains("line 2"));
    assert_eq!(judge(b"\xff", "F", &hub(), None).unwrap_err().reason, Reason::Unparsable);
    assert_eq!(refused("server = 5\n").reason, Reason::Unparsable);
}

#[test]
fn inline_hosts_are_refused() {
    for text in [
        "host = { \"https://a\" = { capabilities = [\"pull\"] } }\n",
        "host.\"https://a\".capabilities = [\"pull\"]\n",
        "[host]\n\"https://a\" = { capabilities = [\"pull\"] }\n",
        "[host]\n\"https://a\".capabilities = [\"pull\"]\n",
        "[[host]]\n",
    ] {
        assert_eq!(refused(text).reason, Reason::InlineHosts, "{text}");
    }
    let header = "[host.\"https://registry-1.docker.io\"]\nheader = { a = \"b\" }\n";
    assert!(judge(header.as_bytes(), "F", &hub(), Some(MIRROR)).is_ok());
}

#[test]
fn generated_files_are_refused_even_if_they_are_ours_to_override() {
    for (head, program) in [
        ("# File generated by k3s. DO NOT EDIT.\n", "k3s"),
        ("# File generated by rke2. DO NOT EDIT.\n", "RKE2"),
        ("\u{feff}\n# managed by gardener-node-agent\n", "gardener-node-agent"),
        ("# Code generated by something. DO NOT EDIT.\r\n", "another program"),
    ] {
        let text = format!("{head}server = \"https://registry-1.docker.io\"\n");
        let overriding = UpstreamSettings { override_existing: true, ..hub() };
        let told = judge(text.as_bytes(), "F", &overriding, Some(MIRROR)).unwrap_err();
        assert_eq!(told.reason, Reason::Generated);
        assert!(told.words.contains(program), "{}", told.words);
    }
    assert!(judge(b"# Ansible managed: do not edit\n", "F", &hub(), Some(MIRROR)).is_ok());
    assert!(judge(b"# we do not edit this by hand\n", "F", &hub(), Some(MIRROR)).is_ok());
    assert!(judge(b"a = 1\n# File generated by k3s. DO NOT EDIT.\n", "F", &hub(), Some(MIRROR)).is_ok());
}

#[test]
fn another_upstream_is_refused_unless_overridden() {
    for text in [
        "server = \"https://corp.example\"\n",
        "server = \"http://registry-1.docker.io\"\n",
        "server = \"https://registry-1.docker.io:5000\"\n",
        "server = \"https://registry-1.docker.io/proxy\"\n",
        "server = \"https://registry-1.docker.io\"\n[host.\"https://mirror.corp\"]\n",
        "[host.\"mirror.corp\"]\n",
    ] {
        let told = refused(text);
        assert_eq!(told.reason, Reason::OtherUpstream, "{text}");
        assert!(told.words.contains("override_existing"));
        assert!(put_in(text).is_ok());
    }
    for text in [
        "server = \"https://registry-1.docker.io\"\n",
        "server = \"https://docker.io\"\n",
        "server = \"registry-1.docker.io\"\n",
        "server = \"https://REGISTRY-1.docker.io:443/v2/\"\n[host.\"https://registry-1.docker.io/v2\"]\n",
        "skip_verify = true\n",
    ] {
        assert!(judge(text.as_bytes(), "F", &hub(), Some(MIRROR)).is_ok(), "{text}");
    }
    let mut harbor = hub();
    harbor.url.host = "harbor.corp".into();
    harbor.url.path = "/v2/hub".into();
    let text = "[host.\"https://harbor.corp/v2/hub\"]\noverride_path = true\n";
    assert!(judge(text.as_bytes(), "F", &harbor, Some(MIRROR)).is_ok());
}

#[test]
fn our_address_in_somebody_elses_table_is_refused_and_listed() {
    for host in
        ["http://127.0.0.1:19500", "http://127.0.0.1:19500/v2", "http://localhost:19500/", "127.0.0.1:19500"]
    {
        let text = format!("[host.\"{host}\"]\n");
        assert_eq!(refused(&text).reason, Reason::AlreadyListed, "{host}");
        assert!(lists(text.as_bytes(), MIRROR));
    }
    for host in ["http://127.0.0.1:19501", "http://127.0.0.2:19500", "https://docker.io"] {
        assert!(!lists(format!("[host.\"{host}\"]\n").as_bytes(), MIRROR));
    }
    assert!(lists(b"[host]\n\"http://127.0.0.1:19500\" = {}\n", MIRROR));
    assert!(!lists(b"[host\n", MIRROR));
}

/// A file as administrators write them: keys, comments and tables in odd shapes.
fn admin_file() -> impl Strategy<Value = String> {
    let comment = prop_oneof![
        Just(String::new()),
        Just("# a comment".to_owned()),
        Just("  \t# [host.\"x\"] = \"no\"".to_owned()),
        "# [ -~]{0,20}".prop_filter("a generator's words", |text| !text.contains("generated")
            && !text.contains("managed")),
        Just("   ".to_owned()),
    ];
    let comments = proptest::collection::vec(comment, 0..4);
    let keys = proptest::sample::subsequence(
        vec![
            "server   =\t\"https://registry-1.docker.io\"   # the hub",
            "ca = [ \"/etc/a.pem\",\n  # inside\n  '/etc/b.pem' ]",
            "skip_verify=false",
            "note = '''\n[host.\"not a table\"]\n# not a comment\n'''",
            "header.\"x-a\" = [\"1\", \"2\"]",
        ],
        0..5,
    );
    let table = ("[a-z]{1,4}", any::<bool>(), comments.clone(), 0..4_u8).prop_map(
        |(name, indent, comments, more)| {
            let (pad, mut text) = (if indent { "  " } else { "" }, comments);
            text.push(format!(
                "{pad}[host.\"https://{name}.example\"]{}",
                if more == 1 { " # x" } else { "" }
            ));
            text.push(format!("{pad}capabilities  = [\"pull\",\"resolve\" ]"));
            if more > 1 {
                text.push(format!("{pad}[host.\"https://{name}.example\".header]\n{pad}  a = 'b'"));
            }
            (name, text.join("\n"))
        },
    );
    let tables = proptest::collection::vec(table, 0..4);
    (comments.clone(), keys, comments, tables, any::<(bool, bool, bool)>()).prop_map(
        |(top, keys, between, tables, (crlf, newline, bom))| {
            let mut names = std::collections::BTreeSet::new();
            let mut lines = top;
            lines.extend(keys.into_iter().map(ToOwned::to_owned));
            lines.extend(between);
            lines.extend(
                tables.into_iter().filter(|(name, _)| names.insert(name.clone())).map(|(_, text)| text),
            );
            let mut text = lines.join("\n");
            if newline && !text.is_empty() {
                text.push('\n');
            }
            if crlf {
                text = text.replace('\n', "\r\n");
            }
            if bom { format!("\u{feff}{text}") } else { text }
        },
    )
}

proptest! {
    #[test]
    fn in_and_out_gives_the_same_bytes(text in admin_file()) {
        let new = put_in(&text).map_err(|told| TestCaseError::fail(told.words))?;
        let before: toml::Table = text.parse().unwrap();
        let mut after: toml::Table = new.parse().unwrap();
        let hosts_after = hosts(Document::parse(&*new).unwrap().as_table());
        prop_assert_eq!(&hosts_after[0], "http://127.0.0.1:19500");
        prop_assert_eq!(&hosts_after[1..], hosts(Document::parse(&*text).unwrap().as_table()));
        let table = after["host"].as_table_mut().unwrap();
        table.remove("http://127.0.0.1:19500");
        if table.is_empty() { after.remove("host"); }
        prop_assert_eq!(before, after);
        prop_assert!(find(new.as_bytes()).unwrap().intact);
        let back = left_behind(new.as_bytes(), &Certificates::default()).unwrap();
        prop_assert_eq!(String::from_utf8(back).unwrap(), text);
    }

    #[test]
    fn any_text_is_refused_or_comes_back(text in "(\\PC|\r|\n|\\[|\\]|\"|=|#){0,60}") {
        if let Ok(new) = put_in(&text) {
            prop_assert_eq!(left_behind(new.as_bytes(), &Certificates::default()).unwrap(), text.as_bytes());
        }
    }
}

#[test]
fn no_words_show_a_password_or_a_query() {
    for text in [
        "server = \"https://user:secret@corp.example/v2?secret#secret\"\n",
        "[host.\"https://user:secret?@corp.example/?secret\"]\n",
        "host.\"https://user:secret@corp.example\" = {}\n[host.\"https://user:secret@corp.example\".x]\n",
        "[host]\n\"https://user:secret@corp.example#secret\" = {}\n",
    ] {
        let told = refused(text);
        assert!(!told.words.contains("secret"), "{}", told.words);
    }
    assert!(
        refused("server = \"https://user:secret@corp.example/v2?x\"\n").words.contains("corp.example/v2,")
    );
}
