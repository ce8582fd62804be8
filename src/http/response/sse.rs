//! Streams: a loop over the feed, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};

use crate::domain::event::Seq;
use crate::domain::run::Run;
use crate::domain::thread::Thread;
use crate::events::feed::{FollowError, Numbered};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::event::{self, DONE};
use crate::wire::thread::ThreadObject;

/// How often a silent stream says that it is alive, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a stream begins, and what goes with it.
#[derive(Debug, Default)]
pub struct Start {
    /// Only events after this one.
    pub after: Seq,
    /// A thread created along with the run, announced first.
    pub thread: Option<Thread>,
    /// Whether events carry their position as SSE ids, for clients that reconnect.
    pub has_ids: bool,
    /// Whether search results have their text.
    pub includes_passages: bool,
}

/// Answers with the run's events up to the one that ends the stream. A reader that goes away
/// changes nothing for the run.
pub fn follow(state: &ApiState, run: Run, start: Start) -> Response {
    let events = state.feed.follow(run.id.clone(), start.after);
    let model = state.model_header(&run.config.model);
    let body = Body::from_stream(keep_alive(frames(Arc::new(run), start, events)));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // Tells nginx not to hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (model, headers, body).into_response()
}

fn frames(
    run: Arc<Run>,
    start: Start,
    events: impl Stream<Item = Result<Numbered, FollowError>> + Send,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    async_stream::stream! {
        let mut events = std::pin::pin!(events);
        if let Some(thread) = &start.thread {
            yield Ok(framed(event::frame("thread.created", &ThreadObject::from(thread))));
        }
        while let Some(next) = events.next().await {
            match next {
                Ok((seq, event)) => {
                    let mut bytes = framed(event::write(&run, &event, start.includes_passages));
                    if start.has_ids {
                        bytes = [format!("id: {}\n", seq.0).as_bytes(), &bytes].concat().into();
                    }
                    yield Ok(bytes);
                }
                Err(error) => {
                    let error = match error {
                        FollowError::Gone => ApiError::no_such("run", &run.id),
                        FollowError::Store(error) => error.into(),
                    };
                    yield Ok(framed(event::frame("error", &error.body())));
                    break;
                }
            }
        }
        yield Ok(Bytes::from_static(DONE));
    }
}

/// Our own types always serialise; should one not, the stream says so instead of breaking.
fn framed(frame: Result<Vec<u8>, serde_json::Error>) -> Bytes {
    frame.map_or_else(
        |error| {
            tracing::error!(%error, "an event cannot be written: {error}");
            Bytes::from_static(b": an event could not be written\n\n")
        },
        Bytes::from,
    )
}

/// Comment lines in between, which every client ignores.
fn keep_alive(
    frames: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    async_stream::stream! {
        let mut frames = std::pin::pin!(frames);
        loop {
            match tokio::time::timeout(KEEP_ALIVE, frames.next()).await {
                Ok(Some(frame)) => yield frame,
                Ok(None) => return,
                Err(_) => yield Ok(Bytes::from_static(b": keep-alive\n\n")),
            }
        }
    }
}
