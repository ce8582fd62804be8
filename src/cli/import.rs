//! `assistd import`: imports what this or another program has exported.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use super::database::Database;
use super::error::CliError;
use super::output;
use super::progress::Bar;
use crate::config::Config;
use crate::server;
use crate::transfer::Import;
use crate::transfer::Report;
use crate::transfer::Source;
use crate::transfer::import;

/// The exit code is 1 if an object was refused.
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
        let request = Import {
            pool: &database.pool,
            blobs: &blobs,
            project,
            dry_run,
            files,
        };
        let bar = Bar::new();
        let progress = |stage, done, total| bar.show(stage, done, total);
        let report = import(&request, source, &progress).await;
        bar.finish();
        Ok::<_, CliError>(report?)
    }
    .await;
    database.close().await;
    let report = outcome?;
    print_report(project, dry_run, &report);
    Ok(match report.refused.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn print_report(project: &str, dry_run: bool, report: &Report) {
    let Report {
        tallies,
        refused,
        remarks,
        contents,
    } = report;
    if dry_run {
        output::print(format_args!(
            "Nothing was changed. An import into project {project:?} would do this:"
        ));
    } else {
        output::print(format_args!("Imported into project {project:?}:"));
    }
    let row = |kind: &str, new: &dyn Display, existing: &dyn Display, refused: &dyn Display| {
        output::print(format_args!(
            "{kind:<24}{new:>10}{existing:>16}{refused:>10}"
        ));
    };
    row("", &"new", &"already there", &"refused");
    for (kind, tally) in tallies {
        row(kind.plural(), &tally.new, &tally.known, &tally.refused);
    }
    row("contents of files", &contents.new, &contents.present, &"");
    note_list("Refused", refused);
    note_list("Changed on import", remarks);
    let heading = "Missing file contents; add them with `assistd import --files FOLDER`";
    note_list(heading, &contents.missing);
}

fn note_list(heading: &str, lines: &[impl Display]) {
    if lines.is_empty() {
        return;
    }
    output::note(format_args!("{heading} ({}):", lines.len()));
    for line in lines {
        output::note(format_args!("  {line}"));
    }
}
