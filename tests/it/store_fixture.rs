//! A database with runs in it, for tests of the store's own functions.

use std::time::Duration;

use assistd::domain::event::{RunEvent, Seq};
use assistd::domain::ids::{AssistantId, MessageId, ProjectId, RunId, StepId};
use assistd::domain::message::{Content, Message, MessageStatus, Role};
use assistd::domain::run::{Run, RunConfig, RunState, RunStatus, Truncation};
use assistd::domain::run_step::{RunStep, StepDetails, StepStatus};
use assistd::domain::tool::{FunctionCall, ToolCall, ToolCallBody, ToolChoice};
use assistd::store;
use assistd::store::run_events::Segment;
use assistd::store::runs::{Claimant, Claimed, Lease, NewRun};

use crate::cluster::Db;
use assistd::store::Pool;

/// The id of the call.
pub const CALL: &str = "call_1";

/// A database with a project that makes runs.
pub struct Stage {
    db: Db,
    /// The project.
    pub project: ProjectId,
    assistant: AssistantId,
}

/// A worker that loses its runs after a minute.
pub fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.to_owned(),
        lease: Duration::from_secs(60),
    }
}

impl Stage {
    /// A fresh one.
    pub async fn new() -> Self {
        let db = Db::new().await;
        let project = store::projects::find_or_create(&db.pool, "it").await;
        Self {
            project: project.expect("a project can be made"),
            assistant: AssistantId::generate(),
            db,
        }
    }

    /// Its database.
    pub fn pool(&self) -> &Pool {
        &self.db.pool
    }

    /// The same with its URL, for servers.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// A new run on a new thread.
    pub async fn run(&self, claimant: Option<&Claimant>) -> (Run, Option<Lease>) {
        let pool = self.pool();
        let resources = Default::default();
        let thread =
            store::threads::insert(pool, &self.project, &Default::default(), &resources).await;
        let thread = thread.expect("a thread can be made");
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
        let new = NewRun {
            needs_message: false,
            id: RunId::generate(),
            thread: &thread.id,
            assistant: &self.assistant,
            config: config.into(),
            metadata: &Default::default(),
            expires_after: Duration::from_secs(600),
        };
        let stored = store::runs::insert(pool, &self.project, &new, claimant).await;
        stored
            .expect("a run can be made")
            .expect("the thread is there")
    }

    /// A new run in a worker's hands.
    pub async fn leased(&self, claimant: &Claimant) -> (Run, Lease) {
        let (run, lease) = self.run(Some(claimant)).await;
        (run, lease.expect("it was asked for"))
    }

    /// What this worker gets when it asks for more than there is.
    pub async fn claim(&self, claimant: &Claimant) -> Vec<Claimed> {
        let claimed = store::runs::claim(self.pool(), claimant, 100, false).await;
        claimed.expect("the queue can be read")
    }

    /// Lets the time of a run's lease, or of its wait for the caller, be over.
    pub async fn make_due(&self, run: &RunId) {
        sqlx::query("update runs set due_at = now() where id = $1")
            .bind(run)
            .execute(self.pool())
            .await
            .expect("the run is there");
    }

    /// The run's status, attempt and lease owner.
    pub async fn row(&self, run: &RunId) -> (RunStatus, i32, Option<String>) {
        sqlx::query_as("select status, attempt, lease_owner from runs where id = $1")
            .bind(run)
            .fetch_one(self.pool())
            .await
            .expect("the run is there")
    }

    /// The one number that a query yields.
    pub async fn rows(&self, count: &'static str) -> i64 {
        let rows = sqlx::query_scalar(count).fetch_one(self.pool()).await;
        rows.expect("rows can be counted")
    }
}

/// A step under way.
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

/// A finished message.
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

/// The first event of an attempt, for the log.
pub fn segment(run: &Run, lease: &Lease) -> Segment {
    let first = Seq::before_attempt(lease.attempt()).next();
    let event = RunEvent::RunCreated(Box::new(run.state.clone()));
    let segment = Segment::new(first, [&event]).expect("an event can be written out");
    segment.expect("there is an event")
}

/// A call that waits for its output.
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

/// A step's details with that call.
pub fn calls() -> StepDetails {
    StepDetails::ToolCalls {
        calls: vec![call()],
    }
}
