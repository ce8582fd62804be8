use std::ops::Range;

use bytes::Bytes;
use futures::Stream;

use crate::domain::file::{File, NewFile};
use crate::domain::ids::FileId;
use crate::domain::page::{Page, PageRequest};
use crate::files::blobs::{BlobError, Contents};
use crate::files::{self, PendingFile};
use crate::service::{ProjectService, ServiceError};
use crate::store;

/// The stored contents of a new file that has no row yet.
pub struct StoredContents {
    id: FileId,
    pending: PendingFile,
}

impl ProjectService {
    /// Stores the contents of a new file. If the result is dropped instead of passed to
    /// [`Self::create_file`], they are deleted.
    pub async fn store_contents(
        &self,
        contents: impl Stream<Item = Result<Bytes, BlobError>> + Send,
    ) -> Result<StoredContents, ServiceError> {
        let id = FileId::generate();
        let limit = self.settings().max_file_bytes;
        let blobs = &self.shared.deps.blobs;
        let pending = PendingFile::write(self.pool(), blobs, &id, contents, limit).await?;
        Ok(StoredContents { id, pending })
    }

    pub async fn create_file(
        &self,
        contents: StoredContents,
        new: &NewFile,
    ) -> Result<File, ServiceError> {
        let StoredContents { id, pending } = contents;
        Ok(pending.keep(self.id(), &id, new).await?)
    }

    pub async fn list_files(
        &self,
        purpose: Option<&str>,
        request: &PageRequest,
    ) -> Result<Page<File>, ServiceError> {
        Ok(store::files::list(self.pool(), self.id(), purpose, request).await?)
    }

    pub async fn file(&self, id: &FileId) -> Result<File, ServiceError> {
        store::files::find(self.pool(), self.id(), id)
            .await?
            .ok_or_else(|| ServiceError::FileNotFound(id.to_string()))
    }

    pub async fn file_contents(
        &self,
        file: &File,
        range: Option<Range<u64>>,
    ) -> Result<Contents, ServiceError> {
        Ok(self.shared.deps.blobs.get(file.id.as_str(), range).await?)
    }

    /// Deletes a file, its contents, and the references of code_interpreter resources to it.
    pub async fn delete_file(&self, id: &FileId) -> Result<(), ServiceError> {
        match files::delete(self.pool(), &self.shared.deps.blobs, self.id(), id).await? {
            true => Ok(()),
            false => Err(ServiceError::FileNotFound(id.to_string())),
        }
    }
}
