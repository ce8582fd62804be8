//! Response bodies of upstreams.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::error::UpstreamError;
use crate::domain::text::without_nul;

/// A body as it arrives. Dropping it closes the connection.
pub(super) type Body = BoxStream<'static, Result<Bytes, UpstreamError>>;

/// Reads a body up to about `limit` bytes. A body that breaks off is returned as far as it came.
pub(super) async fn read_body(mut body: Body, limit: usize) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.next().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= limit {
            break;
        }
    }
    text_of(bytes)
}

/// The text of bytes. U+0000, which PostgreSQL cannot store, and what is not UTF-8 become U+FFFD.
pub(super) fn text_of(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    without_nul(text)
}
