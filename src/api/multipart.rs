//! Forms with a file (`multipart/form-data`), taken apart while they arrive.
//!
//! The file is handed on piece by piece, whatever its size; everything else in a form is small or
//! refused, so that no request can fill the memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use crate::api::error::ApiError;
use crate::api::state::ApiState;
use crate::api::validate::{Object, missing};
use crate::blobs::BlobError;

/// Most bytes of a text field, and of whatever surrounds the fields.
const SMALL: usize = 128 << 10;

/// Most fields in a form.
const MAX_FIELDS: usize = 32;

/// How much the parser is given at a time.
const PIECE: usize = 32 << 10;

/// How long a refused client is listened to. One that is cut off while it sends sees a broken
/// connection, and tries again, instead of the reason.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file that came in a form.
#[derive(Debug)]
pub struct FilePart<T> {
    /// Its name as the client sent it; `None` if the client sent no name and so, strictly, no file.
    pub filename: Option<String>,
    /// What was made of its contents.
    pub stored: T,
}

/// The body of a request with a file.
pub struct Form {
    fields: multer::Multipart<'static>,
    allowance: Arc<AtomicUsize>,
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
        let allowance = Arc::new(AtomicUsize::new(0));
        let metered = Metered {
            body,
            rest: Bytes::new(),
            pause: false,
            allowance: Arc::clone(&allowance),
        };
        Self {
            fields: multer::Multipart::new(metered, boundary),
            allowance,
        }
    }

    /// Takes the form apart: the contents of the field `file` go to `store`, all others become an
    /// object. A field `a[b]` becomes the field `b` of an object `a`.
    pub async fn read<T, F>(
        mut self,
        file: &'static str,
        store: impl FnOnce(FieldContents) -> F,
    ) -> Result<(Object, FilePart<T>), ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let taken = self.take_apart(file, store).await;
        if taken.is_err() {
            // Ends early, too, when the rest makes no sense.
            drop(tokio::time::timeout(PATIENCE, self.skip_rest()).await);
        }
        taken
    }

    async fn take_apart<T, F>(
        &mut self,
        file: &'static str,
        store: impl FnOnce(FieldContents) -> F,
    ) -> Result<(Object, FilePart<T>), ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let mut texts = Map::new();
        let mut store = Some(store);
        let mut part = None;
        for _ in 0..MAX_FIELDS {
            let Some(field) = self.next().await? else {
                let part = part.ok_or_else(|| missing(file))?;
                return Ok((Object::body(texts), part));
            };
            let name = field.name().unwrap_or_default().to_owned();
            if name == file {
                let store = store.take().ok_or_else(|| twice(&name))?;
                let filename = filename(&field)?;
                self.allowance.store(usize::MAX, Ordering::Relaxed);
                part = Some(FilePart {
                    filename,
                    stored: store(contents(field)).await?,
                });
            } else {
                let value = text(&name, field).await?;
                insert(&mut texts, &name, value)?;
            }
        }
        Err(ApiError::invalid(format!(
            "Too many form fields: at most {MAX_FIELDS} are taken."
        )))
    }

    async fn next(&mut self) -> Result<Option<multer::Field<'static>>, ApiError> {
        self.allowance.store(SMALL, Ordering::Relaxed);
        self.fields
            .next_field()
            .await
            .map_err(|error| broken(&error))
    }

    async fn skip_rest(&mut self) {
        loop {
            self.allowance.store(usize::MAX, Ordering::Relaxed);
            match self.fields.next_field().await {
                Ok(Some(mut field)) => while let Ok(Some(_)) = field.chunk().await {},
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// The contents of a form's file.
pub type FieldContents = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

fn contents(field: multer::Field<'static>) -> FieldContents {
    field
        .map_err(|error| BlobError::Body(error.to_string()))
        .boxed()
}

async fn text(name: &str, mut field: multer::Field<'static>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(|error| broken(&error))? {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| ApiError::invalid(format!("Invalid '{name}': not a text.")).param(name))
}

/// Puts a text field where it belongs. Numbers arrive as texts; only inside of objects are any
/// expected, so only there they are recognised.
fn insert(texts: &mut Map<String, Value>, name: &str, value: String) -> Result<(), ApiError> {
    let inner = name
        .split_once('[')
        .and_then(|(outer, rest)| Some((outer, rest.strip_suffix(']')?)));
    let previous = match inner {
        None => texts.insert(name.to_owned(), Value::String(value)),
        Some((outer, inner)) => {
            let value = value
                .parse::<i64>()
                .map_or_else(|_| Value::String(value), Value::from);
            match texts
                .entry(outer)
                .or_insert_with(|| Value::Object(Map::new()))
            {
                Value::Object(object) => object.insert(inner.to_owned(), value),
                other => Some(other.take()),
            }
        }
    };
    if previous.is_some() {
        Err(twice(name))
    } else {
        Ok(())
    }
}

fn twice(name: &str) -> ApiError {
    ApiError::invalid(format!("Duplicate parameter: '{name}'.")).param(name)
}

fn broken(error: &multer::Error) -> ApiError {
    if let multer::Error::StreamReadFailed(cause) = error
        && cause.is::<TooMuch>()
    {
        return ApiError::invalid(format!("Invalid form: {TooMuch}."));
    }
    ApiError::invalid(format!(
        "The multipart form in the request body is broken: {error}."
    ))
}

/// The name of the file in a field. `filename*` (RFC 5987) comes before `filename`, which holds
/// UTF-8 as it is.
fn filename(field: &multer::Field<'_>) -> Result<Option<String>, ApiError> {
    let Some(header) = field.headers().get(CONTENT_DISPOSITION) else {
        return Ok(None);
    };
    let parameters = parameters(header.as_bytes());
    let find = |wanted: &str| {
        parameters
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_slice())
    };
    let bytes = match (find("filename*").and_then(extended), find("filename")) {
        (Some(name), _) => name,
        (None, Some(name)) => name.to_vec(),
        (None, None) => return Ok(None),
    };
    let name = String::from_utf8(bytes)
        .ok()
        .filter(|name| !name.contains('\0'));
    name.map(Some)
        .ok_or_else(|| ApiError::invalid("Invalid file name: not a text in UTF-8."))
}

/// Decodes `UTF-8''caf%C3%A9`; `None` for other charsets.
fn extended(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    charset
        .eq_ignore_ascii_case(b"utf-8")
        .then(|| percent_decode(text).collect())
}

/// The parameters of a Content-Disposition header, names in lower case.
///
/// In quotes, a backslash stands before a quote or another backslash; before anything else it is
/// itself, because many clients send Windows paths without care.
fn parameters(header: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut bytes = header
        .iter()
        .copied()
        .skip_while(|byte| *byte != b';')
        .skip(1)
        .peekable();
    let mut parameters = Vec::new();
    while bytes.peek().is_some() {
        let mut name = Vec::new();
        while let Some(byte) = bytes.next_if(|byte| !matches!(byte, b'=' | b';')) {
            name.push(byte);
        }
        let mut value = Vec::new();
        if bytes.next_if_eq(&b'=').is_some() {
            while bytes.next_if_eq(&b' ').is_some() {}
            if bytes.next_if_eq(&b'"').is_some() {
                while let Some(byte) = bytes.next_if(|byte| *byte != b'"') {
                    let escaped =
                        bytes.next_if(|next| byte == b'\\' && matches!(next, b'"' | b'\\'));
                    value.push(escaped.unwrap_or(byte));
                }
                while bytes.next_if(|byte| *byte != b';').is_some() {}
            } else {
                while let Some(byte) = bytes.next_if(|byte| *byte != b';') {
                    value.push(byte);
                }
                value.truncate(value.trim_ascii_end().len());
            }
        }
        bytes.next();
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        parameters.push((name, value));
    }
    parameters
}

/// More came than the parser should hold.
#[derive(Debug, thiserror::Error)]
#[error("fields other than the file, and their headers, must be small")]
struct TooMuch;

/// A body for a parser that takes all that is ready before it hands anything on, and searches all
/// it holds for the next boundary. In small pieces, one at a time, it never holds much; and
/// outside of the file it may take only what it is allowed.
struct Metered {
    body: BodyDataStream,
    rest: Bytes,
    pause: bool,
    allowance: Arc<AtomicUsize>,
}

impl Stream for Metered {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match ready!(self.body.poll_next_unpin(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(bytes)) => self.rest = bytes,
            }
        }
        let length = self.rest.len().min(PIECE);
        let left = self.allowance.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(length) else {
            return Poll::Ready(Some(Err(TooMuch.into())));
        };
        self.allowance.store(left, Ordering::Relaxed);
        self.pause = true;
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}
