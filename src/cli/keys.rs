//! `assistd keys`: makes, lists and revokes API keys.

use std::process::ExitCode;

use super::CliError;
use super::actor;
use super::answer;
use super::remark;
use super::table;
use super::with_database;
use crate::config::Config;
use crate::config::KeysCommand;
use crate::config::SeedKey;
use crate::domain::api_key;
use crate::domain::audit::Actor;
use crate::store;
use crate::store::Pool;
use crate::store::api_keys::CreateKeyError;

/// Carries out `assistd keys …`, beside a server that runs or without one.
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
    // The key alone goes to standard output, so that a script can catch it.
    remark(format_args!(
        "Key {id} for project {project:?}. It is shown only now:"
    ));
    answer(key);
    Ok(())
}

async fn list(pool: &Pool) -> Result<(), CliError> {
    let keys = store::api_keys::list(pool).await?;
    if keys.is_empty() {
        remark("There are no keys. Create one with `assistd keys create --project NAME`.");
        return Ok(());
    }
    let rows = keys.into_iter().map(|key| {
        [
            key.id.to_string(),
            key.project,
            key.name,
            key.hint,
            table::time(key.created_at),
            key.revoked_at.map(table::time).unwrap_or_default(),
        ]
    });
    table::answer(["ID", "PROJECT", "NAME", "KEY", "CREATED", "REVOKED"], rows);
    Ok(())
}

async fn revoke(pool: &Pool, id: &str) -> Result<(), CliError> {
    let unknown = || CliError::NoSuchKey(id.to_owned());
    let parsed = id.parse().map_err(|_| unknown())?;
    if !store::api_keys::revoke(pool, &actor(), None, &parsed).await? {
        return Err(unknown());
    }
    remark(format_args!(
        "Key {id} is revoked. A running server notices within seconds."
    ));
    Ok(())
}

/// Makes sure that the keys of the settings are accepted. Repeating it changes nothing.
pub(super) async fn seed(pool: &Pool, seeds: &[SeedKey]) -> Result<(), CliError> {
    for SeedKey { project, key } in seeds {
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
                return Err(CliError::KeyTaken {
                    wanted: project.clone(),
                });
            }
            None => tracing::warn!(
                "a key in ASSISTD_API_KEYS for project {project:?} was revoked; it stays so"
            ),
        }
    }
    Ok(())
}
