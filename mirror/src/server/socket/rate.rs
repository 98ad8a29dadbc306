//! Cutting readers that take next to nothing: while the socket is full, at least so many bytes must leave it in each
//! window. Time in which we have nothing to send does not count. Must not slow a fast reader by more than a comparison.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

pub(super) struct Rate {
    /// Bytes that must leave in a window.
    least: u64,
    window: Duration,
    /// Bytes and blocked time of the window so far.
    sent: u64,
    blocked: Duration,
    blocked_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Rate {
    pub(super) fn new(per_second: u64, window: Duration) -> Self {
        let least = u64::try_from(u128::from(per_second) * window.as_millis() / 1000).unwrap_or(u64::MAX);
        Self { least, window, sent: 0, blocked: Duration::ZERO, blocked_since: None, alarm: None }
    }

    /// Looks at the outcome of one write.
    pub(super) fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: &Poll<io::Result<usize>>,
    ) -> io::Result<()> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.sent += *count as u64;
                if let Some(since) = self.blocked_since.take() {
                    self.blocked += since.elapsed();
                    self.alarm = None;
                }
                if self.sent >= self.least {
                    (self.sent, self.blocked) = (0, Duration::ZERO);
                }
                Ok(())
            }
            Poll::Ready(Err(_)) => Ok(()),
            Poll::Pending => self.blocked(cx),
        }
    }

    fn blocked(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        if self.least == 0 {
            return Ok(());
        }
        let left = self.window.saturating_sub(self.blocked + since.elapsed());
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(left)));
        if alarm.as_mut().poll(cx).is_ready() && self.sent < self.least {
            tracing::info!(bytes = self.sent, "a client that takes next to nothing is cut");
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn step(rate: &mut Rate, written: Poll<io::Result<usize>>) -> io::Result<()> {
        std::future::poll_fn(|cx| Poll::Ready(rate.judge(cx, &written))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_below_the_rate_is_cut_after_a_window() {
        let mut rate = Rate::new(10, Duration::from_secs(60));
        for _ in 0..59 {
            step(&mut rate, Poll::Pending).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
            step(&mut rate, Poll::Ready(Ok(1))).await.unwrap();
        }
        step(&mut rate, Poll::Pending).await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(step(&mut rate, Poll::Pending).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_above_the_rate_stays_and_waiting_for_us_is_free() {
        let mut rate = Rate::new(10, Duration::from_secs(60));
        for _ in 0..600 {
            step(&mut rate, Poll::Pending).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
            step(&mut rate, Poll::Ready(Ok(11))).await.unwrap();
        }
        step(&mut rate, Poll::Ready(Ok(1))).await.unwrap();
        tokio::time::advance(Duration::from_secs(9999)).await;
        step(&mut rate, Poll::Pending).await.unwrap();
    }
}
