//! An agent for tests, on port 0 of the loopback, that behaves as it is told: well, badly, or not at all.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use larder_wire::proof::{CANARY_PATH, prove};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) const KEY: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Clone, Debug)]
pub(crate) enum Manner {
    Well,
    /// 200 for everything, no proof.
    Squatter,
    /// A proof that held for an earlier challenge.
    Replay(String),
    /// The proof of another key.
    OtherKey,
    /// Takes connections and says nothing.
    Silent,
    /// Closes at once.
    Closing,
    NoHttp,
    Bypass,
    Unwell,
}

pub(crate) struct FakeAgent {
    pub(crate) address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    serving: JoinHandle<()>,
}

impl FakeAgent {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Arc::new(Mutex::new(manner));
        let shared = Arc::clone(&manner);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let manner = shared.lock().unwrap().clone();
                tokio::spawn(answer(stream, manner));
            }
        });
        Self { address, manner, serving }
    }

    /// Writes what an agent leaves in its run_dir.
    pub(crate) fn leave_key(&self, run_dir: &Path) {
        std::fs::write(run_dir.join("instance"), KEY).unwrap();
        std::fs::write(run_dir.join("address"), self.address.to_string()).unwrap();
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut stream: TcpStream, manner: Manner) {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !matches!(manner, Manner::Closing) && !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let challenge = head.lines().find_map(|line| line.strip_prefix("larder-challenge: ")).unwrap_or_default();
    let canary = head.starts_with(&format!("HEAD {CANARY_PATH} "));
    let (status, header) = match &manner {
        Manner::Well => ("200 OK", format!("Larder-Proof: {}\r\n", prove(KEY, challenge))),
        Manner::Squatter => ("200 OK", String::new()),
        Manner::Replay(proof) => ("200 OK", format!("Larder-Proof: {proof}\r\n")),
        Manner::OtherKey => ("200 OK", format!("Larder-Proof: {}\r\n", prove(b"other", challenge))),
        Manner::Bypass if canary => ("503 Service Unavailable", "Larder-Bypass: 1\r\n".to_owned()),
        Manner::Bypass => ("200 OK", String::new()),
        Manner::Unwell => ("503 Service Unavailable", String::new()),
        Manner::Silent => return std::future::pending().await,
        Manner::Closing => return,
        Manner::NoHttp => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            return;
        }
    };
    let reply = format!("HTTP/1.1 {status}\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(reply.as_bytes()).await;
}
