//! Extractors for path parameters, queries and JSON bodies. They refuse with OpenAI's error texts.

use std::str::FromStr;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header;
use axum::http::request::Parts;
use bytes::BytesMut;
use futures::StreamExt as _;
use serde_json::{Map, Value};

use crate::domain::ids::{
    ApiKeyId, AssistantId, BatchId, EndpointId, FileId, MessageId, ProjectId, RunId, StepId,
    ThreadId, UploadId, VectorStoreId, WrongPrefix,
};
use crate::domain::page::{Order, PageRequest};
use crate::domain::{Metadata, Timestamp};
use crate::http::request::body_timeout::{DRAIN_TIMEOUT, is_timeout};
use crate::http::request::keyless::{self, Keyless};
use crate::http::response::error::ApiError;
use crate::http::state::{ApiState, Share};
use crate::wire::json::{BYTES_PER_VALUE, Json, NUL_REFUSAL};
use crate::wire::object::{MAX_PASSTHROUGH_VALUES, Object};
use crate::wire::refusal::{invalid_value, wrong_id};
use crate::wire::value;

/// Assumed length of a body without `Content-Length`, in bytes.
const UNDECLARED_BYTES: usize = 64 << 10;

/// Values of a body that no memory is reserved for: an ordinary request has fewer.
const MAX_UNCOUNTED_VALUES: usize = 1_000;

/// The end of the year 9999, in seconds since 1970.
const MAX_TIME: i64 = 253_402_300_799;

const DEFAULT_PAGE: i64 = 20;
const MAX_PAGE: i64 = 100;

pub trait PathId: FromStr<Err = WrongPrefix> {
    /// The name in routes and error texts, as in `/threads/{thread_id}`.
    const PARAM: &'static str;
}

macro_rules! path_ids {
    ($($id:ty => $param:literal),* $(,)?) => {
        $(impl PathId for $id { const PARAM: &'static str = $param; })*
    };
}

path_ids!(
    AssistantId => "assistant_id",
    ThreadId => "thread_id",
    MessageId => "message_id",
    RunId => "run_id",
    StepId => "step_id",
    UploadId => "upload_id",
    VectorStoreId => "vector_store_id",
    FileId => "file_id",
    BatchId => "batch_id",
    ProjectId => "project_id",
    ApiKeyId => "key_id",
    EndpointId => "endpoint_id",
);

/// The ids in the path, whose prefixes are checked.
#[derive(Debug)]
pub struct InPath<T>(pub T);

fn path_id<T: PathId>(params: &RawPathParams) -> Result<T, ApiError> {
    let (_, text) = params
        .iter()
        .find(|(name, _)| *name == T::PARAM)
        .ok_or_else(|| ApiError::internal(&format!("the route has no parameter {}", T::PARAM)))?;
    text.parse()
        .map_err(|error| wrong_id(T::PARAM, text, &error).into())
}

async fn path_params(parts: &mut Parts, state: &ApiState) -> Result<RawPathParams, ApiError> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| ApiError::invalid("The URL is not valid UTF-8 once decoded."))
}

macro_rules! in_path {
    ($($id:ident),*) => {
        impl<$($id: PathId),*> FromRequestParts<ApiState> for InPath<($($id,)*)> {
            type Rejection = ApiError;

            async fn from_request_parts(
                parts: &mut Parts,
                state: &ApiState,
            ) -> Result<Self, ApiError> {
                let params = path_params(parts, state).await?;
                Ok(Self(($(path_id::<$id>(&params)?,)*)))
            }
        }
    };
}

in_path!(A);
in_path!(A, B);
in_path!(A, B, C);

/// The last path parameter, unchecked: a name, or an id whose prefix does not matter.
#[derive(Debug)]
pub struct NameInPath(pub String);

impl FromRequestParts<ApiState> for NameInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        let last = params.iter().last().map(|(_, text)| text.to_owned());
        last.map(Self)
            .ok_or_else(|| ApiError::internal(&"the route has no parameters"))
    }
}

#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl FromRequestParts<ApiState> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let raw = parts.uri.query().unwrap_or_default();
        let pairs: Vec<_> = form_urlencoded::parse(raw.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let has_nul =
            |(name, value): &(String, String)| name.contains('\0') || value.contains('\0');
        if pairs.iter().any(has_nul) {
            return Err(ApiError::invalid(NUL_REFUSAL));
        }
        Ok(Self(pairs))
    }
}

impl Query {
    /// The last value of this name; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    pub fn id<T: FromStr<Err = WrongPrefix>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error| wrong_id(name, text, &error).into())
    }

    /// A time in seconds since 1970, as objects show it.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let time = text.parse().ok();
        let time = time.and_then(|seconds| Timestamp::from_timestamp(seconds, 0));
        // PostgreSQL's range is smaller than that of the type.
        let is_known = |time: &Timestamp| (0..=MAX_TIME).contains(&time.timestamp());
        match time.filter(is_known) {
            Some(time) => Ok(Some(time)),
            None => Err(ApiError::invalid(format!(
                "Invalid '{name}': expected a Unix time in seconds."
            ))
            .param(name)
            .code("invalid_value")),
        }
    }

    /// The values of a list, which clients write as `name`, `name[]` or `name[0]`.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(key, value)| {
            let index = key.strip_prefix(name)?;
            let is_indexed = index.starts_with('[') && index.ends_with(']');
            (index.is_empty() || is_indexed).then_some(value.as_str())
        })
    }

    pub fn metadata(&self) -> Metadata {
        let pair = |(name, value): &(String, String)| {
            let key = name.strip_prefix("metadata[")?.strip_suffix(']')?;
            Some((key.to_owned(), value.clone()))
        };
        self.0.iter().filter_map(pair).collect()
    }

    pub fn page(&self) -> Result<PageRequest, ApiError> {
        self.page_with_limits(DEFAULT_PAGE, MAX_PAGE)
    }

    pub fn page_with_limits(&self, default: i64, max: i64) -> Result<PageRequest, ApiError> {
        let limit = match self.get("limit") {
            None => default,
            Some(text) => {
                let limit = text
                    .parse::<i64>()
                    .map_or_else(|_| Value::String(text.to_owned()), Value::from);
                value::integer("limit", limit, 1, max)?
            }
        };
        let order = match self.get("order") {
            None => Order::default(),
            Some("asc") => Order::Asc,
            Some("desc") => Order::Desc,
            Some(other) => {
                return Err(invalid_value("order", other, &["asc", "desc"]).into());
            }
        };
        let cursor = |name| self.get(name).map(str::to_owned);
        Ok(PageRequest {
            limit,
            order,
            after: cursor("after"),
            before: cursor("before"),
        })
    }

    /// Whether `include[]` requests the content of search results. Refuses other values.
    pub fn includes_result_content(&self) -> Result<bool, ApiError> {
        const KNOWN: &str = "step_details.tool_calls[*].file_search.results[*].content";
        match self.list("include").find(|value| *value != KNOWN) {
            None => Ok(self.list("include").next().is_some()),
            Some(other) => Err(invalid_value("include", other, &[KNOWN]).into()),
        }
    }
}

/// A JSON body that must be an object. An absent body counts as an empty object.
#[derive(Debug)]
pub struct Body(pub Object);

impl FromRequest<ApiState> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let is_json = match request.extensions().get::<Keyless>() {
            Some(_) => keyless::check_json(request.headers()),
            None => Ok(()),
        };
        let share = request.extensions().get::<Share>().cloned();
        let share = share.unwrap_or_default();
        let bytes = read_body(request, state, &share).await?;
        if bytes.is_empty() {
            return Ok(Self(Object::from_fields(Map::new())));
        }
        is_json?;
        let length = bytes.len();
        let body = Json::parse_body(bytes)?;
        let values = body.value_count().min(MAX_PASSTHROUGH_VALUES);
        let tree = values.saturating_sub(MAX_UNCOUNTED_VALUES) * BYTES_PER_VALUE;
        state.body_memory.extend(&share, length, tree)?;
        Ok(Self(Object::from_body(body)?))
    }
}

async fn read_body(request: Request, state: &ApiState, share: &Share) -> Result<Bytes, ApiError> {
    let limit = state.limits.max_body_bytes;
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut chunks = request.into_body().into_data_stream();
    let expected = declared.unwrap_or(UNDECLARED_BYTES).min(limit);
    if let Err(error) = state.body_memory.reserve(share, expected).await {
        drain(chunks).await;
        return Err(error.into());
    }
    // The full capacity avoids copies to larger buffers. Memory is used only once it is written.
    let mut body = BytesMut::with_capacity(expected);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| match is_timeout(&error) {
            true => ApiError::too_slow(),
            false => ApiError::invalid("The request body ended early."),
        })?;
        let length = body.len() + chunk.len();
        let checked = match length > limit {
            true => Err(ApiError::too_large(format!(
                "The request body is too large: this server takes up to {limit} bytes here."
            ))),
            false => state
                .body_memory
                .extend(share, length, 0)
                .map_err(ApiError::from),
        };
        if let Err(error) = checked {
            drop((body, chunk));
            share.release();
            drain(chunks).await;
            return Err(error);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn drain(mut chunks: BodyDataStream) {
    let discard = async { while let Some(Ok(_)) = chunks.next().await {} };
    drop(tokio::time::timeout(DRAIN_TIMEOUT, discard).await);
}
