//! Use cases: what an application or an operator can do, independent of HTTP.
//!
//! A use case checks the objects that a request refers to, admits it within the project's limits, owns
//! the transaction, and dispatches or notifies after the commit. [`Service`] serves all projects;
//! [`ProjectService`] acts for one of them, so no call can reach another project's rows.

mod admin;
mod api_keys;
mod assistants;
mod attachments;
mod error;
mod files;
mod health;
mod messages;
mod objects;
mod rate_limits;
mod references;
mod run_overview;
mod runs;
mod threads;
mod uploads;
mod vector_store_files;
mod vector_stores;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub use api_keys::{AdminKey, Authenticated};
pub use error::{RunRefusal, ServiceError};
pub use files::StoredContents;
pub use health::Health;
pub use objects::AnyObject;
pub use rate_limits::{Budget, Budgets};
pub use runs::StartedRun;

use crate::domain::ids::ProjectId;
use crate::domain::project::{LimitedProject, ProjectLimits};
use crate::events::dispatch::Dispatcher;
use crate::events::feed::Feed;
use crate::events::notifications::Notifier;
use crate::files::blobs::Blobs;
use crate::retrieval::Retrieval;
use crate::service::api_keys::ApiKeyCache;
use crate::service::rate_limits::RateLimiter;
use crate::store::{self, Pool};

pub struct Deps {
    pub pool: Pool,
    pub blobs: Blobs,
    pub feed: Feed,
    pub dispatcher: Dispatcher,
    pub notifier: Notifier,
    /// Wakes the indexer when files were added to vector stores.
    pub indexing: Arc<Notify>,
    pub retrieval: Retrieval,
    /// Returns why code_interpreter cannot be used now; `None` if it can.
    pub code_interpreter_unavailable: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// The project that any key is valid for while no key exists. Only set on servers that no other
    /// machine can reach.
    pub keyless_project: Option<ProjectId>,
    pub admin_key: Option<AdminKey>,
    pub settings: Settings,
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub max_file_bytes: u64,
    pub run_expiry: Duration,
    /// Idle days after which a vector store expires that was created for a thread's attachments;
    /// `None` means never.
    pub thread_store_expiry: Option<i32>,
}

#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    deps: Deps,
    api_key_cache: ApiKeyCache,
    rate_limiter: RateLimiter,
}

impl Service {
    pub fn new(deps: Deps) -> Self {
        Self(Arc::new(Shared {
            deps,
            api_key_cache: ApiKeyCache::default(),
            rate_limiter: RateLimiter::default(),
        }))
    }

    pub async fn check_database(&self) -> Result<(), ServiceError> {
        store::database_time(&self.0.deps.pool).await?;
        Ok(())
    }

    fn pool(&self) -> &Pool {
        &self.0.deps.pool
    }
}

/// The use cases of one project, for one request. Cheap to clone.
#[derive(Clone)]
pub struct ProjectService {
    shared: Arc<Shared>,
    project: Arc<LimitedProject>,
    budgets: Budgets,
}

impl ProjectService {
    fn id(&self) -> &ProjectId {
        &self.project.project
    }

    fn limits(&self) -> &ProjectLimits {
        &self.project.limits
    }

    fn pool(&self) -> &Pool {
        &self.shared.deps.pool
    }

    fn settings(&self) -> &Settings {
        &self.shared.deps.settings
    }

    fn notify_indexing(&self) {
        self.shared.deps.indexing.notify_one();
    }
}
