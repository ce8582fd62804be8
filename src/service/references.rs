//! Checks of the files and vector stores that a request refers to: they must exist, and a file must
//! have a type that its tool can read.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::domain::assistant::ToolResources;
use crate::domain::file::{IMAGE_HEAD_BYTES, image_type};
use crate::domain::ids::{FileId, VectorStoreId};
use crate::files::blobs::{BlobError, Blobs};
use crate::service::{ProjectService, ServiceError};
use crate::store;

const MAX_EXTENSION_SHOWN: usize = 32;

impl ProjectService {
    pub(super) async fn check_files_exist<'a>(
        &self,
        files: impl IntoIterator<Item = &'a FileId>,
    ) -> Result<(), ServiceError> {
        let files: Vec<&str> = files.into_iter().map(FileId::as_str).collect();
        if files.is_empty() {
            return Ok(());
        }
        match store::files::first_missing(self.pool(), self.id(), &files).await? {
            None => Ok(()),
            Some(id) => Err(ServiceError::FileNotFound(id)),
        }
    }

    /// Refuses files that file_search cannot read, with the check that indexing uses.
    pub(super) async fn check_searchable(&self, files: &[FileId]) -> Result<(), ServiceError> {
        let is_readable =
            |name: &str, head: &[u8]| documents::extract::check_head(name, head).is_ok();
        let refused = self
            .first_refused(files, documents::extract::HEAD_BYTES, is_readable)
            .await?;
        match refused {
            None => Ok(()),
            Some(extension) => Err(ServiceError::FileNotSearchable { extension }),
        }
    }

    pub(super) async fn check_images(&self, files: &[FileId]) -> Result<(), ServiceError> {
        let is_image = |_: &str, head: &[u8]| image_type(head).is_some();
        let refused = self
            .first_refused(files, IMAGE_HEAD_BYTES, is_image)
            .await?;
        match refused {
            None => Ok(()),
            Some(extension) => Err(ServiceError::FileNotImage { extension }),
        }
    }

    pub(super) async fn check_tool_resources(
        &self,
        resources: &ToolResources,
    ) -> Result<(), ServiceError> {
        self.check_files_exist(resources.files()).await?;
        for id in resources.vector_stores() {
            if !store::vector_stores::exists(self.pool(), self.id(), id).await? {
                return Err(ServiceError::ResourceNotFound(id.clone()));
            }
        }
        Ok(())
    }

    pub(super) async fn check_vector_store(&self, id: &VectorStoreId) -> Result<(), ServiceError> {
        match store::vector_stores::exists(self.pool(), self.id(), id).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("vector store", id)),
        }
    }

    /// The extension of the first file whose name and first bytes `is_accepted` refuses. A file without
    /// stored contents, as an import may leave it, cannot be checked and is accepted.
    async fn first_refused(
        &self,
        files: &[FileId],
        head_bytes: u64,
        is_accepted: impl Fn(&str, &[u8]) -> bool,
    ) -> Result<Option<String>, ServiceError> {
        let files: BTreeSet<&FileId> = files.iter().collect();
        for id in files {
            let file = store::files::find(self.pool(), self.id(), id)
                .await?
                .ok_or_else(|| ServiceError::FileNotFound(id.to_string()))?;
            let length = u64::try_from(file.bytes).unwrap_or(0).min(head_bytes);
            let head = match read_head(&self.shared.deps.blobs, id, length).await {
                Ok(head) => head,
                Err(BlobError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            if !is_accepted(&file.filename, &head) {
                let extension = file.filename.rsplit_once('.');
                let extension = extension.map_or("", |(_, extension)| extension);
                let shown: String = extension.chars().take(MAX_EXTENSION_SHOWN).collect();
                return Ok(Some(format!(".{shown}")));
            }
        }
        Ok(None)
    }
}

/// Reads the first `length` bytes of a file that is not shorter.
async fn read_head(blobs: &Blobs, id: &FileId, length: u64) -> Result<Vec<u8>, BlobError> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let contents = blobs.get(id.as_str(), Some(0..length)).await?;
    let append = async |mut head: Vec<u8>, bytes: Bytes| {
        head.extend_from_slice(&bytes);
        Ok(head)
    };
    contents.stream.try_fold(Vec::new(), append).await
}
