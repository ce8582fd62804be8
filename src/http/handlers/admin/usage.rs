//! `/admin/usage`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{Days, NaiveDate, Utc};

use crate::domain::ids::ProjectId;
use crate::domain::usage::UsageQuery;
use crate::http::request::auth::AdminCaller;
use crate::http::request::extract::Query;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::refusal::invalid_value;
use crate::wire::usage::UsageList;

/// Length of the period of a query without `from`, in days.
const DEFAULT_DAYS: u64 = 30;

/// `GET /admin/usage`: sums by project, with `group_by` also by day and model.
pub async fn sums(
    State(state): State<ApiState>,
    _: AdminCaller,
    query: Query,
) -> Result<Response, ApiError> {
    let query = parse_query(&state, &query).await?;
    let sums = state.service.usage(&query).await?;
    Ok(Json(UsageList::new(&query, &sums)).into_response())
}

async fn parse_query(state: &ApiState, query: &Query) -> Result<UsageQuery, ApiError> {
    let to = parse_day(query, "to")?.unwrap_or_else(|| Utc::now().date_naive());
    let from = match parse_day(query, "from")? {
        Some(from) => from,
        None => to
            .checked_sub_days(Days::new(DEFAULT_DAYS - 1))
            .unwrap_or(to),
    };
    if from > to {
        return Err(ApiError::invalid("Invalid 'from': expected a day up to 'to'.").param("from"));
    }
    let (mut by_day, mut by_model) = (false, false);
    for group in query.list("group_by").flat_map(|groups| groups.split(',')) {
        match group {
            "day" => by_day = true,
            "model" => by_model = true,
            other => return Err(invalid_value("group_by", other, &["day", "model"]).into()),
        }
    }
    let project = match query.get("project") {
        None => None,
        Some(text) => Some(find_project(state, text).await?),
    };
    Ok(UsageQuery {
        project,
        from,
        to,
        by_day,
        by_model,
    })
}

async fn find_project(state: &ApiState, id_or_name: &str) -> Result<ProjectId, ApiError> {
    let project = state.service.project_named(id_or_name).await?;
    let project = project.ok_or_else(|| {
        let shown: String = id_or_name.chars().take(64).collect();
        ApiError::object_not_found("project", shown)
    })?;
    Ok(project.id)
}

fn parse_day(query: &Query, name: &str) -> Result<Option<NaiveDate>, ApiError> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        ApiError::invalid(format!(
            "Invalid '{name}': expected a day such as 2026-11-30."
        ))
        .param(name)
        .code("invalid_value")
    })
}
