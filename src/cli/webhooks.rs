//! `assistd webhooks`: manages webhook endpoints.
//!
//! Whether events may be posted to private addresses is a setting of the server that posts them, so
//! nothing here decides it: `add` points it out, and `test` has a running server try.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::CliError;
use super::actor;
use super::answer;
use super::remark;
use super::table;
use super::with_database;
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

/// How long a test event waits for a server. Servers look for deliveries every second.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take for one attempt: its own limit, and time to record the result.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the state of a test event is read.
const POLL: Duration = Duration::from_millis(100);

/// Carries out `assistd webhooks …`, beside a server that runs or without one.
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
    // The secret alone goes to standard output, so that a script can catch it.
    remark(format_args!(
        "Endpoint {id} for project {project:?}. Its secret is shown only now:"
    ));
    answer(secret.reveal());
    if webhooks::check_url(url.as_str(), false).is_err() {
        remark(format_args!(
            "This URL is in a private network or not encrypted. A server posts there only if \
             ASSISTD_WEBHOOK_ALLOW_PRIVATE=true is set for the server itself; \
             `assistd webhooks test {id}` has it try."
        ));
    }
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

async fn test(pool: &Pool, id: &str) -> Result<(), CliError> {
    let endpoint = webhook_endpoints::find(pool, &parse(id)?).await?;
    let endpoint = endpoint.ok_or_else(|| CliError::NoSuchEndpoint(id.to_owned()))?;
    if let Some((_, reason)) = endpoint.disabled {
        let id = id.to_owned();
        return Err(CliError::EndpointDisabled { id, reason });
    }
    let event = webhook_deliveries::insert_test(pool, &endpoint.id).await?;
    let state = end_of_test(pool, &event).await;
    // An event that nobody has claimed must not be delivered later, when nobody waits for it.
    webhook_deliveries::delete_event(pool, &event).await?;
    match state? {
        TestState::Delivered => {
            remark(format_args!("Endpoint {id} accepted the test event."));
            Ok(())
        }
        TestState::Failed(reason) => Err(CliError::Undelivered(reason)),
        TestState::Unclaimed => Err(CliError::NoServer(CLAIM_TIMEOUT.as_secs())),
        TestState::InFlight => Err(CliError::Undelivered(
            "the server that claimed it has not recorded a result".to_owned(),
        )),
    }
}

/// The state of a test event once it was posted, or once waiting for that is of no use any more.
async fn end_of_test(pool: &Pool, event: &EventId) -> Result<TestState, CliError> {
    let begun = Instant::now();
    loop {
        let state = webhook_deliveries::test_state(pool, event).await?;
        let timeout = match state {
            TestState::Delivered | TestState::Failed(_) => return Ok(state),
            TestState::Unclaimed => CLAIM_TIMEOUT,
            TestState::InFlight => CLAIM_TIMEOUT + ATTEMPT_TIMEOUT,
        };
        if begun.elapsed() > timeout {
            return Ok(state);
        }
        tokio::time::sleep(POLL).await;
    }
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
