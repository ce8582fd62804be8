//! Responses that stream the events of a run.

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
use crate::service::ServiceError;
use crate::wire::event::{self, DONE};
use crate::wire::thread::ThreadObject;

/// How often an idle stream sends a comment, so that proxies keep the connection open.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub struct Start {
    pub after: Seq,
    /// The thread that was created with the run; it becomes the first event.
    pub thread: Option<Thread>,
    /// Whether events have their sequence number as `id`, for clients that reconnect.
    pub has_ids: bool,
    pub includes_result_content: bool,
}

/// Responds with the run's events up to the one that ends the stream. A client that disconnects does
/// not affect the run.
pub fn follow(state: &ApiState, run: Run, start: Start) -> Response {
    let events = state.feed.follow(run.id.clone(), start.after);
    let model = state.model_header(&run.config.model);
    let body = Body::from_stream(with_keep_alive(encode(Arc::new(run), start, events)));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // Disables the response buffering of nginx.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (model, headers, body).into_response()
}

fn encode(
    run: Arc<Run>,
    start: Start,
    events: impl Stream<Item = Result<Numbered, FollowError>> + Send,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    async_stream::stream! {
        let mut events = std::pin::pin!(events);
        if let Some(thread) = &start.thread {
            yield Ok(to_bytes(event::frame("thread.created", &ThreadObject::from(thread))));
        }
        while let Some(next) = events.next().await {
            match next {
                Ok((seq, event)) => {
                    let mut bytes = to_bytes(event::encode(&run, &event, start.includes_result_content));
                    if start.has_ids {
                        bytes = [format!("id: {}\n", seq.0).as_bytes(), &bytes].concat().into();
                    }
                    yield Ok(bytes);
                }
                Err(error) => {
                    let error = match error {
                        FollowError::Gone => ApiError::object_not_found("run", &run.id),
                        FollowError::Store(error) => ServiceError::from(error).into(),
                    };
                    yield Ok(to_bytes(event::frame("error", &error.body())));
                    break;
                }
            }
        }
        yield Ok(Bytes::from_static(DONE));
    }
}

/// Serializing cannot fail for the types of `wire`. If it does, a comment takes the event's place.
fn to_bytes(frame: Result<Vec<u8>, serde_json::Error>) -> Bytes {
    frame.map_or_else(
        |error| {
            tracing::error!(%error, "could not serialize an event for a client, skipping it: {error}");
            Bytes::from_static(b": an event could not be written\n\n")
        },
        Bytes::from,
    )
}

fn with_keep_alive(
    frames: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    async_stream::stream! {
        let mut frames = std::pin::pin!(frames);
        loop {
            match tokio::time::timeout(KEEP_ALIVE_INTERVAL, frames.next()).await {
                Ok(Some(frame)) => yield frame,
                Ok(None) => return,
                Err(_) => yield Ok(Bytes::from_static(b": keep-alive\n\n")),
            }
        }
    }
}
