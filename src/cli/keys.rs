//! `assistd keys`: makes, lists and revokes API keys.

use std::process::ExitCode;

use sqlx::PgPool;

use super::CliError;
use super::answer;
use super::database::Database;
use super::remark;
use super::table;
use crate::config::Config;
use crate::config::KeysCommand;
use crate::config::SeedKey;
use crate::domain::Timestamp;
use crate::domain::api_key;
use crate::store;
use crate::store::StoreError;

/// Carries out `assistd keys …`, beside a server that runs or without one.
pub(super) async fn run(config: &Config, command: KeysCommand) -> Result<ExitCode, CliError> {
    let database = Database::open_beside_server(config).await?;
    let outcome = async {
        database.migrate().await?;
        match command {
            KeysCommand::Create { project, name } => create(&database.pool, &project, &name).await,
            KeysCommand::List => list(&database.pool).await,
            KeysCommand::Revoke { id } => revoke(&database.pool, &id).await,
        }
    }
    .await;
    database.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn create(pool: &PgPool, project: &str, name: &str) -> Result<(), CliError> {
    let key = api_key::generate()?;
    let project_id = store::projects::find_or_create(pool, project).await?;
    let (hash, hint) = (api_key::hash(&key), api_key::hint(&key));
    let id = store::api_keys::insert(pool, &project_id, name, &hash, &hint).await?;
    // The key alone goes to standard output, so that a script can catch it.
    remark(format_args!(
        "Key {id} for project {project:?}. It is shown only now:"
    ));
    answer(key);
    Ok(())
}

async fn list(pool: &PgPool) -> Result<(), CliError> {
    let keys = store::api_keys::list(pool).await?;
    if keys.is_empty() {
        remark("There are no keys. Create one with `assistd keys create --project NAME`.");
        return Ok(());
    }
    let heading = ["ID", "PROJECT", "NAME", "KEY", "CREATED", "REVOKED"].map(str::to_owned);
    let day = |time: Timestamp| time.format("%Y-%m-%d %H:%M").to_string();
    let rows: Vec<[String; 6]> = std::iter::once(heading)
        .chain(keys.into_iter().map(|key| {
            [
                key.id.to_string(),
                key.project,
                key.name,
                key.hint,
                day(key.created_at),
                key.revoked_at.map(day).unwrap_or_default(),
            ]
        }))
        .collect();
    table(&rows);
    Ok(())
}

async fn revoke(pool: &PgPool, id: &str) -> Result<(), CliError> {
    let unknown = || CliError::NoSuchKey(id.to_owned());
    let parsed = id.parse().map_err(|_| unknown())?;
    if !store::api_keys::revoke(pool, &parsed).await? {
        return Err(unknown());
    }
    remark(format_args!(
        "Key {id} is revoked. A running server notices within seconds."
    ));
    Ok(())
}

/// Makes sure that the keys of the settings are accepted. Repeating it changes nothing.
pub(super) async fn seed(pool: &PgPool, seeds: &[SeedKey]) -> Result<(), CliError> {
    for SeedKey { project, key } in seeds {
        let project_id = store::projects::find_or_create(pool, project).await?;
        let hash = api_key::hash(key.expose());
        let hint = api_key::hint(key.expose());
        match store::api_keys::insert(pool, &project_id, "ASSISTD_API_KEYS", &hash, &hint).await {
            Ok(_) => {}
            Err(StoreError::Constraint(name)) if name == store::api_keys::HASH_UNIQUE => {
                match store::api_keys::find_by_hash(pool, &hash).await? {
                    Some(owner) if owner == project_id => {}
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
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
