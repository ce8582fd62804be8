//! `/admin/audit_log`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::http::request::auth::AdminCaller;
use crate::http::request::extract::Query;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::List;
use crate::wire::audit_log::AuditLogEntry;

pub async fn list(
    State(state): State<ApiState>,
    _: AdminCaller,
    query: Query,
) -> Result<Response, ApiError> {
    let page = state.service.list_audit_log(&query.page()?).await?;
    let list = List::of(&page, |entry| entry.id.to_string(), AuditLogEntry::from);
    Ok(Json(list).into_response())
}
