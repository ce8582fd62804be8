//! Authentication: an API key belongs to a project.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::project::LimitedProject;
use crate::service::{Budgets, ProjectService, Service, ServiceError};
use crate::store;

/// How long the result of a lookup is used: a revoked key works this much longer at most, and
/// changed limits take effect this much later.
const CACHED_FOR: Duration = Duration::from_secs(5);

/// Bounds the memory that a client can fill by trying keys.
const MAX_CACHED: usize = 10_000;

type Hash = [u8; 32];

/// Results of recent lookups, by the key's hash; `None` is a key that does not exist.
#[derive(Default)]
pub(super) struct ApiKeys(RwLock<HashMap<Hash, (Option<Opened>, Instant)>>);

/// What an API key gives access to.
#[derive(Clone)]
struct Opened {
    account: Arc<LimitedProject>,
    is_keyless: bool,
}

/// The key of the admin API, of which only the hash is kept.
#[derive(Clone)]
pub struct AdminKey(Hash);

impl AdminKey {
    pub fn new(key: &str) -> Self {
        Self(hash(key))
    }

    /// Compares in constant time.
    fn matches(&self, hash: &Hash) -> bool {
        self.0.ct_eq(hash).into()
    }
}

/// A caller with a valid key.
pub struct Authenticated {
    pub project: ProjectService,
    /// Any key would have been accepted, because the server has none.
    pub is_keyless: bool,
}

impl Service {
    /// Looks up an API key; `None` if it is not valid. The admin key never opens a project.
    /// What the request is counted against is recorded in `budgets`.
    pub async fn authenticate(
        &self,
        key: &str,
        budgets: Budgets,
    ) -> Result<Option<Authenticated>, ServiceError> {
        let hash = hash(key);
        if self.matches_admin_key(&hash) {
            return Ok(None);
        }
        let cached = self.0.api_keys.0.read().get(&hash).cloned();
        let opened = match cached {
            Some((opened, at)) if at.elapsed() < CACHED_FOR => opened,
            _ => self.look_up(hash).await?,
        };
        Ok(opened.map(|opened| Authenticated {
            project: ProjectService {
                shared: self.0.clone(),
                account: opened.account,
                budgets,
            },
            is_keyless: opened.is_keyless,
        }))
    }

    async fn look_up(&self, hash: Hash) -> Result<Option<Opened>, ServiceError> {
        let found = store::api_keys::find_by_hash(self.pool(), &hash).await?;
        let mut opened = found.map(|account| Opened {
            account: Arc::new(account),
            is_keyless: false,
        });
        if opened.is_none()
            && let Some(project) = &self.0.deps.keyless_project
            && !store::api_keys::any_exist(self.pool()).await?
        {
            let limits = store::projects::limits(self.pool(), project).await?;
            opened = limits.map(|limits| Opened {
                account: Arc::new(LimitedProject {
                    project: project.clone(),
                    limits,
                }),
                is_keyless: true,
            });
        }
        let mut cache = self.0.api_keys.0.write();
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(hash, (opened.clone(), Instant::now()));
        Ok(opened)
    }

    /// Whether the admin API is enabled.
    pub fn has_admin_key(&self) -> bool {
        self.0.deps.admin_key.is_some()
    }

    /// Whether this is the key of the admin API.
    pub fn is_admin_key(&self, key: &str) -> bool {
        self.matches_admin_key(&hash(key))
    }

    fn matches_admin_key(&self, hash: &Hash) -> bool {
        let admin_key = self.0.deps.admin_key.as_ref();
        admin_key.is_some_and(|admin_key| admin_key.matches(hash))
    }
}

fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}
