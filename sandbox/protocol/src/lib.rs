//! The protocol between assistd and its sandbox workers.
//!
//! The worker listens and assistd connects, over a Unix socket or TCP. A connection starts with
//! [`Request::Hello`]. [`Request::Open`] then gives the connection exclusive use of a session;
//! other connections that open the same session wait. When the connection ends the session stays,
//! but a running cell is interrupted. Requests are answered in order, one at a time; only
//! [`Request::Interrupt`] may be sent while a cell runs, and it has no answer of its own.
//!
//! | request     | answers                                                                    |
//! |-------------|----------------------------------------------------------------------------|
//! | `Hello`     | `Hello`, or `Refused` and the end of the connection                        |
//! | `Open`      | `Opened`, `Absent`, `Busy` or `Refused`                                    |
//! | `Put` + data| `Stored` or `Refused`; the worker reads all data in either case            |
//! | `Remove`    | `Removed`, or `Closed` if the session had to end                           |
//! | `Exec`      | any number of `Text` and `Image` + data, then `Executed`                   |
//! | `Get`       | `File` + data, or `Refused`                                                |
//! | `Close`     | `Closed`                                                                   |
//!
//! "+ data" stands for [`Frame::Data`] frames whose lengths add up to exactly the announced size. A
//! peer that violates the protocol is disconnected.

mod frame;

use serde::{Deserialize, Serialize};

pub use frame::{Frame, FrameError, HEADER_BYTES, MAX_FRAME_BYTES, parse_header};

/// Client and worker must use the same version. [`Request::Hello`] and [`Response::Refused`] never
/// change, so that a version mismatch can be reported.
pub const VERSION: u32 = 2;

/// A request of assistd to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The first request of every connection.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The shared secret; required by workers on TCP.
        token: Option<String>,
    },
    /// Opens a session for this connection.
    Open {
        /// Name of the session, chosen by assistd: 1 to 128 of `[A-Za-z0-9_-]`.
        session: String,
        /// Opaque label of the owning project, at most 128 bytes. The worker balances its sessions
        /// between projects. Cells cannot read it.
        project: String,
        /// Whether to create the session if it does not exist.
        create: bool,
    },
    /// Writes a file into the session's `/mnt/data`. Data frames follow.
    Put {
        /// Path below `/mnt/data`. Missing folders are created; an existing file is replaced.
        path: String,
        /// A second name (hard link) of the same file.
        alias: Option<String>,
        /// Identifies this content; [`Response::Opened`] lists the tags of a session.
        tag: String,
        size: u64,
    },
    /// Removes files that were put, under both names. A file that a cell has changed or replaced
    /// since then keeps its path and loses its alias.
    Remove { tags: Vec<String> },
    /// Runs a cell.
    Exec {
        /// Python code, as in a notebook cell.
        code: String,
    },
    /// Interrupts the running cell like Ctrl-C, and kills the session if that has no effect.
    /// Without a running cell it does nothing.
    Interrupt,
    /// Reads a file that the last [`Response::Executed`] listed.
    Get {
        /// Path below `/mnt/data`, as listed.
        path: String,
    },
    /// Ends the session.
    Close,
}

/// A response of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Response {
    /// The client is accepted.
    Hello(Report),
    /// The connection now holds the session.
    Opened {
        /// Whether the session is new: it has no variables and no files.
        fresh: bool,
        /// Files that were put and not removed.
        files: Vec<PlacedFile>,
        /// What the worker did to the session of this name since its last cell; reported once.
        notice: Option<Notice>,
    },
    /// The session does not exist, and `create` was false.
    Absent,
    /// The session limit is reached, and all sessions are in use.
    Busy,
    /// The file was written.
    Stored,
    /// The files were removed.
    Removed,
    /// The cell wrote text.
    Text {
        source: TextSource,
        /// Bytes that are not UTF-8 are replaced by U+FFFD.
        text: String,
    },
    /// The cell displayed an image. Data frames follow.
    Image {
        /// `image/png` or `image/jpeg`, detected from the first bytes.
        mime: String,
        size: u64,
    },
    /// The cell has ended.
    Executed(Executed),
    /// Data frames follow.
    File { size: u64 },
    /// The session has ended.
    Closed,
    /// The request was refused.
    Refused {
        /// The reason, and a remedy where there is one.
        message: String,
    },
}

/// A file that was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// The tag of its [`Request::Put`].
    pub tag: String,
    /// The path of its [`Request::Put`].
    pub path: String,
}

/// What a worker did to a session between two cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// It killed programs that cells had started, because the session exceeded its CPU limit
    /// between cells. The variables are kept.
    ProcessesKilled,
    /// It ended the session because it exceeded its CPU limit between cells.
    EndedForCpu,
    /// It ended the session because it exceeded its memory limit.
    EndedForMemory,
}

/// Origin of a cell's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextSource {
    Stdout,
    Stderr,
    /// The value of the cell's last expression, or an object passed to `display`.
    Result,
    Traceback,
}

/// How a cell ended, as measured by the supervisor. Only the difference between [`ExecStatus::Ok`]
/// and [`ExecStatus::Error`] is reported by the session itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    pub status: ExecStatus,
    /// Whether the session ended too; its variables and files are then lost.
    pub session_lost: bool,
    /// Wall-clock time in milliseconds.
    pub wall_ms: u64,
    /// CPU time of all processes of the session in milliseconds, measured by sampling.
    pub cpu_ms: u64,
    /// Whether output was dropped because it exceeded a limit.
    pub truncated: bool,
    /// Files in `/mnt/data` that are new or changed since the last report or put.
    pub files: Vec<ChangedFile>,
    /// Whether changed files were left out because they exceeded a limit.
    pub files_dropped: bool,
}

/// The result of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecStatus {
    /// It completed.
    Ok,
    /// It raised an exception.
    Error,
    /// It exceeded its time limit.
    Timeout,
    /// It was interrupted by request.
    Interrupted,
    /// It exceeded the memory limit; the session was killed.
    OutOfMemory,
    /// The session's process ended: a crash, or `os._exit`.
    Died,
    /// The session was ended just before; see [`Notice::EndedForCpu`].
    EndedForCpu,
}

/// A file that a cell created or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Path below `/mnt/data`.
    pub path: String,
    /// Size in bytes when the cell ended.
    pub size: u64,
}

/// Description of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`] of the worker.
    pub version: u32,
    pub tier: Tier,
    /// Confinement layers in force, by their short names.
    pub layers: Vec<String>,
    /// Confinement layers that are missing, each with a remedy where there is one.
    pub missing: Vec<String>,
    /// Version of the Python interpreter, such as `3.11.2`.
    pub python: String,
    /// Version of the Linux kernel.
    pub kernel: String,
    /// Maximum number of sessions.
    pub sessions_max: u32,
    /// Current number of sessions.
    pub sessions: u32,
    /// Idle time in seconds after which a session ends.
    pub idle_seconds: u64,
    /// Time limit of a cell in seconds.
    pub cell_seconds: u64,
}

/// How sessions are isolated, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Each session has namespaces of its own; one worker runs many sessions.
    Namespaces,
    /// The worker's container isolates its single session.
    Container,
    /// No isolation is guaranteed. For development only.
    Unsafe,
}
