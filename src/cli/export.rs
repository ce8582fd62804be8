//! `assistd export`: writes out a project.

use std::path::PathBuf;
use std::process::ExitCode;

use super::CliError;
use super::database::Database;
use super::progress::Bar;
use super::remark;
use crate::config::Config;
use crate::config::ExportFormat;
use crate::server;
use crate::transfer::Export;
use crate::transfer::Exported;
use crate::transfer::Target;
use crate::transfer::export;

/// Carries out `assistd export`, beside a server that runs or without one.
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
        let from = Export {
            pool: &database.pool,
            blobs: &blobs,
            project,
        };
        let bar = Bar::new();
        let progress = |stage, done, total| bar.show(stage, done, total);
        let exported = export(&from, &target, &progress).await;
        bar.end();
        Ok::<_, CliError>(exported?)
    }
    .await;
    database.close().await;
    // Standard output may be where the export goes.
    remark(summary(project, &outcome?));
    Ok(ExitCode::SUCCESS)
}

fn summary(project: &str, exported: &Exported) -> String {
    let mut text = format!("Exported of project {project:?}:");
    for (kind, count) in &exported.objects {
        text += &format!("\n{count:>10} {}", kind.plural());
    }
    text += &format!("\n{:>10} contents of files", exported.contents);
    let without = exported.without_contents.len();
    if without > 0 {
        text += &format!("\nThe contents of {without} files are not in it.");
    }
    text
}
