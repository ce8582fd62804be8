//! A pace that request bodies must keep, so that nobody holds a handler and its memory for ever by
//! sending a byte now and then. A slow line is no offence: however large the file, what counts is
//! the time the server has waited for what came.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep};

/// Bytes that must come for each second of waiting, once the first patience is used up.
const BYTES_PER_SECOND: u32 = 1024;

/// The body came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
struct TooSlow;

/// Whether it was the pace that broke a body.
pub fn is_to_blame(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A body that breaks when the server has waited for it for longer than `patience`, and a second
/// more for each [`BYTES_PER_SECOND`] that came. What was not used up does not pile up beyond
/// `patience`. Time that the server itself takes does not count.
pub fn keep(body: Body, patience: Duration) -> Body {
    Body::from_stream(Paced {
        body: body.into_data_stream(),
        patience,
        left: patience,
        waiting: None,
    })
}

struct Paced {
    body: BodyDataStream,
    patience: Duration,
    /// How long it may be waited for from now on.
    left: Duration,
    /// Since when it is being waited for, and what ends that.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Stream for Paced {
    type Item = Result<Bytes, Box<dyn Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.body.poll_next_unpin(context) else {
            let left = self.left;
            let (_, end) = self.waiting.get_or_insert_with(|| {
                let now = Instant::now();
                (now, Box::pin(tokio::time::sleep_until(now + left)))
            });
            ready!(end.as_mut().poll(context));
            return Poll::Ready(Some(Err(Box::new(TooSlow))));
        };
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        if let Some(Ok(bytes)) = &next {
            let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let earned = Duration::from_secs(bytes.into()) / BYTES_PER_SECOND;
            self.left = self.patience.min(self.left + earned);
        }
        Poll::Ready(next.map(|next| next.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    /// A body of pieces of one size, one every so often; how many of them came, and whether the pace
    /// broke it.
    async fn paced(
        pieces: usize,
        size: usize,
        every: Duration,
        patience: Duration,
    ) -> (usize, bool) {
        let body = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok::<_, Infallible>(Bytes::from(vec![0; size]))
        });
        let mut body = keep(Body::from_stream(body), patience).into_data_stream();
        let mut came = 0;
        while let Some(next) = body.next().await {
            match next {
                Ok(_) => came += 1,
                Err(error) => return (came, is_to_blame(&error)),
            }
        }
        (came, false)
    }

    #[tokio::test]
    async fn a_slow_line_may_take_its_time() {
        let taken = paced(
            500,
            1024,
            Duration::from_millis(5),
            Duration::from_millis(2000),
        )
        .await;
        assert_eq!(taken, (500, false));
    }

    #[tokio::test]
    async fn a_body_that_only_drips_is_ended() {
        let (every, patience) = (Duration::from_millis(5), Duration::from_millis(100));
        let (came, broken) = paced(10_000, 1, every, patience).await;
        assert!(broken);
        assert!(came <= 25, "{came}");
        assert_eq!(paced(1, 1, patience * 10, patience).await, (0, true));
    }

    #[tokio::test]
    async fn time_that_the_server_takes_is_not_the_clients() {
        let patience = Duration::from_millis(50);
        let pieces = (0..3).map(|_| Ok::<_, Infallible>(Bytes::from_static(b"x")));
        let body = Body::from_stream(stream::iter(pieces));
        let mut body = keep(body, patience).into_data_stream();
        while let Some(next) = body.next().await {
            assert!(next.is_ok());
            tokio::time::sleep(patience * 2).await;
        }
    }
}
