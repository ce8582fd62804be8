//! `assistd keys`: creates, lists and revokes API keys.

use std::process::ExitCode;

use super::actor::actor;
use super::database::with_database;
use super::error::CliError;
use super::output;
use crate::config::Config;
use crate::config::KeysCommand;
use crate::config::SeedKey;
use crate::domain::api_key;
use crate::domain::audit::Actor;
use crate::store;
use crate::store::Pool;
use crate::store::api_keys::CreateKeyError;

pub(super) async fn run(config: &Config, command: KeysCommand) -> Result<ExitCode, CliError> {
    let work = async |pool: &Pool| match command {
        KeysCommand::Create { project, name } => create(pool, &project, &name).await,
        KeysCommand::List => list(pool).await,
        KeysCommand::Revoke { id } => revoke(pool, &id).await,
    };
    with_database(config, work).await?;
    Ok(ExitCode::SUCCESS)
}

async fn create(pool: &Pool, project: &str, name: &str) -> Result<(), CliError> {
    let key = api_key::generate()?;
    let actor = actor();
    let project_id = store::projects::ensure(pool, &actor, project).await?;
    let (hash, hint) = (api_key::hash(&key), api_key::hint(&key));
    let created = store::api_keys::create(pool, &actor, &project_id, name, &hash, &hint).await?;
    let id = created.id;
    // Only the key goes to standard output, for scripts.
    output::note(format_args!(
        "Key {id} for project {project:?}. It is shown only now:"
    ));
    output::print(key);
    Ok(())
}

async fn list(pool: &Pool) -> Result<(), CliError> {
    let keys = store::api_keys::list(pool).await?;
    if keys.is_empty() {
        output::note("There are no keys. Create one with `assistd keys create --project NAME`.");
        return Ok(());
    }
    let rows = keys.into_iter().map(|key| {
        [
            key.id.to_string(),
            key.project,
            key.name,
            key.hint,
            output::to_minute(key.created_at),
            key.revoked_at.map(output::to_minute).unwrap_or_default(),
        ]
    });
    output::print_table(["ID", "PROJECT", "NAME", "KEY", "CREATED", "REVOKED"], rows);
    Ok(())
}

async fn revoke(pool: &Pool, id: &str) -> Result<(), CliError> {
    let unknown = || CliError::NoSuchKey(id.to_owned());
    let parsed = id.parse().map_err(|_| unknown())?;
    if !store::api_keys::revoke(pool, &actor(), None, &parsed).await? {
        return Err(unknown());
    }
    output::note(format_args!(
        "Key {id} is revoked. Running servers stop accepting it within seconds."
    ));
    Ok(())
}

pub(super) async fn create_from_settings(pool: &Pool, keys: &[SeedKey]) -> Result<(), CliError> {
    for SeedKey { project, key } in keys {
        let project_id = store::projects::ensure(pool, &Actor::Settings, project).await?;
        let hash = api_key::hash(key.expose());
        let hint = api_key::hint(key.expose());
        let (actor, name) = (Actor::Settings, "ASSISTD_API_KEYS");
        match store::api_keys::create(pool, &actor, &project_id, name, &hash, &hint).await {
            Ok(_) => continue,
            Err(CreateKeyError::Duplicate) => {}
            Err(error) => return Err(error.into()),
        }
        match store::api_keys::find_by_hash(pool, &hash).await? {
            Some(owner) if owner.project == project_id => {}
            Some(_) => {
                return Err(CliError::KeyTaken(project.clone()));
            }
            None => tracing::warn!(
                "ignoring a key in ASSISTD_API_KEYS for project {project:?}: it has been revoked"
            ),
        }
    }
    Ok(())
}
