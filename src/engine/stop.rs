//! Why a run stops.

/// A reason from outside for a worker to stop before its run has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopSignal {
    /// A client cancelled the run.
    Cancel,
    /// The run is past `expires_at`.
    Expire,
    /// Another worker has claimed the run, or the run was deleted.
    LeaseLost,
    /// The process shuts down; other processes continue the run.
    Drain,
}
