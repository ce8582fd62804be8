//! Forms with a file (`multipart/form-data`), taken apart while they arrive.
//!
//! The file is handed on piece by piece, whatever its size; everything else in a form is small or
//! refused, so that no request can fill the memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::BodyDataStream;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use crate::files::blobs::BlobError;
use crate::http::request::body_timeout;
use crate::http::request::extract::PATIENCE;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::object::{Object, missing};

/// Most bytes of a text field, and of whatever surrounds the fields. The parser searches all of it
/// again with each piece that comes, and a hostile client's pieces are single bytes.
const SMALL: usize = 32 << 10;

/// Most fields in a form.
const MAX_FIELDS: usize = 32;

/// How much the parser is given at a time. It takes a few of these ahead, out of what it may take
/// of a small thing, so this must be much less.
const PIECE: usize = SMALL / 8;

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
        let metered = Metered {
            body,
            rest: Bytes::new(),
            pause: false,
            meter: Arc::clone(&meter),
        };
        Self {
            fields: multer::Multipart::new(metered, boundary),
            meter,
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
                self.meter.allowance.store(usize::MAX, Ordering::Relaxed);
                part = Some(FilePart {
                    filename,
                    stored: store(contents(field)).await?,
                });
            } else {
                let value = self.text(&name, field).await?;
                insert(&mut texts, &name, value)?;
            }
        }
        Err(ApiError::invalid(format!(
            "Too many form fields: at most {MAX_FIELDS} are taken."
        )))
    }

    async fn next(&mut self) -> Result<Option<multer::Field<'static>>, ApiError> {
        self.meter.allowance.store(SMALL, Ordering::Relaxed);
        self.fields
            .next_field()
            .await
            .map_err(|error| broken(&error))
    }

    async fn text(
        &self,
        name: &str,
        mut field: multer::Field<'static>,
    ) -> Result<String, ApiError> {
        self.meter.allowance.store(SMALL, Ordering::Relaxed);
        let mut text = Vec::new();
        while let Some(bytes) = field.chunk().await.map_err(|error| broken(&error))? {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text)
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| ApiError::invalid(format!("Invalid '{name}': not a text.")).param(name))
    }

    async fn skip_rest(&mut self) {
        self.meter.discard.store(true, Ordering::Relaxed);
        while let Ok(Some(_)) = self.fields.next_field().await {}
    }
}

/// The contents of a form's file.
pub type FieldContents = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

fn contents(field: multer::Field<'static>) -> FieldContents {
    field
        .map_err(|error| match body_timeout::is_to_blame(&error) {
            true => BlobError::Slow,
            false => BlobError::Body(error.to_string()),
        })
        .boxed()
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
    if body_timeout::is_to_blame(error) {
        return ApiError::too_slow();
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

/// What the parser may take.
#[derive(Debug, Default)]
struct Meter {
    /// Bytes until it is too much.
    allowance: AtomicUsize,
    /// Nothing any more: what comes is thrown away.
    discard: AtomicBool,
}

/// A body for a parser that takes all that is ready before it hands anything on, and searches all
/// it holds for the next boundary. In small pieces, one at a time, it never holds much; and
/// outside of the file it may take only what it is allowed.
struct Metered {
    body: BodyDataStream,
    rest: Bytes,
    pause: bool,
    meter: Arc<Meter>,
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
        self.pause = true;
        if self.meter.discard.load(Ordering::Relaxed) {
            self.rest.clear();
            return self.poll_next(context);
        }
        let length = self.rest.len().min(PIECE);
        let left = self.meter.allowance.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(length) else {
            return Poll::Ready(Some(Err(TooMuch.into())));
        };
        self.meter.allowance.store(left, Ordering::Relaxed);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::stream;
    use serde_json::json;

    use super::*;

    const END: &str = "\r\n--XX--\r\n";

    /// A form from its text, which arrives in pieces of some size, each after a pause.
    fn form(text: impl Into<Bytes>, piece: usize) -> Form {
        let mut text = text.into();
        let mut pieces = Vec::new();
        while !text.is_empty() {
            pieces.push(text.split_to(piece.min(text.len())));
        }
        let pieces = stream::iter(pieces).then(async |piece| {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(piece)
        });
        Form::new(
            Body::from_stream(pieces).into_data_stream(),
            "XX".to_owned(),
        )
    }

    fn field(disposition: &str, value: &str) -> String {
        format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}")
    }

    async fn collect(contents: FieldContents) -> Result<Vec<u8>, ApiError> {
        let pieces: Vec<Bytes> = contents.try_collect().await?;
        Ok(pieces.concat())
    }

    async fn refusal(form: Form) -> String {
        let refused = form.read("file", collect).await;
        let body = refused.map(|_| ()).expect_err("it is to be refused").body();
        body["error"]["message"]
            .as_str()
            .expect("a refusal has a message")
            .to_owned()
    }

    #[tokio::test]
    async fn fields_come_in_any_order_and_in_any_pieces() {
        let file = field(
            r#"name="file"; filename="a.txt""#,
            "one\r\n--X\r\n\r\n--XXtwo",
        );
        let file = file.replace("\r\n--XXtwo", "\r\n-XX");
        let purpose = field(r#"name="purpose""#, "assistants");
        let anchor = field(r#"name="expires_after[anchor]""#, "created_at");
        let seconds = field(r#"name="expires_after[seconds]""#, "3600");
        let orders = [
            [&file, &purpose, &anchor, &seconds],
            [&seconds, &purpose, &file, &anchor],
        ];
        for order in orders {
            let text = order.map(String::as_str).join("\r\n") + END;
            for piece in [1, 2, 3, 7, 1000] {
                let read = form(text.clone(), piece).read("file", collect).await;
                let (fields, part) = read.expect("it is a good form");
                assert_eq!(part.filename.as_deref(), Some("a.txt"));
                assert_eq!(part.stored, b"one\r\n--X\r\n\r\n-XX");
                let expected = json!({"purpose": "assistants", "expires_after":
                    {"anchor": "created_at", "seconds": 3600}});
                assert_eq!(fields.rest().ok().map(Value::Object), Some(expected));
            }
        }
    }

    #[tokio::test]
    async fn a_large_file_passes_through_and_an_empty_one_too() {
        let large = vec![b'\r'; 5_000_000];
        let head = field(r#"name="file"; filename="a""#, "");
        let purpose = field("name=purpose", "assistants\r\n");
        let parts = [purpose.as_bytes(), head.as_bytes(), &large, END.as_bytes()];
        for piece in [5000, 100_000, 6_000_000] {
            let form = form(parts.concat(), piece);
            let (_, part) = form.read("file", collect).await.expect("it is a good form");
            assert!(part.stored == large);
        }
        let text = head + END;
        let (_, part) = form(text, 100)
            .read("file", collect)
            .await
            .expect("it is a good form");
        assert_eq!(part.stored, b"");
    }

    #[tokio::test]
    async fn names_of_files_are_kept_as_sent() {
        let cases = [
            (r#"filename="a b.txt""#, Some("a b.txt")),
            (r#"filename="你好.txt""#, Some("你好.txt")),
            (r#"filename="Assets\x.png""#, Some(r"Assets\x.png")),
            (r#"filename="Assets\\x.png""#, Some(r"Assets\x.png")),
            (r#"filename="say \"hi\".txt""#, Some(r#"say "hi".txt"#)),
            (r#"filename="a;b=c.txt"; x=y"#, Some("a;b=c.txt")),
            (r#"filename=../../etc/passwd "#, Some("../../etc/passwd")),
            (r#"filename="";"#, Some("")),
            (r#"FileName="a.txt""#, Some("a.txt")),
            (
                r#"filename="=?utf-8?B?eA==?="; filename*=utf-8''%E4%BD%A0%20.txt"#,
                Some("你 .txt"),
            ),
            (
                r#"filename*=iso-8859-1''%E9; filename="e.txt""#,
                Some("e.txt"),
            ),
            ("x=filename", None),
        ];
        for (given, expected) in cases {
            let text = field(&format!(r#"name="file"; {given}"#), "x") + END;
            let (_, part) = form(text, 9)
                .read("file", collect)
                .await
                .expect("it is a good form");
            assert_eq!(part.filename.as_deref(), expected, "{given}");
        }
    }

    #[tokio::test]
    async fn forms_that_make_no_sense_are_refused() {
        let file = field(r#"name="file"; filename="a""#, "x");
        let purpose = field(r#"name="purpose""#, "assistants");
        let join = |fields: &[&str]| fields.join("\r\n") + END;
        let broken = "The multipart form in the request body is broken";
        let cases = [
            (String::new(), broken),
            ("no boundary at all".to_owned(), broken),
            (file.clone(), "Invalid file: the incoming data ended early"),
            (purpose.clone(), broken),
            (format!("--XXX\r\n{file}"), broken),
            ("--XX\r\nContent-Disposition".to_owned(), broken),
            ("--XX\r\n: : :\r\n\r\nx".to_owned() + END, broken),
            (join(&[&purpose]), "Missing required parameter: 'file'."),
            ("--XX--".to_owned(), "Missing required parameter: 'file'."),
            (join(&[&file, &file]), "Duplicate parameter: 'file'."),
            (
                join(&[&purpose, &purpose, &file]),
                "Duplicate parameter: 'purpose'.",
            ),
            (
                join(&[&field("name=a", "1"), &field("name=a[b]", "1")]),
                "Duplicate parameter: 'a[b]'.",
            ),
            (
                join(&[&field("name=a", "\0"), &file]),
                "Invalid 'a': not a text.",
            ),
            (join(&["--XX\r\n\r\n1"; 33]), "Duplicate parameter: ''."),
        ];
        for (text, expected) in cases {
            let message = refusal(form(text.clone(), 50)).await;
            assert!(message.starts_with(expected), "{message} for {text:.100}");
        }
        let many: Vec<String> = (0..33).map(|n| field(&format!("name=a{n}"), "1")).collect();
        let message = refusal(form(many.join("\r\n") + END, 50)).await;
        assert_eq!(message, "Too many form fields: at most 32 are taken.");
        let latin = [
            b"--XX\r\nContent-Disposition: form-data; name=file; filename=caf".as_slice(),
            b"\xe9\r\n\r\nx\r\n--XX--",
        ]
        .concat();
        assert_eq!(
            refusal(form(latin, 50)).await,
            "Invalid file name: not a text in UTF-8."
        );
    }

    #[tokio::test]
    async fn whatever_is_not_the_file_must_be_small() {
        let huge = "x".repeat(10 * SMALL);
        let file = field(r#"name="file"; filename="a""#, "x");
        let cases = [
            huge.clone(),
            format!("--XX\r\nX: {huge}\r\n\r\nx"),
            field("name=purpose", &huge),
            format!("{file}\r\n{}", field("name=purpose", &huge)),
        ];
        for text in cases {
            for piece in [1000, text.len()] {
                let message = refusal(form(text.clone() + END, piece)).await;
                assert!(message.contains("must be small"), "{message}");
            }
        }
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_form_is_listened_to() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let form = Form::new(body.into_data_stream(), "XX".to_owned());
        let send = async move {
            let head = field("name=file; filename=a", "x");
            sender
                .send(Ok::<_, std::io::Error>(Bytes::from(head)))
                .await?;
            for _ in 0..100 {
                sender.send(Ok(Bytes::from(vec![b'x'; 10_000]))).await?;
            }
            sender.send(Ok(Bytes::from(END))).await
        };
        let refuse = async |_| Err::<(), _>(ApiError::invalid("no"));
        let (sent, refused) = tokio::join!(send, form.read("file", refuse));
        assert!(sent.is_ok(), "the client could send all of it");
        assert!(refused.is_err());
    }
}
