//! The binary from outside: its exit codes, what a check says, and that it ends when asked to.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLICY: &str = r#"{"generation":1,"action":"enforce","limits":{"tags":5}}"#;

fn gateway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder-gateway"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn write(dir: &Path, listen: &str, more: &str) -> String {
    fs::write(dir.join("policy.json"), POLICY).expect("written");
    let policy = dir.join("policy.json");
    let text = format!(
        "listen = \"{listen}\"\nadmin = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9\"\n\
         policy_file = {policy:?}\n{more}"
    );
    fs::write(dir.join("gateway.toml"), text).expect("written");
    dir.join("gateway.toml").display().to_string()
}

fn ended(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = gateway(arguments).output().expect("run");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

#[test]
fn a_check_tells_everything_that_a_start_would_stumble_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), "127.0.0.1:0", "");
    assert_eq!(ended(&["check", "--config", &config]), (Some(0), String::new()));

    let config = write(dir.path(), "127.0.0.1:0", "speed = 1\nmax_reads = 0\n");
    let (code, told) = ended(&["check", "--config", &config]);
    assert_eq!(code, Some(64));
    assert!(
        told.contains("gateway.toml:5: unknown key speed") && told.contains("gateway.toml:6: max_reads"),
        "{told}"
    );

    for (more, word) in [
        ("tls_cert_file = \"/nowhere/tls.crt\"\ntls_key_file = \"/nowhere/tls.key\"\n", "/nowhere/tls.crt"),
        ("events_token_file = \"/nowhere/token\"\n", "/nowhere/token"),
        ("upstream_ca_file = \"/nowhere/ca.crt\"\n", "/nowhere/ca.crt"),
    ] {
        let config = write(dir.path(), "127.0.0.1:0", more);
        for arguments in [vec!["check", "--config", &config], vec!["--config", &config]] {
            let (code, told) = ended(&arguments);
            assert!(code == Some(64) && told.contains(word), "{arguments:?}: {code:?} {told}");
        }
    }
    let config = write(dir.path(), "127.0.0.1:0", "");
    fs::write(dir.path().join("policy.json"), "{").unwrap();
    let (code, told) = ended(&["check", "--config", &config]);
    assert!(code == Some(64) && told.contains("policy.json"), "{told}");
}

#[test]
fn a_bad_command_line_is_64() {
    for arguments in [vec![], vec!["--speed"], vec!["check"], vec!["--config", "/nowhere/gateway.toml"]] {
        assert_eq!(ended(&arguments).0, Some(64), "{arguments:?}");
    }
    assert_eq!(ended(&["--help"]).0, Some(0));
}

#[test]
fn an_address_that_cannot_be_had_is_69() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = write(dir.path(), &taken.local_addr().unwrap().to_string(), "");
    let (code, told) = ended(&["--config", &config]);
    assert!(code == Some(69) && told.contains("listen = "), "{told}");
}

#[test]
fn sigterm_ends_it_well() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), "127.0.0.1:0", "");
    let mut child = Ended(gateway(&["--config", &config]).spawn().unwrap());
    let stderr = BufReader::new(child.0.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"listener\":\"admin\"")), "it begins");
    kill(Pid::from_raw(child.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(lines.any(|line| line.contains("draining")), "it drains");
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
