//! Responses to errors of files and uploads.

use crate::domain::file::Upload;
use crate::files::FileError;
use crate::files::blobs::BlobError;
use crate::http::response::error::ApiError;
use crate::service::ServiceError;

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { limit } => Self::too_large(format!(
                "The file is too large: this server takes files of up to {limit} bytes."
            )),
            BlobError::Slow => Self::too_slow(),
            error @ BlobError::Body(_) => Self::invalid(format!("Invalid file: {error}.")),
            BlobError::Missing { name } => {
                tracing::warn!(
                    blob.name = %name,
                    "contents of file {name} are missing from blob storage"
                );
                Self::not_found(
                    "The contents of this file are not on this server: it was imported without \
                     them. The operator can attach them.",
                )
            }
            error @ BlobError::Full { .. } => Self::storage_full(&error),
            error @ (BlobError::Location(_) | BlobError::Folder(_) | BlobError::Store(_)) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Blob(error) => error.into(),
            FileError::Store(error) => ServiceError::from(error).into(),
            FileError::QuotaExceeded { limit } => Self::invalid(format!(
                "You have exceeded your file storage quota. This project is limited to {limit} \
                 bytes of files. Please delete old files or attempt with a smaller file size."
            ))
            .code("storage_limit_exceeded"),
            FileError::GivenUp => Self::invalid("The file arrived too slowly. Please try again."),
            FileError::Gone(id) => Self::file_not_found(id),
            FileError::NoUpload(id) => Self::object_not_found("upload", id),
            FileError::NotPending { id, status } => Self::invalid(format!(
                "Upload '{id}' has status '{}'; only a pending upload can be changed.",
                status.as_str()
            )),
            FileError::NoPart(id) => {
                Self::invalid(format!("No part found with id '{id}' in this upload."))
                    .param("part_ids")
            }
            FileError::PartTwice(id) => {
                Self::invalid(format!("Part '{id}' is named more than once.")).param("part_ids")
            }
            FileError::UploadFull => Self::invalid(format!(
                "The parts of an upload may have up to {} bytes together.",
                Upload::MAX_BYTES
            )),
            FileError::WrongSize { declared, bytes } => Self::invalid(format!(
                "The parts have {bytes} bytes together, but the upload was created with 'bytes' \
                 of {declared}."
            ))
            .param("part_ids"),
            FileError::WrongChecksum { expected, md5 } => Self::invalid(format!(
                "The parts have the MD5 checksum '{md5}', but '{expected}' was expected."
            ))
            .param("md5"),
        }
    }
}
