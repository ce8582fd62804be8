//! `assistd doctor`: checks everything that the server needs, and says what to do about what is
//! missing.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use sandbox_protocol::Report;

use super::database::Database;
use super::database::OLDEST_VERSION;
use super::disk;
use super::error::CliError;
use super::output;
use crate::config;
use crate::config::Config;
use crate::sandbox_client::SandboxError;
use crate::server;
use crate::store;
use crate::store::Pool;

/// The oldest supported pgvector: the first with `halfvec`.
const OLDEST_PGVECTOR: (u32, u32) = (0, 7);

/// `Warn` if something optional is missing, `Fail` if the server cannot work.
enum Finding {
    Ok(String),
    Warn(String),
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

/// Prints the result of every check. The exit code is 1 if one failed.
pub(super) async fn run(config: &Config) -> Result<ExitCode, CliError> {
    let mut failed = false;
    let mut report = |finding: Finding| {
        failed |= matches!(finding, Finding::Fail(_));
        output::print(finding);
    };

    for folder in disk::folders(config) {
        report(disk_space(&folder));
    }
    report(match server::check_open_files(&config.http) {
        Ok(allowed) => Finding::Ok(format!("open files: {allowed} allowed")),
        Err(error) => Finding::Fail(format!("open files: {error}")),
    });
    match Database::open_beside_server(config).await {
        Ok(database) => {
            report(Finding::Ok(format!("database: {}", database.location)));
            report(postgres_version(&database.pool).await);
            report(pgvector_version(&database.pool).await);
            report(api_keys(config, &database.pool).await);
            database.close().await;
        }
        Err(error) => report(Finding::Fail(format!("database: {error}"))),
    }
    report(blobs(config).await);
    match server::certificate(&config.http) {
        Ok(None) => {}
        Ok(Some(_)) => report(Finding::Ok("HTTPS: certificate and key match".to_owned())),
        Err(error) => report(Finding::Fail(format!("HTTPS: {error}"))),
    }
    for finding in upstreams(config).await {
        report(finding);
    }
    for finding in sandbox(config).await {
        report(finding);
    }
    report(pdf(config).await);
    report(embeddings(config).await);
    Ok(ExitCode::from(u8::from(failed)))
}

fn disk_space(path: &Path) -> Finding {
    let folder = path.display();
    let free = match disk::free(path) {
        Ok(Some(free)) => free,
        Ok(None) => return Finding::Ok(format!("disk: no limit for {folder}")),
        Err(error) => return Finding::Fail(format!("disk: {folder}: {error}")),
    };
    let text = format!("disk: {:.1} GB free for {folder}", free as f64 / 1e9);
    if free < disk::CRITICAL {
        Finding::Fail(format!("{text}; free some space, or move the folder"))
    } else if free < disk::LOW {
        Finding::Warn(format!("{text}, which is low"))
    } else {
        Finding::Ok(text)
    }
}

async fn postgres_version(pool: &Pool) -> Finding {
    let row: Result<(i32, String), _> = sqlx::query_as(
        "select current_setting('server_version_num')::integer, current_setting('server_version')",
    )
    .fetch_one(pool)
    .await;
    match row {
        Ok((number, text)) if number >= OLDEST_VERSION => {
            Finding::Ok(format!("PostgreSQL: {text}"))
        }
        Ok((_, text)) => Finding::Fail(format!(
            "PostgreSQL: {text} is too old; upgrade it to 16 or later"
        )),
        Err(error) => Finding::Fail(format!("PostgreSQL: {error}")),
    }
}

async fn pgvector_version(pool: &Pool) -> Finding {
    let version: Result<Option<String>, _> = sqlx::query_scalar(
        "select coalesce(installed_version, default_version)
         from pg_available_extensions where name = 'vector'",
    )
    .fetch_optional(pool)
    .await;
    match version {
        Ok(Some(version)) if parse_pgvector_version(&version) >= Some(OLDEST_PGVECTOR) => {
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

/// Extracts the text of a small PDF.
async fn pdf(config: &Config) -> Finding {
    let reader = match server::document_reader(&config.retrieval) {
        Ok(reader) => reader,
        Err(error) => return Finding::Fail(format!("PDF: {error}")),
    };
    let Some(library) = &reader.pdfium else {
        return Finding::Warn(
            "PDF: PDFium is not installed, so PDF files are refused; run `make setup`, or name its \
             library in ASSISTD_PDFIUM"
                .to_owned(),
        );
    };
    match reader.check_pdf().await {
        Ok(()) => Finding::Ok(format!("PDF: PDFium, {}", library.display())),
        Err(error) => Finding::Fail(format!("PDF: {error}")),
    }
}

/// Embeds a text, to check the embedding model and show its dimensions.
async fn embeddings(config: &Config) -> Finding {
    let result = async {
        let upstreams = server::upstreams(&config.models).map_err(to_text)?;
        let embeddings = server::embeddings(&config.retrieval, upstreams).map_err(to_text)?;
        let Some(model) = embeddings.default_model() else {
            return Ok(None);
        };
        let vectors = embeddings.embed_queries(model, &["a question"]).await;
        let dimensions = vectors.map_err(to_text)?.first().map_or(0, Vec::len);
        Ok::<_, String>(Some((model.to_owned(), dimensions)))
    };
    match result.await {
        Ok(Some((model, dimensions))) => {
            Finding::Ok(format!("embeddings: {model}, {dimensions} dimensions"))
        }
        Ok(None) => Finding::Warn(
            "embeddings: there is no model, so vector stores are searched lexically only; run `make setup`, or \
             name a model in ASSISTD_EMBEDDING_MODEL"
                .to_owned(),
        ),
        Err(error) => Finding::Fail(format!("embeddings: {error}")),
    }
}

fn to_text(error: impl fmt::Display) -> String {
    error.to_string()
}

fn parse_pgvector_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

async fn api_keys(config: &Config, pool: &Pool) -> Finding {
    // An error means that the tables do not exist yet: no server has run on this database.
    let keys_exist = match store::api_keys::any_exist(pool).await {
        Ok(keys_exist) => keys_exist || !config.http.api_keys.is_empty(),
        Err(_) => !config.http.api_keys.is_empty(),
    };
    let address = config.http.listen;
    if keys_exist {
        Finding::Ok("API keys: required".to_owned())
    } else if address.ip().is_loopback() {
        Finding::Ok(format!(
            "API keys: none; any key is accepted on {address}, which only this machine can reach"
        ))
    } else {
        Finding::Fail(format!(
            "API keys: none, so the server refuses to serve on {address}; create one with `assistd keys \
             create --project NAME`"
        ))
    }
}

async fn blobs(config: &Config) -> Finding {
    let location = config.files.blob_location();
    let probe = async { server::blobs(&config.files)?.probe().await };
    match probe.await {
        Ok(()) => Finding::Ok(format!("files: {location} can be written and read")),
        Err(error) => Finding::Fail(format!(
            "files: {location}: {error}; check ASSISTD_BLOBS and, for a bucket, the AWS_… variables"
        )),
    }
}

async fn upstreams(config: &Config) -> Vec<Finding> {
    let upstreams = match server::upstreams(&config.models) {
        Ok(upstreams) => upstreams,
        Err(error) => return vec![Finding::Fail(format!("models: {error}"))],
    };
    let mut findings = vec![Finding::Ok(format!("models: {}", upstreams.describe()))];
    let started = Instant::now();
    for result in upstreams.probe().await {
        let name = format!("upstream {} ({})", result.upstream, result.address);
        findings.push(match result.outcome {
            Ok(answer) => Finding::Ok(format!(
                "{name}: {answer}, {} ms",
                started.elapsed().as_millis()
            )),
            Err(error) => Finding::Fail(format!(
                "{name}: {error} Check its base URL and key, and whether it runs."
            )),
        });
    }
    findings
}

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
        // A warning, as everything else works without it.
        Err(reason) => return Finding::Warn(format!("code_interpreter: off, because {reason}")),
    };
    let output = tokio::process::Command::new(&program.path)
        .arg("check")
        .env_clear()
        .envs(program.environment)
        .output()
        .await;
    match output {
        Ok(output) => {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let text = format!("code_interpreter: {}", stdout.trim());
            match output.status.success() {
                true => Finding::Ok(text),
                false => Finding::Fail(text),
            }
        }
        Err(error) => Finding::Fail(format!(
            "code_interpreter: could not start {}: {error}",
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
        assert!(parse_pgvector_version("0.10.1") > Some(OLDEST_PGVECTOR));
        assert!(parse_pgvector_version("0.6.2") < Some(OLDEST_PGVECTOR));
        assert!(parse_pgvector_version("1.0") > Some(OLDEST_PGVECTOR));
        assert_eq!(parse_pgvector_version("unknown"), None);
    }

    #[test]
    fn a_long_finding_is_indented_below_its_mark() {
        let finding = Finding::Fail("one\ntwo\n".to_owned());
        assert_eq!(finding.to_string(), "FAIL  one\n      two");
    }
}
