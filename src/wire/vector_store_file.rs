//! Files in vector stores.

use serde::Serialize;

use crate::domain::vector_store::{
    AttributeValue, Attributes, Chunking, FileStatus, IndexError, NewStoreFile, VectorStoreFile,
};
use crate::wire::ParseError;
use crate::wire::json::{Json, Kind};
use crate::wire::object::{self, Object, missing};
use crate::wire::seconds;

/// A file in a vector store.
#[derive(Debug, Serialize)]
pub struct VectorStoreFileObject<'a> {
    id: &'a str,
    object: &'static str,
    usage_bytes: i64,
    created_at: i64,
    vector_store_id: &'a str,
    status: FileStatus,
    last_error: Option<&'a IndexError>,
    chunking_strategy: ChunkingObject,
    attributes: &'a Attributes,
}

#[derive(Debug, Serialize)]
struct ChunkingObject {
    r#type: &'static str,
    r#static: StaticChunkingObject,
}

#[derive(Debug, Serialize)]
struct StaticChunkingObject {
    max_chunk_size_tokens: i32,
    chunk_overlap_tokens: i32,
}

impl<'a> From<&'a VectorStoreFile> for VectorStoreFileObject<'a> {
    fn from(file: &'a VectorStoreFile) -> Self {
        let VectorStoreFile {
            file,
            vector_store,
            created_at,
            status,
            last_error,
            usage_bytes,
            chunking,
            attributes,
        } = file;
        Self {
            id: file.as_str(),
            object: "vector_store.file",
            usage_bytes: *usage_bytes,
            created_at: seconds(*created_at),
            vector_store_id: vector_store.as_str(),
            status: *status,
            last_error: last_error.as_ref(),
            chunking_strategy: ChunkingObject {
                r#type: "static",
                r#static: StaticChunkingObject {
                    max_chunk_size_tokens: chunking.max_tokens,
                    chunk_overlap_tokens: chunking.overlap_tokens,
                },
            },
            attributes,
        }
    }
}

/// The text of a file, in one piece.
#[derive(Debug, Serialize)]
pub struct ContentPage<'a> {
    object: &'static str,
    data: Vec<ContentObject<'a>>,
    has_more: bool,
    next_page: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ContentObject<'a> {
    r#type: &'static str,
    text: &'a str,
}

impl<'a> From<&'a str> for ContentPage<'a> {
    fn from(text: &'a str) -> Self {
        let content = ContentObject {
            r#type: "text",
            text,
        };
        Self {
            object: "vector_store.file_content.page",
            data: if text.is_empty() {
                Vec::new()
            } else {
                vec![content]
            },
            has_more: false,
            next_page: None,
        }
    }
}

const CHUNK_TOKENS_MIN: i64 = 100;
const CHUNK_TOKENS_MAX: i64 = 4_096;
const ATTRIBUTES_MAX: usize = 16;
const KEY_MAX: usize = 64;
const TEXT_MAX: usize = 512;

/// The statuses that lists of files can be filtered by.
pub const STATUSES: [(&str, FileStatus); 4] = [
    ("in_progress", FileStatus::InProgress),
    ("completed", FileStatus::Completed),
    ("failed", FileStatus::Failed),
    ("cancelled", FileStatus::Cancelled),
];

/// A file that is to be added.
pub fn parse_new(mut body: Object) -> Result<NewStoreFile, ParseError> {
    let new = NewStoreFile {
        file: body.required_id("file_id")?,
        attributes: parse_attributes(&mut body)?,
        chunking: parse_chunking(&mut body)?,
    };
    body.finish()?;
    Ok(new)
}

/// New attributes, which must be given; null takes all away.
pub fn parse_changes(mut body: Object) -> Result<Attributes, ParseError> {
    if !body.has("attributes") {
        return Err(missing("attributes"));
    }
    let attributes = parse_attributes(&mut body)?.unwrap_or_default();
    body.finish()?;
    Ok(attributes)
}

/// `attributes`: at most 16, keys of at most 64 characters; texts of at most 512, numbers, flags.
pub fn parse_attributes(body: &mut Object) -> Result<Option<Attributes>, ParseError> {
    let path = body.path("attributes");
    let Some(fields) = body.pairs("attributes", ATTRIBUTES_MAX, KEY_MAX)? else {
        return Ok(None);
    };
    let attribute = |(key, value)| {
        let value = attribute_value(&format!("{path}.{key}"), value)?;
        Ok((key, value))
    };
    fields
        .into_iter()
        .map(attribute)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// The value of an attribute.
pub fn attribute_value(path: &str, value: Json) -> Result<AttributeValue, ParseError> {
    match value.kind() {
        Kind::Boolean => value.read().map(AttributeValue::Flag),
        Kind::Integer | Kind::Decimal => value.read().map(AttributeValue::Number),
        Kind::String => object::string(path, value, TEXT_MAX).map(AttributeValue::Text),
        other @ (Kind::Null | Kind::Array | Kind::Object) => Err(object::wrong_type(
            path,
            "a string, a number or a boolean",
            other,
        )),
    }
}

#[derive(Clone, Copy)]
enum Strategy {
    Auto,
    Static,
}

/// `chunking_strategy`.
pub fn parse_chunking(body: &mut Object) -> Result<Option<Chunking>, ParseError> {
    let Some(mut strategy) = body.object("chunking_strategy")? else {
        return Ok(None);
    };
    let kind = strategy.kind(&[("auto", Strategy::Auto), ("static", Strategy::Static)])?;
    let chunking = match kind {
        Strategy::Auto => Chunking::AUTO,
        Strategy::Static => {
            let path = strategy.path("static");
            parse_static(strategy.object("static")?.ok_or_else(|| missing(&path))?)?
        }
    };
    strategy.finish()?;
    Ok(Some(chunking))
}

fn parse_static(mut sizes: Object) -> Result<Chunking, ParseError> {
    let path = sizes.path("max_chunk_size_tokens");
    let max = sizes
        .integer("max_chunk_size_tokens", CHUNK_TOKENS_MIN, CHUNK_TOKENS_MAX)?
        .ok_or_else(|| missing(&path))?;
    let path = sizes.path("chunk_overlap_tokens");
    let overlap = sizes
        .integer("chunk_overlap_tokens", 0, CHUNK_TOKENS_MAX / 2)?
        .ok_or_else(|| missing(&path))?;
    if overlap > max / 2 {
        return Err(ParseError::new(format!(
            "Invalid '{path}': the overlap must not exceed half of 'max_chunk_size_tokens', but \
             got {overlap} for chunks of {max}."
        ))
        .param(path)
        .code("invalid_value"));
    }
    sizes.finish()?;
    let small = |tokens| i32::try_from(tokens).expect("it is at most 4,096");
    Ok(Chunking {
        max_tokens: small(max),
        overlap_tokens: small(overlap),
    })
}
