//! `/models`: the names that the model routes know.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::request::auth::Caller;
use crate::http::request::extract::NameInPath;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::models::Model;

#[derive(Debug, Serialize)]
struct ModelObject {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
}

impl From<Model> for ModelObject {
    fn from(model: Model) -> Self {
        // Nobody knows when a model was made; the field is required.
        Self {
            id: model.id,
            object: "model",
            created: 0,
            owned_by: model.owned_by,
        }
    }
}

/// `GET /models`
pub async fn list(State(state): State<ApiState>, Caller(_): Caller) -> Result<Response, ApiError> {
    #[derive(Debug, Serialize)]
    struct Models {
        object: &'static str,
        data: Vec<ModelObject>,
    }
    let data = state
        .upstreams
        .available_models()
        .await
        .into_iter()
        .map(ModelObject::from)
        .collect();
    Ok(Json(Models {
        object: "list",
        data,
    })
    .into_response())
}

/// `GET /models/{model}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(_): Caller,
    NameInPath(name): NameInPath,
) -> Result<Response, ApiError> {
    let model = find(&state, &name).await?;
    Ok(Json(ModelObject::from(model)).into_response())
}

/// `DELETE /models/{model}`: which models there are is the operator's decision.
pub async fn delete(
    State(state): State<ApiState>,
    Caller(_): Caller,
    NameInPath(name): NameInPath,
) -> ApiError {
    match find(&state, &name).await {
        Ok(model) => ApiError::forbidden(format!(
            "The model '{}' cannot be deleted: the models of this server are set by its operator.",
            model.id
        ))
        .param("model"),
        Err(error) => error,
    }
}

async fn find(state: &ApiState, name: &str) -> Result<Model, ApiError> {
    let models = state.upstreams.available_models().await;
    let model = models.into_iter().find(|model| model.id == name);
    model.ok_or_else(|| ApiError::no_such_model(format!("The model '{name}' does not exist")))
}
