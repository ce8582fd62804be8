//! `assistd import`: takes in what was exported here or elsewhere.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use super::CliError;
use super::answer;
use super::database::Database;
use super::progress::Bar;
use super::remark;
use crate::config::Config;
use crate::server;
use crate::transfer::Import;
use crate::transfer::Report;
use crate::transfer::Source;
use crate::transfer::import;

/// Carries out `assistd import`, beside a server that runs or without one. It fails if anything
/// was refused.
pub(super) async fn run(
    config: &Config,
    project: &str,
    dry_run: bool,
    files: Option<&Path>,
    source: Option<&Path>,
) -> Result<ExitCode, CliError> {
    let source = source.map(Source::open).transpose()?;
    let blobs = server::blobs(&config.files)?;
    let database = Database::open_beside_server(config).await?;
    let outcome = async {
        database.migrate().await?;
        let into = Import {
            pool: &database.pool,
            blobs: &blobs,
            project,
            dry_run,
            files,
        };
        let bar = Bar::new();
        let progress = |stage, done, total| bar.show(stage, done, total);
        let report = import(&into, source, &progress).await;
        bar.end();
        Ok::<_, CliError>(report?)
    }
    .await;
    database.close().await;
    let report = outcome?;
    tell(project, dry_run, &report);
    Ok(match report.refused.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn tell(project: &str, dry_run: bool, report: &Report) {
    let Report {
        tallies,
        refused,
        remarks,
        contents,
    } = report;
    if dry_run {
        answer(format_args!(
            "Nothing was changed. This is what an import into project {project:?} would do:"
        ));
    } else {
        answer(format_args!("Imported into project {project:?}:"));
    }
    let row = |what: &str, new: &dyn Display, known: &dyn Display, refused: &dyn Display| {
        answer(format_args!("{what:<24}{new:>10}{known:>16}{refused:>10}"));
    };
    row("", &"new", &"there already", &"refused");
    for (kind, tally) in tallies {
        row(kind.plural(), &tally.new, &tally.known, &tally.refused);
    }
    row("contents of files", &contents.new, &contents.there, &"");
    list("Refused", refused);
    list("Not as it was", remarks);
    let missing = "Contents that are missing. Attach them with `assistd import --files FOLDER`";
    list(missing, &contents.missing);
}

fn list(heading: &str, lines: &[impl Display]) {
    if lines.is_empty() {
        return;
    }
    remark(format_args!("{heading} ({}):", lines.len()));
    for line in lines {
        remark(format_args!("  {line}"));
    }
}
