//! Forms with a file (`multipart/form-data`), parsed while they arrive.
//!
//! The contents of the file are streamed, whatever their size; everything else in a form is bounded,
//! so no request can fill the memory.

mod content_disposition;
mod metered;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use axum::body::BodyDataStream;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value};

use self::content_disposition::filename;
use self::metered::{AllowanceExceeded, MAX_FIELD_BYTES, Meter, Metered};
use crate::files::blobs::BlobError;
use crate::http::request::body_timeout::{DRAIN_TIMEOUT, is_timeout};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::object::Object;
use crate::wire::refusal::missing;

const MAX_FIELDS: usize = 32;

#[derive(Debug)]
pub struct FilePart<T> {
    /// The name as the client sent it. `None` if the field has no name and so is no file.
    pub filename: Option<String>,
    pub stored: T,
}

pub struct Form {
    fields: multer::Multipart<'static>,
    meter: Arc<Meter>,
}

impl FromRequest<ApiState> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &ApiState) -> Result<Self, ApiError> {
        let boundary = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| multer::parse_boundary(value.to_str().ok()?).ok());
        let boundary = boundary.ok_or_else(|| {
            ApiError::invalid("Invalid Content-Type: expected multipart/form-data with a boundary.")
        })?;
        Ok(Self::new(request.into_body().into_data_stream(), boundary))
    }
}

impl Form {
    fn new(body: BodyDataStream, boundary: String) -> Self {
        let meter = Arc::<Meter>::default();
        let metered = Metered::new(body, Arc::clone(&meter));
        Self {
            fields: multer::Multipart::new(metered, boundary),
            meter,
        }
    }

    /// Parses the form: the contents of the field `file` go to `store`, all other fields become an
    /// object. A field `a[b]` becomes the field `b` of an object `a`.
    pub async fn read<T, F>(
        mut self,
        file: &'static str,
        store: impl FnOnce(FieldContents) -> F,
    ) -> Result<(Object, FilePart<T>), ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let parsed = self.parse(file, store).await;
        if parsed.is_err() {
            drop(tokio::time::timeout(DRAIN_TIMEOUT, self.drain()).await);
        }
        parsed
    }

    async fn parse<T, F>(
        &mut self,
        file: &'static str,
        store: impl FnOnce(FieldContents) -> F,
    ) -> Result<(Object, FilePart<T>), ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let mut fields = Map::new();
        let mut store = Some(store);
        let mut part = None;
        for _ in 0..MAX_FIELDS {
            let Some(field) = self.next().await? else {
                let part = part.ok_or_else(|| missing(file))?;
                return Ok((Object::from_fields(fields), part));
            };
            let name = field.name().unwrap_or_default().to_owned();
            if name == file {
                let store = store.take().ok_or_else(|| duplicate(&name))?;
                let filename = filename(&field)?;
                self.meter.allow(usize::MAX);
                part = Some(FilePart {
                    filename,
                    stored: store(contents(field)).await?,
                });
            } else {
                let value = self.read_text(&name, field).await?;
                insert(&mut fields, &name, value)?;
            }
        }
        Err(ApiError::invalid(format!(
            "Too many form fields: at most {MAX_FIELDS} are taken."
        )))
    }

    async fn next(&mut self) -> Result<Option<multer::Field<'static>>, ApiError> {
        self.meter.allow(MAX_FIELD_BYTES);
        self.fields
            .next_field()
            .await
            .map_err(|error| invalid_form(&error))
    }

    async fn read_text(
        &self,
        name: &str,
        mut field: multer::Field<'static>,
    ) -> Result<String, ApiError> {
        self.meter.allow(MAX_FIELD_BYTES);
        let mut text = Vec::new();
        while let Some(bytes) = field.chunk().await.map_err(|error| invalid_form(&error))? {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text)
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| {
                ApiError::invalid(format!("Invalid '{name}': not valid UTF-8.")).param(name)
            })
    }

    async fn drain(&mut self) {
        self.meter.discard_rest();
        while let Ok(Some(_)) = self.fields.next_field().await {}
    }
}

pub type FieldContents = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

fn contents(field: multer::Field<'static>) -> FieldContents {
    field
        .map_err(|error| match is_timeout(&error) {
            true => BlobError::Slow,
            false => BlobError::Body(error.to_string()),
        })
        .boxed()
}

/// Adds a text field. A form has no numbers; the API expects them in objects only, so only there are
/// texts parsed as numbers.
fn insert(fields: &mut Map<String, Value>, name: &str, value: String) -> Result<(), ApiError> {
    let inner = name
        .split_once('[')
        .and_then(|(outer, inner)| Some((outer, inner.strip_suffix(']')?)));
    let previous = match inner {
        None => fields.insert(name.to_owned(), Value::String(value)),
        Some((outer, inner)) => {
            let value = value
                .parse::<i64>()
                .map_or_else(|_| Value::String(value), Value::from);
            match fields
                .entry(outer)
                .or_insert_with(|| Value::Object(Map::new()))
            {
                Value::Object(object) => object.insert(inner.to_owned(), value),
                other => Some(other.take()),
            }
        }
    };
    if previous.is_some() {
        Err(duplicate(name))
    } else {
        Ok(())
    }
}

fn duplicate(name: &str) -> ApiError {
    ApiError::invalid(format!("Duplicate parameter: '{name}'.")).param(name)
}

fn invalid_form(error: &multer::Error) -> ApiError {
    if let multer::Error::StreamReadFailed(cause) = error
        && cause.is::<AllowanceExceeded>()
    {
        return ApiError::invalid(format!("Invalid form: {AllowanceExceeded}."));
    }
    if is_timeout(error) {
        return ApiError::too_slow();
    }
    ApiError::invalid(format!(
        "The multipart form in the request body is broken: {error}."
    ))
}
