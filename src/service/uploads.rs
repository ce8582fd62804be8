//! Files that are uploaded in parts.

use bytes::Bytes;
use futures::Stream;

use crate::domain::file::{File, NewUpload, Part, Upload};
use crate::domain::ids::{PartId, UploadId};
use crate::files;
use crate::files::blobs::BlobError;
use crate::service::{ProjectService, ServiceError};
use crate::store;

impl ProjectService {
    pub async fn create_upload(&self, new: &NewUpload) -> Result<Upload, ServiceError> {
        Ok(store::uploads::insert(self.pool(), self.id(), new).await?)
    }

    pub async fn add_upload_part(
        &self,
        id: &UploadId,
        contents: impl Stream<Item = Result<Bytes, BlobError>> + Send,
    ) -> Result<Part, ServiceError> {
        let blobs = &self.shared.deps.blobs;
        Ok(files::uploads::add_part(self.pool(), blobs, self.id(), id, contents).await?)
    }

    /// Creates a file from the parts in this order. `md5` is the checksum that the client expects of
    /// the file, in hexadecimal.
    pub async fn complete_upload(
        &self,
        id: &UploadId,
        parts: &[PartId],
        md5: Option<&str>,
    ) -> Result<(Upload, File), ServiceError> {
        let blobs = &self.shared.deps.blobs;
        Ok(files::uploads::complete(self.pool(), blobs, self.id(), id, parts, md5).await?)
    }

    pub async fn cancel_upload(&self, id: &UploadId) -> Result<Upload, ServiceError> {
        Ok(files::uploads::cancel(self.pool(), &self.shared.deps.blobs, self.id(), id).await?)
    }
}
