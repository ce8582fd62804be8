//! `assistd doctor`: looks at everything the server needs, and says what to do about what is
//! missing.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use sandbox_protocol::Report;

use super::CliError;
use super::answer;
use super::database::Database;
use super::database::OLDEST;
use super::disk;
use crate::config;
use crate::config::Config;
use crate::sandbox_client::SandboxError;
use crate::server;
use crate::store;
use crate::store::Pool;

/// The oldest pgvector that is supported: the first with `halfvec`.
const OLDEST_VECTOR: (u32, u32) = (0, 7);

/// What a check found.
enum Finding {
    /// All is well.
    Ok(String),
    /// Something is missing that the server can do without.
    Warn(String),
    /// The server cannot work.
    Fail(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, text) = match self {
            Self::Ok(text) => ("ok   ", text),
            Self::Warn(text) => ("warn ", text),
            Self::Fail(text) => ("FAIL ", text),
        };
        write!(f, "{mark} {}", text.trim_end().replace('\n', "\n      "))
    }
}

/// Checks everything. The exit code is 1 if something failed.
pub(super) async fn run(config: &Config) -> Result<ExitCode, CliError> {
    let mut failed = false;
    let mut report = |finding: Finding| {
        failed |= matches!(finding, Finding::Fail(_));
        answer(finding);
    };

    for folder in disk::folders(config) {
        report(space(&folder));
    }
    report(match server::check_open_files(&config.http) {
        Ok(allowed) => Finding::Ok(format!("open files: {allowed} allowed")),
        Err(error) => Finding::Fail(format!("open files: {error}")),
    });
    match Database::open_beside_server(config).await {
        Ok(database) => {
            report(Finding::Ok(format!("database: {}", database.place)));
            report(version(&database.pool).await);
            report(vector(&database.pool).await);
            report(keys(config, &database.pool).await);
            database.close().await;
        }
        Err(error) => report(Finding::Fail(format!("database: {error}"))),
    }
    report(blobs(config).await);
    match server::certificate(&config.http) {
        Ok(None) => {}
        Ok(Some(_)) => report(Finding::Ok(
            "HTTPS: the certificate fits its key".to_owned(),
        )),
        Err(error) => report(Finding::Fail(format!("HTTPS: {error}"))),
    }
    for finding in upstreams(config).await {
        report(finding);
    }
    for finding in sandbox(config).await {
        report(finding);
    }
    report(embeddings(config).await);
    Ok(ExitCode::from(u8::from(failed)))
}

fn space(folder: &Path) -> Finding {
    let shown = folder.display();
    let free = match disk::free(folder) {
        Ok(Some(free)) => free,
        Ok(None) => return Finding::Ok(format!("disk: no limit for {shown}")),
        Err(error) => return Finding::Fail(format!("disk: {shown}: {error}")),
    };
    let text = format!("disk: {:.1} GB free for {shown}", free as f64 / 1e9);
    if free < disk::TOO_LITTLE {
        Finding::Fail(format!("{text}; free some, or move the folder"))
    } else if free < disk::LITTLE {
        Finding::Warn(format!("{text}; that is little"))
    } else {
        Finding::Ok(text)
    }
}

async fn version(pool: &Pool) -> Finding {
    let row: Result<(i32, String), _> = sqlx::query_as(
        "select current_setting('server_version_num')::integer, current_setting('server_version')",
    )
    .fetch_one(pool)
    .await;
    match row {
        Ok((number, text)) if number >= OLDEST => Finding::Ok(format!("PostgreSQL: {text}")),
        Ok((_, text)) => Finding::Fail(format!(
            "PostgreSQL: {text} is too old; upgrade it to 16 or later"
        )),
        Err(error) => Finding::Fail(format!("PostgreSQL: {error}")),
    }
}

async fn vector(pool: &Pool) -> Finding {
    let found: Result<Option<String>, _> = sqlx::query_scalar(
        "select coalesce(installed_version, default_version)
         from pg_available_extensions where name = 'vector'",
    )
    .fetch_optional(pool)
    .await;
    match found {
        Ok(Some(version)) if vector_version(&version) >= Some(OLDEST_VECTOR) => {
            Finding::Ok(format!("pgvector: {version}"))
        }
        Ok(Some(version)) => Finding::Fail(format!(
            "pgvector: {version} is too old; install 0.7 or later, then run \
             `alter extension vector update` in the database"
        )),
        Ok(None) => Finding::Fail(
            "pgvector: the database server does not have it; install its package on that machine \
             (on Debian: postgresql-NN-pgvector)"
                .to_owned(),
        ),
        Err(error) => Finding::Fail(format!("pgvector: {error}")),
    }
}

/// Makes a vector.
async fn embeddings(config: &Config) -> Finding {
    let made = async {
        let upstreams = server::upstreams(&config.models).map_err(text_of)?;
        let embeddings = server::embeddings(&config.retrieval, upstreams).map_err(text_of)?;
        let Some(model) = embeddings.default_model() else {
            return Ok(None);
        };
        let vectors = embeddings.embed_queries(model, &["a question"]).await;
        let numbers = vectors.map_err(text_of)?.first().map_or(0, Vec::len);
        Ok::<_, String>(Some((model.to_owned(), numbers)))
    };
    match made.await {
        Ok(Some((model, numbers))) => {
            Finding::Ok(format!("embeddings: {model}, {numbers} dimensions"))
        }
        Ok(None) => Finding::Warn(
            "embeddings: there is no model, so search in vector stores is lexical only; run \
             `make setup`, or name a model in ASSISTD_EMBEDDING_MODEL"
                .to_owned(),
        ),
        Err(error) => Finding::Fail(format!("embeddings: {error}")),
    }
}

fn text_of(error: impl fmt::Display) -> String {
    error.to_string()
}

fn vector_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

async fn keys(config: &Config, pool: &Pool) -> Finding {
    // A database that has not been served yet has no tables.
    let exist = match store::api_keys::any_exist(pool).await {
        Ok(exist) => exist || !config.http.api_keys.is_empty(),
        Err(_) => !config.http.api_keys.is_empty(),
    };
    let address = config.http.listen;
    if exist {
        Finding::Ok("API keys: only keys that exist are accepted".to_owned())
    } else if address.ip().is_loopback() {
        Finding::Ok(format!(
            "API keys: none; {address} is for this machine only, and any key is accepted there"
        ))
    } else {
        Finding::Fail(format!(
            "API keys: none, so the server will refuse to serve on {address}; create one with \
             `assistd keys create --project NAME`"
        ))
    }
}

async fn blobs(config: &Config) -> Finding {
    let place = config.files.blob_location();
    let probe = async { server::blobs(&config.files)?.probe().await };
    match probe.await {
        Ok(()) => Finding::Ok(format!("files: {place} can be written and read")),
        Err(error) => Finding::Fail(format!(
            "files: {place}: {error}; check ASSISTD_BLOBS and, for a bucket, the AWS_… variables"
        )),
    }
}

async fn upstreams(config: &Config) -> Vec<Finding> {
    let upstreams = match server::upstreams(&config.models) {
        Ok(upstreams) => upstreams,
        Err(error) => return vec![Finding::Fail(format!("models: {error}"))],
    };
    let mut findings = vec![Finding::Ok(format!("models: {}", upstreams.describe()))];
    let begun = Instant::now();
    for result in upstreams.probe().await {
        let name = format!("upstream {} ({})", result.upstream, result.address);
        findings.push(match result.outcome {
            Ok(answer) => Finding::Ok(format!(
                "{name}: {answer}, {} ms",
                begun.elapsed().as_millis()
            )),
            Err(error) => Finding::Fail(format!(
                "{name}: {error} Check its base URL and key, and that it runs."
            )),
        });
    }
    findings
}

/// Whether code can run: asks the workers, or has the embedded one check itself.
async fn sandbox(config: &Config) -> Vec<Finding> {
    match &config.sandbox.sandbox {
        config::SandboxWorkers::Off => vec![Finding::Ok(
            "code_interpreter: switched off by ASSISTD_SANDBOX".to_owned(),
        )],
        config::SandboxWorkers::Embedded => vec![embedded_sandbox(config).await],
        config::SandboxWorkers::Remote(_) => match server::Sandbox::start(config) {
            Ok(sandbox) => {
                let reports = sandbox.pool.reports().await;
                reports.into_iter().map(remote_sandbox).collect()
            }
            Err(error) => vec![Finding::Fail(format!("code_interpreter: {error}"))],
        },
    }
}

async fn embedded_sandbox(config: &Config) -> Finding {
    let program = match server::sandbox_program(config) {
        Ok(program) => program,
        // Everything else works without it.
        Err(reason) => return Finding::Warn(format!("code_interpreter: off, because {reason}")),
    };
    let checked = tokio::process::Command::new(&program.path)
        .arg("check")
        .env_clear()
        .envs(program.environment)
        .output()
        .await;
    match checked {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let text = format!("code_interpreter: {}", said.trim());
            match output.status.success() {
                true => Finding::Ok(text),
                false => Finding::Fail(text),
            }
        }
        Err(error) => Finding::Fail(format!(
            "code_interpreter: {} cannot be started: {error}",
            program.path.display()
        )),
    }
}

fn remote_sandbox((address, report): (String, Result<Report, SandboxError>)) -> Finding {
    match report {
        Ok(report) => Finding::Ok(format!(
            "code_interpreter: worker {address}: tier {:?}, Python {}, {} of {} sessions",
            report.tier, report.python, report.sessions, report.sessions_max
        )),
        Err(error) => Finding::Fail(format!("code_interpreter: worker {address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_pgvector_are_compared_by_number() {
        assert!(vector_version("0.10.1") > Some(OLDEST_VECTOR));
        assert!(vector_version("0.6.2") < Some(OLDEST_VECTOR));
        assert!(vector_version("1.0") > Some(OLDEST_VECTOR));
        assert_eq!(vector_version("unknown"), None);
    }

    #[test]
    fn a_long_finding_is_indented_below_its_mark() {
        let finding = Finding::Fail("one\ntwo\n".to_owned());
        assert_eq!(finding.to_string(), "FAIL  one\n      two");
    }
}
