//! Usage as the admin API shows it.

use chrono::NaiveDate;
use serde::Serialize;

use crate::domain::usage::{UsageQuery, UsageSum};

#[derive(Debug, Serialize)]
pub struct UsageList<'a> {
    object: &'static str,
    from: NaiveDate,
    to: NaiveDate,
    data: Vec<UsageObject<'a>>,
    has_more: bool,
}

#[derive(Debug, Serialize)]
struct UsageObject<'a> {
    object: &'static str,
    project_id: &'a str,
    project_name: &'a str,
    day: Option<NaiveDate>,
    model: Option<&'a str>,
    runs: i64,
    model_calls: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    tool_calls: ToolCalls,
    sandbox_seconds: f64,
}

#[derive(Debug, Serialize)]
struct ToolCalls {
    code_interpreter: i64,
    file_search: i64,
    function: i64,
}

impl<'a> UsageList<'a> {
    pub fn new(query: &UsageQuery, sums: &'a [UsageSum]) -> Self {
        let object = |sum: &'a UsageSum| UsageObject {
            object: "usage",
            project_id: sum.project.as_str(),
            project_name: &sum.project_name,
            day: sum.day,
            model: sum.model.as_deref(),
            runs: sum.amounts.runs,
            model_calls: sum.amounts.model_calls,
            prompt_tokens: sum.amounts.prompt_tokens,
            completion_tokens: sum.amounts.completion_tokens,
            total_tokens: sum.amounts.prompt_tokens + sum.amounts.completion_tokens,
            tool_calls: ToolCalls {
                code_interpreter: sum.amounts.code_calls,
                file_search: sum.amounts.search_calls,
                function: sum.amounts.function_calls,
            },
            sandbox_seconds: sum.amounts.sandbox_seconds(),
        };
        Self {
            object: "list",
            from: query.from,
            to: query.to,
            data: sums.iter().map(object).collect(),
            has_more: false,
        }
    }
}
