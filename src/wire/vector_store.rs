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
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::seconds;
use crate::wire::vector_store_file::parse_chunking;

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
const MAX_NAME: usize = 1_000;
const MAX_DESCRIPTION: usize = 10_000;
/// Maximum number of files in the request that creates a vector store.
const MAX_NEW_FILES: usize = 500;
const MAX_DAYS: i64 = 365;

pub fn parse_new(mut body: Object) -> Result<NewVectorStore, ParseError> {
    let new = NewVectorStore {
        name: body.string("name", MAX_NAME)?,
        description: body.string("description", MAX_DESCRIPTION)?,
        metadata: body.metadata()?.unwrap_or_default(),
        expires_after_days: parse_expires_after(&mut body, "expires_after")?,
        files: parse_files(&mut body, MAX_NEW_FILES)?,
    };
    body.finish()?;
    Ok(new)
}

pub fn parse_for_tool(mut body: Object) -> Result<NewVectorStore, ParseError> {
    let new = NewVectorStore {
        metadata: body.metadata()?.unwrap_or_default(),
        files: parse_files(&mut body, MAX_FILES)?,
        ..NewVectorStore::default()
    };
    body.finish()?;
    Ok(new)
}

pub fn parse_changes(mut body: Object) -> Result<VectorStoreChanges, ParseError> {
    let changes = VectorStoreChanges {
        name: body.nullable("name", |body, name| body.string(name, MAX_NAME))?,
        expires_after_days: body.nullable("expires_after", parse_expires_after)?,
        metadata: body.metadata()?,
    };
    body.finish()?;
    Ok(changes)
}

/// Takes an expiry policy, in days since the last use.
fn parse_expires_after(body: &mut Object, name: &str) -> Result<Option<i32>, ParseError> {
    let Some(mut policy) = body.object(name)? else {
        return Ok(None);
    };
    let path = policy.path("anchor");
    policy
        .enum_value("anchor", &[(ANCHOR, ())])?
        .ok_or_else(|| missing(&path))?;
    let path = policy.path("days");
    let days = policy.integer("days", 1, MAX_DAYS)?;
    policy.finish()?;
    let days = days.ok_or_else(|| missing(&path))?;
    Ok(Some(
        i32::try_from(days).expect("at most MAX_DAYS fits an i32"),
    ))
}

/// Takes `file_ids` without repetitions, and the `chunking_strategy` of all of them.
fn parse_files(body: &mut Object, max: usize) -> Result<Vec<NewStoreFile>, ParseError> {
    let files: Vec<FileId> = body.ids("file_ids", max)?.unwrap_or_default();
    let chunking = parse_chunking(body)?;
    let file = |file| NewStoreFile {
        file,
        attributes: None,
        chunking,
    };
    Ok(unique(files).map(file).collect())
}

pub fn unique(files: Vec<FileId>) -> impl Iterator<Item = FileId> {
    let mut seen = HashSet::new();
    files
        .into_iter()
        .filter(move |file| seen.insert(file.clone()))
}
