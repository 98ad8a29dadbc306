//! Everything that a request can be refused for, and the only place where that becomes a status. Words say
//! what to do, and never carry a token.

use std::time::Duration;

use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::answer::{Answer, json};

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no such page: POST /v1/reports, GET /v1/nodes and GET /v1/summary are")]
    NoPage,
    #[error("this page takes {0} only")]
    Method(&'static str),
    #[error("send a bearer token in Authorization")]
    NoToken,
    #[error("the API server does not accept this token for {audience}; get a new one")]
    Token {
        /// In words.
        audience: &'static str,
    },
    #[error("this token is not of an agent: its ServiceAccount is not {namespace}/larder-NODECACHE")]
    NoAgent { namespace: String },
    #[error("this token is bound to no node: use the agent's projected token, on Kubernetes 1.30 or later")]
    NoNode,
    #[error(
        "this token is of node {node}, and a node reports for itself alone; set report.node or leave it out"
    )]
    OtherNode { node: String },
    #[error("this token may not get the non-resource URL {path}; grant it in a ClusterRole")]
    Forbidden { path: &'static str },
    #[error("this is no report: {0}")]
    Unreadable(String),
    #[error("the body did not arrive in time")]
    Slow,
    #[error("a report is at most 256 KiB, and 1 MiB unpacked")]
    TooLarge,
    #[error("too many at once; come again later")]
    Busy { again: Duration },
    #[error("the API server could not be asked about this token; come again later")]
    Unreviewed { again: Duration },
    #[error("no replica leads at the moment, or it cannot be reached; come again later")]
    NoLeader { again: Duration },
}

/// What an error page looks like.
#[derive(Serialize)]
struct ErrorPage {
    status: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::NoPage => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken | Self::Token { .. } => StatusCode::UNAUTHORIZED,
            Self::NoAgent { .. } | Self::NoNode | Self::OtherNode { .. } | Self::Forbidden { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Unreadable(_) | Self::Slow => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy { .. } | Self::Unreviewed { .. } | Self::NoLeader { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// One word, for the metric and for programs.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::NoPage => "NoPage",
            Self::Method(_) => "Method",
            Self::NoToken => "NoToken",
            Self::Token { .. } => "Token",
            Self::NoAgent { .. } => "NoAgent",
            Self::NoNode => "NoNode",
            Self::OtherNode { .. } => "OtherNode",
            Self::Forbidden { .. } => "Forbidden",
            Self::Unreadable(_) => "Unreadable",
            Self::Slow => "Slow",
            Self::TooLarge => "TooLarge",
            Self::Busy { .. } => "Busy",
            Self::Unreviewed { .. } => "Unreviewed",
            Self::NoLeader { .. } => "NoLeader",
        }
    }

    /// The answer that tells it.
    pub(super) fn answer(&self) -> Response<Answer> {
        let status = self.status();
        let page = ErrorPage { status: status.as_u16(), reason: self.reason(), message: self.to_string() };
        let mut answer = json(status, &page);
        match self {
            Self::Busy { again } | Self::Unreviewed { again } | Self::NoLeader { again } => {
                let seconds = again.as_secs_f64().ceil().max(1.0);
                answer
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(Duration::from_secs_f64(seconds).as_secs()));
            }
            Self::NoToken | Self::Token { .. } => {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Method(allowed) => {
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
        answer
    }
}
