//! What all tasks of the engine share.

use std::sync::Arc;

use crate::engine::active_runs::ActiveRuns;
use crate::events::dispatch::PendingDispatches;
use crate::events::feed::Feed;
use crate::events::notifications::Notifier;
use crate::files::blobs::Blobs;
use crate::models::Upstreams;
use crate::retrieval::Retrieval;
use crate::sandbox_client::SandboxPool;
use crate::store::Pool;
use crate::store::lease::Claimant;

#[derive(Clone)]
pub struct Deps {
    pub pool: Pool,
    /// Connections to the same database that do not wait for the disk: for the event log,
    /// notifications and lease renewals, which need not survive a crash of the machine.
    pub background: Pool,
    pub blobs: Blobs,
    pub feed: Feed,
    pub notifier: Notifier,
    pub upstreams: Upstreams,
    pub retrieval: Retrieval,
    pub sandbox: SandboxPool,
    /// Most bytes that the stored pictures of a prompt may have together.
    pub prompt_picture_bytes: u64,
}

pub(super) struct Shared {
    pub(super) deps: Deps,
    pub(super) claimant: Claimant,
    pub(super) pending_dispatches: PendingDispatches,
    pub(super) active: Arc<ActiveRuns>,
}
