//! Counts of runs, and the execution of a run. Extensions of the API.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::run::RunStatus;
use crate::domain::run_overview::{RunCounts, RunExecution, StepExecution};

/// Numbers of runs by status.
#[derive(Debug, Serialize)]
pub struct RunCountsObject {
    object: &'static str,
    counts: serde_json::Map<String, serde_json::Value>,
    total: i64,
    has_more: bool,
}

impl From<&RunCounts> for RunCountsObject {
    fn from(counts: &RunCounts) -> Self {
        let count = |status: RunStatus| {
            let mut known = counts.by_status.iter();
            known.find(|known| known.0 == status).map_or(0, |it| it.1)
        };
        let all = RunStatus::ALL.map(|status| (status.as_str().to_owned(), count(status).into()));
        Self {
            object: "thread.run.counts",
            counts: all.into_iter().collect(),
            total: counts.by_status.iter().map(|it| it.1).sum(),
            has_more: counts.has_more,
        }
    }
}

/// The execution of a run. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub struct RunExecutionObject<'a> {
    run_id: &'a str,
    object: &'static str,
    thread_id: &'a str,
    status: RunStatus,
    created_at_ms: i64,
    started_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
    attempts: i32,
    recoveries: i32,
    is_leased: bool,
    due_at_ms: Option<i64>,
    queued_before: Option<i64>,
    steps: Vec<StepExecutionObject<'a>>,
}

#[derive(Debug, Serialize)]
struct StepExecutionObject<'a> {
    id: &'a str,
    created_at_ms: i64,
    ended_at_ms: Option<i64>,
    searches: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a RunExecution> for RunExecutionObject<'a> {
    fn from(execution: &'a RunExecution) -> Self {
        let milliseconds = |time: Option<Timestamp>| time.map(|time| time.timestamp_millis());
        let step = |step: &'a StepExecution| StepExecutionObject {
            id: step.id.as_str(),
            created_at_ms: step.created_at.timestamp_millis(),
            ended_at_ms: milliseconds(step.ended_at),
            searches: &step.searches,
        };
        Self {
            run_id: execution.run.as_str(),
            object: "thread.run.execution",
            thread_id: execution.thread.as_str(),
            status: execution.status,
            created_at_ms: execution.created_at.timestamp_millis(),
            started_at_ms: milliseconds(execution.started_at),
            ended_at_ms: milliseconds(execution.ended_at),
            attempts: execution.attempts,
            recoveries: execution.recoveries,
            is_leased: execution.is_leased,
            due_at_ms: milliseconds(execution.due_at),
            queued_before: execution.queued_before,
            steps: execution.steps.iter().map(step).collect(),
        }
    }
}
