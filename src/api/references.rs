//! Refuses requests that name things that do not exist.

use crate::api::error::ApiError;
use crate::api::state::ApiState;
use crate::api::vector_stores;
use crate::domain::assistant::ToolResources;
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
