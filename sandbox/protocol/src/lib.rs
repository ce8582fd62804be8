//! What assistd and its sandbox workers say to each other, and where both find what they run with.
//!
//! The worker listens, assistd dials, over a Unix socket or TCP. One connection is one
//! conversation: [`Request::Hello`] first, then [`Request::Open`], which takes a session for the
//! connection alone; others that open the same session wait. When the connection ends the session
//! stays, but a cell that still runs is interrupted. Requests are answered in order, one at a
//! time; only [`Request::Interrupt`] may be sent while a cell runs, and has no answer of its own.
//!
//! | request     | answers                                                                    |
//! |-------------|----------------------------------------------------------------------------|
//! | `Hello`     | `Hello`, or `Refused` and the end of the connection                        |
//! | `Open`      | `Opened`, `Absent`, `Busy` or `Refused`                                    |
//! | `Put` + data| `Stored` or `Refused`; the data is read to its end either way              |
//! | `Remove`    | `Removed`, or `Closed` if the session had to end for it                    |
//! | `Exec`      | any number of `Text` and `Image` + data, then `Executed`                   |
//! | `Get`       | `File` + data, or `Refused`                                                |
//! | `Close`     | `Closed`                                                                   |
//!
//! "+ data" stands for [`Frame::Data`] frames that add up to exactly the size announced. A peer
//! that breaks these rules is cut off.

mod frame;

use serde::{Deserialize, Serialize};

pub use frame::{Frame, FrameError, HEADER_BYTES, MAX_FRAME_BYTES, parse_header};

/// Both sides must speak the same version. [`Request::Hello`] and [`Response::Refused`] never change,
/// so that sides of different versions can say that they are.
pub const VERSION: u32 = 2;

/// What assistd asks of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The first request of every connection.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The secret that a worker on TCP asks for.
        token: Option<String>,
    },
    /// Takes a session.
    Open {
        /// Its name, chosen by assistd: 1 to 128 of `[A-Za-z0-9_-]`.
        session: String,
        /// Whose session it is, as an opaque label of at most 128 bytes: the sessions of a worker
        /// are shared out between projects. Cells never see it.
        project: String,
        /// Whether a session that does not exist is to be made.
        create: bool,
    },
    /// Writes a file into the session's `/mnt/data`. Data frames follow.
    Put {
        /// Path below `/mnt/data`; folders on the way are made. An existing file is replaced.
        path: String,
        /// Another name for the same file: the two are hard links.
        alias: Option<String>,
        /// What this content is; [`Response::Opened`] lists the tags of a session.
        tag: String,
        /// Size in bytes.
        size: u64,
    },
    /// Removes files that were put, by both names. A file that a cell has changed or replaced since
    /// keeps its path, and loses its alias.
    Remove {
        /// Tags of the files.
        tags: Vec<String>,
    },
    /// Runs a cell.
    Exec {
        /// Python, as in a notebook cell.
        code: String,
    },
    /// Interrupts the running cell, as ^C does; where that does not help, the session is killed.
    /// Without a running cell it does nothing.
    Interrupt,
    /// Reads a file that the last [`Response::Executed`] named.
    Get {
        /// Its path below `/mnt/data`, as named there.
        path: String,
    },
    /// Ends the session for good.
    Close,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Response {
    /// The conversation may go on.
    Hello(Report),
    /// The session is there and belongs to this connection.
    Opened {
        /// Whether it was made just now: no variables, no files.
        fresh: bool,
        /// Files that were put into it and not removed.
        files: Vec<PlacedFile>,
        /// What happened since the last cell under this name, if it has not been reported yet.
        notice: Option<Notice>,
    },
    /// There is no such session, and none was to be made.
    Absent,
    /// There are as many sessions as this worker may have, and all are at work.
    Busy,
    /// The file is there.
    Stored,
    /// The files are gone.
    Removed,
    /// The cell wrote text.
    Text {
        /// Where it came from.
        source: TextSource,
        /// The text; whatever bytes were not UTF-8 are replaced.
        text: String,
    },
    /// The cell showed a picture. Data frames follow.
    Image {
        /// `image/png` or `image/jpeg`, by its first bytes.
        mime: String,
        /// Size in bytes.
        size: u64,
    },
    /// The cell has ended.
    Executed(Executed),
    /// Data frames follow.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// The session is gone.
    Closed,
    /// It was not done.
    Refused {
        /// For whoever operates or calls this: what is wrong, and what would help.
        message: String,
    },
}

/// A file that was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// The tag of [`Request::Put`].
    pub tag: String,
    /// The path of [`Request::Put`].
    pub path: String,
}

/// What a worker did to a session between cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// It killed the processes that cells had left behind: they used too much processor time. The
    /// variables are there.
    ProcessesKilled,
    /// It ended the session, which used too much processor time.
    EndedForCpu,
    /// It ended the session, which used too much memory.
    EndedForMemory,
}

/// Where a cell's text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The value of the cell's last expression, or what `display` was given.
    Result,
    /// A traceback.
    Traceback,
}

/// How a cell ended. Facts of the supervisor; what a session says about itself is only in
/// [`ExecStatus::Ok`] against [`ExecStatus::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// How it ended.
    pub status: ExecStatus,
    /// Whether the session is gone with it: its variables and files are lost.
    pub session_lost: bool,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Processor time of the session's processes in milliseconds, as far as it was seen.
    pub cpu_ms: u64,
    /// Whether output was dropped because there was too much of it.
    pub truncated: bool,
    /// Files in `/mnt/data` that are new or changed since they were last told of or put there.
    pub files: Vec<ChangedFile>,
    /// Whether there were more changed files than are told.
    pub files_dropped: bool,
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecStatus {
    /// To its end.
    Ok,
    /// With an exception.
    Error,
    /// It ran out of time.
    Timeout,
    /// It was interrupted by request.
    Interrupted,
    /// It used more memory than a session may have, and was killed.
    OutOfMemory,
    /// Its session died: a crash, or `os._exit`.
    Died,
    /// Its session was ended just before, as [`Notice::EndedForCpu`] says.
    EndedForCpu,
}

/// A file that a cell wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Path below `/mnt/data`.
    pub path: String,
    /// Size in bytes when it was looked at; [`Request::Get`] sends no more.
    pub size: u64,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// How sessions are kept apart and in.
    pub tier: Tier,
    /// Layers of confinement that hold, by their short names.
    pub layers: Vec<String>,
    /// Layers that do not, each with what would help.
    pub missing: Vec<String>,
    /// Version of the Python that runs cells, such as `3.11.2`.
    pub python: String,
    /// Version of the kernel.
    pub kernel: String,
    /// How many sessions it may have.
    pub sessions_max: u32,
    /// How many it has.
    pub sessions: u32,
    /// Seconds after which an unused session ends.
    pub idle_seconds: u64,
    /// Seconds a cell may take.
    pub cell_seconds: u64,
}

/// How sessions are kept apart and in, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Each session has namespaces of its own; many share a worker.
    Namespaces,
    /// The worker's container is the wall; it has one session, ever.
    Container,
    /// Nothing holds. For development only.
    Unsafe,
}
