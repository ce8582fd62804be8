//! `/files`

use std::ops::Range;

use axum::Json;
use axum::body::Body as Payload;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::file::File;
use crate::domain::ids::FileId;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{NameInPath, Query};
use crate::http::request::multipart::Form;
use crate::http::response::error::ApiError;
use crate::wire::List;
use crate::wire::file::{DeletedFile, FileObject, parse_new};

/// The default and the maximum number of files in a page.
const MAX_PAGE: i64 = 10_000;

pub async fn create(Caller(project): Caller, form: Form) -> Result<Response, ApiError> {
    let store = async |contents| Ok(project.store_contents(contents).await?);
    let (fields, part) = form.read("file", store).await?;
    let filename = part.filename.ok_or_else(|| {
        ApiError::invalid("Invalid type for 'file': expected a file, but got a string instead.")
            .param("file")
            .code("invalid_type")
    })?;
    let new = parse_new(filename, fields)?;
    let file = project.create_file(part.stored, &new).await?;
    Ok(Json(FileObject::from(&file)).into_response())
}

pub async fn list(Caller(project): Caller, query: Query) -> Result<Response, ApiError> {
    let request = query.page_with_limits(MAX_PAGE, MAX_PAGE)?;
    let page = project.list_files(query.get("purpose"), &request).await?;
    let list = List::of(&page, |file| file.id.to_string(), FileObject::from);
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    Caller(project): Caller,
    NameInPath(id): NameInPath,
) -> Result<Response, ApiError> {
    let file = project.file(&file_id(&id)?).await?;
    Ok(Json(FileObject::from(&file)).into_response())
}

pub async fn delete(
    Caller(project): Caller,
    NameInPath(id): NameInPath,
) -> Result<Response, ApiError> {
    let id = file_id(&id)?;
    project.delete_file(&id).await?;
    Ok(Json(DeletedFile::from(&id)).into_response())
}

pub async fn content(
    Caller(project): Caller,
    NameInPath(id): NameInPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = project.file(&file_id(&id)?).await?;
    let size = u64::try_from(file.bytes).unwrap_or(0);
    let range = match requested_range(&headers, size) {
        RequestedRange::Whole => None,
        RequestedRange::Part(range) => Some(range),
        RequestedRange::Unsatisfiable => return Ok(range_not_satisfiable(size)),
    };
    let contents = project.file_contents(&file, range.clone()).await?;
    let body = Payload::from_stream(contents.stream);
    Ok(download(&file, size, range, body))
}

/// Parses a file's id. An invalid one gets the 404 of an unknown file, as in the hosted API.
fn file_id(text: &str) -> Result<FileId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::file_not_found(text.chars().take(64).collect::<String>()))
}

#[derive(Debug, PartialEq, Eq)]
enum RequestedRange {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// Parses a `Range` header (RFC 9110, 14.2) with one range. Any other value selects the whole file,
/// and so does `If-Range`, because responses carry no validators that it could match.
fn requested_range(headers: &HeaderMap, size: u64) -> RequestedRange {
    let value = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let Some((from, to)) = value.and_then(|value| value.strip_prefix("bytes=")?.split_once('-'))
    else {
        return RequestedRange::Whole;
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
        _ => return RequestedRange::Whole,
    };
    match range {
        _ if headers.contains_key(header::IF_RANGE) => RequestedRange::Whole,
        range if range.start < range.end => RequestedRange::Part(range),
        _ => RequestedRange::Unsatisfiable,
    }
}

fn range_not_satisfiable(size: u64) -> Response {
    let refusal = ApiError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "invalid_request_error",
        format!("The file has {size} bytes, none of them in the requested range."),
    );
    let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
    (range, refusal).into_response()
}

fn download(file: &File, size: u64, range: Option<Range<u64>>, body: Payload) -> Response {
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
        None => (headers, body).into_response(),
        Some(Range { start, end }) => {
            let range = [(
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/{size}", end - 1),
            )];
            (StatusCode::PARTIAL_CONTENT, headers, range, body).into_response()
        }
    }
}

/// `Content-Disposition` of a download (RFC 6266): the name with non-ASCII characters replaced, and if
/// there are any, the full name percent-encoded in `filename*`.
fn attachment(filename: &str) -> HeaderValue {
    /// All but the `attr-char` of RFC 5987.
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
    let is_plain = |character: char| character == ' ' || character.is_ascii_graphic();
    let quoted: String = filename
        .chars()
        .map(|character| if is_plain(character) { character } else { '_' })
        .flat_map(|character| {
            let escape = matches!(character, '"' | '\\').then_some('\\');
            escape.into_iter().chain([character])
        })
        .collect();
    let mut value = format!("attachment; filename=\"{quoted}\"");
    if !filename.chars().all(is_plain) {
        value.push_str("; filename*=UTF-8''");
        value.extend(utf8_percent_encode(filename, ESCAPED));
    }
    HeaderValue::from_str(&value).expect("other characters than visible ASCII are escaped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_as_the_standard_says() {
        let parse = |range: &str, size| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().expect("test values are valid"));
            requested_range(&headers, size)
        };
        let cases = [
            ("bytes=0-0", 10, RequestedRange::Part(0..1)),
            ("bytes=3-", 10, RequestedRange::Part(3..10)),
            ("bytes=3-99", 10, RequestedRange::Part(3..10)),
            ("bytes=-4", 10, RequestedRange::Part(6..10)),
            ("bytes=-40", 10, RequestedRange::Part(0..10)),
            ("bytes=10-", 10, RequestedRange::Unsatisfiable),
            ("bytes=-0", 10, RequestedRange::Unsatisfiable),
            ("bytes=0-", 0, RequestedRange::Unsatisfiable),
            (
                "bytes=0-18446744073709551615",
                10,
                RequestedRange::Part(0..10),
            ),
            ("bytes=5-3", 10, RequestedRange::Whole),
            ("bytes=0-1,3-4", 10, RequestedRange::Whole),
            ("bytes=-", 10, RequestedRange::Whole),
            ("bytes=x-y", 10, RequestedRange::Whole),
            ("lines=1-2", 10, RequestedRange::Whole),
        ];
        for (range, size, expected) in cases {
            assert_eq!(parse(range, size), expected, "{range} of {size}");
        }
        assert_eq!(
            requested_range(&HeaderMap::new(), 10),
            RequestedRange::Whole
        );
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
}
