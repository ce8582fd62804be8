//! `/admin/health`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::http::request::auth::AdminCaller;
use crate::http::request::extract::Query;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::Health;
use crate::wire::health::{
    CheckObject, DatabaseObject, FailureObject, HealthObject, QueueObject, RunsObject,
    UpstreamObject, WebhooksObject,
};
use crate::wire::refusal::invalid_value;

/// `GET /admin/health`: queues, database, upstreams and tools; with `probe=true`, every upstream is
/// asked for its models.
pub async fn retrieve(
    State(state): State<ApiState>,
    _: AdminCaller,
    query: Query,
) -> Result<Response, ApiError> {
    let upstreams = match query.get("probe") {
        Some("true") => probe(&state).await,
        Some("false") | None => last_failures(&state),
        Some(other) => return Err(invalid_value("probe", other, &["true", "false"]).into()),
    };
    let health = state.service.health().await?;
    Ok(respond(&state, &health, upstreams))
}

fn respond(state: &ApiState, health: &Health, upstreams: Vec<UpstreamObject>) -> Response {
    let database = &health.database;
    let object = HealthObject {
        object: "health",
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: state.started.elapsed().as_secs(),
        database: DatabaseObject::new(database, health.latency),
        runs: RunsObject::from(database),
        indexing: QueueObject::from(&database.indexing),
        webhooks: WebhooksObject::from(database),
        routes: &state.upstreams.describe(),
        upstreams,
        code_interpreter: code_interpreter(health),
        embeddings: embeddings(health),
    };
    Json(object).into_response()
}

/// The upstreams without asking them.
fn last_failures(state: &ApiState) -> Vec<UpstreamObject> {
    let object = |(name, address): (String, String)| UpstreamObject {
        is_reachable: None,
        message: None,
        last_failure: last_failure(state, &name),
        name,
        address,
    };
    state
        .upstreams
        .addresses()
        .into_iter()
        .map(object)
        .collect()
}

async fn probe(state: &ApiState) -> Vec<UpstreamObject> {
    let results = state.upstreams.probe().await.into_iter();
    let objects = results.map(|result| UpstreamObject {
        is_reachable: Some(result.outcome.is_ok()),
        message: Some(result.outcome.unwrap_or_else(|error| error.to_string())),
        last_failure: last_failure(state, &result.upstream),
        name: result.upstream,
        address: result.address,
    });
    objects.collect()
}

fn last_failure(state: &ApiState, upstream: &str) -> Option<FailureObject> {
    let failure = state.upstreams.last_failure(upstream)?;
    Some(FailureObject::new(
        failure.at,
        failure.kind,
        failure.message,
    ))
}

fn code_interpreter(health: &Health) -> CheckObject {
    let reason = health.code_interpreter_unavailable.as_ref();
    CheckObject {
        is_available: reason.is_none(),
        message: reason.map_or_else(|| "A sandbox worker runs code.".to_owned(), Clone::clone),
    }
}

fn embeddings(health: &Health) -> CheckObject {
    let model = health.embedding_model.as_ref();
    CheckObject {
        is_available: model.is_some(),
        message: match model {
            Some(model) => format!("Vector stores are embedded by {model}."),
            None => "There is no embedding model, so vector stores are searched lexically only."
                .to_owned(),
        },
    }
}
