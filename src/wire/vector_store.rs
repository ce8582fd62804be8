//! Vector stores.

use std::collections::HashSet;

use serde::Serialize;

use crate::domain::Metadata;
use crate::domain::ids::FileId;
use crate::domain::vector_store::{
    FileCounts, MAX_FILES, NewStoreFile, NewVectorStore, VectorStore, VectorStoreChanges,
    VectorStoreStatus,
};
use crate::wire::ParseError;
use crate::wire::object::{Object, missing};
use crate::wire::seconds;
use crate::wire::vector_store_file::parse_chunking;

/// A vector store.
#[derive(Debug, Serialize)]
pub struct VectorStoreObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    name: Option<&'a str>,
    description: Option<&'a str>,
    usage_bytes: i64,
    file_counts: FileCountsObject,
    status: VectorStoreStatus,
    expires_after: Option<ExpiresAfter>,
    expires_at: Option<i64>,
    last_active_at: i64,
    metadata: &'a Metadata,
}

#[derive(Debug, Serialize)]
struct ExpiresAfter {
    anchor: &'static str,
    days: i32,
}

impl<'a> From<&'a VectorStore> for VectorStoreObject<'a> {
    fn from(store: &'a VectorStore) -> Self {
        let VectorStore {
            id,
            created_at,
            name,
            description,
            metadata,
            expires_after_days,
            expires_at,
            is_expired: _,
            last_active_at,
            usage_bytes,
            file_counts,
        } = store;
        Self {
            id: id.as_str(),
            object: "vector_store",
            created_at: seconds(*created_at),
            name: name.as_deref(),
            description: description.as_deref(),
            usage_bytes: *usage_bytes,
            file_counts: file_counts.into(),
            status: store.status(),
            expires_after: expires_after_days.map(|days| ExpiresAfter {
                anchor: ANCHOR,
                days,
            }),
            expires_at: expires_at.map(seconds),
            last_active_at: seconds(*last_active_at),
            metadata,
        }
    }
}

/// Files by their status.
#[derive(Debug, Serialize)]
pub struct FileCountsObject {
    in_progress: i64,
    completed: i64,
    failed: i64,
    cancelled: i64,
    total: i64,
}

impl From<&FileCounts> for FileCountsObject {
    fn from(counts: &FileCounts) -> Self {
        let FileCounts {
            in_progress,
            completed,
            failed,
            cancelled,
        } = *counts;
        Self {
            in_progress,
            completed,
            failed,
            cancelled,
            total: counts.total(),
        }
    }
}

const ANCHOR: &str = "last_active_at";
const NAME_MAX: usize = 1_000;
const DESCRIPTION_MAX: usize = 10_000;
const FILES_MAX: usize = 500;
const DAYS_MAX: i64 = 365;

/// A new vector store.
pub fn parse_new(mut body: Object) -> Result<NewVectorStore, ParseError> {
    let new = NewVectorStore {
        name: body.string("name", NAME_MAX)?,
        description: body.string("description", DESCRIPTION_MAX)?,
        metadata: body.metadata()?.unwrap_or_default(),
        expires_after_days: parse_expires_after(&mut body)?,
        files: parse_files(&mut body, FILES_MAX)?,
    };
    body.finish()?;
    Ok(new)
}

/// A new vector store as the tool resources of an assistant or a thread describe it.
pub fn parse_helper(mut body: Object) -> Result<NewVectorStore, ParseError> {
    let new = NewVectorStore {
        metadata: body.metadata()?.unwrap_or_default(),
        files: parse_files(&mut body, MAX_FILES)?,
        ..NewVectorStore::default()
    };
    body.finish()?;
    Ok(new)
}

/// What is to change of a vector store.
pub fn parse_changes(mut body: Object) -> Result<VectorStoreChanges, ParseError> {
    let mut changes = VectorStoreChanges::default();
    if body.has("name") {
        changes.name = Some(body.string("name", NAME_MAX)?);
    }
    if body.has("expires_after") {
        changes.expires_after_days = Some(parse_expires_after(&mut body)?);
    }
    changes.metadata = body.metadata()?;
    body.finish()?;
    Ok(changes)
}

/// Days.
fn parse_expires_after(body: &mut Object) -> Result<Option<i32>, ParseError> {
    let Some(mut after) = body.object("expires_after")? else {
        return Ok(None);
    };
    let path = after.path("anchor");
    after
        .word("anchor", &[(ANCHOR, ())])?
        .ok_or_else(|| missing(&path))?;
    let path = after.path("days");
    let days = after.integer("days", 1, DAYS_MAX)?;
    after.finish()?;
    let days = days.ok_or_else(|| missing(&path))?;
    Ok(Some(i32::try_from(days).expect("it is in range")))
}

/// `file_ids`, each once, all cut by the one `chunking_strategy`.
fn parse_files(body: &mut Object, max: usize) -> Result<Vec<NewStoreFile>, ParseError> {
    let files: Vec<FileId> = body.ids("file_ids", max)?.unwrap_or_default();
    let chunking = parse_chunking(body)?;
    let file = |file| NewStoreFile {
        file,
        attributes: None,
        chunking,
    };
    Ok(once(files).map(file).collect())
}

/// Every file once, where it is named first.
pub fn once(files: Vec<FileId>) -> impl Iterator<Item = FileId> {
    let mut seen = HashSet::new();
    files
        .into_iter()
        .filter(move |file| seen.insert(file.clone()))
}
