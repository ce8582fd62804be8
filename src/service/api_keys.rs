//! Authentication of API keys and of the admin key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::project::LimitedProject;
use crate::service::{Budgets, ProjectService, Service, ServiceError};
use crate::store;

/// How long the result of a lookup is cached. A revoked key works at most this much longer, and changed
/// limits take effect at most this much later.
const CACHE_TTL: Duration = Duration::from_secs(5);

/// Bounds the memory that a client can fill by guessing keys.
const MAX_CACHED_KEYS: usize = 10_000;

type Hash = [u8; 32];

/// The results of recent lookups, by the key's hash; `None` for a key that does not exist.
#[derive(Default)]
pub(super) struct ApiKeyCache(RwLock<HashMap<Hash, (Option<KeyAccess>, Instant)>>);

#[derive(Clone)]
struct KeyAccess {
    project: Arc<LimitedProject>,
    is_keyless: bool,
}

#[derive(Clone)]
pub struct AdminKey(Hash);

impl AdminKey {
    pub fn new(key: &str) -> Self {
        Self(hash(key))
    }

    fn matches(&self, hash: &Hash) -> bool {
        self.0.ct_eq(hash).into()
    }
}

pub struct Authenticated {
    pub project: ProjectService,
    /// Whether the key was accepted only because the server has no keys.
    pub is_keyless: bool,
}

impl Service {
    /// Looks up an API key; `None` if it is not valid. The admin key is not valid for any project.
    /// `budgets` receives the budgets that the request is counted against.
    pub async fn authenticate(
        &self,
        key: &str,
        budgets: Budgets,
    ) -> Result<Option<Authenticated>, ServiceError> {
        let hash = hash(key);
        if self.matches_admin_key(&hash) {
            return Ok(None);
        }
        let cached = self.0.api_key_cache.0.read().get(&hash).cloned();
        let access = match cached {
            Some((access, at)) if at.elapsed() < CACHE_TTL => access,
            _ => self.look_up(hash).await?,
        };
        Ok(access.map(|access| Authenticated {
            project: ProjectService {
                shared: self.0.clone(),
                project: access.project,
                budgets,
            },
            is_keyless: access.is_keyless,
        }))
    }

    async fn look_up(&self, hash: Hash) -> Result<Option<KeyAccess>, ServiceError> {
        let project = store::api_keys::find_by_hash(self.pool(), &hash).await?;
        let mut access = project.map(|project| KeyAccess {
            project: Arc::new(project),
            is_keyless: false,
        });
        if access.is_none()
            && let Some(project) = &self.0.deps.keyless_project
            && !store::api_keys::any_exist(self.pool()).await?
        {
            let limits = store::projects::limits(self.pool(), project).await?;
            access = limits.map(|limits| KeyAccess {
                project: Arc::new(LimitedProject {
                    project: project.clone(),
                    limits,
                }),
                is_keyless: true,
            });
        }
        let mut cache = self.0.api_key_cache.0.write();
        if cache.len() >= MAX_CACHED_KEYS {
            cache.clear();
        }
        cache.insert(hash, (access.clone(), Instant::now()));
        Ok(access)
    }

    pub fn has_admin_key(&self) -> bool {
        self.0.deps.admin_key.is_some()
    }

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
