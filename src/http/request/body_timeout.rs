//! A bound on how long a request body may stall.
//!
//! Without it a client could hold a handler and its memory by sending a byte now and then. Slow links
//! are allowed: only time spent waiting counts, not the size of the body.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep};

/// How long the rest of a refused body is read and discarded. A client whose connection is closed
/// while it sends would see a broken connection instead of the refusal.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

const BYTES_PER_SECOND: u32 = 1024;

#[derive(Debug, thiserror::Error)]
#[error("the request body stalled")]
struct BodyTimeout;

pub fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<BodyTimeout>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Fails a body when the server has waited for it for longer than `timeout`.
///
/// Every KiB received earns one more second of waiting; unused time accumulates up to `timeout`. Time
/// between reads does not count.
pub fn limit_stall(body: Body, timeout: Duration) -> Body {
    Body::from_stream(StallLimited {
        body: body.into_data_stream(),
        timeout,
        budget: timeout,
        waiting: None,
    })
}

struct StallLimited {
    body: BodyDataStream,
    timeout: Duration,
    budget: Duration,
    /// When the current wait began, and the timer that ends it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Stream for StallLimited {
    type Item = Result<Bytes, Box<dyn Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.body.poll_next_unpin(context) else {
            let budget = self.budget;
            let (_, timer) = self.waiting.get_or_insert_with(|| {
                let now = Instant::now();
                (now, Box::pin(tokio::time::sleep_until(now + budget)))
            });
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Some(Err(Box::new(BodyTimeout))));
        };
        if let Some((since, _)) = self.waiting.take() {
            self.budget = self.budget.saturating_sub(since.elapsed());
        }
        if let Some(Ok(bytes)) = &next {
            let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let earned = Duration::from_secs(bytes.into()) / BYTES_PER_SECOND;
            self.budget = self.timeout.min(self.budget + earned);
        }
        Poll::Ready(next.map(|next| next.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    /// Reads a body of `count` chunks of `size` bytes, one every `interval`; returns how many of them
    /// arrived, and whether the body timed out.
    async fn read(
        count: usize,
        size: usize,
        interval: Duration,
        timeout: Duration,
    ) -> (usize, bool) {
        let chunks = stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(interval).await;
            Ok::<_, Infallible>(Bytes::from(vec![0; size]))
        });
        let mut body = limit_stall(Body::from_stream(chunks), timeout).into_data_stream();
        let mut received = 0;
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(_) => received += 1,
                Err(error) => return (received, is_timeout(&error)),
            }
        }
        (received, false)
    }

    #[tokio::test]
    async fn a_slow_link_may_take_longer_than_the_timeout() {
        let (interval, timeout) = (Duration::from_millis(5), Duration::from_millis(2000));
        assert_eq!(read(500, 1024, interval, timeout).await, (500, false));
    }

    #[tokio::test]
    async fn a_body_that_only_drips_is_ended() {
        let (interval, timeout) = (Duration::from_millis(5), Duration::from_millis(100));
        let (received, is_timed_out) = read(10_000, 1, interval, timeout).await;
        assert!(is_timed_out);
        assert!(received <= 25, "{received}");
        assert_eq!(read(1, 1, timeout * 10, timeout).await, (0, true));
    }

    #[tokio::test]
    async fn time_that_the_server_takes_does_not_count() {
        let timeout = Duration::from_millis(50);
        let chunks = (0..3).map(|_| Ok::<_, Infallible>(Bytes::from_static(b"x")));
        let body = Body::from_stream(stream::iter(chunks));
        let mut body = limit_stall(body, timeout).into_data_stream();
        while let Some(chunk) = body.next().await {
            assert!(chunk.is_ok());
            tokio::time::sleep(timeout * 2).await;
        }
    }
}
