//! Our text is found again and taken out, whatever somebody did around it.

use super::*;

const ENTRY: Entry<'_> = Entry {
    mirror: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 19500),
    capabilities: &[Capability::Pull, Capability::Resolve],
    certificates: Certificates { ca: Vec::new(), client: Vec::new() },
};

fn with_certificates(names: &[&str]) -> Entry<'static> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Entry { certificates: Certificates::among(&names), ..ENTRY }
}

#[test]
fn the_owned_file_reads_as_documented() {
    let file = String::from_utf8(ENTRY.file(Made { dir: true, root: false })).unwrap();
    let lines: Vec<_> = file.lines().collect();
    assert_eq!(lines[0], "# larder: owned created_dir=yes");
    assert!(lines[2].starts_with("# BEGIN larder "));
    let rest =
        ["[host.\"http://127.0.0.1:19500\"]", "  capabilities = [\"pull\", \"resolve\"]", "# END larder"];
    assert_eq!(lines[3..], rest);
    let table: toml::Table = file.parse().unwrap();
    assert_eq!(table.keys().collect::<Vec<_>>(), ["host"]);
}

#[test]
fn pull_alone_and_ipv6_are_written_as_containerd_reads_them() {
    let entry = Entry { mirror: "[::1]:19500".parse().unwrap(), capabilities: &[Capability::Pull], ..ENTRY };
    assert!(entry.block("\n").contains("[host.\"http://[::1]:19500\"]\n  capabilities = [\"pull\"]\n"));
}

#[test]
fn an_owned_file_is_whole_and_remembers_what_we_made() {
    for made in [Made::default(), Made { dir: true, root: false }, Made { dir: true, root: true }] {
        let file = ENTRY.file(made);
        let held = find(&file).unwrap();
        assert_eq!((held.whole, held.intact, held.made), (true, true, made));
        assert_eq!(left_behind(&file, &Certificates::default()), None);
    }
}

#[test]
fn docker_certificates_are_named_at_the_root() {
    let entry = with_certificates(&["b.crt", "a.crt", "c.cert", "c.key", "d.cert", "e.key", "notes.txt"]);
    let file = String::from_utf8(entry.file(Made::default())).unwrap();
    let table: toml::Table = file.parse().unwrap();
    assert_eq!(table["ca"].to_string(), r#"["a.crt", "b.crt"]"#);
    assert_eq!(table["client"].to_string(), r#"[["c.cert", "c.key"], "d.cert"]"#);
    assert!(file.find("\nca = ").unwrap() < file.find("[host.").unwrap());
    assert_eq!(left_behind(file.as_bytes(), &Certificates::default()), None);
}

#[test]
fn names_with_quotes_stay_toml() {
    let file = String::from_utf8(with_certificates(&["a\"b\\c\n.crt"]).file(Made::default())).unwrap();
    let table: toml::Table = file.parse().unwrap();
    assert_eq!(table["ca"][0].as_str(), Some("a\"b\\c\n.crt"));
}

#[test]
fn a_file_without_us_holds_nothing() {
    for file in ["", "# BEGIN\n", "server = \"https://a\"\n", "# larder\n[host.\"https://a\"]\n"] {
        assert_eq!(find(file.as_bytes()), None, "{file}");
        assert_eq!(left_behind(file.as_bytes(), &Certificates::default()), None);
    }
}

#[test]
fn an_owned_file_that_somebody_added_to_keeps_what_they_added() {
    let mut file = ENTRY.file(Made { dir: true, root: false });
    file.extend(b"\n[host.\"https://other\"]\n");
    let held = find(&file).unwrap();
    assert!(!held.whole && held.intact && held.made.dir);
    assert_eq!(left_behind(&file, &Certificates::default()), Some(b"\n[host.\"https://other\"]\n".to_vec()));
}

#[test]
fn certificates_stay_for_what_somebody_added() {
    let mut file = with_certificates(&["a.crt"]).file(Made::default());
    file.extend(b"[host.\"https://other\"]\n");
    assert_eq!(find(&file).unwrap().certificates, ["\"a.crt\""]);
    assert_eq!(
        left_behind(&file, &with_certificates(&["a.crt"]).certificates).unwrap(),
        b"ca = [\"a.crt\"]\n[host.\"https://other\"]\n"
    );
}

#[test]
fn a_changed_block_is_not_intact_and_goes_all_the_same() {
    let file = String::from_utf8(ENTRY.file(Made::default())).unwrap().replace("\"pull\", ", "");
    let held = find(file.as_bytes()).unwrap();
    assert!(held.whole && !held.intact);
}

#[test]
fn what_somebody_put_between_our_marks_stays() {
    let block = ENTRY.block("\n");
    let file = block.replace("# END", "[host.\"https://other\"]\n  skip_verify = true\n# END");
    let rest = String::from_utf8(left_behind(file.as_bytes(), &Certificates::default()).unwrap()).unwrap();
    assert_eq!(rest, "[host.\"https://other\"]\n  skip_verify = true\n");
    let headers = block.replace("# END", "[host.\"http://127.0.0.1:19500\".header]\n  a = \"b\"\n# END");
    assert_eq!(left_behind(headers.as_bytes(), &Certificates::default()).unwrap(), b"");
}

#[test]
fn a_lost_end_mark_takes_no_more_than_our_lines() {
    let block = ENTRY.block("\n").replace("# END larder\n", "");
    let file = format!("server = \"https://a\"\n{block}\n# theirs\n[host.\"https://b\"]\n");
    let rest = String::from_utf8(left_behind(file.as_bytes(), &Certificates::default()).unwrap()).unwrap();
    assert_eq!(rest, "server = \"https://a\"\n\n# theirs\n[host.\"https://b\"]\n");
}

#[test]
fn every_block_goes() {
    let block = ENTRY.block("\n");
    let file = format!("{block}# theirs\n{block}");
    assert_eq!(left_behind(file.as_bytes(), &Certificates::default()).unwrap(), b"# theirs\n");
}
