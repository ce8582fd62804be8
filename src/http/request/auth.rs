//! Who calls: an API key names a project. A handler that takes a [`Caller`] can be called with a
//! good key only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use crate::domain::ids::ProjectId;
use crate::domain::project::Account;
use crate::http::handlers::admin::AdminKey;
use crate::http::request::keyless::{self, Keyless};
use crate::http::request::rate_limits::Told;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;
use crate::store::Pool;

/// How long an answer about a key is good: a revoked key may work this much longer, and limits that
/// were changed are noticed this much later.
const CACHED_FOR: Duration = Duration::from_secs(5);

/// Answers kept at most; somebody who tries keys must not fill the memory.
const CACHE_SIZE: usize = 10_000;

type Hash = [u8; 32];

/// What a key opens, if anything, and when that was looked up.
type Answer = (Option<Opened>, Instant);

/// What a key opens.
#[derive(Debug, Clone)]
struct Opened {
    account: Arc<Account>,
    /// Any key does, because there are none.
    by_any_key: bool,
}

/// Looks keys up. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    pool: Pool,
    open_to: Option<ProjectId>,
    admin: Option<AdminKey>,
    cache: Arc<RwLock<HashMap<Hash, Answer>>>,
}

impl Keys {
    /// Keys of this database. With `open_to`, any key opens this project for as long as no key
    /// exists; for servers that only this machine can reach. The key of the admin API never does.
    pub fn new(pool: Pool, open_to: Option<ProjectId>, admin: Option<AdminKey>) -> Self {
        Self {
            pool,
            open_to,
            admin,
            cache: Arc::default(),
        }
    }

    async fn opened(&self, key: &str) -> Result<Option<Opened>, ApiError> {
        let hash: Hash = Sha256::digest(key.as_bytes()).into();
        if self.admin.as_ref().is_some_and(|admin| admin.is(&hash)) {
            return Ok(None);
        }
        if let Some((opened, at)) = self.cache.read().get(&hash)
            && at.elapsed() < CACHED_FOR
        {
            return Ok(opened.clone());
        }
        let found = store::api_keys::find_by_hash(&self.pool, &hash).await?;
        let mut opened = found.map(|account| Opened {
            account: Arc::new(account),
            by_any_key: false,
        });
        if opened.is_none()
            && let Some(project) = &self.open_to
            && !store::api_keys::any_exist(&self.pool).await?
        {
            let limits = store::projects::limits(&self.pool, project).await?;
            opened = limits.map(|limits| Opened {
                account: Arc::new(Account {
                    project: project.clone(),
                    limits,
                }),
                by_any_key: true,
            });
        }
        let mut cache = self.cache.write();
        if cache.len() >= CACHE_SIZE {
            cache.clear();
        }
        cache.insert(hash, (opened.clone(), Instant::now()));
        Ok(opened)
    }
}

/// The project on whose behalf a request is made.
#[derive(Debug, Clone)]
pub struct Caller(pub ProjectId);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let Spender { account, .. } = Spender::from_request_parts(parts, state).await?;
        Ok(Self(account.project.clone()))
    }
}

/// A [`Caller`] whose limits matter: the request would begin a run, or call a model.
#[derive(Debug, Clone)]
pub struct Spender {
    /// The project, with its limits.
    pub account: Arc<Account>,
    /// Where the answer's headers about limits are put together.
    pub told: Told,
}

impl FromRequestParts<ApiState> for Spender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let key = key_of(&parts.headers).ok_or_else(|| {
            ApiError::unauthorized(
                "You didn't provide an API key. You need to provide your API key in an \
                 Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), \
                 or as the password field (with blank username) if you're accessing the API from \
                 your browser and are prompted for a username and password. Keys are made by the \
                 operator of this server with `assistd keys create`.",
            )
        })?;
        let opened = state.keys.opened(&key).await?.ok_or_else(|| {
            ApiError::unauthorized(format!(
                "Incorrect API key provided: {}. Keys are made by the operator of this server \
                 with `assistd keys create`.",
                masked(&key)
            ))
            .code("invalid_api_key")
        })?;
        if opened.by_any_key {
            keyless::check(&parts.headers, &state.cors_origins)?;
            parts.extensions.insert(Keyless);
        }
        let account = opened.account;
        let told = parts.extensions.get::<Told>().cloned().unwrap_or_default();
        if let Some(per_minute) = account.limits.requests_per_minute {
            let project = &account.project;
            state.rates.request(project, per_minute, &told).await?;
        }
        if state.limits.require_beta_header {
            check_beta(parts)?;
        }
        Ok(Self { account, told })
    }
}

impl Spender {
    /// Refuses the request if the project has used up its tokens of the last minute.
    pub async fn may_use_tokens(&self, state: &ApiState) -> Result<(), ApiError> {
        state.rates.tokens(&self.account, &self.told).await
    }
}

/// Bearer token, Azure's `api-key`, or the password of Basic authentication with any user.
pub fn key_of(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let authorization = text(header::AUTHORIZATION.as_str());
    let key = authorization.and_then(|value| {
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(rest.trim().to_owned());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(rest.trim())
            .ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        pair.split_once(':')
            .map(|(_, password)| password.to_owned())
    });
    key.or_else(|| text("api-key").map(str::to_owned))
        .filter(|key| !key.is_empty())
}

/// The key as error texts show it: the ends only, and of short keys nothing.
fn masked(key: &str) -> String {
    let characters: Vec<char> = key.chars().collect();
    if characters.len() < 20 {
        return "*".repeat(characters.len());
    }
    let (start, end) = (&characters[..8], &characters[characters.len() - 4..]);
    let stars = "*".repeat(characters.len() - 12);
    format!(
        "{}{stars}{}",
        start.iter().collect::<String>(),
        end.iter().collect::<String>()
    )
}

fn check_beta(parts: &Parts) -> Result<(), ApiError> {
    let path = parts.uri.path();
    let wanted = path.contains("/assistants") || path.contains("/threads");
    let given = parts
        .headers
        .get("openai-beta")
        .and_then(|value| value.to_str().ok());
    if !wanted || given.is_some_and(|value| value.contains("assistants=v2")) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again \
         by setting the header 'OpenAI-Beta: assistants=v2'.",
    )
    .code("invalid_beta"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_masked_in_error_texts() {
        assert_eq!(
            masked("sk-assistd-0123456789abcdef"),
            "sk-assis***************cdef"
        );
        assert_eq!(masked("short"), "*****");
    }

    #[test]
    fn keys_are_found_wherever_clients_put_them() {
        let headers = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::HeaderName::from_static(name),
                value.parse().expect("test values are valid"),
            );
            key_of(&headers)
        };
        assert_eq!(
            headers("authorization", "Bearer sk-1").as_deref(),
            Some("sk-1")
        );
        assert_eq!(headers("api-key", "sk-2").as_deref(), Some("sk-2"));
        assert_eq!(
            headers("authorization", "Basic OnNrLTM=").as_deref(),
            Some("sk-3")
        );
        assert_eq!(headers("authorization", "Bearer "), None);
    }
}
