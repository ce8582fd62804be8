//! `/models`: the models that the configured routes serve.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::http::request::auth::Caller;
use crate::http::request::extract::NameInPath;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::models::Model;
use crate::wire::model::{ModelList, ModelObject};

pub async fn list(State(state): State<ApiState>, Caller(_): Caller) -> Result<Response, ApiError> {
    let models = state.upstreams.available_models().await;
    let data = models.into_iter().map(object).collect();
    Ok(Json(ModelList::new(data)).into_response())
}

pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(_): Caller,
    NameInPath(name): NameInPath,
) -> Result<Response, ApiError> {
    let model = find(&state, &name).await?;
    Ok(Json(object(model)).into_response())
}

/// `DELETE /models/{model}`: always refused, because the operator configures the models.
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

fn object(model: Model) -> ModelObject {
    ModelObject::new(model.id, model.owned_by)
}

async fn find(state: &ApiState, name: &str) -> Result<Model, ApiError> {
    let models = state.upstreams.available_models().await;
    let model = models.into_iter().find(|model| model.id == name);
    model.ok_or_else(|| ApiError::model_not_found(format!("The model '{name}' does not exist")))
}
