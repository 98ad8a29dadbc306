//! `larder-agent forget`: asks the running agent over its socket, and says what came of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Forget, Forgotten, Image, SOCKET, within};
use crate::{config, run};

const DEADLINE: Duration = Duration::from_secs(30);

/// Why nothing was dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no agent answers at {}; is it running, with this run_dir, and are you its user?", .0.display())]
    NoAgent(PathBuf, #[source] io::Error),
    #[error("the agent gave no answer")]
    Connection(#[from] hyper::Error),
    #[error("the agent gave no answer within 30 s")]
    Deadline,
    #[error("no request can be made")]
    Request(#[from] http::Error),
    #[error("the agent's answer cannot be read")]
    Answer(#[from] serde_json::Error),
    #[error("the agent refused: {0}")]
    Refused(String),
}

/// `larder-agent forget`: 0 when the agent did it, 1 when it could not be asked, 64 for bad settings.
pub(crate) fn ask_to_forget(file: Option<&Path>, image: &Image) -> ExitCode {
    let (code, words) = match asked(file, image) {
        Ok(Ok(1)) => (ExitCode::SUCCESS, format!("dropped 1 entry of {image}")),
        Ok(Ok(dropped)) => (ExitCode::SUCCESS, format!("dropped {dropped} entries of {image}")),
        Ok(Err(error)) => (ExitCode::FAILURE, run::chain(&error)),
        Err(unusable) => (ExitCode::from(run::USAGE), run::chain(&unusable)),
    };
    // A closed stream changes nothing about what was done.
    let _ = if code == ExitCode::SUCCESS {
        writeln!(io::stdout(), "{words}")
    } else {
        writeln!(io::stderr(), "larder-agent: {words}")
    };
    code
}

fn asked(file: Option<&Path>, image: &Image) -> Result<Result<usize, AskError>, config::Unusable> {
    let run_dir = config::as_written(file)?.run_dir;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(match runtime {
        Ok(runtime) => runtime.block_on(async {
            timeout(DEADLINE, ask(&run_dir, image)).await.unwrap_or(Err(AskError::Deadline))
        }),
        Err(error) => Err(AskError::NoAgent(run_dir, error)),
    })
}

/// How many entries the agent dropped.
pub(super) async fn ask(run_dir: &Path, image: &Image) -> Result<usize, AskError> {
    let no_agent = |error| AskError::NoAgent(run_dir.join(SOCKET), error);
    let stream =
        within(run_dir, SOCKET, |path| std::os::unix::net::UnixStream::connect(path)).map_err(no_agent)?;
    stream.set_nonblocking(true).map_err(no_agent)?;
    let stream = UnixStream::from_std(stream).map_err(no_agent)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let body = serde_json::to_vec(&Forget { image: image.to_string() })?;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/forget")
        .header(HOST, "agent")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    if status != StatusCode::OK {
        return Err(AskError::Refused(String::from_utf8_lossy(&body).into_owned()));
    }
    Ok(serde_json::from_slice::<Forgotten>(&body)?.dropped)
}
