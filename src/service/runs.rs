//! Runs and their steps.
//!
//! A use case stores the run, dispatches it to this process's engine or notifies all engines, and
//! returns without waiting for a model.

use sqlx::PgConnection;

use crate::domain::Metadata;
use crate::domain::event::Seq;
use crate::domain::ids::{RunId, StepId, ThreadId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::{Run, RunConfig, RunStatus};
use crate::domain::run_step::RunStep;
use crate::domain::thread::Thread;
use crate::domain::tool::Tool;
use crate::events::dispatch::Slot;
use crate::events::notifications::Notification;
use crate::events::run_copy;
use crate::service::attachments::Attachments;
use crate::service::threads::{MAX_TRIES_WHEN_BUSY, needs_indexing};
use crate::service::{ProjectService, RunRefusal, ServiceError};
use crate::store;
use crate::store::lease::Lease;
use crate::store::run_queue::{Claimed, Origin};
use crate::store::runs::{Holder, NewRun, SubmitError};
use crate::wire::run_request::CreateRun;
use crate::wire::thread::NewThread;

/// A run that was just queued, in the form that its client receives.
#[derive(Debug)]
pub struct StartedRun {
    pub run: Run,
    /// The stream of the run begins after this event.
    pub after: Seq,
    pub thread: Option<Thread>,
}

/// A stored run, with a lease if a slot of this process was reserved for it.
type StoredRun = (Run, Option<Lease>);

impl ProjectService {
    pub async fn create_run(
        &self,
        thread: &ThreadId,
        request: &CreateRun,
    ) -> Result<StartedRun, ServiceError> {
        self.check_message_files(&request.additional_messages)
            .await?;
        let config = self.run_config(request).await?;
        self.admit_tokens().await?;
        let (new, slot) = self.new_run(thread, request, config);
        let (run, lease) = self.insert_when_idle(&new, request).await?;
        self.start(slot, &run, lease, Origin::Created);
        Ok(StartedRun {
            run: queued(run),
            after: Seq::START,
            thread: None,
        })
    }

    pub async fn create_thread_and_run(
        &self,
        thread: NewThread,
        request: &CreateRun,
    ) -> Result<StartedRun, ServiceError> {
        self.check_new_thread(&thread).await?;
        let config = self.run_config(request).await?;
        self.admit_tokens().await?;
        let needs_indexing = needs_indexing(&thread);
        let mut transaction = self.pool().begin().await?;
        let thread = self.insert_thread(&mut transaction, thread).await?;
        let (new, slot) = self.new_run(&thread.id, request, config);
        let max = self.limits().max_concurrent_runs;
        let (run, lease) = store::runs::insert_in_transaction(&mut transaction, &new, max).await?;
        transaction.commit().await?;
        if needs_indexing {
            self.notify_indexing();
        }
        self.start(slot, &run, lease, Origin::Created);
        Ok(StartedRun {
            run: queued(run),
            after: Seq::START,
            thread: Some(thread),
        })
    }

    async fn run_config(&self, request: &CreateRun) -> Result<RunConfig, ServiceError> {
        let assistant = self.assistant(&request.assistant).await?;
        let config = request.config(assistant.config)?;
        if config.tools.contains(&Tool::CodeInterpreter)
            && let Some(reason) = (self.shared.deps.code_interpreter_unavailable)()
        {
            return Err(RunRefusal::CodeInterpreterUnavailable(reason).into());
        }
        Ok(config)
    }

    fn new_run(
        &self,
        thread: &ThreadId,
        request: &CreateRun,
        config: RunConfig,
    ) -> (NewRun, Option<Slot>) {
        let id = RunId::generate();
        let slot = self.shared.deps.dispatcher.reserve(&id);
        let new = NewRun {
            id,
            project: self.id().clone(),
            thread: thread.clone(),
            assistant: request.assistant.clone(),
            needs_message: config.instructions.is_empty(),
            config: config.into(),
            metadata: request.metadata.clone(),
            expires_after: self.settings().run_expiry,
            claimant: slot.as_ref().map(|slot| slot.claimant().clone()),
        };
        (new, slot)
    }

    /// Stores a run; retries if the run that made the thread busy has ended in the meantime.
    async fn insert_when_idle(
        &self,
        new: &NewRun,
        request: &CreateRun,
    ) -> Result<StoredRun, ServiceError> {
        for _ in 0..MAX_TRIES_WHEN_BUSY {
            match self.insert_run(new, request).await {
                Err(error @ ServiceError::Run(RunRefusal::NothingToRun)) => {
                    self.check_thread(&new.thread).await?;
                    return Err(error);
                }
                Err(ServiceError::Run(RunRefusal::ThreadContended)) => {
                    let active =
                        store::runs::active_on(self.pool(), self.id(), &new.thread).await?;
                    if let Some(run) = active {
                        let thread = new.thread.clone();
                        let run = run.id;
                        return Err(RunRefusal::ThreadHasActiveRun { thread, run }.into());
                    }
                }
                stored => return stored,
            }
        }
        Err(RunRefusal::ThreadContended.into())
    }

    async fn insert_run(
        &self,
        new: &NewRun,
        request: &CreateRun,
    ) -> Result<StoredRun, ServiceError> {
        let messages = &request.additional_messages;
        let max = self.limits().max_concurrent_runs;
        if messages.is_empty() && max.is_none() {
            return Ok(store::runs::insert(self.pool(), new).await?);
        }
        let mut transaction = self.pool().begin().await?;
        let connection: &mut PgConnection = &mut transaction;
        if !messages.is_empty()
            && !store::threads::exists(&mut *connection, self.id(), &new.thread).await?
        {
            return Err(RunRefusal::NothingToRun.into());
        }
        // Inserted before the run, so that they are older than the messages that it writes.
        store::messages::insert_all(&mut *connection, self.id(), &new.thread, messages).await?;
        let attachments = Attachments::of(messages);
        self.add_attachments(&mut *connection, &new.thread, &attachments)
            .await?;
        let stored = store::runs::insert_in_transaction(&mut *connection, new, max).await?;
        transaction.commit().await?;
        if attachments.need_indexing() {
            self.notify_indexing();
        }
        Ok(stored)
    }

    fn start(&self, slot: Option<Slot>, run: &Run, lease: Option<Lease>, origin: Origin) {
        let deps = &self.shared.deps;
        match (slot, lease) {
            (Some(slot), Some(lease)) => {
                let publisher = deps.feed.open(&lease);
                // Nobody else can claim the run while the copy is valid.
                if slot.claimant().lease > run_copy::MAX_AGE {
                    publisher.keep_copy(run.clone(), slot.reserved_at());
                }
                let claimed = Claimed {
                    lease,
                    run: run.clone(),
                    origin,
                };
                slot.start(claimed, publisher);
            }
            (_, _) => {
                deps.dispatcher.notify_due();
                deps.notifier.notify(Notification::Due);
            }
        }
    }

    pub async fn list_runs(
        &self,
        thread: &ThreadId,
        request: &PageRequest,
    ) -> Result<Page<Run>, ServiceError> {
        let page = store::runs::list(self.pool(), self.id(), thread, request).await?;
        if page.data.is_empty() {
            self.check_thread(thread).await?;
        }
        Ok(page)
    }

    pub async fn run(&self, thread: &ThreadId, id: &RunId) -> Result<Run, ServiceError> {
        if let Some(run) = self.shared.deps.feed.copy_of(self.id(), thread, id) {
            return Ok(run);
        }
        if let Some(run) = store::runs::find(self.pool(), self.id(), thread, id).await? {
            return Ok(run);
        }
        self.check_thread(thread).await?;
        Err(ServiceError::not_found("run", id))
    }

    pub async fn update_run(
        &self,
        thread: &ThreadId,
        id: &RunId,
        metadata: Option<&Metadata>,
    ) -> Result<Run, ServiceError> {
        match store::runs::update(self.pool(), self.id(), thread, id, metadata).await? {
            Some(run) => Ok(run),
            None => {
                let run = self.run(thread, id).await?;
                Err(RunRefusal::NotUpdatable(run.state.status).into())
            }
        }
    }

    /// Signals the run's worker to cancel it. A run without a worker becomes due, and the worker that
    /// claims it cancels it.
    /// Signals the run's worker to cancel it. A run without a worker becomes due, and the worker that
    /// claims it cancels it.
    pub async fn cancel_run(&self, thread: &ThreadId, id: &RunId) -> Result<Run, ServiceError> {
        let deps = &self.shared.deps;
        deps.feed.drop_copies(thread);
        match store::runs::cancel(self.pool(), self.id(), thread, id).await? {
            Some((run, holder)) => {
                deps.dispatcher.notify_due();
                deps.notifier.notify(Notification::Cancel(id.clone()));
                self.outlive_copies(holder).await;
                Ok(run)
            }
            None => {
                let run = self.run(thread, id).await?;
                Err(RunRefusal::NotCancellable(run.state.status).into())
            }
        }
    }

    /// Waits until the process that executes a run, if it is another one, has no valid copy of it.
    pub(super) async fn outlive_copies(&self, holder: Option<Holder>) {
        let own = &self.shared.deps.dispatcher.claimant().owner;
        let Some(holder) = holder.filter(|holder| holder.owner != *own) else {
            return;
        };
        tokio::time::sleep(run_copy::MAX_AGE.saturating_sub(holder.held_for)).await;
    }

    pub async fn submit_tool_outputs(
        &self,
        thread: &ThreadId,
        id: &RunId,
        outputs: &[(String, String)],
    ) -> Result<StartedRun, ServiceError> {
        let slot = self.shared.deps.dispatcher.reserve(id);
        let claimant = slot.as_ref().map(Slot::claimant);
        let submit = || store::runs::submit(self.pool(), self.id(), thread, id, outputs, claimant);
        let submitted = loop {
            match submit().await {
                Ok(Some(submitted)) => break submitted,
                // The run has changed, so the next try finds another status.
                Ok(None) => {}
                Err(error) => return Err(self.submit_error(thread, id, outputs, error).await),
            }
        };
        let origin = Origin::Submitted {
            started_at: submitted.started_at,
        };
        self.start(slot, &submitted.run, submitted.lease, origin);
        let mut run = queued(submitted.run);
        run.state.started_at = submitted.started_at;
        Ok(StartedRun {
            run,
            after: submitted.after,
            thread: None,
        })
    }

    async fn submit_error(
        &self,
        thread: &ThreadId,
        id: &RunId,
        outputs: &[(String, String)],
        error: SubmitError,
    ) -> ServiceError {
        match error {
            SubmitError::NotFound => match self.check_thread(thread).await {
                Ok(()) => ServiceError::not_found("run", id),
                Err(error) => error,
            },
            SubmitError::WrongStatus(status) => RunRefusal::TakesNoOutputs(status).into(),
            SubmitError::WrongCalls { expected } => RunRefusal::WrongToolOutputs {
                expected,
                given: outputs.iter().map(|(id, _)| id.clone()).collect(),
            }
            .into(),
            SubmitError::Store(error) => error.into(),
        }
    }

    pub async fn list_run_steps(
        &self,
        thread: &ThreadId,
        run: &RunId,
        request: &PageRequest,
    ) -> Result<Page<RunStep>, ServiceError> {
        let page = store::run_steps::list(self.pool(), self.id(), thread, run, request).await?;
        if page.data.is_empty() {
            self.run(thread, run).await?;
        }
        Ok(page)
    }

    pub async fn run_step(
        &self,
        thread: &ThreadId,
        run: &RunId,
        id: &StepId,
    ) -> Result<RunStep, ServiceError> {
        if let Some(step) = store::run_steps::find(self.pool(), self.id(), thread, run, id).await? {
            return Ok(step);
        }
        self.run(thread, run).await?;
        Err(ServiceError::not_found("run step", id))
    }
}

/// The hosted API responds with a queued run, even if a worker has already started it.
fn queued(mut run: Run) -> Run {
    run.state.status = RunStatus::Queued;
    run.state.started_at = None;
    run
}
