//! What a request says about the bytes that it brings, and whether it can be true. Must not trust it for more
//! than a refusal.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, StatusCode};
use larder_wire::oci::Code;
use serde_json::json;

use super::Known;
use crate::refuse::{Reason, Refusal};

/// What the headers announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// Where the bytes begin, by `Content-Range`.
    pub(super) start: Option<u64>,
    /// How many there are.
    pub(super) length: Option<u64>,
}

impl Announced {
    /// # Errors
    /// A refusal when it is no range, or disagrees with itself or with what the registry has.
    pub(super) fn read(headers: &HeaderMap, known: Known) -> Result<Self, Refusal> {
        let length = match headers.get(CONTENT_LENGTH) {
            Some(value) => {
                Some(value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(no_length)?)
            }
            None => None,
        };
        let Some(range) = headers.get(CONTENT_RANGE) else { return Ok(Self { start: None, length }) };
        if headers.get_all(CONTENT_RANGE).iter().count() > 1 {
            return Err(no_range());
        }
        let (start, end) = range.to_str().ok().and_then(range_of).ok_or_else(no_range)?;
        let between = (end - start).checked_add(1).ok_or_else(no_range)?;
        if length.is_some_and(|length| length != between) {
            let words = format!("Content-Range says {between} bytes, Content-Length says otherwise.");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, Reason::Request, words));
        }
        match known {
            Known::Exactly(offset) if start != offset => Err(out_of_order(start, offset)),
            Known::AtLeast(offset) if start < offset => Err(out_of_order(start, offset)),
            Known::Exactly(_) | Known::AtLeast(_) => Ok(Self { start: Some(start), length: Some(between) }),
        }
    }
}

/// The last byte that a registry has, by the `Range` of its answer.
pub(super) fn range_end(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let (_, end) = range_of(range.strip_prefix("bytes=").unwrap_or(range))?;
    Some(end)
}

pub(super) fn longer_than_announced(length: u64) -> Refusal {
    let words = format!("more came than the {length} bytes that were announced.");
    Refusal::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, Reason::Request, words)
}

/// `0-99`, and what RFC 9110 makes of it: `bytes 0-99/*`
fn range_of(text: &str) -> Option<(u64, u64)> {
    let text = text.strip_prefix("bytes ").map_or(text, |rest| rest.split('/').next().unwrap_or(rest));
    let (start, end) = text.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let (start, end) = (digits(start)?, digits(end)?);
    (start <= end).then_some((start, end))
}

fn no_length() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, Reason::Request, "Content-Length is no number.")
}

fn no_range() -> Refusal {
    let words = "Content-Range is not of the form FIRST-LAST, like 0-99.";
    Refusal::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, Reason::Request, words)
}

fn out_of_order(start: u64, offset: u64) -> Refusal {
    let words =
        format!("this chunk begins at byte {start}, but the registry has {offset} bytes of this upload.");
    Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, Reason::Request, words)
        .detail(json!({"offset": offset}))
}
