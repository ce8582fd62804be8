//! How far a run has come, as its next turn needs it.

use crate::domain::ids::{FileId, MessageId};
use crate::domain::run::Usage;
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::ToolCall;
use crate::engine::session::Session;
use crate::engine::stop::StopReason;
use crate::engine::usage_meter::UsageMeter;
use crate::store;

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Completed turns; each but the last of a run has called tools.
    pub(super) turns: usize,
    /// The message that the current turn committed before its calls. After a recovery, the turn is
    /// repeated without writing it again.
    pub(super) committed_message: Option<MessageId>,
    /// Pictures that code has shown since the last message, to be put into the next one.
    pub(super) images: Vec<FileId>,
    /// The stored step whose built-in tools an earlier attempt did not finish.
    pub(super) unfinished_step: Option<RunStep>,
    /// Whether any model was called for the run. Then the time to its first token says nothing
    /// about this server.
    pub(super) has_called_model: bool,
}

/// Loads the progress of earlier attempts, and their usage into the session.
pub(super) async fn load_progress(session: &mut Session) -> Result<Progress, StopReason> {
    let pool = &session.shared.deps.pool;
    let mut progress = Progress {
        has_called_model: true,
        ..Progress::default()
    };
    let mut tokens = Usage::default();
    for step in store::run_steps::list_all(pool, &session.run.id).await? {
        tokens += step.usage.unwrap_or_default();
        progress.committed_message = match &step.details {
            StepDetails::MessageCreation { message } => {
                progress.images.clear();
                Some(message.clone())
            }
            StepDetails::ToolCalls { calls } => {
                progress.turns += 1;
                let images = calls.iter().flat_map(ToolCall::images);
                progress.images.extend(images.cloned());
                None
            }
        };
        progress.unfinished_step = Some(step).filter(RunStep::awaits_built_in_tools);
    }
    session.usage = UsageMeter::new(tokens);
    Ok(progress)
}
