//! Turns: chat completions for this server's own runs.

use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::decode::{self, CallNames};
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::measure;
use super::request::{ChatRequest, set_model};
use super::retry;
use super::routes::Route;
use super::turn::{TurnEvent, TurnStream};
use super::upstreams::Upstreams;

impl Upstreams {
    /// Asks a model for one turn, always as a stream.
    ///
    /// Transient failures are retried until the first event; what the stream yields is final.
    ///
    /// # Errors
    /// The last failure, after all retries or when retrying cannot help.
    pub async fn turn(&self, request: ChatRequest) -> Result<TurnStream, UpstreamError> {
        let mut route = self.route(&request.model);
        let mut body = Arc::new(request.body(&route.model)?);
        let names = CallNames::of(&request);
        drop(request);
        let mut retries = 0;
        loop {
            let error = match self.begin_turn(&route, &body, &names).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let default = self.default_model();
            if let Some(default) = default.replacement_after(&route, &error) {
                set_model(&mut body, &default.model);
                route = default;
                continue;
            }
            let error = default.explain(&route, error);
            let delay = (retries < self.max_retries())
                .then(|| retry::delay(&error, retries, rand::random()))
                .flatten();
            let Some(delay) = delay else {
                return Err(self.redacted(&route.upstream, error));
            };
            retries += 1;
            tracing::warn!(
                upstream.name = route.upstream,
                upstream.error = error.kind(),
                retry.number = retries,
                retry.delay_ms = delay.as_millis() as u64,
                "upstream {} failed: {}; retrying in {} ms",
                route.upstream,
                error.kind(),
                delay.as_millis()
            );
            tokio::time::sleep(delay).await;
        }
    }

    async fn begin_turn(
        &self,
        route: &Route,
        body: &Arc<Value>,
        names: &CallNames,
    ) -> Result<TurnStream, UpstreamError> {
        let started = Instant::now();
        let outcome = self.first_event(route, body, names).await;
        self.record_call(&route.upstream, started, outcome.as_ref().err());
        let (first, rest) = outcome?;
        let Route {
            upstream, model, ..
        } = route.clone();
        let events = stream::iter([Ok(first)]).chain(rest);
        let upstreams = self.clone();
        let events = events.inspect(move |event| match event {
            Ok(TurnEvent::Usage(usage)) => measure::record_tokens(&model, usage),
            Ok(_) => {}
            Err(error) => upstreams.record_interruption(&upstream, error),
        });
        Ok(events.boxed())
    }

    async fn first_event(
        &self,
        route: &Route,
        body: &Arc<Value>,
        names: &CallNames,
    ) -> Result<(TurnEvent, TurnStream), UpstreamError> {
        let response = self.send(&route.upstream, Endpoint::Chat, body).await?;
        if !response.status.is_success() {
            return Err(response.into_error(&route.upstream).await);
        }
        let events = decode::events(response.body, names.clone(), self.limits());
        let mut events = events.boxed();
        let (upstreams, upstream) = (self.clone(), route.upstream.clone());
        let redacted = move |error| upstreams.redacted(&upstream, error);
        match events.next().await {
            Some(first) => Ok((first?, events.map_err(redacted).boxed())),
            None => Err(UpstreamError::disconnected()),
        }
    }
}
