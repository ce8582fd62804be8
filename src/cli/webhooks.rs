//! `assistd webhooks`: says who is told of what.

use std::process::ExitCode;
use std::time::Duration;

use super::CliError;
use super::actor;
use super::answer;
use super::remark;
use super::table;
use super::with_database;
use crate::config::Config;
use crate::config::WebhooksCommand;
use crate::domain::ids::EndpointId;
use crate::domain::webhook::Endpoint;
use crate::domain::webhook::EventType;
use crate::domain::webhook::SigningSecret;
use crate::server::ServeError;
use crate::store;
use crate::store::Pool;
use crate::store::webhook_endpoints;
use crate::webhooks;
use crate::webhooks::Sender;

/// Carries out `assistd webhooks …`, beside a server that runs or without one.
pub(super) async fn run(config: &Config, command: WebhooksCommand) -> Result<ExitCode, CliError> {
    let allow_private = config.webhooks.allow_private;
    let sender = Sender::new(allow_private).map_err(ServeError::Webhooks)?;
    let work = async |pool: &Pool| match command {
        WebhooksCommand::Add {
            project,
            url,
            events,
        } => add(pool, &sender, &project, &url, &events).await,
        WebhooksCommand::List { project } => list(pool, project.as_deref()).await,
        WebhooksCommand::Remove { id } => remove(pool, &id).await,
        WebhooksCommand::Rotate { id, keep } => rotate(pool, &id, keep).await,
        WebhooksCommand::Test { id } => test(pool, &sender, &id).await,
        WebhooksCommand::Enable { id } => enable(pool, &id).await,
    };
    with_database(config, work).await?;
    Ok(ExitCode::SUCCESS)
}

async fn add(
    pool: &Pool,
    sender: &Sender,
    project: &str,
    url: &str,
    events: &[String],
) -> Result<(), CliError> {
    let url = sender.check_url(url).map_err(CliError::Webhook)?;
    let events: Vec<EventType> = events
        .iter()
        .map(|event| event.parse())
        .collect::<Result<_, _>>()?;
    let events = (!events.is_empty()).then_some(events);
    let secret = SigningSecret::generate()?;
    let actor = actor();
    let project_id = store::projects::ensure(pool, &actor, project).await?;
    let id = webhook_endpoints::insert(
        pool,
        &actor,
        &project_id,
        url.as_str(),
        events.as_deref(),
        &secret,
    )
    .await?;
    // The secret alone goes to standard output, so that a script can catch it.
    remark(format_args!(
        "Endpoint {id} for project {project:?}. Its secret is shown only now:"
    ));
    answer(secret.reveal());
    Ok(())
}

async fn list(pool: &Pool, project: Option<&str>) -> Result<(), CliError> {
    let endpoints = webhook_endpoints::list(pool, project).await?;
    if endpoints.is_empty() {
        remark(
            "There are no endpoints. Add one with `assistd webhooks add --project NAME --url URL`.",
        );
        return Ok(());
    }
    let rows = endpoints.into_iter().map(|endpoint| {
        let state = state(&endpoint);
        let events = endpoint.events.map(|events| events.join(","));
        [
            endpoint.id.to_string(),
            endpoint.project,
            endpoint.url,
            events.unwrap_or_else(|| "all".to_owned()),
            state,
        ]
    });
    table::answer(["ID", "PROJECT", "URL", "EVENTS", "STATE"], rows);
    Ok(())
}

fn state(endpoint: &Endpoint) -> String {
    let minute = table::time;
    match (&endpoint.disabled, endpoint.failing_since) {
        (Some((at, reason)), _) => format!("off since {}: {reason}", minute(*at)),
        (None, Some(since)) => format!("failing since {}", minute(since)),
        (None, None) => "on".to_owned(),
    }
}

async fn remove(pool: &Pool, id: &str) -> Result<(), CliError> {
    let endpoint = parse(id)?;
    found(
        id,
        webhook_endpoints::remove(pool, &actor(), &endpoint).await?,
    )?;
    remark(format_args!("Endpoint {id} is removed."));
    Ok(())
}

async fn rotate(pool: &Pool, id: &str, keep: Duration) -> Result<(), CliError> {
    let endpoint = parse(id)?;
    let secret = SigningSecret::generate()?;
    found(
        id,
        webhook_endpoints::rotate(pool, &actor(), &endpoint, &secret, keep).await?,
    )?;
    remark(format_args!(
        "Events for {id} are signed by both secrets for {}. The new one is shown only now:",
        humantime::format_duration(keep)
    ));
    answer(secret.reveal());
    Ok(())
}

async fn test(pool: &Pool, sender: &Sender, id: &str) -> Result<(), CliError> {
    let endpoint = parse(id)?;
    let target = webhook_endpoints::target(pool, &endpoint).await?;
    let target = target.ok_or_else(|| CliError::NoSuchEndpoint(id.to_owned()))?;
    let now = store::runs::now(pool).await?;
    let status = webhooks::test(sender, &target, now).await?;
    remark(format_args!("Endpoint {id} answered {status}."));
    Ok(())
}

async fn enable(pool: &Pool, id: &str) -> Result<(), CliError> {
    let endpoint = parse(id)?;
    found(
        id,
        webhook_endpoints::enable(pool, &actor(), &endpoint).await?,
    )?;
    remark(format_args!("Endpoint {id} is on."));
    Ok(())
}

fn parse(id: &str) -> Result<EndpointId, CliError> {
    id.parse()
        .map_err(|_| CliError::NoSuchEndpoint(id.to_owned()))
}

fn found(id: &str, is_there: bool) -> Result<(), CliError> {
    match is_there {
        true => Ok(()),
        false => Err(CliError::NoSuchEndpoint(id.to_owned())),
    }
}
