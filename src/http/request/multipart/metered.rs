//! The stream from a request body to the multipart parser.
//!
//! The parser reads all that is ready and searches its whole buffer for the next boundary. This stream
//! hands out small chunks, one per poll, so that the buffer stays small, and outside of the file it
//! fails after an allowance of bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};

/// Maximum size of a text field, and of the headers and text around the fields. The parser searches
/// all of it again with each chunk, and the chunks of a hostile client are single bytes.
pub(super) const MAX_FIELD_BYTES: usize = 32 << 10;

/// Size of the chunks. The parser buffers several ahead out of its allowance, so this must be well
/// below [`MAX_FIELD_BYTES`].
const CHUNK_BYTES: usize = MAX_FIELD_BYTES / 8;

#[derive(Debug, thiserror::Error)]
#[error("fields other than the file, and their headers, must be small")]
pub(super) struct AllowanceExceeded;

#[derive(Debug, Default)]
pub(super) struct Meter {
    allowance: AtomicUsize,
    is_discarding: AtomicBool,
}

impl Meter {
    pub(super) fn allow(&self, bytes: usize) {
        self.allowance.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn discard_rest(&self) {
        self.is_discarding.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Metered {
    body: BodyDataStream,
    buffer: Bytes,
    /// Whether to return to the parser without data once, so that it processes the last chunk.
    pause: bool,
    meter: Arc<Meter>,
}

impl Metered {
    pub(super) fn new(body: BodyDataStream, meter: Arc<Meter>) -> Self {
        Self {
            body,
            buffer: Bytes::new(),
            pause: false,
            meter,
        }
    }
}

impl Stream for Metered {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.buffer.is_empty() {
            match ready!(self.body.poll_next_unpin(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(bytes)) => self.buffer = bytes,
            }
        }
        self.pause = true;
        if self.meter.is_discarding.load(Ordering::Relaxed) {
            self.buffer.clear();
            return self.poll_next(context);
        }
        let length = self.buffer.len().min(CHUNK_BYTES);
        let allowance = self.meter.allowance.load(Ordering::Relaxed);
        let Some(allowance) = allowance.checked_sub(length) else {
            return Poll::Ready(Some(Err(AllowanceExceeded.into())));
        };
        self.meter.allow(allowance);
        Poll::Ready(Some(Ok(self.buffer.split_to(length))))
    }
}
