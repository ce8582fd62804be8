//! Uploads and their parts.

use serde::Serialize;

use crate::domain::file::{File, NewFile, NewUpload, Part, Upload};
use crate::domain::ids::PartId;
use crate::wire::file::{FileObject, MAX_FILENAME, parse_expires_after, parse_purpose};
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::{ParseError, seconds};

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
    pub fn new(upload: &'a Upload, file: Option<&'a File>) -> Self {
        let Upload {
            id,
            created_at,
            expires_at,
            filename,
            bytes,
            purpose,
            status,
            // The hosted API does not show these either.
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

const MAX_PARTS: usize = 10_000;
const MAX_MIME_TYPE: usize = 256;
const MAX_MD5: usize = 32;

pub fn parse_new(mut body: Object) -> Result<NewUpload, ParseError> {
    let file = NewFile {
        filename: body.required_string("filename", MAX_FILENAME)?,
        purpose: parse_purpose(&mut body)?,
        expires_after: parse_expires_after(&mut body)?,
    };
    let bytes = body.integer("bytes", 1, Upload::MAX_BYTES)?;
    let bytes = bytes.ok_or_else(|| missing("bytes"))?;
    let mime_type = body.required_string("mime_type", MAX_MIME_TYPE)?;
    body.finish()?;
    Ok(NewUpload {
        file,
        bytes,
        mime_type,
    })
}

#[derive(Debug)]
pub struct CompleteUpload {
    /// The parts in the order in which they make up the file.
    pub parts: Vec<PartId>,
    pub md5: Option<String>,
}

impl CompleteUpload {
    pub fn parse(mut body: Object) -> Result<Self, ParseError> {
        let parts: Option<Vec<PartId>> = body.ids("part_ids", MAX_PARTS)?;
        let parts = parts.ok_or_else(|| missing("part_ids"))?;
        let md5 = body.string("md5", MAX_MD5)?;
        body.finish()?;
        Ok(Self { parts, md5 })
    }
}
