//! What handlers take from a request. Every refusal has OpenAI's shape.

use std::str::FromStr;
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header;
use axum::http::request::Parts;
use bytes::BytesMut;
use futures::StreamExt as _;
use serde_json::{Map, Value};

use crate::domain::Metadata;
use crate::domain::ids::{
    ApiKeyId, AssistantId, BatchId, FileId, MessageId, ProjectId, RunId, StepId, ThreadId,
    UploadId, VectorStoreId, WrongPrefix,
};
use crate::domain::page::{Order, PageRequest};
use crate::http::request::body_memory::Share;
use crate::http::request::body_timeout;
use crate::http::request::keyless::{self, Keyless};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::json::{Json, NUL};
use crate::wire::object::{self, Object, PASSED_VALUES_MAX, VALUE_BYTES, wrong_id};

/// How long a refused client is listened to. One that is cut off while it sends sees a broken
/// connection and never the reason.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a body of undeclared length is taken to have at first.
const UNDECLARED_BYTES: usize = 64 << 10;

/// Values of a body that is nothing out of the ordinary.
const ORDINARY_VALUES: usize = 1_000;

/// An id in a path, under the name that routes and error texts give it.
pub trait PathId: FromStr<Err = WrongPrefix> {
    /// The name, as in `/threads/{thread_id}`.
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
);

/// The ids in the request's path, checked for their prefixes.
#[derive(Debug)]
pub struct InPath<T>(pub T);

fn path_id<T: PathId>(params: &RawPathParams) -> Result<T, ApiError> {
    let (_, text) = params
        .iter()
        .find(|(name, _)| *name == T::PARAM)
        .ok_or_else(|| ApiError::internal(&format!("no {} in the route", T::PARAM)))?;
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

/// A part of the path that is no id, or one that is looked up whatever it looks like.
#[derive(Debug)]
pub struct NameInPath(pub String);

impl FromRequestParts<ApiState> for NameInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        let last = params.iter().last().map(|(_, text)| text.to_owned());
        last.map(Self)
            .ok_or_else(|| ApiError::internal(&"no parameter in the route"))
    }
}

/// The request's query, decoded.
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
            return Err(ApiError::invalid(NUL));
        }
        Ok(Self(pairs))
    }
}

impl Query {
    /// The last value under this name; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(given, _)| given == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All names and values.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The id under this name.
    pub fn id<T: FromStr<Err = WrongPrefix>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error| wrong_id(name, text, &error).into())
    }

    /// A list given as `name`, `name[]` or `name[0]`.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(given, value)| {
            let rest = given.strip_prefix(name)?;
            let indexed = rest.starts_with('[') && rest.ends_with(']');
            (rest.is_empty() || indexed).then_some(value.as_str())
        })
    }

    /// Pairs given as `metadata[key]=value`.
    pub fn metadata(&self) -> Metadata {
        let pair = |(name, value): &(String, String)| {
            let key = name.strip_prefix("metadata[")?.strip_suffix(']')?;
            Some((key.to_owned(), value.clone()))
        };
        self.0.iter().filter_map(pair).collect()
    }

    /// The usual pagination: 20 at a time, at most 100.
    pub fn page(&self) -> Result<PageRequest, ApiError> {
        self.page_of(20, 100)
    }

    /// Pagination with other limits.
    pub fn page_of(&self, default: i64, max: i64) -> Result<PageRequest, ApiError> {
        let limit = match self.get("limit") {
            None => default,
            Some(text) => {
                let value = text
                    .parse::<i64>()
                    .map_or_else(|_| Value::String(text.to_owned()), Value::from);
                object::integer("limit", &value, 1, max)?
            }
        };
        let order = match self.get("order") {
            None => Order::default(),
            Some("asc") => Order::Asc,
            Some("desc") => Order::Desc,
            Some(other) => {
                return Err(object::invalid_value("order", other, &["asc", "desc"]).into());
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

    /// Whether `include[]` asks for the text of search results. Refuses values that the contract
    /// does not know.
    pub fn includes_passages(&self) -> Result<bool, ApiError> {
        const KNOWN: &str = "step_details.tool_calls[*].file_search.results[*].content";
        match self.list("include").find(|value| *value != KNOWN) {
            None => Ok(self.list("include").next().is_some()),
            Some(other) => Err(object::invalid_value("include", other, &[KNOWN]).into()),
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
        let bytes = body_bytes(request, state, &share).await?;
        if bytes.is_empty() {
            return Ok(Self(Object::body(Map::new())));
        }
        is_json?;
        let length = bytes.len();
        let body = Json::of_body(bytes)?;
        // The few values of an ordinary request are no more than its other needs.
        let values = body.size().min(PASSED_VALUES_MAX);
        let tree = values.saturating_sub(ORDINARY_VALUES) * VALUE_BYTES;
        state.body_memory.grow(&share, length, tree)?;
        Ok(Self(Object::of_body(body)?))
    }
}

/// The whole body of a request that is not a file.
async fn body_bytes(request: Request, state: &ApiState, share: &Share) -> Result<Bytes, ApiError> {
    let limit = state.limits.max_body_bytes;
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut pieces = request.into_body().into_data_stream();
    let expected = declared.unwrap_or(UNDECLARED_BYTES).min(limit);
    if let Err(error) = state.body_memory.wait_for(share, expected).await {
        skip(pieces).await;
        return Err(error);
    }
    // Reserved at once, the buffer is never copied to a larger one. What is reserved takes no memory
    // before it is written.
    let mut body = BytesMut::with_capacity(expected);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| match body_timeout::is_to_blame(&error) {
            true => ApiError::too_slow(),
            false => ApiError::invalid("The request body ended early."),
        })?;
        let length = body.len() + piece.len();
        let checked = match length > limit {
            true => Err(ApiError::too_large(format!(
                "The request body is too large: this server takes up to {limit} bytes here."
            ))),
            false => state.body_memory.grow(share, length, 0),
        };
        if let Err(error) = checked {
            drop((body, piece));
            share.give_back();
            skip(pieces).await;
            return Err(error);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Reads the rest of a refused body, so that its sender gets to read the answer.
async fn skip(mut pieces: BodyDataStream) {
    let rest = async { while let Some(Ok(_)) = pieces.next().await {} };
    drop(tokio::time::timeout(PATIENCE, rest).await);
}
