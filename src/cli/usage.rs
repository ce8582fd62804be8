//! `assistd usage`: shows usage by project.

use std::process::ExitCode;

use chrono::Days;
use chrono::Utc;

use super::database::with_database;
use super::error::CliError;
use super::output;
use super::projects;
use crate::config::Config;
use crate::config::UsageArgs;
use crate::config::UsageBy;
use crate::domain::usage::UsageQuery;
use crate::store;
use crate::store::Pool;

const DEFAULT_DAYS: u64 = 30;

pub(super) async fn run(config: &Config, args: UsageArgs) -> Result<ExitCode, CliError> {
    let to = args.to.unwrap_or_else(|| Utc::now().date_naive());
    let default_from = || {
        to.checked_sub_days(Days::new(DEFAULT_DAYS - 1))
            .unwrap_or(to)
    };
    let from = args.from.unwrap_or_else(default_from);
    let show = async |pool: &Pool| {
        let project = match &args.project {
            None => None,
            Some(project) => Some(projects::find(pool, project).await?.id),
        };
        let query = UsageQuery {
            project,
            from,
            to,
            by_day: args.by.contains(&UsageBy::Day),
            by_model: args.by.contains(&UsageBy::Model),
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
        output::print_table(heading, rows);
        Ok(())
    };
    with_database(config, show).await?;
    output::note(format_args!("From {from} to {to}, inclusive (UTC)."));
    Ok(ExitCode::SUCCESS)
}
