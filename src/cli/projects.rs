//! `assistd projects`: makes, lists and changes projects.

use std::fmt::Display;
use std::process::ExitCode;

use super::CliError;
use super::actor;
use super::answer;
use super::remark;
use super::table;
use super::with_database;
use crate::config::Config;
use crate::config::Limit;
use crate::config::LimitArgs;
use crate::config::ProjectsCommand;
use crate::domain::page::Order;
use crate::domain::page::PageRequest;
use crate::domain::project::LimitChanges;
use crate::domain::project::Project;
use crate::domain::project::ProjectLimits;
use crate::store;
use crate::store::Pool;
use crate::store::projects::SaveProjectError;

/// Projects asked for at a time.
const PAGE: i64 = 1000;

/// Carries out `assistd projects …`, beside a server that runs or without one.
pub(super) async fn run(config: &Config, command: ProjectsCommand) -> Result<ExitCode, CliError> {
    let work = async |pool: &Pool| match command {
        ProjectsCommand::Create { name, limits } => create(pool, &name, limits).await,
        ProjectsCommand::List => list(pool).await,
        ProjectsCommand::Update {
            project,
            rename,
            limits,
        } => update(pool, &project, rename.as_deref(), limits).await,
        ProjectsCommand::Retention {
            project,
            days,
            forever,
        } => retention(pool, &project, days, forever).await,
    };
    with_database(config, work).await?;
    Ok(ExitCode::SUCCESS)
}

/// The project of this id or name, which must be there.
pub(super) async fn find(pool: &Pool, id_or_name: &str) -> Result<Project, CliError> {
    store::projects::find_by_id_or_name(pool, id_or_name)
        .await?
        .ok_or_else(|| CliError::NoSuchProject(id_or_name.to_owned()))
}

async fn create(pool: &Pool, name: &str, limits: LimitArgs) -> Result<(), CliError> {
    let limits = changes(limits).onto(ProjectLimits::default());
    let project = store::projects::create(pool, &actor(), name, &limits).await;
    let project = project.map_err(|error| refused(error, name))?;
    remark(format_args!(
        "Project {name:?}. Make a key for it with `assistd keys create --project NAME`."
    ));
    answer(project.id);
    Ok(())
}

async fn list(pool: &Pool) -> Result<(), CliError> {
    let mut request = PageRequest {
        limit: PAGE,
        order: Order::Asc,
        after: None,
        before: None,
    };
    let mut projects = Vec::new();
    loop {
        let page = store::projects::list(pool, &request).await?;
        projects.extend(page.data);
        if !page.has_more {
            break;
        }
        request.after = projects.last().map(|project| project.id.to_string());
    }
    let limit = |limit: Option<&dyn Display>| limit.map_or("-".to_owned(), |n| n.to_string());
    let heading = [
        "ID",
        "NAME",
        "CREATED",
        "RUNS",
        "REQUESTS/MIN",
        "TOKENS/MIN",
        "BYTES",
    ];
    let rows = projects.into_iter().map(|project| {
        let limits = project.limits;
        [
            project.id.to_string(),
            project.name,
            table::time(project.created_at),
            limit(limits.max_concurrent_runs.as_ref().map(|n| n as _)),
            limit(limits.requests_per_minute.as_ref().map(|n| n as _)),
            limit(limits.tokens_per_minute.as_ref().map(|n| n as _)),
            limit(limits.storage_bytes.as_ref().map(|n| n as _)),
        ]
    });
    table::answer(heading, rows);
    Ok(())
}

async fn update(
    pool: &Pool,
    project: &str,
    name: Option<&str>,
    limits: LimitArgs,
) -> Result<(), CliError> {
    let found = find(pool, project).await?;
    store::projects::update(pool, &actor(), &found.id, name, &changes(limits))
        .await
        .map_err(|error| refused(error, name.unwrap_or_default()))?
        .ok_or_else(|| CliError::NoSuchProject(project.to_owned()))?;
    remark("A running server notices within seconds.");
    Ok(())
}

/// Shows how long threads are kept, after setting it if it is given.
async fn retention(
    pool: &Pool,
    name: &str,
    days: Option<i32>,
    forever: bool,
) -> Result<(), CliError> {
    let project = find(pool, name).await?.id;
    if days.is_some() || forever {
        store::projects::set_thread_retention(pool, &actor(), &project, days).await?;
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

fn changes(limits: LimitArgs) -> LimitChanges {
    let small = |Limit(number): Limit| number.and_then(|number| i32::try_from(number).ok());
    LimitChanges {
        max_concurrent_runs: limits.runs.map(small),
        requests_per_minute: limits.requests_per_minute.map(small),
        tokens_per_minute: limits.tokens_per_minute.map(|Limit(number)| number),
        storage_bytes: limits.storage.map(|Limit(number)| number),
    }
}

fn refused(error: SaveProjectError, name: &str) -> CliError {
    match error {
        SaveProjectError::NameTaken => CliError::NameTaken(name.to_owned()),
        SaveProjectError::Store(error) => error.into(),
    }
}
