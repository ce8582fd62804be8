//! The file name in a `Content-Disposition` header.

use axum::http::header::CONTENT_DISPOSITION;
use percent_encoding::percent_decode;

use crate::http::response::error::ApiError;

/// The file name of a field. `filename*` (RFC 5987) has precedence over `filename`, which is raw UTF-8.
pub(super) fn filename(field: &multer::Field<'_>) -> Result<Option<String>, ApiError> {
    let Some(header) = field.headers().get(CONTENT_DISPOSITION) else {
        return Ok(None);
    };
    let parameters = parameters(header.as_bytes());
    let find = |parameter: &str| {
        parameters
            .iter()
            .find(|(name, _)| name == parameter)
            .map(|(_, value)| value.as_slice())
    };
    let bytes = match (
        find("filename*").and_then(decode_extended),
        find("filename"),
    ) {
        (Some(name), _) => name,
        (None, Some(name)) => name.to_vec(),
        (None, None) => return Ok(None),
    };
    let name = String::from_utf8(bytes)
        .ok()
        .filter(|name| !name.contains('\0'));
    name.map(Some)
        .ok_or_else(|| ApiError::invalid("Invalid file name: not valid UTF-8."))
}

/// Decodes `UTF-8''caf%C3%A9`; `None` for other charsets.
fn decode_extended(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    charset
        .eq_ignore_ascii_case(b"utf-8")
        .then(|| percent_decode(text).collect())
}

/// The parameters of the header, with names in lower case.
///
/// In quotes, a backslash escapes only a quote or another backslash, because many clients send Windows
/// paths unescaped.
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
