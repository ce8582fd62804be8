//! `assistd webhooks`: manages webhook endpoints.
//!
//! Whether events may be posted to private addresses is a setting of the server, not of the command:
//! `add` only points it out, and `test` has a running server post an event.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::actor::actor;
use super::database::with_database;
use super::error::CliError;
use super::output;
use crate::config::Config;
use crate::config::WebhooksCommand;
use crate::domain::ids::{EndpointId, EventId};
use crate::domain::webhook::Endpoint;
use crate::domain::webhook::EventType;
use crate::domain::webhook::SigningSecret;
use crate::store;
use crate::store::Pool;
use crate::store::webhook_deliveries::{self, TestState};
use crate::store::webhook_endpoints;
use crate::webhooks;

/// How long to wait until a server claims the test event. Servers look for due deliveries every
/// second.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the result of the attempt: the server's own timeout, and time to record it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn run(config: &Config, command: WebhooksCommand) -> Result<ExitCode, CliError> {
    let work = async |pool: &Pool| match command {
        WebhooksCommand::Add {
            project,
            url,
            events,
        } => add(pool, &project, &url, &events).await,
        WebhooksCommand::List { project } => list(pool, project.as_deref()).await,
        WebhooksCommand::Remove { id } => remove(pool, &id).await,
        WebhooksCommand::Rotate { id, keep } => rotate(pool, &id, keep).await,
        WebhooksCommand::Test { id } => test(pool, &id).await,
        WebhooksCommand::Enable { id } => enable(pool, &id).await,
    };
    with_database(config, work).await?;
    Ok(ExitCode::SUCCESS)
}

async fn add(pool: &Pool, project: &str, url: &str, events: &[String]) -> Result<(), CliError> {
    let url = webhooks::check_url(url, true).map_err(CliError::Webhook)?;
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
    // Only the secret goes to standard output, for scripts.
    output::note(format_args!(
        "Endpoint {id} for project {project:?}. Its secret is shown only now:"
    ));
    output::print(secret.reveal());
    if webhooks::check_url(url.as_str(), false).is_err() {
        output::note(format_args!(
            "This URL is in a private network or not encrypted. A server posts there only if \
             ASSISTD_WEBHOOK_ALLOW_PRIVATE=true is set for the server itself; check with \
             `assistd webhooks test {id}`."
        ));
    }
    Ok(())
}

async fn list(pool: &Pool, project: Option<&str>) -> Result<(), CliError> {
    let endpoints = webhook_endpoints::list(pool, project).await?;
    if endpoints.is_empty() {
        output::note(
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
    output::print_table(["ID", "PROJECT", "URL", "EVENTS", "STATE"], rows);
    Ok(())
}

fn state(endpoint: &Endpoint) -> String {
    match (&endpoint.disabled, endpoint.failing_since) {
        (Some((at, reason)), _) => format!("off since {}: {reason}", output::to_minute(*at)),
        (None, Some(since)) => format!("failing since {}", output::to_minute(since)),
        (None, None) => "on".to_owned(),
    }
}

async fn remove(pool: &Pool, id: &str) -> Result<(), CliError> {
    let endpoint = parse_id(id)?;
    require_existing(
        id,
        webhook_endpoints::remove(pool, &actor(), &endpoint).await?,
    )?;
    output::note(format_args!("Endpoint {id} is removed."));
    Ok(())
}

async fn rotate(pool: &Pool, id: &str, keep: Duration) -> Result<(), CliError> {
    let endpoint = parse_id(id)?;
    let secret = SigningSecret::generate()?;
    require_existing(
        id,
        webhook_endpoints::rotate(pool, &actor(), &endpoint, &secret, keep).await?,
    )?;
    output::note(format_args!(
        "Events for {id} are signed by both secrets for {}. The new one is shown only now:",
        humantime::format_duration(keep)
    ));
    output::print(secret.reveal());
    Ok(())
}

async fn test(pool: &Pool, id: &str) -> Result<(), CliError> {
    let endpoint = webhook_endpoints::find(pool, &parse_id(id)?).await?;
    let endpoint = endpoint.ok_or_else(|| CliError::NoSuchEndpoint(id.to_owned()))?;
    if let Some((_, reason)) = endpoint.disabled {
        let id = id.to_owned();
        return Err(CliError::EndpointDisabled { id, reason });
    }
    let event = webhook_deliveries::insert_test(pool, &endpoint.id).await?;
    let state = wait_for_result(pool, &event).await;
    // An unclaimed event must not be delivered later, when nobody waits for it.
    webhook_deliveries::delete_event(pool, &event).await?;
    match state? {
        TestState::Delivered => {
            output::note(format_args!("Endpoint {id} accepted the test event."));
            Ok(())
        }
        TestState::Failed(reason) => Err(CliError::Undelivered(reason)),
        TestState::Unclaimed => Err(CliError::NoServer(CLAIM_TIMEOUT.as_secs())),
        TestState::InFlight => Err(CliError::Undelivered(
            "the server that claimed it has not recorded a result".to_owned(),
        )),
    }
}

async fn wait_for_result(pool: &Pool, event: &EventId) -> Result<TestState, CliError> {
    let started = Instant::now();
    loop {
        let state = webhook_deliveries::test_state(pool, event).await?;
        let timeout = match state {
            TestState::Delivered | TestState::Failed(_) => return Ok(state),
            TestState::Unclaimed => CLAIM_TIMEOUT,
            TestState::InFlight => CLAIM_TIMEOUT + ATTEMPT_TIMEOUT,
        };
        if started.elapsed() > timeout {
            return Ok(state);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn enable(pool: &Pool, id: &str) -> Result<(), CliError> {
    let endpoint = parse_id(id)?;
    require_existing(
        id,
        webhook_endpoints::enable(pool, &actor(), &endpoint).await?,
    )?;
    output::note(format_args!("Endpoint {id} is enabled."));
    Ok(())
}

fn parse_id(id: &str) -> Result<EndpointId, CliError> {
    id.parse()
        .map_err(|_| CliError::NoSuchEndpoint(id.to_owned()))
}

fn require_existing(id: &str, exists: bool) -> Result<(), CliError> {
    match exists {
        true => Ok(()),
        false => Err(CliError::NoSuchEndpoint(id.to_owned())),
    }
}
