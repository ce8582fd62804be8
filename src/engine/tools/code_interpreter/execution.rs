//! Runs the code that a model wrote, and keeps what comes of it.

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use sandbox_protocol::{ExecStatus, Executed, Notice, TextSource};

use crate::domain::event::{RunEvent, ToolCallDelta};
use crate::domain::file::{NewFile, Purpose};
use crate::domain::ids::{FileId, StepId};
use crate::domain::run::{RunError, RunErrorCode};
use crate::domain::run_step::RunStep;
use crate::domain::tool::{CodeCall, CodeOutput, ToolCallBody};
use crate::engine::run_loop::{Driver, Halt};
use crate::engine::session::calls_of;
use crate::engine::tools::code_interpreter::workspace::{FOLDER, Item, Workspace};
use crate::files::blobs::BlobError;
use crate::files::{FileError, PendingFile};
use crate::sandbox_client::{CellEvent, SandboxError, Session};
use crate::store;

/// Largest picture that a cell may show; the worker sends none that is larger.
const IMAGE_MAX: u64 = 32 << 20;

/// What the model is told when there is no room for what its code has made.
const NO_ROOM: &str = "[There is no storage left, so not everything that the code made was kept.]";

impl From<SandboxError> for Halt {
    fn from(error: SandboxError) -> Self {
        let code = match &error {
            SandboxError::Busy => RunErrorCode::RateLimitExceeded,
            SandboxError::Unavailable(_)
            | SandboxError::Unreachable(_)
            | SandboxError::Refused(_)
            | SandboxError::Lost(_)
            | SandboxError::Input(_) => RunErrorCode::ServerError,
        };
        tracing::warn!(error.cause = %error, "a run cannot use code_interpreter: {error}");
        Self::Failed(RunError {
            code,
            message: error.message(),
        })
    }
}

impl From<FileError> for Halt {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Store(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

/// A session that a step's cells run in, one after the other.
pub(in crate::engine) struct Cells {
    session: Session,
    /// Whether the thread had a session before this one.
    restarted: bool,
    /// What its worker did to it before the next cell.
    notice: Option<Notice>,
}

impl Driver {
    /// Runs one call.
    pub(in crate::engine) async fn run_code(
        &mut self,
        step: &mut RunStep,
        index: usize,
        held: &mut Option<Cells>,
    ) -> Result<(), Halt> {
        let step_id = step.id.clone();
        let ran_before = calls_of(step)[..index]
            .iter()
            .any(|call| matches!(call.body, ToolCallBody::CodeInterpreter(_)));
        let ToolCallBody::CodeInterpreter(call) = &mut calls_of(step)[index].body else {
            return Err(Halt::internal(&"a call that is not code"));
        };
        if call.input.trim().is_empty() {
            call.outputs = Some(Vec::new());
            call.notes = vec!["Error: the call has no `code`.".to_owned()];
            return Ok(());
        }
        let mut cells = match held.take() {
            Some(cells) => cells,
            None => self.open_session(ran_before).await?,
        };
        call.restarted = std::mem::take(&mut cells.restarted);
        let began = std::time::Instant::now();
        cells.session.start(&call.input).await?;
        let mut output = Output {
            step: step_id,
            index,
            call,
            open: None,
        };
        if let Some(notice) = cells.notice.take() {
            let delta = output.write(TextSource::Stderr, explain_notice(notice));
            self.publisher.publish([delta]);
        }
        let executed = loop {
            match self.interruptible(cells.session.next()).await?? {
                CellEvent::Text { source, text } => {
                    let delta = output.write(source, &text);
                    self.publisher.publish([delta]);
                }
                CellEvent::Image { mime, bytes } => {
                    let id = FileId::generate();
                    let kind = mime.strip_prefix("image/").unwrap_or("png");
                    let name = format!("{id}.{kind}");
                    let contents = stream::once(async { Ok(bytes) });
                    if self.keep(id.clone(), name, contents, IMAGE_MAX).await? {
                        let delta = output.show(id);
                        self.publisher.publish([delta]);
                    } else {
                        output.call.notes.push(NO_ROOM.to_owned());
                    }
                }
                CellEvent::Ended(executed) => break executed,
            }
        };
        self.used.sandbox_ms += i64::try_from(executed.wall_ms).unwrap_or(0);
        if let Some(text) = explain(&executed) {
            let delta = output.write(TextSource::Traceback, &text);
            self.publisher.publish([delta]);
        }
        output.call.outputs.get_or_insert_default();
        let call = output.call;
        self.harvest(&mut cells.session, &executed, call).await?;
        metrics::histogram!("assistd_code_seconds").record(began.elapsed().as_secs_f64());
        *held = Some(cells).filter(|_| !executed.session_lost);
        Ok(())
    }

    /// The thread's session, with the files that belong there. `ran_before` says that this run has
    /// run code that is not stored yet.
    async fn open_session(&mut self, ran_before: bool) -> Result<Cells, Halt> {
        let deps = self.engine.deps.clone();
        let mut session = self.thread_session().await?;
        let mut notice = session.take_notice();
        // Files may have been deleted, or taken off the thread, since the run or its last step began.
        let workspace = Workspace::load(&deps.pool, &self.run).await?;
        let stale = workspace.stale(session.files());
        if !stale.is_empty() && !self.interruptible(session.remove(stale)).await?? {
            session = self.thread_session().await?;
            notice = notice.or(session.take_notice());
        }
        for (item, alias) in missing(&workspace, &session) {
            match deps.blobs.get(item.file.as_str(), None).await {
                Ok(contents) => {
                    let put = session.put(
                        &item.path,
                        alias,
                        item.file.as_str(),
                        contents.size,
                        contents.stream,
                    );
                    self.interruptible(put).await??;
                }
                // Deleted just now.
                Err(BlobError::Missing { .. }) => {}
                Err(error) => return Err(Halt::internal(&error)),
            }
        }
        self.workspace = Some(workspace);
        let (project, thread) = (&self.run.project, &self.run.thread);
        let restarted = session.is_fresh()
            && (ran_before || store::run_steps::has_run_code(&deps.pool, project, thread).await?);
        Ok(Cells {
            session,
            restarted,
            notice,
        })
    }

    async fn thread_session(&mut self) -> Result<Session, Halt> {
        let sandbox = self.engine.deps.sandbox.clone();
        let (thread, project) = (self.run.thread.clone(), self.run.project.clone());
        let session = sandbox.open(thread.as_str(), project.as_str());
        Ok(self.interruptible(session).await??)
    }

    /// Stores what the cell wrote into `/mnt/data`.
    async fn harvest(
        &mut self,
        session: &mut Session,
        executed: &Executed,
        call: &mut CodeCall,
    ) -> Result<(), Halt> {
        let mut written = Vec::new();
        for file in &executed.files {
            let id = FileId::generate();
            let name = file.path.rsplit('/').next().unwrap_or(&file.path);
            let opened = self.interruptible(session.get(&file.path)).await?;
            let (size, contents) = match opened {
                Ok(opened) => opened,
                // Gone or changed again since: a process of the session's still runs.
                Err(SandboxError::Refused(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let contents = contents.map_err(|error| BlobError::Body(error.to_string()));
            if !self
                .keep(id.clone(), name.to_owned(), contents, size)
                .await?
            {
                call.notes.push(NO_ROOM.to_owned());
                break;
            }
            let run = &self.run;
            let pool = &self.engine.deps.pool;
            store::workspace_files::upsert(pool, &run.project, &run.thread, &file.path, &id)
                .await?;
            if let Some(workspace) = &mut self.workspace {
                workspace.wrote(file.path.clone(), id);
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

    /// Stores a file that code made; `false` if the project may not store so much.
    async fn keep(
        &mut self,
        id: FileId,
        filename: String,
        contents: impl Stream<Item = Result<Bytes, BlobError>> + Send,
        limit: u64,
    ) -> Result<bool, Halt> {
        let deps = self.engine.deps.clone();
        let project = self.run.project.clone();
        let store = async {
            let draft = PendingFile::write(&deps.pool, &deps.blobs, &id, contents, limit).await?;
            let new = NewFile {
                filename,
                purpose: Purpose::AssistantsOutput,
                expires_after: None,
            };
            draft.keep(&project, &id, &new).await
        };
        match self.interruptible(store).await? {
            Ok(_) => Ok(true),
            Err(FileError::QuotaExceeded { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Files that belong into a session and are not there, each with its second name.
fn missing(workspace: &Workspace, session: &Session) -> Vec<(Item, Option<String>)> {
    let is_placed = |item: &&Item| {
        let mut placed = session.files().iter();
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
                    Item {
                        path,
                        ..item.clone()
                    },
                    None,
                );
            }
            (item.clone(), Some(id))
        });
    let written = workspace.written().filter(|_| session.is_fresh());
    given
        .chain(written.map(|item| (item.clone(), None)))
        .collect()
}

/// What a cell has put out so far.
struct Output<'a> {
    step: StepId,
    index: usize,
    call: &'a mut CodeCall,
    /// Where the text that ends the outputs came from.
    open: Option<TextSource>,
}

impl Output<'_> {
    /// Appends text. What comes from elsewhere begins on a line of its own.
    fn write(&mut self, source: TextSource, text: &str) -> RunEvent {
        let outputs = self.call.outputs.get_or_insert_default();
        let apart = self.open.replace(source) != Some(source);
        let logs = match outputs.last_mut() {
            Some(CodeOutput::Logs(logs)) => {
                let break_line = apart && !logs.is_empty() && !logs.ends_with('\n');
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
        self.delta(ToolCallDelta::CodeLogs { output, logs })
    }

    /// Appends a picture.
    fn show(&mut self, file: FileId) -> RunEvent {
        let outputs = self.call.outputs.get_or_insert_default();
        outputs.push(CodeOutput::Image(file.clone()));
        let output = outputs.len() - 1;
        self.open = None;
        self.delta(ToolCallDelta::CodeImage { output, file })
    }

    fn delta(&self, delta: ToolCallDelta) -> RunEvent {
        RunEvent::StepDelta {
            step: self.step.clone(),
            index: self.index,
            delta,
        }
    }
}

/// What its worker did to a session between cells, for the output of the next one.
fn explain_notice(notice: Notice) -> &'static str {
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

/// What a cell's own output does not say.
fn explain(executed: &Executed) -> Option<String> {
    let seconds = executed.wall_ms.div_ceil(1000);
    let ended = match executed.status {
        ExecStatus::Ok | ExecStatus::Error => None,
        ExecStatus::Timeout => Some(format!("The cell was stopped after {seconds} seconds.")),
        ExecStatus::Interrupted => Some("The cell was interrupted.".to_owned()),
        ExecStatus::OutOfMemory => {
            Some("The cell was stopped because it used too much memory.".to_owned())
        }
        ExecStatus::Died => Some("The Python process ended unexpectedly.".to_owned()),
        ExecStatus::EndedForCpu => Some(explain_notice(Notice::EndedForCpu).trim_end().to_owned()),
    };
    let lost = executed
        .session_lost
        .then(|| "The Python session is gone; the next cell starts a new one.".to_owned());
    let parts: Vec<String> = ended.into_iter().chain(lost).collect();
    (!parts.is_empty()).then(|| format!("{}\n", parts.join(" ")))
}
