//! A report's bytes -> a report. What is too large is never held whole, and what is packed never unpacked
//! beyond its limit. Must not judge what the report says.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use larder_wire::report::{Report, SCHEMA};
use serde::Deserialize;
use tokio::time::timeout;

use super::refuse::Refusal;

/// Bytes of a body as it comes.
pub(super) const LARGEST: usize = 256 << 10;
/// Bytes of it unpacked.
const UNPACKED: usize = 1 << 20;

/// Only the shape's version, which tells whether the rest can be read.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// The whole body, as it comes.
pub(super) async fn receive<B>(body: B, within: Duration) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > LARGEST as u64 {
        return Err(Refusal::TooLarge);
    }
    match timeout(within, Limited::new(body, LARGEST).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) => Err(Refusal::Unreadable("the body ended early".to_owned())),
        Err(_) => Err(Refusal::Slow),
    }
}

/// The report that a body holds.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Report, Refusal> {
    let json = match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()) {
        None => body.to_vec(),
        Some(encoding) if encoding == b"identity" => body.to_vec(),
        Some(encoding) if encoding == b"gzip" => unpack(body)?,
        Some(_) => return Err(Refusal::Unreadable("Content-Encoding is gzip or none".to_owned())),
    };
    let unreadable = |error: serde_json::Error| Refusal::Unreadable(error.to_string());
    let Version { schema } = serde_json::from_slice(&json).map_err(unreadable)?;
    if schema != SCHEMA {
        return Err(Refusal::Unreadable(format!(
            "schema {schema} is not known, only {SCHEMA}; upgrade the controller"
        )));
    }
    serde_json::from_slice(&json).map_err(unreadable)
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut unpacked = Vec::new();
    let mut limited = MultiGzDecoder::new(body).take(UNPACKED as u64 + 1);
    limited
        .read_to_end(&mut unpacked)
        .map_err(|_| Refusal::Unreadable("the body is not what gzip makes".to_owned()))?;
    if unpacked.len() > UNPACKED { Err(Refusal::TooLarge) } else { Ok(unpacked) }
}

#[cfg(test)]
mod tests;
