//! The HTTP API: the table of routes, and what a request passes through.
//!
//! ```text
//! connections   accepts the connection, TLS, slow clients
//! request       middleware, then authentication and extractors
//! handlers      parse with `wire`, call `service`, respond with `wire`
//! response      errors, event streams, headers
//! state         what handlers share
//! ```

pub mod connections;
pub mod handlers;
mod openapi;
pub mod request;
pub mod response;
pub mod state;

use axum::Router;
use axum::routing::{get, post};

use crate::http::handlers::{
    admin, assistants, console, files, landing, messages, models, objects, operations, passthrough,
    run_overview, run_steps, runs, threads, uploads, vector_store_batches, vector_store_files,
    vector_store_search, vector_stores,
};
use crate::http::request::{cors, middleware};
use crate::http::state::ApiState;

/// All routes: the API under `/v1` and under the paths of Azure's clients, which are `/openai`,
/// `/openai/v1` and, for Foundry, `/api/projects/{name}`.
///
/// Azure's clients also send an `api-version`, which is ignored. The API key selects the project, not
/// the path.
pub fn router(state: ApiState) -> Router {
    let timeout = state.limits.request_timeout;
    let handlers = &state.handlers;
    let with_timeout = |routes| middleware::with_timeout(routes, handlers.clone(), timeout);
    let api = || {
        with_timeout(routes())
            .merge(middleware::to_completion(upload_routes(), handlers.clone()))
            .merge(passthrough_routes())
    };
    let azure = api()
        .route(
            "/deployments/{model}/chat/completions",
            post(passthrough::deployed_chat),
        )
        .route(
            "/deployments/{model}/embeddings",
            post(passthrough::deployed_embeddings),
        );
    let admin = match state.service.has_admin_key() {
        true => Router::new().nest("/admin", with_timeout(admin::routes())),
        false => Router::new(),
    };
    let console = match state.limits.has_console {
        true => console::routes(),
        false => Router::new(),
    };
    let router = admin
        .merge(console)
        .nest("/v1", api())
        .nest("/openai/v1", api())
        .nest("/openai", azure)
        .nest("/api/projects/{foundry_project}", api())
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
        .route("/openapi.json", get(operations::openapi))
        .fallback(landing::page_or_not_found)
        .method_not_allowed_fallback(operations::method_not_allowed);
    let router = middleware::with_middleware(router, state.limits.body_timeout);
    cors::with_cors(router, state.cors_origins.clone()).with_state(state)
}

fn routes() -> Router<ApiState> {
    Router::new()
        .route(
            "/assistants",
            get(assistants::list).post(assistants::create),
        )
        .route(
            "/assistants/{assistant_id}",
            get(assistants::retrieve)
                .post(assistants::modify)
                .delete(assistants::delete),
        )
        .route("/threads", get(threads::list).post(threads::create))
        .route(
            "/threads/{thread_id}",
            get(threads::retrieve)
                .post(threads::modify)
                .delete(threads::delete),
        )
        .route(
            "/threads/{thread_id}/messages",
            get(messages::list).post(messages::create),
        )
        .route(
            "/threads/{thread_id}/messages/{message_id}",
            get(messages::retrieve)
                .post(messages::modify)
                .delete(messages::delete),
        )
        .route("/threads/runs", post(runs::create_with_thread))
        .route("/runs", get(run_overview::list))
        .route("/runs/counts", get(run_overview::count))
        .route("/runs/{run_id}/execution", get(run_overview::execution))
        .route("/objects/{object_id}", get(objects::retrieve))
        .route(
            "/threads/{thread_id}/runs",
            get(runs::list).post(runs::create),
        )
        .route(
            "/threads/{thread_id}/runs/{run_id}",
            get(runs::retrieve).post(runs::modify),
        )
        .route(
            "/threads/{thread_id}/runs/{run_id}/cancel",
            post(runs::cancel),
        )
        .route(
            "/threads/{thread_id}/runs/{run_id}/stream",
            get(runs::stream),
        )
        .route(
            "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs",
            post(runs::submit_tool_outputs),
        )
        .route(
            "/threads/{thread_id}/runs/{run_id}/steps",
            get(run_steps::list),
        )
        .route(
            "/threads/{thread_id}/runs/{run_id}/steps/{step_id}",
            get(run_steps::retrieve),
        )
        .route("/files", get(files::list))
        .route(
            "/files/{file_id}",
            get(files::retrieve).delete(files::delete),
        )
        .route("/files/{file_id}/content", get(files::content))
        .route("/uploads", post(uploads::create))
        .route("/uploads/{upload_id}/cancel", post(uploads::cancel))
        .route(
            "/vector_stores",
            get(vector_stores::list).post(vector_stores::create),
        )
        .route(
            "/vector_stores/{vector_store_id}",
            get(vector_stores::retrieve)
                .post(vector_stores::modify)
                .delete(vector_stores::delete),
        )
        .route(
            "/vector_stores/{vector_store_id}/search",
            post(vector_store_search::search),
        )
        .route(
            "/vector_stores/{vector_store_id}/files",
            get(vector_store_files::list).post(vector_store_files::create),
        )
        .route(
            "/vector_stores/{vector_store_id}/files/{file_id}",
            get(vector_store_files::retrieve)
                .post(vector_store_files::modify)
                .delete(vector_store_files::delete),
        )
        .route(
            "/vector_stores/{vector_store_id}/files/{file_id}/content",
            get(vector_store_files::content),
        )
        .route(
            "/vector_stores/{vector_store_id}/file_batches",
            post(vector_store_batches::create),
        )
        .route(
            "/vector_stores/{vector_store_id}/file_batches/{batch_id}",
            get(vector_store_batches::retrieve),
        )
        .route(
            "/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel",
            post(vector_store_batches::cancel),
        )
        .route(
            "/vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
            get(vector_store_batches::list_files),
        )
        .route("/models", get(models::list))
        .route(
            "/models/{*model}",
            get(models::retrieve).delete(models::delete),
        )
}

/// Routes that receive or copy file contents. They have no time limit.
fn upload_routes() -> Router<ApiState> {
    Router::new()
        .route("/files", post(files::create))
        .route("/uploads/{upload_id}/parts", post(uploads::add_part))
        .route("/uploads/{upload_id}/complete", post(uploads::complete))
}

/// Routes that wait for a model. They have no time limit, and a client that disconnects cancels them,
/// so that nobody pays for an unread response.
fn passthrough_routes() -> Router<ApiState> {
    Router::new()
        .route("/chat/completions", post(passthrough::chat))
        .route("/embeddings", post(passthrough::embeddings))
        .route("/responses", post(passthrough::create_response))
        .route(
            "/responses/{response_id}",
            get(passthrough::retrieve_response).delete(passthrough::delete_response),
        )
        .route(
            "/responses/{response_id}/cancel",
            post(passthrough::cancel_response),
        )
        .route(
            "/responses/{response_id}/input_items",
            get(passthrough::list_response_input),
        )
}
