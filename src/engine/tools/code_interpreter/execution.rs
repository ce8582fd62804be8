//! Executes calls of code_interpreter, and stores their outputs and files.

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use sandbox_protocol::{ExecStatus, Executed, Notice, TextSource};

use crate::domain::event::{RunEvent, ToolCallDelta};
use crate::domain::file::{NewFile, Purpose};
use crate::domain::ids::{FileId, StepId};
use crate::domain::run_step::RunStep;
use crate::domain::tool::{CodeCall, CodeOutput, ToolCallBody};
use crate::engine::session::Session;
use crate::engine::stop::StopReason;
use crate::engine::tools::code_interpreter::workspace::{FOLDER, Workspace, WorkspaceFile};
use crate::files::blobs::BlobError;
use crate::files::{FileError, PendingFile};
use crate::sandbox_client::{CellEvent, SandboxError, Session as SandboxSession};
use crate::store;

/// Largest picture of a cell, in bytes. The sandbox worker sends none that is larger.
const IMAGE_MAX: u64 = 32 << 20;

const STORAGE_FULL: &str =
    "[There is no storage left, so not everything that the code made was kept.]";

/// A sandbox session in which the cells of a step run, one after the other.
pub(in crate::engine) struct CodeCells {
    sandbox: SandboxSession,
    is_restarted: bool,
    /// What the sandbox worker did to the session since its last cell.
    notice: Option<Notice>,
}

pub(in crate::engine) async fn run_code(
    session: &mut Session,
    workspace: &mut Option<Workspace>,
    step: &mut RunStep,
    index: usize,
    held_cells: &mut Option<CodeCells>,
) -> Result<(), StopReason> {
    let step_id = step.id.clone();
    let has_run_before = step.calls()[..index]
        .iter()
        .any(|call| matches!(call.body, ToolCallBody::CodeInterpreter(_)));
    let ToolCallBody::CodeInterpreter(call) = &mut step.calls_mut()[index].body else {
        return Err(StopReason::internal(
            "the call is not one of code_interpreter",
        ));
    };
    if call.input.trim().is_empty() {
        call.outputs = Some(Vec::new());
        call.notes = vec!["Error: the call has no `code`.".to_owned()];
        return Ok(());
    }
    let mut cells = match held_cells.take() {
        Some(cells) => cells,
        None => open_cells(session, workspace, has_run_before).await?,
    };
    call.restarted = std::mem::take(&mut cells.is_restarted);
    let started_at = std::time::Instant::now();
    cells.sandbox.start(&call.input).await?;
    let mut output = CellOutput {
        step: step_id,
        index,
        call,
        last_source: None,
    };
    if let Some(notice) = cells.notice.take() {
        let event = output.append_text(TextSource::Stderr, notice_text(notice));
        session.publisher.publish([event]);
    }
    let executed = read_outputs(session, &mut cells.sandbox, &mut output).await?;
    session.usage.count_sandbox_time(executed.wall_ms);
    if let Some(text) = status_text(&executed) {
        let event = output.append_text(TextSource::Traceback, &text);
        session.publisher.publish([event]);
    }
    output.call.outputs.get_or_insert_default();
    let call = output.call;
    store_written_files(session, workspace, &mut cells.sandbox, &executed, call).await?;
    metrics::histogram!("assistd_code_seconds").record(started_at.elapsed().as_secs_f64());
    *held_cells = Some(cells).filter(|_| !executed.session_lost);
    Ok(())
}

async fn read_outputs(
    session: &mut Session,
    sandbox: &mut SandboxSession,
    output: &mut CellOutput<'_>,
) -> Result<Executed, StopReason> {
    loop {
        match session.until_stopped(sandbox.next()).await?? {
            CellEvent::Text { source, text } => {
                let event = output.append_text(source, &text);
                session.publisher.publish([event]);
            }
            CellEvent::Image { mime, bytes } => {
                let id = FileId::generate();
                let extension = mime.strip_prefix("image/").unwrap_or("png");
                let name = format!("{id}.{extension}");
                let contents = stream::once(async { Ok(bytes) });
                if store_file(session, id.clone(), name, contents, IMAGE_MAX).await? {
                    let event = output.append_image(id);
                    session.publisher.publish([event]);
                } else {
                    output.call.notes.push(STORAGE_FULL.to_owned());
                }
            }
            CellEvent::Ended(executed) => return Ok(executed),
        }
    }
}

/// Opens the thread's sandbox session, with the files that belong there. `has_run_before` says that
/// this step has run code whose outputs may not be stored yet.
async fn open_cells(
    session: &mut Session,
    workspace: &mut Option<Workspace>,
    has_run_before: bool,
) -> Result<CodeCells, StopReason> {
    let deps = session.shared.deps.clone();
    let mut sandbox = open_sandbox_session(session).await?;
    let mut notice = sandbox.take_notice();
    // Files may have been deleted, or detached from the thread, since the last step.
    let current = Workspace::load(&deps.pool, &session.run).await?;
    let stale = current.stale(sandbox.files());
    if !stale.is_empty() && !session.until_stopped(sandbox.remove(stale)).await?? {
        sandbox = open_sandbox_session(session).await?;
        notice = notice.or(sandbox.take_notice());
    }
    for (item, alias) in missing_files(&current, &sandbox) {
        match deps.blobs.get(item.file.as_str(), None).await {
            Ok(contents) => {
                let put = sandbox.put(
                    &item.path,
                    alias,
                    item.file.as_str(),
                    contents.size,
                    contents.stream,
                );
                session.until_stopped(put).await??;
            }
            // Deleted since the workspace was loaded.
            Err(BlobError::Missing { .. }) => {}
            Err(error) => return Err(StopReason::internal(error)),
        }
    }
    *workspace = Some(current);
    let (project, thread) = (&session.run.project, &session.run.thread);
    let is_restarted = sandbox.is_fresh()
        && (has_run_before || store::run_steps::has_run_code(&deps.pool, project, thread).await?);
    Ok(CodeCells {
        sandbox,
        is_restarted,
        notice,
    })
}

async fn open_sandbox_session(session: &mut Session) -> Result<SandboxSession, StopReason> {
    let pool = session.shared.deps.sandbox.clone();
    let (thread, project) = (session.run.thread.clone(), session.run.project.clone());
    let open = pool.open(thread.as_str(), project.as_str());
    Ok(session.until_stopped(open).await??)
}

async fn store_written_files(
    session: &mut Session,
    workspace: &mut Option<Workspace>,
    sandbox: &mut SandboxSession,
    executed: &Executed,
    call: &mut CodeCall,
) -> Result<(), StopReason> {
    let mut written = Vec::new();
    for file in &executed.files {
        let id = FileId::generate();
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let (size, contents) = match session.until_stopped(sandbox.get(&file.path)).await? {
            Ok(opened) => opened,
            // Deleted or changed since, by a process of the sandbox session that is still running.
            Err(SandboxError::Refused(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let contents = contents.map_err(|error| BlobError::Body(error.to_string()));
        if !store_file(session, id.clone(), name.to_owned(), contents, size).await? {
            call.notes.push(STORAGE_FULL.to_owned());
            break;
        }
        let run = &session.run;
        let pool = &session.shared.deps.pool;
        store::workspace_files::upsert(pool, &run.project, &run.thread, &file.path, &id).await?;
        if let Some(workspace) = workspace {
            workspace.add_written(file.path.clone(), id);
        }
        written.push(format!("{FOLDER}{}", file.path));
    }
    if !written.is_empty() {
        let written = written.join(", ");
        call.notes.push(format!("[Files written: {written}]"));
    }
    if executed.files_dropped {
        let note = "[There were more or larger files than can be kept; some were not.]";
        call.notes.push(note.to_owned());
    }
    Ok(())
}

/// Stores a file that code has made. Returns `false` if that would exceed the project's quota.
async fn store_file(
    session: &mut Session,
    id: FileId,
    filename: String,
    contents: impl Stream<Item = Result<Bytes, BlobError>> + Send,
    limit: u64,
) -> Result<bool, StopReason> {
    let deps = session.shared.deps.clone();
    let project = session.run.project.clone();
    let stored = async {
        let pending = PendingFile::write(&deps.pool, &deps.blobs, &id, contents, limit).await?;
        let new = NewFile {
            filename,
            purpose: Purpose::AssistantsOutput,
            expires_after: None,
        };
        pending.keep(&project, &id, &new).await
    };
    match session.until_stopped(stored).await? {
        Ok(_) => Ok(true),
        Err(FileError::QuotaExceeded { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Files that belong into a sandbox session and are not there, each with its second name.
fn missing_files(
    workspace: &Workspace,
    sandbox: &SandboxSession,
) -> Vec<(WorkspaceFile, Option<String>)> {
    let is_placed = |item: &&WorkspaceFile| {
        let mut placed = sandbox.files().iter();
        placed.any(|file| file.tag == item.file.as_str())
    };
    let given = workspace
        .given()
        .iter()
        .filter(|item| !is_placed(item))
        .map(|item| {
            let id = item.file.to_string();
            if workspace.is_overwritten(item) {
                let path = id;
                return (
                    WorkspaceFile {
                        path,
                        ..item.clone()
                    },
                    None,
                );
            }
            (item.clone(), Some(id))
        });
    let written = workspace.written().filter(|_| sandbox.is_fresh());
    given
        .chain(written.map(|item| (item.clone(), None)))
        .collect()
}

struct CellOutput<'a> {
    step: StepId,
    index: usize,
    call: &'a mut CodeCall,
    last_source: Option<TextSource>,
}

impl CellOutput<'_> {
    /// Appends text. Text of another source begins on a new line.
    fn append_text(&mut self, source: TextSource, text: &str) -> RunEvent {
        let outputs = self.call.outputs.get_or_insert_default();
        let is_new_source = self.last_source.replace(source) != Some(source);
        let logs = match outputs.last_mut() {
            Some(CodeOutput::Logs(logs)) => {
                let break_line = is_new_source && !logs.is_empty() && !logs.ends_with('\n');
                let text = if break_line {
                    format!("\n{text}")
                } else {
                    text.to_owned()
                };
                logs.push_str(&text);
                text
            }
            _ => {
                outputs.push(CodeOutput::Logs(text.to_owned()));
                text.to_owned()
            }
        };
        let output = outputs.len() - 1;
        self.delta_event(ToolCallDelta::CodeLogs { output, logs })
    }

    fn append_image(&mut self, file: FileId) -> RunEvent {
        let outputs = self.call.outputs.get_or_insert_default();
        outputs.push(CodeOutput::Image(file.clone()));
        let output = outputs.len() - 1;
        self.last_source = None;
        self.delta_event(ToolCallDelta::CodeImage { output, file })
    }

    fn delta_event(&self, delta: ToolCallDelta) -> RunEvent {
        RunEvent::StepDelta {
            step: self.step.clone(),
            index: self.index,
            delta,
        }
    }
}

fn notice_text(notice: Notice) -> &'static str {
    match notice {
        Notice::ProcessesKilled => {
            "Processes that earlier cells had started were stopped: they used too much processor \
             time after their cell had ended.\n"
        }
        Notice::EndedForCpu => {
            "The Python session was ended: threads or processes that earlier cells had started used \
             too much processor time after their cell had ended.\n"
        }
        Notice::EndedForMemory => {
            "The Python session was ended: after the last cell it used too much memory.\n"
        }
    }
}

/// How a cell ended, if its own output does not say it.
fn status_text(executed: &Executed) -> Option<String> {
    let seconds = executed.wall_ms.div_ceil(1000);
    let ended = match executed.status {
        ExecStatus::Ok | ExecStatus::Error => None,
        ExecStatus::Timeout => Some(format!("The cell was stopped after {seconds} seconds.")),
        ExecStatus::Interrupted => Some("The cell was interrupted.".to_owned()),
        ExecStatus::OutOfMemory => {
            Some("The cell was stopped because it used too much memory.".to_owned())
        }
        ExecStatus::Died => Some("The Python process ended unexpectedly.".to_owned()),
        ExecStatus::EndedForCpu => Some(notice_text(Notice::EndedForCpu).trim_end().to_owned()),
    };
    let lost = executed
        .session_lost
        .then(|| "The Python session is gone; the next cell starts a new one.".to_owned());
    let parts: Vec<String> = ended.into_iter().chain(lost).collect();
    (!parts.is_empty()).then(|| format!("{}\n", parts.join(" ")))
}
