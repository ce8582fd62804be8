//! `/uploads`: files that are uploaded in parts.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::UploadId;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath};
use crate::http::request::multipart::Form;
use crate::http::response::error::ApiError;
use crate::wire::upload::{CompleteUpload, PartObject, UploadObject, parse_new};

pub async fn create(Caller(project): Caller, Body(body): Body) -> Result<Response, ApiError> {
    let upload = project.create_upload(&parse_new(body)?).await?;
    Ok(Json(UploadObject::new(&upload, None)).into_response())
}

pub async fn add_part(
    Caller(project): Caller,
    InPath((id,)): InPath<(UploadId,)>,
    form: Form,
) -> Result<Response, ApiError> {
    let store = async |contents| Ok(project.add_upload_part(&id, contents).await?);
    let (fields, part) = form.read("data", store).await?;
    fields.finish()?;
    Ok(Json(PartObject::from(&part.stored)).into_response())
}

pub async fn complete(
    Caller(project): Caller,
    InPath((id,)): InPath<(UploadId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let CompleteUpload { parts, md5 } = CompleteUpload::parse(body)?;
    let (upload, file) = project.complete_upload(&id, &parts, md5.as_deref()).await?;
    Ok(Json(UploadObject::new(&upload, Some(&file))).into_response())
}

pub async fn cancel(
    Caller(project): Caller,
    InPath((id,)): InPath<(UploadId,)>,
) -> Result<Response, ApiError> {
    let upload = project.cancel_upload(&id).await?;
    Ok(Json(UploadObject::new(&upload, None)).into_response())
}
