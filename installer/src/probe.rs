//! Asks over real TCP whether the agent that holds this node's instance key serves at the mirror's address, and is the
//! only place that can say so: nothing is installed without a [`Reachable`]. Must not touch certs.d.

mod health;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use larder_wire::digest::hex;
use larder_wire::proof::{self, ADDRESS_FILE, BYPASS};
use larder_wire::settings::Settings;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::small_file::{self, TINY};
use crate::state::{Reason, Told};

pub(crate) use health::{Health, Verdict};

/// Everything a probe does: connect, `GET /v2/`, `HEAD` the canary.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a proof is good for a write.
const FRESH: Duration = Duration::from_secs(3);

/// The agent of this node has just proven itself at this address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reachable {
    mirror: SocketAddr,
    since: std::time::Instant,
}

impl Reachable {
    /// Whether it was proven so lately that something may be written for it.
    pub(crate) fn is_fresh(&self, now: std::time::Instant) -> bool {
        now.saturating_duration_since(self.since) <= FRESH
    }
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good(SocketAddr),
    Bad(Told),
}

impl Verdict {
    /// The address that the agent has just proven itself at.
    pub(crate) fn mirror(&self) -> Option<SocketAddr> {
        match self {
            Self::In(reachable) => Some(reachable.mirror),
            Self::Unsure(_) | Self::Out(_) => None,
        }
    }
}

/// Probes once; takes a second at most.
pub(crate) async fn probe(settings: &Settings) -> Outcome {
    let Some(mirror) = mirror_address(settings) else {
        let file = settings.run_dir.join(ADDRESS_FILE);
        return Outcome::Bad(Reason::ProbeFailed.because(format!(
            "{} names no loopback address yet; pulls go direct until the agent runs",
            file.display()
        )));
    };
    let key =
        small_file::read(&settings.run_dir.join(proof::KEY_FILE), TINY).ok().filter(|key| !key.is_empty());
    match ask(mirror, key.as_deref(), Instant::now() + TIMEOUT).await {
        Ok(()) => Outcome::Good(mirror),
        Err(refusal) => Outcome::Bad(refusal.told(mirror, key.is_some(), &settings.run_dir)),
    }
}

/// Where the mirror listens: the address that the running agent wrote down, which the settings may have left behind
/// (a changed `listen` waits for a restart), else the settings'. Loopback only: what lies in `run_dir` must not send
/// containerd off the node.
pub(crate) fn mirror_address(settings: &Settings) -> Option<SocketAddr> {
    let usable = |address: &SocketAddr| address.ip().is_loopback() && address.port() != 0;
    let written = || {
        let text = small_file::read(&settings.run_dir.join(ADDRESS_FILE), TINY).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    };
    written().filter(usable).or_else(|| Some(settings.listen.mirror).filter(usable))
}

/// What a probe did not get.
enum Refusal {
    /// Nobody there.
    Absent(String),
    /// Somebody there who says nothing.
    Mute(String),
    /// Heard, but not the agent that holds the key.
    Stranger(String),
    /// The agent's kill switch is set.
    Bypass,
    /// The agent is there and says that it is not well.
    Unwell(StatusCode),
}

impl Refusal {
    fn told(self, mirror: SocketAddr, key: bool, run_dir: &Path) -> Told {
        let run_dir = run_dir.display();
        match self {
            Self::Absent(why) => Reason::ProbeFailed
                .because(format!("no agent at {mirror} ({why}); pulls go direct; see whether larder-agent runs")),
            Self::Mute(why) if key => Reason::ProbeFailed
                .because(format!("the agent at {mirror} is silent ({why}); pulls go direct; see the agent's log")),
            Self::Unwell(status) => Reason::ProbeFailed
                .because(format!("the agent at {mirror} answers {status}; pulls go direct; see the agent's log")),
            Self::Stranger(what) if key => Reason::NotOurAgent.because(format!(
                "what listens at {mirror} does not prove the key in {run_dir}/instance ({what}); pulls go direct; stop \
                 it or change `listen.mirror`"
            )),
            Self::Mute(what) | Self::Stranger(what) => Reason::PortInUse.because(format!(
                "something else listens at {mirror} ({what}), and no agent has left its key in {run_dir}; pulls go \
                 direct; stop it or change `listen.mirror`"
            )),
            Self::Bypass => Reason::Bypass.because(
                "a file BYPASS lies in the agent's data_dir; pulls go direct until it is taken away".to_owned(),
            ),
        }
    }
}

async fn ask(mirror: SocketAddr, key: Option<&[u8]>, deadline: Instant) -> Result<(), Refusal> {
    let root = timely(deadline, mirror, Method::GET, "/v2/", None).await?;
    judge_status(&root)?;
    let challenge = challenge();
    let canary = timely(deadline, mirror, Method::HEAD, proof::CANARY_PATH, Some(&challenge)).await?;
    let given = canary.headers().get(proof::PROOF).and_then(|proof| proof.to_str().ok());
    let proven = key.zip(given).is_some_and(|(key, given)| proof::holds(key, &challenge, given));
    if canary.headers().contains_key(BYPASS) && !canary.status().is_success() {
        return Err(Refusal::Bypass);
    }
    match (proven, canary.status()) {
        (true, StatusCode::OK) => Ok(()),
        (true, status) => Err(Refusal::Unwell(status)),
        (false, status) => {
            Err(Refusal::Stranger(format!("the canary came as {status} without the right proof")))
        }
    }
}

fn judge_status(root: &Response<Incoming>) -> Result<(), Refusal> {
    match root.status() {
        StatusCode::OK => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE if root.headers().contains_key(BYPASS) => Err(Refusal::Bypass),
        status @ StatusCode::SERVICE_UNAVAILABLE => Err(Refusal::Unwell(status)),
        status => Err(Refusal::Stranger(format!("GET /v2/ was answered {status}"))),
    }
}

/// One request on a connection of its own, within the probe's time; the body is not read.
async fn timely(
    deadline: Instant,
    mirror: SocketAddr,
    method: Method,
    path: &str,
    challenge: Option<&str>,
) -> Result<Response<Incoming>, Refusal> {
    let late = |_| "no answer within 1s".to_owned();
    let connected =
        timeout_at(deadline, TcpStream::connect(mirror)).await.map_err(late).map_err(Refusal::Absent)?;
    let stream = connected.map_err(|error| Refusal::Absent(error.to_string()))?;
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, mirror.to_string());
    if let Some(challenge) = challenge {
        request = request.header(proof::CHALLENGE, challenge);
    }
    let request = request.body(Empty::new()).expect("a path, an address and hex digits make a request");
    timeout_at(deadline, exchange(stream, request))
        .await
        .map_err(late)
        .map_err(Refusal::Mute)?
        .map_err(refusal)
}

async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await?;
    let reply = sender.send_request(request);
    tokio::pin!(reply, connection);
    tokio::select! {
        biased;
        reply = &mut reply => reply,
        // The connection may end in the very moment in which it hands the reply over.
        _ = &mut connection => reply.await,
    }
}

fn refusal(error: hyper::Error) -> Refusal {
    if error.is_parse() { Refusal::Stranger("no HTTP".to_owned()) } else { Refusal::Mute(error.to_string()) }
}

fn challenge() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes once it runs containers");
    hex(&bytes)
}

#[cfg(test)]
mod tests;
