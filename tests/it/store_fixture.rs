//! A database with a project that creates runs, for tests of the store's functions.

use std::time::Duration;

use assistd::domain::event::{RunEvent, Seq};
use assistd::domain::ids::{AssistantId, MessageId, ProjectId, RunId, StepId};
use assistd::domain::message::{Content, Message, MessageStatus, Role};
use assistd::domain::run::{Run, RunConfig, RunState, RunStatus, Truncation};
use assistd::domain::run_step::{RunStep, StepDetails, StepStatus};
use assistd::domain::tool::{FunctionCall, ToolCall, ToolCallBody, ToolChoice};
use assistd::store::lease::{Claimant, Lease};
use assistd::store::run_events::Segment;
use assistd::store::run_queue::Claimed;
use assistd::store::runs::NewRun;
use assistd::store::threads::NewThreadRow;
use assistd::store::{self, Pool};

use crate::cluster::Db;

/// The id of the tool call that [`call`] makes.
pub const CALL: &str = "call_1";

pub struct StoreFixture {
    db: Db,
    pub project: ProjectId,
    assistant: AssistantId,
}

/// A worker with a lease of one minute.
pub fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.to_owned(),
        lease: Duration::from_secs(60),
    }
}

impl StoreFixture {
    pub async fn new() -> Self {
        let db = Db::new().await;
        let project = store::projects::find_or_create(&db.pool, "it").await;
        Self {
            project: project.expect("the database answers"),
            assistant: AssistantId::generate(),
            db,
        }
    }

    pub fn pool(&self) -> &Pool {
        &self.db.pool
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Creates a run on a new thread, at once leased to the claimant if there is one.
    pub async fn create_run(&self, claimant: Option<&Claimant>) -> (Run, Option<Lease>) {
        let new = self.new_run(claimant).await;
        let stored = store::runs::insert(self.pool(), &new).await;
        stored.expect("the thread exists and is idle")
    }

    /// A run to create on a new thread.
    pub async fn new_run(&self, claimant: Option<&Claimant>) -> NewRun {
        let pool = self.pool();
        let row = NewThreadRow {
            project: self.project.clone(),
            metadata: Default::default(),
            tool_resources: Default::default(),
        };
        let thread = store::threads::insert(pool, row).await;
        let thread = thread.expect("the project exists");
        let config = RunConfig {
            model: "scripted/hello".into(),
            instructions: String::new(),
            tools: Vec::new(),
            temperature: None,
            top_p: None,
            reasoning_effort: None,
            response_format: "auto".into(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            max_prompt_tokens: None,
            max_completion_tokens: None,
            truncation: Truncation::Auto,
        };
        NewRun {
            needs_message: false,
            id: RunId::generate(),
            project: self.project.clone(),
            thread: thread.id,
            assistant: self.assistant.clone(),
            config: config.into(),
            metadata: Default::default(),
            expires_after: Duration::from_secs(600),
            claimant: claimant.cloned(),
        }
    }

    pub async fn create_leased_run(&self, claimant: &Claimant) -> (Run, Lease) {
        let (run, lease) = self.create_run(Some(claimant)).await;
        (run, lease.expect("a run created with a claimant is leased"))
    }

    /// Claims every due run for this worker.
    pub async fn claim(&self, claimant: &Claimant) -> Vec<Claimed> {
        let claimed = store::run_queue::claim(self.pool(), claimant, 100, false).await;
        claimed.expect("the database answers")
    }

    /// Ends a run's lease, or its wait for the caller.
    pub async fn make_due(&self, run: &RunId) {
        sqlx::query("update runs set due_at = now() where id = $1")
            .bind(run)
            .execute(self.pool())
            .await
            .expect("the run exists");
    }

    /// The run's status, attempt and lease owner.
    pub async fn run_row(&self, run: &RunId) -> (RunStatus, i32, Option<String>) {
        sqlx::query_as("select status, attempt, lease_owner from runs where id = $1")
            .bind(run)
            .fetch_one(self.pool())
            .await
            .expect("the run exists")
    }

    /// The number that a query yields.
    pub async fn count(&self, query: &'static str) -> i64 {
        let count = sqlx::query_scalar(query).fetch_one(self.pool()).await;
        count.expect("the database answers")
    }
}

/// A step in progress.
pub fn step(run: &Run, details: StepDetails) -> RunStep {
    RunStep {
        id: StepId::generate(),
        run: run.id.clone(),
        thread: run.thread.clone(),
        assistant: run.assistant.clone(),
        created_at: run.created_at,
        status: StepStatus::InProgress,
        expires_at: run.state.expires_at,
        ended_at: None,
        last_error: None,
        details,
        usage: None,
    }
}

/// A completed message.
pub fn message(run: &Run) -> Message {
    Message {
        id: MessageId::generate(),
        thread: run.thread.clone(),
        created_at: run.created_at,
        status: MessageStatus::Completed,
        incomplete_reason: None,
        ended_at: Some(run.created_at),
        role: Role::Assistant,
        content: vec![Content::text("Hello!")],
        attachments: Vec::new(),
        assistant: Some(run.assistant.clone()),
        run: Some(run.id.clone()),
        metadata: Default::default(),
    }
}

/// The run's state with another status.
pub fn state(run: &Run, status: RunStatus) -> RunState {
    RunState {
        status,
        ended_at: status.is_terminal().then_some(run.created_at),
        ..run.state.clone()
    }
}

/// An event log segment with the first event of an attempt.
pub fn segment(run: &Run, lease: &Lease) -> Segment {
    let first = Seq::before_attempt(lease.attempt()).next();
    let event = RunEvent::RunCreated(Box::new(run.state.clone()));
    let segment = Segment::new(first, [&event]).expect("events serialize");
    segment.expect("the segment has an event")
}

/// A function call without an output.
pub fn call() -> ToolCall {
    let body = ToolCallBody::Function(FunctionCall {
        name: "get_weather".into(),
        arguments: "{}".into(),
        output: None,
    });
    ToolCall {
        id: CALL.into(),
        body,
    }
}

/// Step details with one [`call`].
pub fn calls() -> StepDetails {
    StepDetails::ToolCalls {
        calls: vec![call()],
    }
}
