//! `assistd audit-log`: shows who changed projects, keys and webhooks.

use std::process::ExitCode;

use super::database::with_database;
use super::error::CliError;
use super::output;
use crate::config::Config;
use crate::domain::page::Order;
use crate::domain::page::PageRequest;
use crate::store;
use crate::store::Pool;

pub(super) async fn run(config: &Config, last: i64) -> Result<ExitCode, CliError> {
    let request = PageRequest {
        limit: last,
        order: Order::Desc,
        after: None,
        before: None,
    };
    let show = async |pool: &Pool| {
        let entries = store::audit_log::list(pool, &request).await?.data;
        let rows = entries.into_iter().map(|entry| {
            [
                output::to_minute(entry.created_at),
                entry.actor,
                entry.action,
                entry.object,
                entry.details.to_string(),
            ]
        });
        output::print_table(["AT", "ACTOR", "ACTION", "OBJECT", "DETAILS"], rows);
        Ok(())
    };
    with_database(config, show).await?;
    Ok(ExitCode::SUCCESS)
}
