//! The agent's own socket in run_dir, for its owner only, and what `larder-agent forget` says over it: which image to
//! drop. Names are parsed on this side of the socket again: the other side is another process.

mod client;

use std::convert::Infallible;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use larder_mirror::Mirror;
use larder_wire::name::{Registry, Repository};
use larder_wire::route::Reference;
use larder_wire::settings::Settings;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(crate) use client::ask_to_forget;

/// The socket's name in run_dir.
const SOCKET: &str = "agent.sock";
/// Longer paths do not fit a socket's address.
const LONGEST_PATH: usize = 100;
const CONNECTION_TIME: Duration = Duration::from_secs(30);
const LONGEST_REQUEST: usize = 16 * 1024;

/// An image as people write it: `REGISTRY/NAME`, with `:TAG` or `@DIGEST` or neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    registry: Registry,
    repository: Repository,
    reference: Option<Reference>,
}

/// `POST /forget`
#[derive(Debug, Serialize, Deserialize)]
struct Forget {
    image: String,
}

/// How many entries were dropped.
#[derive(Debug, Serialize, Deserialize)]
struct Forgotten {
    dropped: usize,
}

/// The bound socket; its file goes with it.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket, replacing one that an agent before left behind.
///
/// # Errors
/// When run_dir cannot be written.
pub(crate) fn bind(run_dir: &Path) -> io::Result<Socket> {
    let path = run_dir.join(SOCKET);
    let beside = format!(".{SOCKET}");
    match fs::remove_file(run_dir.join(&beside)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = within(run_dir, &beside, |path| UnixListener::bind(path))?;
    fs::set_permissions(run_dir.join(&beside), Permissions::from_mode(0o600))?;
    fs::rename(run_dir.join(&beside), &path)?;
    Ok(Socket { listener, path })
}

/// Serves until `stop`, then takes the socket's file away.
pub(crate) async fn serve(
    socket: Socket,
    mirror: Mirror,
    settings: watch::Receiver<Settings>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
        };
        // Only the owner can connect, and only by hand: one at a time is enough.
        match accepted {
            Ok((stream, _)) => match timeout(CONNECTION_TIME, connection(stream, &mirror, &settings)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "socket connection"),
                Err(_) => debug!("a caller at the socket was too slow"),
            },
            Err(error) => {
                warn!(%error, "the agent's socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Nobody answers there any more; a left-over is replaced by the next agent.
    let _ = fs::remove_file(&socket.path);
}

async fn connection(
    stream: UnixStream,
    mirror: &Mirror,
    settings: &watch::Receiver<Settings>,
) -> hyper::Result<()> {
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(answer(request, mirror, settings).await) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(LONGEST_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(
    request: Request<Incoming>,
    mirror: &Mirror,
    settings: &watch::Receiver<Settings>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || request.uri().path() != "/forget" {
        return say(StatusCode::NOT_FOUND, "only POST /forget is answered here");
    }
    let Ok(body) = Limited::new(request.into_body(), LONGEST_REQUEST).collect().await else {
        return say(StatusCode::BAD_REQUEST, "the request broke off or is too long");
    };
    let asked = serde_json::from_slice::<Forget>(&body.to_bytes()).map_err(|error| error.to_string());
    let image = match asked.and_then(|forget| forget.image.parse::<Image>()) {
        Ok(image) => image,
        Err(words) => return say(StatusCode::BAD_REQUEST, words),
    };
    let known = settings.borrow().upstreams.iter().any(|upstream| upstream.registry == image.registry);
    if !known {
        return say(
            StatusCode::NOT_FOUND,
            format!("{} is not one of this agent's upstreams", image.registry),
        );
    }
    let dropped = mirror.forget(&image.registry, &image.repository, image.reference.as_ref()).await;
    info!(%image, dropped, "forgotten by hand");
    match serde_json::to_vec(&Forgotten { dropped }) {
        Ok(body) => Response::new(Full::new(body.into())),
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn say(status: StatusCode, words: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(words.into()));
    *response.status_mut() = status;
    response
}

/// Does something with a path in a directory, by way of the open directory where the path is too long for a socket.
fn within<T>(directory: &Path, name: &str, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = directory.join(name);
    if path.as_os_str().len() <= LONGEST_PATH {
        return act(&path);
    }
    let open = File::open(directory)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd())))
}

impl FromStr for Image {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, rest) =
            text.split_once('/').ok_or("expected REGISTRY/NAME, like docker.io/library/alpine")?;
        let (repository, reference) = match (rest.split_once('@'), rest.rsplit_once(':')) {
            (Some((repository, digest)), _) => {
                (repository, Some(Reference::Digest(digest.parse().map_err(|error| format!("{error}"))?)))
            }
            (None, Some((repository, tag))) => {
                (repository, Some(Reference::Tag(tag.parse().map_err(|error| format!("{error}"))?)))
            }
            (None, None) => (rest, None),
        };
        Ok(Self {
            registry: registry.parse().map_err(|error| format!("{error}"))?,
            repository: repository.parse().map_err(|error| format!("{error}"))?,
            reference,
        })
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.reference {
            Some(Reference::Tag(tag)) => write!(f, ":{tag}"),
            Some(Reference::Digest(digest)) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
