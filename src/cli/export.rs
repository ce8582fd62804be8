//! `assistd export`: exports a project.

use std::path::PathBuf;
use std::process::ExitCode;

use super::database::Database;
use super::error::CliError;
use super::output;
use super::progress::Bar;
use crate::config::Config;
use crate::config::ExportFormat;
use crate::server;
use crate::transfer::Export;
use crate::transfer::Exported;
use crate::transfer::Target;
use crate::transfer::export;

pub(super) async fn run(
    config: &Config,
    project: &str,
    format: ExportFormat,
    target: PathBuf,
) -> Result<ExitCode, CliError> {
    let is_file = target.extension().is_some_and(|it| it == "jsonl");
    let target = match format {
        ExportFormat::Manifest => Target::Manifest(target),
        ExportFormat::Objects if target.as_os_str() == "-" => Target::Stdout,
        ExportFormat::Objects if is_file => Target::File(target),
        ExportFormat::Objects => Target::Folder(target),
    };
    let blobs = server::blobs(&config.files)?;
    let database = Database::open_beside_server(config).await?;
    let outcome = async {
        database.migrate().await?;
        let request = Export {
            pool: &database.pool,
            blobs: &blobs,
            project,
        };
        let bar = Bar::new();
        let progress = |stage, done, total| bar.show(stage, done, total);
        let exported = export(&request, &target, &progress).await;
        bar.finish();
        Ok::<_, CliError>(exported?)
    }
    .await;
    database.close().await;
    // On standard error: the export itself may go to standard output.
    output::note(summary(project, &outcome?));
    Ok(ExitCode::SUCCESS)
}

fn summary(project: &str, exported: &Exported) -> String {
    let mut text = format!("Exported from project {project:?}:");
    for (kind, count) in &exported.objects {
        text += &format!("\n{count:>10} {}", kind.plural());
    }
    text += &format!("\n{:>10} contents of files", exported.contents);
    let missing = exported.without_contents.len();
    if missing > 0 {
        text += &format!("\nThe contents of {missing} files are missing.");
    }
    text
}
