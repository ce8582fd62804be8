//! Refuses requests that name files that do not exist.

use crate::api::error::ApiError;
use crate::api::state::ApiState;
use crate::domain::ids::{FileId, ProjectId};
use crate::store;

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
