//! `assistd usage`: tells what projects have used.

use std::process::ExitCode;

use chrono::Days;
use chrono::Utc;

use super::CliError;
use super::projects;
use super::remark;
use super::table;
use super::with_database;
use crate::config::Config;
use crate::config::UsageArgs;
use crate::config::UsageBy;
use crate::domain::usage::UsageQuery;
use crate::store;
use crate::store::Pool;

/// Days that are summed up if nothing else is asked for.
const DAYS: u64 = 30;

/// Carries out `assistd usage`, beside a server that runs or without one.
pub(super) async fn run(config: &Config, asked: UsageArgs) -> Result<ExitCode, CliError> {
    let to = asked.to.unwrap_or_else(|| Utc::now().date_naive());
    let earlier = || to.checked_sub_days(Days::new(DAYS - 1)).unwrap_or(to);
    let from = asked.from.unwrap_or_else(earlier);
    let tell = async |pool: &Pool| {
        let project = match &asked.project {
            None => None,
            Some(project) => Some(projects::find(pool, project).await?.id),
        };
        let query = UsageQuery {
            project,
            from,
            to,
            by_day: asked.by.contains(&UsageBy::Day),
            by_model: asked.by.contains(&UsageBy::Model),
        };
        let rows = store::usage::sums(pool, &query).await?.into_iter();
        let rows = rows.map(|sum| {
            let amounts = sum.amounts;
            [
                sum.project_name,
                sum.day.map(|day| day.to_string()).unwrap_or("-".to_owned()),
                sum.model.unwrap_or("-".to_owned()),
                amounts.runs.to_string(),
                amounts.model_calls.to_string(),
                amounts.prompt_tokens.to_string(),
                amounts.completion_tokens.to_string(),
                amounts.code_calls.to_string(),
                amounts.search_calls.to_string(),
                amounts.function_calls.to_string(),
                format!("{:.1}", amounts.sandbox_seconds()),
            ]
        });
        let heading = [
            "PROJECT",
            "DAY",
            "MODEL",
            "RUNS",
            "MODEL CALLS",
            "PROMPT TOKENS",
            "COMPLETION TOKENS",
            "CODE",
            "SEARCHES",
            "FUNCTIONS",
            "SANDBOX SECONDS",
        ];
        table::answer(heading, rows);
        Ok(())
    };
    with_database(config, tell).await?;
    remark(format_args!("From {from} to {to}, both included (UTC)."));
    Ok(ExitCode::SUCCESS)
}
