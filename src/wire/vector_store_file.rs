//! Files in vector stores.

use serde::Serialize;

use crate::domain::vector_store::{
    AttributeValue, Attributes, Chunking, FileStatus, IndexError, NewStoreFile, VectorStoreFile,
};
use crate::wire::ParseError;
use crate::wire::json::{Json, JsonType};
use crate::wire::object::Object;
use crate::wire::refusal::{invalid_value, missing, wrong_type};
use crate::wire::{seconds, value};

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

const MIN_CHUNK_TOKENS: i64 = 100;
const MAX_CHUNK_TOKENS: i64 = 4_096;
const MAX_ATTRIBUTES: usize = 16;
pub const MAX_ATTRIBUTE_KEY: usize = 64;
const MAX_ATTRIBUTE_TEXT: usize = 512;

const STATUSES: [(&str, FileStatus); 4] = [
    ("in_progress", FileStatus::InProgress),
    ("completed", FileStatus::Completed),
    ("failed", FileStatus::Failed),
    ("cancelled", FileStatus::Cancelled),
];

pub fn parse_status_filter(text: &str) -> Result<FileStatus, ParseError> {
    let status = STATUSES.iter().find(|(name, _)| *name == text);
    status
        .map(|(_, status)| *status)
        .ok_or_else(|| invalid_value("filter", text, &STATUSES.map(|(name, _)| name)))
}

pub fn parse_new(mut body: Object) -> Result<NewStoreFile, ParseError> {
    let new = NewStoreFile {
        file: body.required_id("file_id")?,
        attributes: parse_attributes(&mut body)?,
        chunking: parse_chunking(&mut body)?,
    };
    body.finish()?;
    Ok(new)
}

/// Parses new attributes, which must be present; null removes all.
pub fn parse_changes(mut body: Object) -> Result<Attributes, ParseError> {
    if !body.has("attributes") {
        return Err(missing("attributes"));
    }
    let attributes = parse_attributes(&mut body)?.unwrap_or_default();
    body.finish()?;
    Ok(attributes)
}

/// Takes `attributes`: at most 16 strings of at most 512 characters, numbers or booleans.
pub fn parse_attributes(body: &mut Object) -> Result<Option<Attributes>, ParseError> {
    let path = body.path("attributes");
    let Some(fields) = body.entries("attributes", MAX_ATTRIBUTES, MAX_ATTRIBUTE_KEY)? else {
        return Ok(None);
    };
    let attribute = |(key, value)| {
        let value = parse_attribute_value(&format!("{path}.{key}"), value)?;
        Ok((key, value))
    };
    fields
        .into_iter()
        .map(attribute)
        .collect::<Result<_, _>>()
        .map(Some)
}

pub fn parse_attribute_value(path: &str, value: Json) -> Result<AttributeValue, ParseError> {
    match value.json_type() {
        JsonType::Boolean => value.read().map(AttributeValue::Flag),
        JsonType::Integer | JsonType::Decimal => value.read().map(AttributeValue::Number),
        JsonType::String => {
            value::string(path, value, MAX_ATTRIBUTE_TEXT).map(AttributeValue::Text)
        }
        other @ (JsonType::Null | JsonType::Array | JsonType::Object) => {
            Err(wrong_type(path, "a string, a number or a boolean", other))
        }
    }
}

#[derive(Clone, Copy)]
enum Strategy {
    Auto,
    Static,
}

pub fn parse_chunking(body: &mut Object) -> Result<Option<Chunking>, ParseError> {
    let Some(mut strategy) = body.object("chunking_strategy")? else {
        return Ok(None);
    };
    let strategy_type =
        strategy.type_tag(&[("auto", Strategy::Auto), ("static", Strategy::Static)])?;
    let chunking = match strategy_type {
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
        .integer("max_chunk_size_tokens", MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS)?
        .ok_or_else(|| missing(&path))?;
    let path = sizes.path("chunk_overlap_tokens");
    let overlap = sizes
        .integer("chunk_overlap_tokens", 0, MAX_CHUNK_TOKENS / 2)?
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
    let to_i32 = |tokens| i32::try_from(tokens).expect("at most MAX_CHUNK_TOKENS fits an i32");
    Ok(Chunking {
        max_tokens: to_i32(max),
        overlap_tokens: to_i32(overlap),
    })
}
