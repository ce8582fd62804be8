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
    pub(super) turns: usize,
    /// The message that the current turn committed before its calls. After a recovery, the turn is
    /// repeated without writing it again.
    pub(super) committed_message: Option<MessageId>,
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
    let steps = store::run_steps::list_all(pool, &session.run.id).await?;
    let mut tokens = Usage::default();
    for step in &steps {
        tokens += step.usage.unwrap_or_default();
    }
    session.usage = UsageMeter::new(tokens);
    Ok(Progress::after(steps))
}

impl Progress {
    fn after(steps: Vec<RunStep>) -> Self {
        let mut progress = Self {
            has_called_model: true,
            ..Self::default()
        };
        for step in steps {
            let is_unfinished = step.awaits_built_in_tools();
            progress.committed_message = match &step.details {
                StepDetails::MessageCreation { message } => {
                    progress.images.clear();
                    Some(message.clone())
                }
                StepDetails::ToolCalls { calls } => {
                    progress.turns += 1;
                    // The pictures of an unfinished step are added when its tools have run.
                    if !is_unfinished {
                        let images = calls.iter().flat_map(ToolCall::images);
                        progress.images.extend(images.cloned());
                    }
                    None
                }
            };
            progress.unfinished_step = is_unfinished.then_some(step);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::ids::{AssistantId, RunId, StepId, ThreadId};
    use crate::domain::run_step::StepStatus;
    use crate::domain::tool::{CodeCall, CodeOutput, ToolCallBody};

    fn step_with_picture(picture: &FileId, status: StepStatus) -> RunStep {
        let call = CodeCall {
            outputs: Some(vec![CodeOutput::Image(picture.clone())]),
            ..CodeCall::default()
        };
        let calls = vec![ToolCall {
            id: "call_1".to_owned(),
            body: ToolCallBody::CodeInterpreter(call),
        }];
        RunStep {
            id: StepId::generate(),
            run: RunId::generate(),
            thread: ThreadId::generate(),
            assistant: AssistantId::generate(),
            created_at: Timestamp::default(),
            status,
            expires_at: Timestamp::default(),
            ended_at: None,
            last_error: None,
            details: StepDetails::ToolCalls { calls },
            usage: None,
        }
    }

    #[test]
    fn a_picture_of_an_unfinished_step_is_left_to_the_end_of_that_step() {
        let (first, second) = (FileId::generate(), FileId::generate());
        let progress = Progress::after(vec![
            step_with_picture(&first, StepStatus::Completed),
            step_with_picture(&second, StepStatus::InProgress),
        ]);
        assert_eq!(progress.images, [first]);
        let unfinished = progress.unfinished_step.expect("the second step");
        let pictures: Vec<_> = unfinished
            .calls()
            .iter()
            .flat_map(ToolCall::images)
            .collect();
        assert_eq!(pictures, [&second]);
        assert_eq!(progress.turns, 2);
    }
}
