//! `/admin/audit_log`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::api::admin::Admin;
use crate::api::error::ApiError;
use crate::api::extract::Query;
use crate::api::state::ApiState;
use crate::api::wire::List;
use crate::api::wire::audit_log::AuditLogEntry;
use crate::store;

/// `GET /admin/audit_log`
pub async fn list(
    State(state): State<ApiState>,
    _: Admin,
    query: Query,
) -> Result<Response, ApiError> {
    let page = store::audit_log::list(&state.pool, &query.page()?).await?;
    let list = List::of(&page, |entry| entry.id.to_string(), AuditLogEntry::from);
    Ok(Json(list).into_response())
}
