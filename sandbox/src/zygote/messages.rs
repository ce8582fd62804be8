//! Messages between the supervisor, its zygote and the sessions, which are all this program.

use std::path::PathBuf;

use sandbox_protocol::Tier;
use serde::Deserialize;
use serde::Serialize;

use crate::confine::limits::Limits;

/// The first message of the supervisor to its zygote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ZygoteSetup {
    pub tier: Tier,
    /// The virtual environment.
    pub venv: PathBuf,
    /// The Python installation that the virtual environment belongs to.
    pub base: PathBuf,
    /// Limits of each session.
    pub limits: Limits,
    /// User and group id of session number 0, where the worker is privileged.
    pub first_id: u32,
}

/// Asks the zygote for a session. Carries four descriptors, the session's ends of: the kernel's
/// socket, standard output, standard error, and the socket for its [`SessionReport`].
#[derive(Debug, Serialize, Deserialize)]
pub struct ForkRequest {
    /// Added to [`ZygoteSetup::first_id`], so that each session has a user of its own.
    pub number: u32,
}

/// What a zygote sends to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ZygoteMessage {
    /// Python and its packages are loaded.
    Ready {
        /// Version of Python.
        python: String,
    },
    /// The zygote could not be confined or prepared, and ends.
    Failed { message: String },
    /// Python does not start, and the zygote ends.
    PythonFailed { message: String },
    /// A session was forked. It sends its own [`SessionReport`].
    Forked { number: u32 },
    /// A session could not be forked.
    ForkFailed { number: u32, message: String },
}

/// What a session reports to the supervisor before it runs any code.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SessionReport {
    /// The session is confined. Carries three descriptors: its init, its Python process, and
    /// `/mnt/data`.
    Confined {
        /// The Landlock ABI version in force; 0 if there is none.
        landlock: i32,
        /// Whether the session has a `/proc` of its own.
        has_process_list: bool,
        /// User and group id outside the session, if they differ from the worker's.
        user: Option<u32>,
    },
    /// The session could not be confined, and ends.
    Failed { message: String },
}
