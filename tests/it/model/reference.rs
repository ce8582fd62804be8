//! The reference: a thread as the API documents it, and the set of states that it may be in.
//!
//! Servers work while a client waits, and a request without a response may be executed now, later
//! or never. So the reference is not one thread but all threads that explain what was observed.

use std::collections::BTreeSet;

use super::plan::Tag;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Queued,
    InProgress,
    RequiresAction,
    Cancelling,
    Cancelled,
    Completed,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub tag: Tag,
    pub status: Status,
    /// Whether the model still has to call a function before it answers.
    awaits_outputs: bool,
}

/// What changes a thread. Tags name the objects that requests create.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    AddMessage(Tag),
    CreateRun { tag: Tag, calls_function: bool },
    Cancel(Tag),
    SubmitOutputs(Tag),
    DeleteThread,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    pub is_deleted: bool,
    pub messages: Vec<Tag>,
    pub runs: Vec<Run>,
    /// Requests without a response, which may still be executed.
    unanswered: Vec<Request>,
}

/// Every state that the thread may be in.
#[derive(Debug)]
pub struct Possible(BTreeSet<Thread>);

impl Status {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "queued" => Self::Queued,
            "in_progress" => Self::InProgress,
            "requires_action" => Self::RequiresAction,
            "cancelling" => Self::Cancelling,
            "cancelled" => Self::Cancelled,
            "completed" => Self::Completed,
            _ => return None,
        })
    }

    fn is_active(self) -> bool {
        !matches!(self, Self::Cancelled | Self::Completed)
    }
}

impl Run {
    /// What a server may do next by itself.
    fn successors(&self) -> &'static [Status] {
        match (self.status, self.awaits_outputs) {
            (Status::Queued, _) => &[Status::InProgress],
            (Status::InProgress, true) => &[Status::RequiresAction],
            (Status::InProgress, false) => &[Status::Completed],
            (Status::Cancelling, true) => &[Status::Cancelled],
            // The model may finish before the worker learns of the cancellation.
            (Status::Cancelling, false) => &[Status::Cancelled, Status::Completed],
            (Status::RequiresAction | Status::Cancelled | Status::Completed, _) => &[],
        }
    }
}

impl Thread {
    fn run(&mut self, tag: Tag) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.tag == tag)
    }

    /// Executes a request; the status of its response.
    fn execute(&mut self, request: &Request) -> u16 {
        if self.is_deleted {
            return 404;
        }
        let is_busy = self.runs.iter().any(|run| run.status.is_active());
        match *request {
            Request::DeleteThread => self.is_deleted = true,
            Request::AddMessage(_) | Request::CreateRun { .. } if is_busy => return 400,
            Request::AddMessage(tag) => self.messages.push(tag),
            Request::CreateRun { .. } if self.messages.is_empty() => return 400,
            Request::CreateRun {
                tag,
                calls_function,
            } => self.runs.push(Run {
                tag,
                status: Status::Queued,
                awaits_outputs: calls_function,
            }),
            Request::Cancel(tag) => match self.run(tag) {
                None => return 404,
                Some(run) if !run.status.is_active() || run.status == Status::Cancelling => {
                    return 400;
                }
                Some(run) => run.status = Status::Cancelling,
            },
            Request::SubmitOutputs(tag) => match self.run(tag) {
                None => return 404,
                Some(run) if run.status != Status::RequiresAction => return 400,
                Some(run) => {
                    run.status = Status::Queued;
                    run.awaits_outputs = false;
                }
            },
        }
        200
    }

    /// The states that may follow without a further request.
    fn successors(&self) -> impl Iterator<Item = Self> {
        let runs = self.runs.iter().enumerate().flat_map(move |(n, run)| {
            run.successors().iter().map(move |status| {
                let mut next = self.clone();
                next.runs[n].status = *status;
                next
            })
        });
        let unanswered = (0..self.unanswered.len()).map(move |n| {
            let mut next = self.clone();
            let request = next.unanswered.remove(n);
            next.execute(&request);
            next
        });
        runs.chain(unanswered)
    }
}

impl Possible {
    /// A new thread without messages.
    pub fn new() -> Self {
        Self(BTreeSet::from([Thread::default()]))
    }

    /// A request was answered with this status, or not at all.
    pub fn observe_response(&mut self, request: &Request, response: Option<u16>) {
        self.narrow(&(request, response), |mut thread| match response {
            None => {
                thread.unanswered.push(request.clone());
                Some(thread)
            }
            Some(status) => (thread.execute(request) == status).then_some(thread),
        });
    }

    /// A run was read: it had this status, or did not exist.
    pub fn observe_run(&mut self, tag: Tag, status: Option<Status>) {
        self.narrow(&(tag, status), |mut thread| {
            let is_deleted = thread.is_deleted;
            let run = thread.run(tag).filter(|_| !is_deleted);
            (run.map(|run| run.status) == status).then_some(thread)
        });
    }

    /// The whole thread was read, or did not exist.
    pub fn observe_thread(&mut self, messages: &[Tag], runs: &[(Tag, Status)], is_deleted: bool) {
        self.narrow(&(messages, runs, is_deleted), |thread| {
            let has_same_runs = thread
                .runs
                .iter()
                .map(|run| (run.tag, run.status))
                .eq(runs.iter().copied());
            let is_same = thread.messages == messages && has_same_runs;
            (thread.is_deleted == is_deleted && (is_deleted || is_same)).then_some(thread)
        });
    }

    /// Keeps the states that explain an observation.
    fn narrow(
        &mut self,
        observation: &dyn std::fmt::Debug,
        explains: impl Fn(Thread) -> Option<Thread>,
    ) {
        let mut reachable = std::mem::take(&mut self.0);
        let mut frontier: Vec<Thread> = reachable.iter().cloned().collect();
        while let Some(thread) = frontier.pop() {
            for next in thread.successors() {
                if reachable.insert(next.clone()) {
                    frontier.push(next);
                }
            }
        }
        self.0 = reachable.iter().cloned().filter_map(explains).collect();
        assert!(
            !self.0.is_empty(),
            "observed {observation:?}, which no possible state explains: {reachable:#?}"
        );
    }
}
