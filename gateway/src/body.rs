//! Bodies as they pass through: one boxed type for both ways, and the stream that counts, waits and stops.
//! Must not hold more than the frame that passes: nothing is collected here but what [`whole`] is asked for.

pub mod passing;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

pub use passing::{Flow, Passing};

/// Whatever made a body end early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way, to either side. Boxed once.
pub type Body = BoxBody<Bytes, BoxError>;

/// Why a body could not be taken as a whole.
#[derive(Debug, thiserror::Error)]
pub enum WholeError {
    #[error("longer than {0} bytes")]
    TooLong(usize),
    #[error("ended early")]
    Broken(#[source] BoxError),
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body that is here already.
#[must_use]
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// A body from the wire as it comes; it fails when nothing comes for [`passing::IDLE`].
#[must_use]
pub fn incoming(body: Incoming) -> Body {
    Passing::new(body).boxed()
}

/// Takes a body as a whole, `max` bytes at the most.
///
/// # Errors
/// [`WholeError`] when it is longer, breaks, or stalls.
pub async fn whole(body: Incoming, max: usize) -> Result<Bytes, WholeError> {
    match Limited::new(Passing::new(body), max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(WholeError::TooLong(max)),
        Err(error) => Err(WholeError::Broken(error)),
    }
}
