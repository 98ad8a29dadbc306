//! Passes a request on to the replica that leads, as it came: body, token and answer untouched. Must not look
//! into it, nor pass on what another replica passed on.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;
use tracing::debug;

use super::answer::Answer;
use super::refuse::Refusal;
use crate::error::chain;

/// On what one replica passed on to another.
const PASSED_ON: HeaderName = HeaderName::from_static("larder-passed-on");
/// What the leader needs of a request, and the sender of an answer.
const ASKED: [HeaderName; 5] = [ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE];
const ANSWERED: [HeaderName; 5] = [ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE];
const CONNECT: Duration = Duration::from_secs(2);
/// Until the head of the answer: an agent waits 10 s.
const ANSWER: Duration = Duration::from_secs(8);
/// A new leader is found within the Lease's time.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// The way to the other replica.
pub(super) struct Forward(Client<HttpConnector, Incoming>);

impl Forward {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        // One connection a report, as agents do: none that is kept can turn out to be closed.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self(client)
    }

    /// The leader's answer.
    pub(super) async fn pass_on(
        &self,
        request: Request<Incoming>,
        leader: SocketAddr,
    ) -> Result<Response<Answer>, Refusal> {
        let unreachable = || Refusal::NoLeader { again: AGAIN };
        let (head, body) = request.into_parts();
        if head.headers.contains_key(PASSED_ON) {
            return Err(unreachable());
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::try_from(format!("http://{leader}{path}")).map_err(|_| Refusal::NoPage)?;
        let mut passed = Request::new(body);
        *passed.headers_mut() = only(&ASKED, &head.headers);
        passed.headers_mut().insert(PASSED_ON, HeaderValue::from_static("1"));
        (*passed.method_mut(), *passed.uri_mut()) = (head.method, uri);
        match timeout(ANSWER, self.0.request(passed)).await {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                let mut answer = Response::new(Either::Right(body));
                *answer.status_mut() = head.status;
                *answer.headers_mut() = only(&ANSWERED, &head.headers);
                Ok(answer)
            }
            Ok(Err(error)) => {
                debug!(reason = chain(&error), %leader, "the leader cannot be reached");
                Err(unreachable())
            }
            Err(_) => Err(unreachable()),
        }
    }
}

fn only(names: &[HeaderName], headers: &HeaderMap) -> HeaderMap {
    names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}
