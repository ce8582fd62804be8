//! Authentication. A handler that takes a [`Caller`] or an [`AdminCaller`] runs only for requests with
//! a valid key.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;

use crate::domain::audit::Actor;
use crate::http::request::keyless::{self, Keyless};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::{Authenticated, Budgets, ProjectService};

/// The project of the request's API key. The request is admitted within the project's rate limit.
pub struct Caller(pub ProjectService);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let key = api_key(&parts.headers).ok_or_else(|| {
            ApiError::unauthorized(
                "You didn't provide an API key. You need to provide your API key in an \
                 Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), \
                 or as the password field (with blank username) if you're accessing the API from \
                 your browser and are prompted for a username and password. Keys are made by the \
                 operator of this server with `assistd keys create`.",
            )
        })?;
        let budgets = parts.extensions.get::<Budgets>().cloned();
        let authenticated = state
            .service
            .authenticate(&key, budgets.unwrap_or_default())
            .await?;
        let Authenticated {
            project,
            is_keyless,
        } = authenticated.ok_or_else(|| {
            ApiError::unauthorized(format!(
                "Incorrect API key provided: {}. Keys are made by the operator of this server \
                 with `assistd keys create`.",
                masked(&key)
            ))
            .code("invalid_api_key")
        })?;
        if is_keyless {
            keyless::check(&parts.headers, &state.cors_origins)?;
            parts.extensions.insert(Keyless);
        }
        project.admit_request().await?;
        if state.limits.require_beta_header {
            check_beta_header(parts)?;
        }
        Ok(Self(project))
    }
}

pub struct AdminCaller(pub Actor);

impl FromRequestParts<ApiState> for AdminCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = peer.map_or_else(
            || "unknown".to_owned(),
            |ConnectInfo(address)| address.ip().to_canonical().to_string(),
        );
        let key = api_key(&parts.headers).unwrap_or_default();
        if state.service.is_admin_key(&key) {
            return Ok(Self(Actor::AdminApi(address)));
        }
        tracing::warn!(
            client.address = %address,
            "admin API: request from {address} refused, invalid key"
        );
        Err(ApiError::unauthorized("Invalid admin key.").code("invalid_api_key"))
    }
}

/// The key of a request: a bearer token, Azure's `api-key`, or the password of Basic authentication.
fn api_key(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let authorization = text(header::AUTHORIZATION.as_str());
    let key = authorization.and_then(|value| {
        let (scheme, credentials) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(credentials.trim().to_owned());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(credentials.trim())
            .ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        pair.split_once(':')
            .map(|(_, password)| password.to_owned())
    });
    key.or_else(|| text("api-key").map(str::to_owned))
        .filter(|key| !key.is_empty())
}

/// The key as error texts show it: its ends, or of a short key nothing.
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

fn check_beta_header(parts: &Parts) -> Result<(), ApiError> {
    let path = parts.uri.path();
    let is_required = path.contains("/assistants") || path.contains("/threads");
    let header = parts
        .headers
        .get("openai-beta")
        .and_then(|value| value.to_str().ok());
    if !is_required || header.is_some_and(|value| value.contains("assistants=v2")) {
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
    fn keys_are_read_from_every_header_that_clients_use() {
        let key = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::HeaderName::from_static(name),
                value.parse().expect("test values are valid"),
            );
            api_key(&headers)
        };
        assert_eq!(key("authorization", "Bearer sk-1").as_deref(), Some("sk-1"));
        assert_eq!(key("api-key", "sk-2").as_deref(), Some("sk-2"));
        assert_eq!(
            key("authorization", "Basic OnNrLTM=").as_deref(),
            Some("sk-3")
        );
        assert_eq!(key("authorization", "Bearer "), None);
    }
}
