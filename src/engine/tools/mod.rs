//! The tools that models call: code_interpreter and file_search run here, functions are the
//! caller's.

pub(super) mod code_interpreter;
pub(super) mod file_search;

use crate::domain::event::RunEvent;
use crate::domain::run::{RunConfig, RunOutcome, RunState, RunStatus, Usage};
use crate::domain::run_step::{RunStep, StepStatus};
use crate::domain::tool::{Tool, ToolCall, ToolCallBody};
use crate::engine::annotate::Annotator;
use crate::engine::close::end_step;
use crate::engine::session::{Commit, Session};
use crate::engine::stop::StopReason;
use crate::engine::tools::code_interpreter::execution::{CodeCells, run_code};
use crate::engine::tools::code_interpreter::workspace::Workspace;
use crate::engine::tools::file_search::definition::SearchSettings;
use crate::engine::tools::file_search::execution::SearchContext;

#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) workspace: Option<Workspace>,
    search: Option<SearchContext>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterCalls {
    NextTurn,
    RequiresAction,
}

impl Tools {
    pub(super) async fn load(session: &mut Session, is_start: bool) -> Result<Self, StopReason> {
        let mut tools = Self::default();
        let config = session.run.config.clone();
        if code_interpreter::definition::is_offered(&config) {
            let pool = &session.shared.deps.pool;
            tools.workspace = Some(Workspace::load(pool, &session.run).await?);
        }
        if SearchSettings::of(&config).is_some() {
            tools.search = Some(SearchContext::load(session, is_start).await?);
        }
        Ok(tools)
    }

    pub(super) fn annotator(&self) -> Annotator {
        let links = self.workspace.as_ref().map(Workspace::links);
        let passages = self.search.as_ref().map(SearchContext::passages);
        Annotator::new(links.unwrap_or_default(), passages)
    }

    pub(super) fn next_search(&self) -> usize {
        self.search
            .as_ref()
            .map_or(0, SearchContext::next_search_index)
    }

    /// Runs the built-in tools of a stored step, for each call that has no output yet. Outputs are
    /// committed call by call, except for those of the last call: they are committed with the end
    /// of the step.
    pub(super) async fn run_calls(
        &mut self,
        session: &mut Session,
        step: &mut RunStep,
    ) -> Result<(), StopReason> {
        let mut cells: Option<CodeCells> = None;
        let last = step.calls().iter().rposition(ToolCall::is_built_in);
        for index in 0..step.calls().len() {
            let call = &step.calls()[index];
            if !call.is_built_in() || call.is_answered() {
                continue;
            }
            // Boxed: most runs use neither tool, and the task of every run would be twice as large.
            match &call.body {
                ToolCallBody::CodeInterpreter(_) => {
                    let workspace = &mut self.workspace;
                    Box::pin(run_code(session, workspace, step, index, &mut cells)).await?;
                    session.usage.count_code_call();
                }
                ToolCallBody::FileSearch(_) => {
                    let search = self.search.get_or_insert_default();
                    Box::pin(search.run(session, step, index)).await?;
                    session.usage.count_search();
                }
                ToolCallBody::Function(_) => {}
            }
            if Some(index) != last {
                let commit = Commit {
                    steps: vec![step],
                    ..Commit::default()
                };
                session.commit(commit).await?;
            }
        }
        Ok(())
    }
}

/// Answers calls of functions that the run does not offer, and counts the calls of functions.
pub(super) fn answer_unknown_functions(session: &mut Session, step: &mut RunStep) {
    let config = session.run.config.clone();
    for call in step.calls_mut() {
        let ToolCallBody::Function(function) = &mut call.body else {
            continue;
        };
        session.usage.count_function_call();
        if !offers_function(&config, &function.name) {
            let name = &function.name;
            function.output = Some(format!("Error: there is no function named {name}."));
        }
    }
}

fn offers_function(config: &RunConfig, name: &str) -> bool {
    let is_named =
        |tool: &Tool| matches!(tool, Tool::Function { function } if function.name == name);
    config.tools.iter().any(is_named)
}

/// Ends a step of calls whose built-in tools have run, or leaves it open for the caller to submit
/// the missing outputs. `tokens` are those of the step that are not charged yet.
pub(super) async fn finish_step(
    session: &mut Session,
    mut step: RunStep,
    tokens: Usage,
) -> Result<AfterCalls, StopReason> {
    let required_calls: Vec<ToolCall> = step
        .calls()
        .iter()
        .filter(|call| !call.is_answered())
        .cloned()
        .collect();
    if required_calls.is_empty() {
        let usage = step.usage.unwrap_or_default();
        end_step(&mut step, session.clock.now(), StepStatus::Completed, usage);
        let commit = Commit {
            steps: vec![&step],
            events: vec![RunEvent::StepEnded(Box::new(step.clone()))],
            tokens,
            ..Commit::default()
        };
        session.commit(commit).await?;
        return Ok(AfterCalls::NextTurn);
    }
    let state = RunState {
        status: RunStatus::RequiresAction,
        outcome: RunOutcome {
            required_calls,
            ..RunOutcome::default()
        },
        ..session.run.state.clone()
    };
    let commit = Commit {
        steps: vec![&step],
        events: vec![RunEvent::RunChanged(Box::new(state.clone()))],
        state: Some(state),
        tokens,
        ..Commit::default()
    };
    session.commit(commit).await?;
    Ok(AfterCalls::RequiresAction)
}
