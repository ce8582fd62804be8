//! Batches of files in vector stores.

use std::collections::HashSet;

use serde::Serialize;

use crate::domain::vector_store::{Batch, BatchStatus, NewStoreFile};
use crate::wire::ParseError;
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::seconds;
use crate::wire::vector_store::{FileCountsObject, unique};
use crate::wire::vector_store_file::{self, parse_attributes, parse_chunking};

/// A batch. Its `object` is that of the hosted API; SDKs type it as `vector_store.files_batch`, but
/// none checks it.
#[derive(Debug, Serialize)]
pub struct BatchObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    status: BatchStatus,
    vector_store_id: &'a str,
    file_counts: FileCountsObject,
}

impl<'a> From<&'a Batch> for BatchObject<'a> {
    fn from(batch: &'a Batch) -> Self {
        let Batch {
            id,
            vector_store,
            created_at,
            is_cancelled: _,
            file_counts,
        } = batch;
        Self {
            id: id.as_str(),
            object: "vector_store.file_batch",
            created_at: seconds(*created_at),
            status: batch.status(),
            vector_store_id: vector_store.as_str(),
            file_counts: file_counts.into(),
        }
    }
}

const MAX_FILES: usize = 2_000;

/// Parses the files of a new batch: `file_ids` with common settings, or `files` with settings of
/// their own.
pub fn parse_new(mut body: Object) -> Result<Vec<NewStoreFile>, ParseError> {
    let ids = body.ids("file_ids", MAX_FILES)?;
    let files = body.objects("files", MAX_FILES)?;
    let attributes = parse_attributes(&mut body)?;
    let chunking = parse_chunking(&mut body)?;
    body.finish()?;
    let new: Vec<NewStoreFile> = match (ids, files) {
        (Some(_), Some(_)) => {
            return Err(conflict(
                "'file_ids' and 'files' are mutually exclusive.",
                "files",
            ));
        }
        (None, None) => return Err(missing("file_ids")),
        (Some(ids), None) => {
            let file = |file| NewStoreFile {
                file,
                attributes: attributes.clone(),
                chunking,
            };
            unique(ids).map(file).collect()
        }
        (None, Some(files)) => {
            for (name, is_present) in [
                ("attributes", attributes.is_some()),
                ("chunking_strategy", chunking.is_some()),
            ] {
                if is_present {
                    let text = format!("With 'files', give '{name}' with each of them.");
                    return Err(conflict(text, name));
                }
            }
            parse_each(files)?
        }
    };
    if new.is_empty() {
        return Err(ParseError::new(
            "Invalid 'file_ids': empty array. Expected an array with minimum length 1, but got an \
             empty array instead.",
        )
        .param("file_ids")
        .code("empty_array"));
    }
    Ok(new)
}

fn parse_each(files: Vec<Object>) -> Result<Vec<NewStoreFile>, ParseError> {
    let mut seen = HashSet::new();
    let parse = |file: Object| {
        let path = file.path("file_id");
        let new = vector_store_file::parse_new(file)?;
        if seen.insert(new.file.clone()) {
            Ok(new)
        } else {
            let text = format!("Invalid '{path}': file '{}' is named twice.", new.file);
            Err(conflict(text, path))
        }
    };
    files.into_iter().map(parse).collect()
}

fn conflict(text: impl Into<String>, param: impl Into<String>) -> ParseError {
    ParseError::new(text).param(param).code("invalid_value")
}
