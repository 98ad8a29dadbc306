//! Waiting for what must happen, with a deadline that only a broken program reaches. Must not be used to let time pass:
//! nothing here waits longer than its condition needs.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

/// Far beyond anything that a working program needs, on a machine with other work too.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The future's output. Fails the test when it does not come within [`DEADLINE`].
pub async fn within<F: Future>(what: impl Display, future: F) -> F::Output {
    within_time(what, DEADLINE, future).await
}

/// The future's output. Fails the test when it does not come in time.
pub async fn within_time<F: Future>(what: impl Display, limit: Duration, future: F) -> F::Output {
    let done = timeout(limit, future).await;
    assert!(done.is_ok(), "{what}: not within {limit:?}");
    done.expect("asserted above")
}

/// Waits until the condition gives something, and gives that. Fails the test when it does not within [`DEADLINE`].
pub async fn until<T>(what: impl Display, condition: impl AsyncFnMut() -> Option<T>) -> T {
    until_time(what, DEADLINE, condition).await
}

/// [`until`] with a limit of its own.
pub async fn until_time<T>(
    what: impl Display,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    let mut ticks = interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
    }
}
