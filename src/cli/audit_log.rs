//! `assistd audit-log`: tells who has changed projects and keys.

use std::process::ExitCode;

use super::CliError;
use super::table;
use super::with_database;
use crate::config::Config;
use crate::domain::page::Order;
use crate::domain::page::PageRequest;
use crate::store;
use crate::store::Pool;

/// Carries out `assistd audit-log`, beside a server that runs or without one.
pub(super) async fn run(config: &Config, last: i64) -> Result<ExitCode, CliError> {
    let request = PageRequest {
        limit: last,
        order: Order::Desc,
        after: None,
        before: None,
    };
    let tell = async |pool: &Pool| {
        let acts = store::audit_log::list(pool, &request).await?.data;
        let rows = acts.into_iter().map(|act| {
            [
                table::time(act.created_at),
                act.actor,
                act.action,
                act.object,
                act.details.to_string(),
            ]
        });
        table::answer(["AT", "ACTOR", "ACTION", "OBJECT", "DETAILS"], rows);
        Ok(())
    };
    with_database(config, tell).await?;
    Ok(ExitCode::SUCCESS)
}
