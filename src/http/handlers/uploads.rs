//! `/uploads`: files that arrive in parts.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::file::{NewFile, NewUpload, Upload};
use crate::domain::ids::{PartId, UploadId};
use crate::files;
use crate::http::handlers::files::{MAX_FILENAME, expires_after, purpose};
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath};
use crate::http::request::multipart::Form;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;
use crate::wire::object;
use crate::wire::upload::{PartObject, UploadObject};

/// Most parts of an upload that can be named when it is completed.
const MAX_PARTS: usize = 10_000;

/// `POST /uploads`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let file = NewFile {
        filename: body.required_string("filename", MAX_FILENAME)?,
        purpose: purpose(&mut body)?,
        expires_after: expires_after(&mut body)?,
    };
    let bytes = body.integer("bytes", 1, Upload::MAX_BYTES)?;
    let bytes = bytes.ok_or_else(|| object::missing("bytes"))?;
    let mime_type = body.required_string("mime_type", 256)?;
    body.finish()?;
    let new = NewUpload {
        file,
        bytes,
        mime_type,
    };
    let upload = store::uploads::insert(&state.pool, &project, &new).await?;
    Ok(Json(UploadObject::new(&upload, None)).into_response())
}

/// `POST /uploads/{upload_id}/parts`
pub async fn add_part(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(UploadId,)>,
    form: Form,
) -> Result<Response, ApiError> {
    let add = async |contents| {
        Ok(files::add_part(&state.pool, &state.blobs, &project, &id, contents).await?)
    };
    let (fields, part) = form.read("data", add).await?;
    fields.finish()?;
    Ok(Json(PartObject::from(&part.stored)).into_response())
}

/// `POST /uploads/{upload_id}/complete`
pub async fn complete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(UploadId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let parts: Option<Vec<PartId>> = body.ids("part_ids", MAX_PARTS)?;
    let parts = parts.ok_or_else(|| object::missing("part_ids"))?;
    let md5 = body.string("md5", 32)?;
    body.finish()?;
    let (pool, blobs) = (&state.pool, &state.blobs);
    let (upload, file) =
        files::complete(pool, blobs, &project, &id, &parts, md5.as_deref()).await?;
    Ok(Json(UploadObject::new(&upload, Some(&file))).into_response())
}

/// `POST /uploads/{upload_id}/cancel`
pub async fn cancel(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(UploadId,)>,
) -> Result<Response, ApiError> {
    let upload = files::cancel(&state.pool, &state.blobs, &project, &id).await?;
    Ok(Json(UploadObject::new(&upload, None)).into_response())
}
