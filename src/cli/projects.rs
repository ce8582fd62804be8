//! `assistd projects`: settings of projects.

use std::process::ExitCode;

use sqlx::PgPool;

use super::CliError;
use super::answer;
use super::database::Database;
use crate::config::Config;
use crate::config::ProjectsCommand;
use crate::store;

/// Carries out `assistd projects …`, beside a server that runs or without one.
pub(super) async fn run(config: &Config, command: ProjectsCommand) -> Result<ExitCode, CliError> {
    let database = Database::open_beside_server(config).await?;
    let outcome = async {
        database.migrate().await?;
        match command {
            ProjectsCommand::Retention {
                project,
                days,
                forever,
            } => retention(&database.pool, &project, days, forever).await,
        }
    }
    .await;
    database.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Shows how long threads are kept, after setting it if it is given.
async fn retention(
    pool: &PgPool,
    name: &str,
    days: Option<i32>,
    forever: bool,
) -> Result<(), CliError> {
    let found = store::projects::find(pool, name).await?;
    let project = found.ok_or_else(|| CliError::NoSuchProject(name.to_owned()))?;
    if days.is_some() || forever {
        store::projects::set_thread_retention(pool, &project, days).await?;
    }
    match store::projects::thread_retention(pool, &project).await? {
        Some(days) => answer(format_args!(
            "Threads of project {name:?} are deleted once nothing has happened on them for {days} \
             days."
        )),
        None => answer(format_args!("Threads of project {name:?} are kept.")),
    }
    Ok(())
}
