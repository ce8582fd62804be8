//! `/admin/usage`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{Days, NaiveDate, Utc};

use crate::domain::usage::UsageQuery;
use crate::http::handlers::admin::Admin;
use crate::http::request::extract::Query;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::object::invalid_value;
use crate::wire::usage::UsageList;

/// Days that are summed up if nothing else is asked for.
const DAYS: u64 = 30;

/// `GET /admin/usage`: sums by project, and by day and model if `group_by` says so.
pub async fn sums(
    State(state): State<ApiState>,
    _: Admin,
    query: Query,
) -> Result<Response, ApiError> {
    let to = day(&query, "to")?.unwrap_or_else(|| Utc::now().date_naive());
    let from = match day(&query, "from")? {
        Some(from) => from,
        None => to.checked_sub_days(Days::new(DAYS - 1)).unwrap_or(to),
    };
    if from > to {
        return Err(ApiError::invalid("Invalid 'from': expected a day up to 'to'.").param("from"));
    }
    let (mut by_day, mut by_model) = (false, false);
    for word in query.list("group_by").flat_map(|words| words.split(',')) {
        match word {
            "day" => by_day = true,
            "model" => by_model = true,
            other => return Err(invalid_value("group_by", other, &["day", "model"]).into()),
        }
    }
    let project = match query.get("project") {
        None => None,
        Some(text) => {
            let found = state.service.project_named(text).await?;
            let shown: String = text.chars().take(64).collect();
            let found = found.ok_or_else(|| ApiError::no_such("project", shown))?;
            Some(found.id)
        }
    };
    let asked = UsageQuery {
        project,
        from,
        to,
        by_day,
        by_model,
    };
    let sums = state.service.usage(&asked).await?;
    Ok(Json(UsageList::new(&asked, &sums)).into_response())
}

fn day(query: &Query, name: &str) -> Result<Option<NaiveDate>, ApiError> {
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
