//! The vocabulary of transitions, and the plans made of it.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

pub const THREADS: usize = 3;
pub const REPLICAS: usize = 2;

/// Names the object that a transition creates: the transition's position in its plan.
pub type Tag = usize;

/// A thread, and the replica that gets the request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Target {
    pub thread: usize,
    pub replica: usize,
}

/// Requests about a run concern the latest run that the client knows on the thread.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    AddMessage(Target),
    CreateRun {
        on: Target,
        calls_function: bool,
    },
    CreateRunStreaming {
        on: Target,
        calls_function: bool,
    },
    Cancel(Target),
    /// Waits until the run is idle, then submits outputs for its calls if it requires some.
    SubmitOutputs(Target),
    /// Reads the run's events, or those after one of the sequence numbers seen so far.
    Follow {
        on: Target,
        after: Option<usize>,
    },
    /// Closes the thread's oldest open stream.
    HangUp {
        thread: usize,
    },
    DeleteThread(Target),
    /// Kills a server at the `statement`th statement from now; another one replaces it.
    KillWorker {
        replica: usize,
        statement: usize,
        is_reply_sent: bool,
    },
    /// Drops all database connections and accepts none for this long.
    PauseDatabase {
        millis: u64,
    },
    Tick {
        millis: u64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan(pub Vec<Transition>);

impl Plan {
    const LENGTH: usize = 40;

    /// Fewer than the five recoveries after which a run fails.
    const MAX_DISRUPTIONS: usize = 3;

    pub fn generate(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disruptions = rng.random_range(0..=Self::MAX_DISRUPTIONS);
        let transitions = (0..Self::LENGTH).map(|_| {
            loop {
                let transition = Transition::generate(&mut rng);
                if !transition.is_disruption() {
                    return transition;
                }
                if disruptions > 0 {
                    disruptions -= 1;
                    return transition;
                }
            }
        });
        Self(transitions.collect())
    }

    /// Whether a request may fail, and a server may log errors.
    pub fn is_disrupted(&self) -> bool {
        self.0.iter().any(Transition::is_disruption)
    }

    pub fn has_pauses(&self) -> bool {
        let is_pause = |transition: &_| matches!(transition, Transition::PauseDatabase { .. });
        self.0.iter().any(is_pause)
    }

    /// The plan without `count` transitions from `start` on.
    pub fn without(&self, start: usize, count: usize) -> Self {
        let mut transitions = self.0.clone();
        transitions.drain(start..(start + count).min(transitions.len()));
        Self(transitions)
    }

    /// The plan as JSON, one transition per line.
    pub fn to_json(&self) -> String {
        let line = |transition| serde_json::to_string(transition).expect("transitions serialize");
        let lines: Vec<String> = self.0.iter().map(line).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    }
}

impl Transition {
    fn is_disruption(&self) -> bool {
        matches!(self, Self::KillWorker { .. } | Self::PauseDatabase { .. })
    }

    fn generate(rng: &mut StdRng) -> Self {
        let on = Target {
            thread: rng.random_range(..THREADS),
            replica: rng.random_range(..REPLICAS),
        };
        let calls_function = rng.random();
        match rng.random_range(0..100) {
            0..12 => Self::AddMessage(on),
            12..26 => Self::CreateRun { on, calls_function },
            26..40 => Self::CreateRunStreaming { on, calls_function },
            40..50 => Self::Cancel(on),
            50..64 => Self::SubmitOutputs(on),
            64..78 => Self::Follow {
                on,
                after: rng.random_bool(0.6).then(|| rng.random_range(0..20)),
            },
            78..84 => Self::HangUp { thread: on.thread },
            84..86 => Self::DeleteThread(on),
            86..91 => Self::KillWorker {
                replica: on.replica,
                statement: rng.random_range(1..20),
                is_reply_sent: rng.random(),
            },
            91..93 => Self::PauseDatabase {
                millis: rng.random_range(50..1500),
            },
            _ => Self::Tick {
                millis: rng.random_range(1..120),
            },
        }
    }
}
