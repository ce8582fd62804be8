//! The order of objects within a thread.
//!
//! The API shows dates to the second, and a whole run may fit into one. Objects of the same second
//! get distinct microseconds in the order in which they must have been created, so that lists and
//! prompts can be sorted by date, as for runs of this server.

use std::collections::HashMap;

use chrono::{TimeDelta, Timelike as _};

use crate::domain::Timestamp;
use crate::domain::ids::{MessageId, RunId};
use crate::domain::message::{IncompleteReason, Message, MessageStatus};
use crate::domain::run::{Run, RunStatus};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::ToolCallBody;

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) runs: Vec<Run>,
    pub(super) steps: Vec<RunStep>,
    pub(super) messages: Vec<Message>,
}

impl Contents {
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let runs = self.runs.iter().map(|run| run.created_at);
        let steps = self.steps.iter().map(|step| step.created_at);
        let messages = self.messages.iter().map(|message| message.created_at);
        runs.chain(steps).chain(messages).min()
    }

    /// Orders everything, and ends what was in progress when its run ended.
    pub(super) fn arrange(&mut self) {
        let Self {
            runs,
            steps,
            messages,
        } = self;
        oldest_first(runs, |run| run.created_at);
        oldest_first(messages, |message| message.created_at);
        // Each run on its own, because the API lists steps by run.
        let mut by_run: HashMap<RunId, Vec<RunStep>> = HashMap::new();
        let mut order = Vec::new();
        for step in steps.drain(..) {
            let run = by_run.entry(step.run.clone()).or_default();
            if run.is_empty() {
                order.push(step.run.clone());
            }
            run.push(step);
        }
        for run in order {
            let mut of_run = by_run.remove(&run).unwrap_or_default();
            oldest_first(&mut of_run, |step| step.created_at);
            steps.append(&mut of_run);
        }
        steps.sort_by_key(|step| step.created_at);
        end_with_runs(runs, steps, messages);
        spread(steps, messages);
        number_searches(steps);
    }
}

/// Sorts by date, and keeps the order of equal dates; reverses it first if the newest comes first,
/// as in the API's lists.
fn oldest_first<T>(items: &mut [T], created_at: impl Fn(&T) -> Timestamp) {
    if let (Some(first), Some(last)) = (items.first(), items.last())
        && created_at(first) > created_at(last)
    {
        items.reverse();
    }
    items.sort_by_key(created_at);
}

fn end_with_runs(runs: &[Run], steps: &mut [RunStep], messages: &mut [Message]) {
    let runs: HashMap<&RunId, &Run> = runs.iter().map(|run| (&run.id, run)).collect();
    for step in steps {
        let cancelled = runs
            .get(&step.run)
            .is_some_and(|run| run.state.status == RunStatus::Cancelled);
        if step.status == StepStatus::Expired && cancelled {
            step.status = StepStatus::Cancelled;
        }
    }
    for message in messages {
        if message.status != MessageStatus::InProgress {
            continue;
        }
        let run = message.run.as_ref().and_then(|run| runs.get(run));
        let reason = match run.map(|run| run.state.status) {
            Some(RunStatus::Cancelled) => IncompleteReason::RunCancelled,
            Some(RunStatus::Failed) => IncompleteReason::RunFailed,
            Some(_) | None => IncompleteReason::RunExpired,
        };
        message.status = MessageStatus::Incomplete;
        message.incomplete_reason = Some(reason);
        let ended_at = run.and_then(|run| run.state.ended_at);
        message.ended_at = Some(ended_at.unwrap_or(message.created_at));
    }
}

/// Gives messages and steps of the same second distinct dates: tool calls of a run come before the
/// message that it wrote after them, and after everything before.
fn spread(steps: &mut [RunStep], messages: &mut [Message]) {
    let mut writers: HashMap<MessageId, usize> = HashMap::new();
    for (place, step) in steps.iter().enumerate() {
        if let StepDetails::MessageCreation { message } = &step.details {
            writers.insert(message.clone(), place);
        }
    }
    let mut clock = Clock::default();
    let mut next = 0;
    for message in messages.iter_mut() {
        let second = message.created_at;
        let writer = writers.get(&message.id);
        while let Some(step) = steps.get_mut(next) {
            let came_before = step.created_at < second
                || step.created_at == second
                    && message.run.as_ref() == Some(&step.run)
                    && writer.is_none_or(|writer| next <= *writer);
            if !came_before {
                break;
            }
            step.created_at = clock.date(step.created_at);
            next += 1;
        }
        message.created_at = clock.date(second);
    }
    for step in &mut steps[next..] {
        step.created_at = clock.date(step.created_at);
    }
}

/// Assigns increasing dates within a second.
#[derive(Default)]
struct Clock {
    second: Timestamp,
    used: i64,
}

impl Clock {
    fn date(&mut self, date: Timestamp) -> Timestamp {
        if date.nanosecond() != 0 {
            return date;
        }
        if date != self.second {
            self.second = date;
            self.used = 0;
        }
        let date = date + TimeDelta::microseconds(self.used.min(999_999));
        self.used += 1;
        date
    }
}

/// Numbers searches as runs of this server do, where their numbers are unknown.
fn number_searches(steps: &mut [RunStep]) {
    let mut next = 0;
    for step in steps {
        let StepDetails::ToolCalls { calls } = &mut step.details else {
            continue;
        };
        for call in calls {
            if let ToolCallBody::FileSearch(search) = &mut call.body {
                search.ordinal = search.ordinal.max(next);
                next = search.ordinal + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).expect("in range")
    }

    fn message(id: &str, seconds: i64, run: Option<&str>) -> Message {
        Message {
            id: id.parse().expect("an id"),
            thread: "thread_1".parse().expect("an id"),
            created_at: at(seconds),
            status: MessageStatus::Completed,
            incomplete_reason: None,
            ended_at: Some(at(seconds)),
            role: crate::domain::message::Role::User,
            content: Vec::new(),
            attachments: Vec::new(),
            assistant: None,
            run: run.map(|run| run.parse().expect("an id")),
            metadata: Default::default(),
        }
    }

    fn step(id: &str, seconds: i64, run: &str, writes: Option<&str>) -> RunStep {
        RunStep {
            id: id.parse().expect("an id"),
            run: run.parse().expect("an id"),
            thread: "thread_1".parse().expect("an id"),
            assistant: "asst_1".parse().expect("an id"),
            created_at: at(seconds),
            status: StepStatus::Completed,
            expires_at: at(seconds),
            ended_at: Some(at(seconds)),
            last_error: None,
            details: match writes {
                Some(message) => StepDetails::MessageCreation {
                    message: message.parse().expect("an id"),
                },
                None => StepDetails::ToolCalls { calls: Vec::new() },
            },
            usage: None,
        }
    }

    #[test]
    fn a_run_within_one_second_keeps_its_order() {
        // As the API lists it: the newest first.
        let mut contents = Contents {
            runs: Vec::new(),
            messages: vec![
                message("msg_after", 9, None),
                message("msg_answer", 5, Some("run_1")),
                message("msg_talk", 5, Some("run_1")),
                message("msg_question", 5, None),
            ],
            steps: vec![
                step("step_answer", 5, "run_1", Some("msg_answer")),
                step("step_calls", 5, "run_1", None),
                step("step_talk", 4, "run_1", Some("msg_talk")),
            ],
        };
        contents.arrange();
        let steps = contents.steps.iter();
        let steps = steps.map(|step| (step.created_at, step.id.to_string()));
        let messages = contents.messages.iter();
        let messages = messages.map(|message| (message.created_at, message.id.to_string()));
        let mut all: Vec<(Timestamp, String)> = steps.chain(messages).collect();
        all.sort();
        let ids: Vec<&str> = all.iter().map(|(_, id)| &**id).collect();
        assert_eq!(
            ids,
            [
                "step_talk",
                "msg_question",
                "msg_talk",
                "step_calls",
                "step_answer",
                "msg_answer",
                "msg_after"
            ]
        );
        let seconds: Vec<i64> = all.iter().map(|(at, _)| at.timestamp()).collect();
        assert_eq!(
            seconds,
            [4, 5, 5, 5, 5, 5, 9],
            "to the second, nothing moves"
        );
    }
}
