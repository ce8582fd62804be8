//! `/files`

use std::ops::Range;

use axum::Json;
use axum::body::Body as Payload;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::file::{File, NewFile, Purpose};
use crate::domain::ids::FileId;
use crate::files;
use crate::files::Draft;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{NameInPath, Query};
use crate::http::request::multipart::{FilePart, Form};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;
use crate::wire::List;
use crate::wire::file::{DeletedFile, FileObject};
use crate::wire::object::{self, Object};

/// Longest name of a file, in characters.
pub const MAX_FILENAME: usize = 1024;

/// `POST /files`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    form: Form,
) -> Result<Response, ApiError> {
    let id = FileId::generate();
    let limit = state.limits.file_bytes;
    let write =
        async |contents| Ok(Draft::write(&state.pool, &state.blobs, &id, contents, limit).await?);
    let (
        mut fields,
        FilePart {
            filename,
            stored: draft,
        },
    ) = form.read("file", write).await?;
    let filename = filename.ok_or_else(|| {
        ApiError::invalid("Invalid type for 'file': expected a file, but got a string instead.")
            .param("file")
            .code("invalid_type")
    })?;
    let new = NewFile {
        filename: object::string("filename", filename, MAX_FILENAME)?,
        purpose: purpose(&mut fields)?,
        expires_after: expires_after(&mut fields)?,
    };
    fields.finish()?;
    let file = draft.keep(&project, &id, &new).await?;
    Ok(Json(FileObject::from(&file)).into_response())
}

/// `GET /files`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    query: Query,
) -> Result<Response, ApiError> {
    let request = query.page_of(10_000, 10_000)?;
    let page = store::files::list(&state.pool, &project, query.get("purpose"), &request).await?;
    let list = List::of(&page, |file| file.id.to_string(), FileObject::from);
    Ok(Json(list).into_response())
}

/// `GET /files/{file_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    NameInPath(id): NameInPath,
) -> Result<Response, ApiError> {
    let file = store::files::find(&state.pool, &project, &file_id(&id)?)
        .await?
        .ok_or_else(|| ApiError::no_such_file(&id))?;
    Ok(Json(FileObject::from(&file)).into_response())
}

/// `DELETE /files/{file_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    NameInPath(id): NameInPath,
) -> Result<Response, ApiError> {
    let id = file_id(&id)?;
    if !files::delete(&state.pool, &state.blobs, &project, &id).await? {
        return Err(ApiError::no_such_file(&id));
    }
    Ok(Json(DeletedFile::from(&id)).into_response())
}

/// `GET /files/{file_id}/content`
pub async fn content(
    State(state): State<ApiState>,
    Caller(project): Caller,
    NameInPath(id): NameInPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = store::files::find(&state.pool, &project, &file_id(&id)?)
        .await?
        .ok_or_else(|| ApiError::no_such_file(&id))?;
    let size = u64::try_from(file.bytes).unwrap_or(0);
    let range = match requested_range(&headers, size) {
        Wanted::All => None,
        Wanted::Part(range) => Some(range),
        Wanted::Beyond => return Ok(beyond(size)),
    };
    let contents = state.blobs.get(file.id.as_str(), range.clone()).await?;
    Ok(answer(
        &file,
        size,
        range,
        Payload::from_stream(contents.stream),
    ))
}

/// A file's id; whatever is none names no file.
fn file_id(text: &str) -> Result<FileId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::no_such_file(text.chars().take(64).collect::<String>()))
}

/// Takes what a file is for, refusing other words as the hosted service does.
pub fn purpose(fields: &mut Object) -> Result<Purpose, ApiError> {
    let text = fields.required_string("purpose", usize::MAX)?;
    let known = Purpose::UPLOADABLE;
    let found = known
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, purpose)| *purpose);
    found.ok_or_else(|| {
        let words = known.map(|(word, _)| format!("'{word}'")).join(", ");
        let shown: String = text.chars().take(64).collect();
        ApiError::invalid(format!("'{shown}' is not one of [{words}] - 'purpose'")).param("purpose")
    })
}

/// Takes a file's life in seconds: an hour to thirty days, counted from its creation.
pub fn expires_after(fields: &mut Object) -> Result<Option<i64>, ApiError> {
    let Some(mut policy) = fields.object("expires_after")? else {
        return Ok(None);
    };
    let anchor = policy.word("anchor", &[("created_at", ())])?;
    anchor.ok_or_else(|| object::missing(&policy.path("anchor")))?;
    let seconds = policy.integer("seconds", 3600, 2_592_000)?;
    let seconds = seconds.ok_or_else(|| object::missing(&policy.path("seconds")))?;
    policy.finish()?;
    Ok(Some(seconds))
}

/// What part of a file a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Beyond,
}

/// Reads a `Range` header (RFC 9110, 14.2) of one range. Anything else gets the whole, and so does
/// `If-Range`: there are no validators that it could name.
fn requested_range(headers: &HeaderMap, size: u64) -> Wanted {
    let value = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let Some((from, to)) = value.and_then(|value| value.strip_prefix("bytes=")?.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (
        from.trim().is_empty(),
        number(from),
        to.trim().is_empty(),
        number(to),
    ) {
        (true, _, _, Some(last)) => size.saturating_sub(last)..size,
        (_, Some(from), true, _) => from..size,
        (_, Some(from), _, Some(to)) if from <= to => from..size.min(to.saturating_add(1)),
        _ => return Wanted::All,
    };
    match range {
        _ if headers.contains_key(header::IF_RANGE) => Wanted::All,
        range if range.start < range.end => Wanted::Part(range),
        _ => Wanted::Beyond,
    }
}

fn beyond(size: u64) -> Response {
    let refusal = ApiError::upstream(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "invalid_request_error",
        format!("The file has {size} bytes, none of them in the requested range."),
    );
    let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
    (range, refusal).into_response()
}

fn answer(file: &File, size: u64, range: Option<Range<u64>>, payload: Payload) -> Response {
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_DISPOSITION, attachment(&file.filename)),
        (header::CONTENT_LENGTH, length.into()),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ];
    match range {
        None => (headers, payload).into_response(),
        Some(Range { start, end }) => {
            let range = [(
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/{size}", end - 1),
            )];
            (StatusCode::PARTIAL_CONTENT, headers, range, payload).into_response()
        }
    }
}

/// `Content-Disposition` for a download (RFC 6266): the name as far as it is ASCII, and if it is
/// not, once more with percent signs for clients that understand these.
fn attachment(filename: &str) -> HeaderValue {
    /// What RFC 5987 allows beside letters and digits.
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'!')
        .remove(b'#')
        .remove(b'$')
        .remove(b'&')
        .remove(b'+')
        .remove(b'-')
        .remove(b'.')
        .remove(b'^')
        .remove(b'_')
        .remove(b'`')
        .remove(b'|')
        .remove(b'~');
    let plain = |character: char| character == ' ' || character.is_ascii_graphic();
    let quoted: String = filename
        .chars()
        .map(|character| if plain(character) { character } else { '_' })
        .flat_map(|character| {
            let escape = matches!(character, '"' | '\\').then_some('\\');
            escape.into_iter().chain([character])
        })
        .collect();
    let mut value = format!("attachment; filename=\"{quoted}\"");
    if !filename.chars().all(plain) {
        value.push_str("; filename*=UTF-8''");
        value.extend(utf8_percent_encode(filename, ESCAPED));
    }
    HeaderValue::from_str(&value).expect("only visible ASCII characters are left")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let wanted = |range: &str, size| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().expect("test values are valid"));
            requested_range(&headers, size)
        };
        let cases = [
            ("bytes=0-0", 10, Wanted::Part(0..1)),
            ("bytes=3-", 10, Wanted::Part(3..10)),
            ("bytes=3-99", 10, Wanted::Part(3..10)),
            ("bytes=-4", 10, Wanted::Part(6..10)),
            ("bytes=-40", 10, Wanted::Part(0..10)),
            ("bytes=10-", 10, Wanted::Beyond),
            ("bytes=-0", 10, Wanted::Beyond),
            ("bytes=0-", 0, Wanted::Beyond),
            ("bytes=0-18446744073709551615", 10, Wanted::Part(0..10)),
            ("bytes=5-3", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("bytes=-", 10, Wanted::All),
            ("bytes=x-y", 10, Wanted::All),
            ("lines=1-2", 10, Wanted::All),
        ];
        for (range, size, expected) in cases {
            assert_eq!(wanted(range, size), expected, "{range} of {size}");
        }
        assert_eq!(requested_range(&HeaderMap::new(), 10), Wanted::All);
    }

    #[test]
    fn any_name_makes_a_valid_header() {
        let cases = [
            ("a b.txt", r#"attachment; filename="a b.txt""#),
            (r"Assets\x.png", r#"attachment; filename="Assets\\x.png""#),
            (
                "a\"\r\nSet-Cookie: b",
                "attachment; filename=\"a\\\"__Set-Cookie: b\"; filename*=UTF-8''a%22%0D%0ASet-Cookie%3A%20b",
            ),
            (
                "你 好.txt",
                "attachment; filename=\"_ _.txt\"; filename*=UTF-8''%E4%BD%A0%20%E5%A5%BD.txt",
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(attachment(name), expected);
        }
    }

    #[test]
    fn a_wrong_purpose_or_life_is_refused_in_the_known_words() {
        let fields = |value| Object::at(String::new(), value).expect("tests give objects");
        let message = |error: ApiError| error.body()["error"]["message"].clone();
        let refused = purpose(&mut fields(json!({"purpose": "world_domination"})));
        assert_eq!(
            refused.map_err(message),
            Err(json!(
                "'world_domination' is not one of ['fine-tune', 'assistants', 'batch', \
                 'user_data', 'vision', 'evals'] - 'purpose'"
            ))
        );
        let life = |policy| expires_after(&mut fields(json!({"expires_after": policy})));
        assert_eq!(
            life(json!({"anchor": "created_at", "seconds": 3600})).map_err(message),
            Ok(Some(3600))
        );
        assert_eq!(life(json!(null)).map_err(message), Ok(None));
        for (policy, param) in [
            (json!({"seconds": 3600}), "expires_after.anchor"),
            (json!({"anchor": "created_at"}), "expires_after.seconds"),
            (
                json!({"anchor": "last_active_at", "seconds": 3600}),
                "expires_after.anchor",
            ),
            (
                json!({"anchor": "created_at", "seconds": 3599}),
                "expires_after.seconds",
            ),
            (
                json!({"anchor": "created_at", "seconds": 2_592_001}),
                "expires_after.seconds",
            ),
            (
                json!({"anchor": "created_at", "seconds": 3600, "x": 1}),
                "expires_after.x",
            ),
            (json!("never"), "expires_after"),
        ] {
            let error = life(policy.clone())
                .expect_err("it is to be refused")
                .body();
            assert_eq!(error["error"]["param"], param, "{policy}");
        }
    }
}
