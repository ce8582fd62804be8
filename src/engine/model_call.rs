//! Calls the model for one turn, and carries out the turn's effects.

use std::collections::VecDeque;

use futures::StreamExt;

use crate::domain::event::RunEvent;
use crate::domain::run::{RunError, RunErrorCode, RunIncompleteReason, Usage};
use crate::engine::budget;
use crate::engine::clock::Clock;
use crate::engine::finish::OpenParts;
use crate::engine::history::PictureError;
use crate::engine::progress::Progress;
use crate::engine::prompt::{self, PromptError, PromptInput};
use crate::engine::session::{Commit, Session};
use crate::engine::stop::StopReason;
use crate::engine::tools::code_interpreter::workspace::Workspace;
use crate::engine::turn::{CompletedMessage, Effect, SkippedCall, Source, Turn, TurnEnd};
use crate::models::{ChatRequest, TurnStream, UpstreamError, tokens};

/// How often a prompt is shortened further after the upstream refused it as too long.
const MAX_CUTS: usize = 6;

pub(super) struct ModelCall {
    pub(super) turn: Turn,
    /// The budget that the prompt was built with, to count its tokens if the upstream does not.
    prompt_budget: Option<u32>,
}

pub(super) struct CallContext<'a> {
    pub(super) session: &'a mut Session,
    pub(super) progress: &'a mut Progress,
    pub(super) workspace: Option<&'a Workspace>,
}

enum CallError {
    Upstream(UpstreamError),
    Stopped(StopReason),
}

impl From<StopReason> for CallError {
    fn from(reason: StopReason) -> Self {
        Self::Stopped(reason)
    }
}

impl From<UpstreamError> for CallError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl From<SkippedCall> for CallError {
    fn from(error: SkippedCall) -> Self {
        Self::Stopped(StopReason::internal(error))
    }
}

impl From<PictureError> for StopReason {
    fn from(error: PictureError) -> Self {
        match error {
            PictureError::TooLarge(_) => Self::Failed(RunError {
                code: RunErrorCode::InvalidPrompt,
                message: error.to_string(),
            }),
            PictureError::Blob(error) => Self::internal(error),
        }
    }
}

impl Source for Clock {
    fn now(&mut self) -> crate::domain::Timestamp {
        Self::now(self)
    }
}

impl ModelCall {
    pub(super) fn new(turn: Turn) -> Self {
        Self {
            turn,
            prompt_budget: None,
        }
    }

    pub(super) async fn run(
        &mut self,
        context: &mut CallContext<'_>,
    ) -> Result<TurnEnd, StopReason> {
        let mut budget = budget::prompt_tokens(context.session)?;
        for cut in 0.. {
            let error = match self.request(context, budget).await {
                Ok(end) => return Ok(end),
                Err(CallError::Stopped(reason)) => return Err(reason),
                Err(CallError::Upstream(error)) => error,
            };
            let UpstreamError::ContextLength { limit, .. } = &error else {
                return Err(error.into());
            };
            if cut >= MAX_CUTS || self.turn.has_begun() {
                return Err(error.into());
            }
            // The context window that the upstream names, less a quarter for the completion; then
            // three quarters of what it refused.
            let named = limit.filter(|_| cut == 0).map(|limit| limit - limit / 4);
            let refused = self.count_prompt(context, budget).await?;
            let shorter = named.unwrap_or(u32::MAX).min(refused / 4 * 3);
            budget = Some(shorter);
            let run = &context.session.run.id;
            tracing::info!(
                run.id = %run,
                prompt.tokens = shorter,
                "run {run}: the upstream refused a prompt of {refused} tokens as too long; retrying \
                 with {shorter}"
            );
        }
        Err(StopReason::internal("no model call was tried"))
    }

    pub(super) async fn open_parts(
        &self,
        context: &mut CallContext<'_>,
    ) -> Result<OpenParts, StopReason> {
        let tokens = match self.turn.usage() {
            Some(usage) => usage,
            None if self.turn.has_begun() => self.count_usage(context).await?,
            None => Usage::default(),
        };
        Ok(OpenParts {
            tokens,
            ..self.open_parts_without_tokens()
        })
    }

    pub(super) fn open_parts_without_tokens(&self) -> OpenParts {
        OpenParts {
            message: self.turn.open_message().cloned(),
            calls: self.turn.open_calls(),
            tokens: self.turn.usage().unwrap_or_default(),
        }
    }

    async fn request(
        &mut self,
        context: &mut CallContext<'_>,
        budget: Option<u32>,
    ) -> Result<TurnEnd, CallError> {
        let completion = budget::completion_tokens(context.session)?;
        let request = match self.prompt(context, budget, completion).await {
            Ok(request) => request,
            Err(error) => {
                let has_budget = context.session.run.config.max_prompt_tokens.is_some();
                return Err(prompt_stop_reason(error, has_budget).into());
            }
        };
        let session = &mut *context.session;
        if !context.progress.has_called_model {
            context.progress.has_called_model = true;
            let waited = session.clock.now() - session.run.created_at;
            metrics::histogram!("assistd_added_first_token_seconds")
                .record(waited.as_seconds_f64().max(0.0));
        }
        self.prompt_budget = budget;
        let upstreams = session.shared.deps.upstreams.clone();
        let response = session.until_stopped(upstreams.turn(request)).await??;
        let end = self.read(session, response).await?;
        if self.turn.usage().is_none() {
            let usage = self.count_usage(context).await?;
            self.turn.set_usage(usage);
        }
        Ok(end)
    }

    async fn read(
        &mut self,
        session: &mut Session,
        mut response: TurnStream,
    ) -> Result<TurnEnd, CallError> {
        loop {
            let Some(event) = session.until_stopped(response.next()).await? else {
                let message = "The model's answer ended before it was complete.".to_owned();
                return Err(UpstreamError::Broken { message }.into());
            };
            let mut effects = VecDeque::from(self.turn.handle(event?, &mut session.clock)?);
            while let Some(effect) = effects.pop_front() {
                match effect {
                    Effect::Publish(events) => session.publisher.publish(events),
                    Effect::CommitMessage(message) => {
                        commit_message(session, &message).await?;
                        effects.extend(self.turn.message_committed(&mut session.clock)?);
                    }
                    Effect::End(end) => return Ok(end),
                }
            }
        }
    }

    async fn prompt(
        &self,
        context: &CallContext<'_>,
        budget: Option<u32>,
        completion: Option<u32>,
    ) -> Result<ChatRequest, PromptError> {
        let deps = &context.session.shared.deps;
        let input = PromptInput {
            run: &context.session.run,
            committed_message: self.turn.committed_message(),
            workspace: context.workspace,
            turn: context.progress.turns,
            completion_tokens: completion,
            picture_bytes: deps.prompt_picture_bytes,
        };
        prompt::build(&deps.pool, &deps.blobs, input, budget).await
    }

    /// Counts the tokens that the upstream did not report: exact for known tokenizers, an estimate
    /// for others.
    async fn count_usage(&self, context: &CallContext<'_>) -> Result<Usage, StopReason> {
        let model = &context.session.run.config.model;
        tokens::ready(model).await;
        Ok(Usage {
            prompt: self.count_prompt(context, self.prompt_budget).await?,
            completion: tokens::count_text(model, &self.turn.written()),
            ..Usage::default()
        })
    }

    async fn count_prompt(
        &self,
        context: &CallContext<'_>,
        budget: Option<u32>,
    ) -> Result<u32, StopReason> {
        let model = &context.session.run.config.model;
        let request = match self.prompt(context, budget, None).await {
            Ok(request) => request,
            Err(PromptError::TooLong(budget)) => return Ok(budget),
            Err(PromptError::Store(error)) => return Err(error.into()),
            Err(PromptError::Picture(error)) => return Err(error.into()),
        };
        let request = serde_json::to_value(&request).map_err(StopReason::internal)?;
        tokens::ready(model).await;
        Ok(tokens::count_request(model, &request))
    }
}

async fn commit_message(
    session: &mut Session,
    completed: &CompletedMessage,
) -> Result<(), StopReason> {
    let CompletedMessage { step, message } = completed;
    let events = vec![
        RunEvent::MessageEnded(Box::new(message.clone())),
        RunEvent::StepEnded(Box::new(step.clone())),
    ];
    let commit = Commit {
        steps: vec![step],
        messages: vec![message],
        events,
        ..Commit::default()
    };
    session.commit(commit).await
}

/// Why a run stops without a prompt. With a budget of its own it is incomplete, otherwise it fails.
fn prompt_stop_reason(error: PromptError, has_budget: bool) -> StopReason {
    match error {
        PromptError::TooLong(_) if has_budget => {
            StopReason::Incomplete(RunIncompleteReason::MaxPromptTokens)
        }
        PromptError::TooLong(budget) => StopReason::Failed(RunError {
            code: RunErrorCode::InvalidPrompt,
            message: format!(
                "The newest message and what belongs to it do not fit the {budget} tokens that \
                 the model can take."
            ),
        }),
        PromptError::Store(error) => error.into(),
        PromptError::Picture(error) => error.into(),
    }
}
