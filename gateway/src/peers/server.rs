//! Answers the other replicas on the peers' port. Must refuse whoever has no token, and what this replica
//! does not own by its own view.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{CLIENT_AUTHORIZATION, MOST_BYTES, Question};
use crate::caller::Caller;
use crate::limits::namespace;
use crate::owner::Place;
use crate::tags::Tags;

const CONNECTIONS: usize = 256;
/// The head of a request, and its body after it.
const READ: Duration = Duration::from_secs(5);

type Reply = Response<Full<Bytes>>;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, tags: Tags, token: SecretString, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let token = Arc::new(token);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (tags, token, stop) = (tags.clone(), Arc::clone(&token), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        ended = connection(stream, tags, token) => if let Err(error) = ended {
                            debug!(%peer, %error, "peer connection");
                        },
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: asking again at once would only burn time.
                warn!(%error, "the peers' listener cannot accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, tags: Tags, token: Arc<SecretString>) -> hyper::Result<()> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (tags, token) = (tags.clone(), Arc::clone(&token));
        async move { Ok::<_, Infallible>(answer(&tags, &token, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ)
        .max_headers(32)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(tags: &Tags, token: &SecretString, request: Request<Incoming>) -> Reply {
    if !is_peer(request.headers().get(AUTHORIZATION), token) {
        return status(StatusCode::UNAUTHORIZED);
    }
    if request.method() != Method::POST || request.uri().path() != "/v1/ask" {
        return status(StatusCode::NOT_FOUND);
    }
    let mut authorization = request.headers().get(CLIENT_AUTHORIZATION).cloned();
    if let Some(value) = &mut authorization {
        value.set_sensitive(true);
    }
    let caller = Caller { authorization, actor: "-".to_owned(), remote: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let body = timeout(READ, Limited::new(request.into_body(), MOST_BYTES).collect()).await;
    let Ok(Ok(body)) = body else { return status(StatusCode::BAD_REQUEST) };
    match serde_json::from_slice(&body.to_bytes()) {
        Ok(question) => decide(tags, question, &caller).await,
        Err(_) => status(StatusCode::BAD_REQUEST),
    }
}

async fn decide(tags: &Tags, question: Question, caller: &Caller) -> Reply {
    if tags.owners().place(namespace(question.repository())) != Place::Here {
        return status(StatusCode::CONFLICT);
    }
    match question {
        Question::Touch { repository } => tags.index().touch(&repository, caller),
        Question::Settle { ticket, push, outcome } => tags.index().settle(ticket, &push, outcome),
        Question::News { repository, news } => tags.heard(&repository, news, caller),
        Question::Reserve(push) => {
            let answer = serde_json::to_vec(&tags.index().reserve(&push, caller).await);
            return answer.map_or_else(
                |_| status(StatusCode::INTERNAL_SERVER_ERROR),
                |json| Response::new(Full::new(Bytes::from(json))),
            );
        }
    }
    status(StatusCode::OK)
}

fn is_peer(given: Option<&HeaderValue>, token: &SecretString) -> bool {
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let token = token.expose_secret().trim().as_bytes();
    !token.is_empty() && given.is_some_and(|given| given.ct_eq(token).into())
}

fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}
