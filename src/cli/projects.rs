//! `assistd projects`: creates, lists and changes projects.

use std::fmt::Display;
use std::process::ExitCode;

use super::actor::actor;
use super::database::with_database;
use super::error::CliError;
use super::output;
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

const PAGE: i64 = 1000;

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

pub(super) async fn find(pool: &Pool, id_or_name: &str) -> Result<Project, CliError> {
    store::projects::find_by_id_or_name(pool, id_or_name)
        .await?
        .ok_or_else(|| CliError::NoSuchProject(id_or_name.to_owned()))
}

async fn create(pool: &Pool, name: &str, limits: LimitArgs) -> Result<(), CliError> {
    let limits = changes(limits).onto(ProjectLimits::default());
    let project = store::projects::create(pool, &actor(), name, &limits).await;
    let project = project.map_err(|error| explain_conflict(error, name))?;
    output::note(format_args!(
        "Created project {name:?}. Create a key with `assistd keys create --project NAME`."
    ));
    output::print(project.id);
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
    let cell = |limit: Option<&dyn Display>| limit.map_or("-".to_owned(), |n| n.to_string());
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
            output::to_minute(project.created_at),
            cell(limits.max_concurrent_runs.as_ref().map(|n| n as _)),
            cell(limits.requests_per_minute.as_ref().map(|n| n as _)),
            cell(limits.tokens_per_minute.as_ref().map(|n| n as _)),
            cell(limits.storage_bytes.as_ref().map(|n| n as _)),
        ]
    });
    output::print_table(heading, rows);
    Ok(())
}

async fn update(
    pool: &Pool,
    project: &str,
    name: Option<&str>,
    limits: LimitArgs,
) -> Result<(), CliError> {
    let id = find(pool, project).await?.id;
    store::projects::update(pool, &actor(), &id, name, &changes(limits))
        .await
        .map_err(|error| explain_conflict(error, name.unwrap_or_default()))?
        .ok_or_else(|| CliError::NoSuchProject(project.to_owned()))?;
    output::note("Running servers apply the change within seconds.");
    Ok(())
}

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
        Some(days) => output::print(format_args!(
            "Threads of project {name:?} are deleted after {days} idle days."
        )),
        None => output::print(format_args!(
            "Threads of project {name:?} are kept forever."
        )),
    }
    Ok(())
}

fn changes(limits: LimitArgs) -> LimitChanges {
    let to_i32 = |Limit(number): Limit| number.and_then(|number| i32::try_from(number).ok());
    LimitChanges {
        max_concurrent_runs: limits.runs.map(to_i32),
        requests_per_minute: limits.requests_per_minute.map(to_i32),
        tokens_per_minute: limits.tokens_per_minute.map(|Limit(number)| number),
        storage_bytes: limits.storage.map(|Limit(number)| number),
    }
}

fn explain_conflict(error: SaveProjectError, name: &str) -> CliError {
    match error {
        SaveProjectError::NameTaken => CliError::NameTaken(name.to_owned()),
        SaveProjectError::Store(error) => error.into(),
    }
}
