//! Uploads and their parts.

use serde::Serialize;

use crate::domain::file::{File, Part, Upload};
use crate::wire::file::FileObject;
use crate::wire::seconds;

/// An upload. The file appears once there is one.
#[derive(Debug, Serialize)]
pub struct UploadObject<'a> {
    id: &'a str,
    object: &'static str,
    bytes: i64,
    created_at: i64,
    filename: &'a str,
    purpose: &'static str,
    status: &'static str,
    expires_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileObject<'a>>,
}

impl<'a> UploadObject<'a> {
    /// Shows an upload, and its file if it is complete.
    pub fn new(upload: &'a Upload, file: Option<&'a File>) -> Self {
        let Upload {
            id,
            created_at,
            expires_at,
            filename,
            bytes,
            purpose,
            status,
            // Not shown by the hosted service either.
            mime_type: _,
            file_expires_after: _,
            file_id: _,
        } = upload;
        Self {
            id: id.as_str(),
            object: "upload",
            bytes: *bytes,
            created_at: seconds(*created_at),
            filename,
            purpose: purpose.as_str(),
            status: status.as_str(),
            expires_at: seconds(*expires_at),
            file: file.map(FileObject::from),
        }
    }
}

/// A part of an upload.
#[derive(Debug, Serialize)]
pub struct PartObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    upload_id: &'a str,
}

impl<'a> From<&'a Part> for PartObject<'a> {
    fn from(part: &'a Part) -> Self {
        let Part {
            id,
            upload_id,
            created_at,
            bytes: _,
        } = part;
        Self {
            id: id.as_str(),
            object: "upload.part",
            created_at: seconds(*created_at),
            upload_id: upload_id.as_str(),
        }
    }
}
