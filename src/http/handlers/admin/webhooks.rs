//! `/admin/webhooks`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::EndpointId;
use crate::domain::page::Page;
use crate::http::request::auth::AdminCaller;
use crate::http::request::extract::{InPath, NameInPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::List;
use crate::wire::webhook::{DeliveryObject, EndpointObject};

pub async fn list(State(state): State<ApiState>, _: AdminCaller) -> Result<Response, ApiError> {
    let page = Page {
        data: state.service.list_webhooks().await?,
        has_more: false,
    };
    let list = List::of(&page, |one| one.id.to_string(), EndpointObject::from);
    Ok(Json(list).into_response())
}

/// `POST /admin/webhooks/{endpoint_id}/enable`
pub async fn enable(
    State(state): State<ApiState>,
    AdminCaller(actor): AdminCaller,
    InPath((id,)): InPath<(EndpointId,)>,
) -> Result<Response, ApiError> {
    let endpoint = state.service.enable_webhook(&actor, &id).await?;
    Ok(Json(EndpointObject::from(&endpoint)).into_response())
}

/// `GET /admin/webhooks/{endpoint_id}/deliveries`, newest first
pub async fn deliveries(
    State(state): State<ApiState>,
    _: AdminCaller,
    InPath((id,)): InPath<(EndpointId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let request = query.page()?;
    let after = request.after.as_deref().map(parse_number).transpose()?;
    let page = state
        .service
        .list_webhook_deliveries(&id, after, request.limit)
        .await?;
    let list = List::of(&page, |one| one.number.to_string(), DeliveryObject::from);
    Ok(Json(list).into_response())
}

/// `POST /admin/webhooks/{endpoint_id}/redeliver/{delivery_id}`
pub async fn redeliver(
    State(state): State<ApiState>,
    AdminCaller(actor): AdminCaller,
    InPath((id,)): InPath<(EndpointId,)>,
    NameInPath(delivery): NameInPath,
) -> Result<Response, ApiError> {
    let number = parse_number(&delivery)?;
    state.service.redeliver_webhook(&actor, &id, number).await?;
    Ok(Json(serde_json::json!({"id": delivery, "object": "webhook.delivery"})).into_response())
}

fn parse_number(text: &str) -> Result<i64, ApiError> {
    let shown = || text.chars().take(64).collect::<String>();
    text.parse()
        .map_err(|_| ApiError::object_not_found("webhook delivery", shown()))
}
