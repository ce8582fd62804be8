//! Refuses requests that name what does not exist, or files of a type that is not supported.

use std::collections::BTreeSet;

use axum::body::Bytes;
use futures::TryStreamExt as _;

use crate::domain::assistant::ToolResources;
use crate::domain::file::{PICTURE_HEAD_BYTES, picture_type};
use crate::domain::ids::{FileId, ProjectId};
use crate::files::blobs::{BlobError, Blobs};
use crate::http::handlers::vector_stores;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;

/// Longest extension of a file that is shown in a message, in characters.
const EXTENSION_SHOWN: usize = 32;

/// All of these files must be the project's.
pub async fn check_files_exist<'a>(
    state: &ApiState,
    project: &ProjectId,
    files: impl IntoIterator<Item = &'a FileId>,
) -> Result<(), ApiError> {
    let files: Vec<&str> = files.into_iter().map(FileId::as_str).collect();
    if files.is_empty() {
        return Ok(());
    }
    match store::files::first_missing(&state.pool, project, &files).await? {
        None => Ok(()),
        Some(id) => Err(ApiError::no_such_file(id)),
    }
}

/// The type of each of these files must be one that file_search reads, which the code that indexes
/// files decides.
pub async fn check_searchable(
    state: &ApiState,
    project: &ProjectId,
    files: &[FileId],
) -> Result<(), ApiError> {
    let is_read = |name: &str, head: &[u8]| documents::extract::check_head(name, head).is_ok();
    let refused = first_refused(
        state,
        project,
        files,
        documents::extract::HEAD_BYTES,
        is_read,
    );
    match refused.await? {
        None => Ok(()),
        Some(extension) => Err(unsupported(format!(
            "Files with extensions [{extension}] are not supported for retrieval. See \
             https://platform.openai.com/docs/assistants/tools/file-search/supported-files"
        ))
        .param("file_ids")),
    }
}

/// Each of these files must be a picture that models take.
pub async fn check_pictures(
    state: &ApiState,
    project: &ProjectId,
    files: &[FileId],
) -> Result<(), ApiError> {
    let is_picture = |_: &str, head: &[u8]| picture_type(head).is_some();
    match first_refused(state, project, files, PICTURE_HEAD_BYTES, is_picture).await? {
        None => Ok(()),
        Some(extension) => Err(unsupported(format!(
            "Files with extensions [{extension}] are not supported for image_file. Expected a \
             picture: .jpeg, .jpg, .png, .gif or .webp."
        ))
        .param("content")),
    }
}

fn unsupported(message: String) -> ApiError {
    ApiError::invalid(message).code("unsupported_file")
}

/// The extension of the first file whose name and first bytes are not accepted. A file without
/// contents, as some are imported, is accepted: nobody can tell.
async fn first_refused(
    state: &ApiState,
    project: &ProjectId,
    files: &[FileId],
    head_bytes: u64,
    accept: impl Fn(&str, &[u8]) -> bool,
) -> Result<Option<String>, ApiError> {
    let files: BTreeSet<&FileId> = files.iter().collect();
    for id in files {
        let file = store::files::find(&state.pool, project, id)
            .await?
            .ok_or_else(|| ApiError::no_such_file(id))?;
        let length = u64::try_from(file.bytes).unwrap_or(0).min(head_bytes);
        let head = match head(&state.blobs, id, length).await {
            Ok(head) => head,
            Err(BlobError::Missing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if !accept(&file.filename, &head) {
            let extension = file.filename.rsplit_once('.');
            let extension = extension.map_or("", |(_, extension)| extension);
            let shown = extension.chars().take(EXTENSION_SHOWN).collect::<String>();
            return Ok(Some(format!(".{shown}")));
        }
    }
    Ok(None)
}

/// The first bytes of a file that has at least so many.
async fn head(blobs: &Blobs, id: &FileId, length: u64) -> Result<Vec<u8>, BlobError> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let contents = blobs.get(id.as_str(), Some(0..length)).await?;
    let append = async |mut head: Vec<u8>, piece: Bytes| {
        head.extend_from_slice(&piece);
        Ok(head)
    };
    contents.stream.try_fold(Vec::new(), append).await
}

/// All files and vector stores that these name must be the project's.
pub async fn check_tool_resources(
    state: &ApiState,
    project: &ProjectId,
    resources: &ToolResources,
) -> Result<(), ApiError> {
    check_files_exist(state, project, resources.files()).await?;
    for id in resources.vector_stores() {
        let checked = vector_stores::check(state, project, id).await;
        checked.map_err(|error| error.param("tool_resources.file_search.vector_store_ids"))?;
    }
    Ok(())
}
