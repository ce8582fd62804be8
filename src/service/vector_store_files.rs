//! Files of vector stores, added one by one or in batches.

use crate::domain::ids::{BatchId, FileId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::vector_store::{Attributes, Batch, FileStatus, NewStoreFile, VectorStoreFile};
use crate::service::{ProjectService, ServiceError};
use crate::store;

impl ProjectService {
    pub async fn add_vector_store_file(
        &self,
        store: &VectorStoreId,
        new: &NewStoreFile,
    ) -> Result<VectorStoreFile, ServiceError> {
        self.check_vector_store(store).await?;
        self.check_files_exist([&new.file]).await?;
        let project = self.id();
        let mut transaction = self.pool().begin().await?;
        let files = std::slice::from_ref(new);
        store::vector_store_files::insert(&mut transaction, project, store, files).await?;
        let added =
            store::vector_store_files::find(&mut *transaction, project, store, &new.file).await?;
        transaction.commit().await?;
        self.notify_indexing();
        added.ok_or_else(|| ServiceError::not_found("vector store", store))
    }

    pub async fn list_vector_store_files(
        &self,
        store: &VectorStoreId,
        status: Option<FileStatus>,
        request: &PageRequest,
    ) -> Result<Page<VectorStoreFile>, ServiceError> {
        let (pool, project) = (self.pool(), self.id());
        let page =
            store::vector_store_files::list(pool, project, store, None, status, request).await?;
        if page.data.is_empty() {
            self.check_vector_store(store).await?;
        }
        Ok(page)
    }

    pub async fn vector_store_file(
        &self,
        store: &VectorStoreId,
        file: &FileId,
    ) -> Result<VectorStoreFile, ServiceError> {
        let record = store::vector_store_files::find(self.pool(), self.id(), store, file).await?;
        self.store_file_or_not_found(store, file, record).await
    }

    pub async fn update_vector_store_file(
        &self,
        store: &VectorStoreId,
        file: &FileId,
        attributes: &Attributes,
    ) -> Result<VectorStoreFile, ServiceError> {
        let (pool, project) = (self.pool(), self.id());
        let updated =
            store::vector_store_files::update(pool, project, store, file, attributes).await?;
        self.store_file_or_not_found(store, file, updated).await
    }

    /// Removes a file from a vector store without deleting the file.
    pub async fn remove_vector_store_file(
        &self,
        store: &VectorStoreId,
        file: &FileId,
    ) -> Result<(), ServiceError> {
        let is_removed =
            store::vector_store_files::delete(self.pool(), self.id(), store, file).await?;
        self.store_file_or_not_found(store, file, is_removed.then_some(()))
            .await
    }

    /// The extracted text of a file; empty until the file is indexed.
    pub async fn vector_store_file_text(
        &self,
        store: &VectorStoreId,
        file: &FileId,
    ) -> Result<String, ServiceError> {
        let text = store::vector_store_files::content(self.pool(), self.id(), store, file).await?;
        self.store_file_or_not_found(store, file, text).await
    }

    async fn store_file_or_not_found<T>(
        &self,
        store: &VectorStoreId,
        file: &FileId,
        result: Option<T>,
    ) -> Result<T, ServiceError> {
        match result {
            Some(result) => Ok(result),
            None => {
                self.check_vector_store(store).await?;
                let (store, file) = (store.clone(), file.clone());
                Err(ServiceError::VectorStoreFileNotFound { store, file })
            }
        }
    }

    pub async fn create_vector_store_batch(
        &self,
        store: &VectorStoreId,
        files: &[NewStoreFile],
    ) -> Result<Batch, ServiceError> {
        self.check_vector_store(store).await?;
        self.check_files_exist(files.iter().map(|new| &new.file))
            .await?;
        let project = self.id();
        let mut transaction = self.pool().begin().await?;
        let id = store::vector_store_batches::insert(&mut transaction, project, store, files)
            .await?
            .ok_or_else(|| ServiceError::not_found("vector store", store))?;
        let batch =
            store::vector_store_batches::find(&mut *transaction, project, store, &id).await?;
        transaction.commit().await?;
        self.notify_indexing();
        batch.ok_or_else(|| batch_not_found(&id))
    }

    pub async fn vector_store_batch(
        &self,
        store: &VectorStoreId,
        id: &BatchId,
    ) -> Result<Batch, ServiceError> {
        let batch = store::vector_store_batches::find(self.pool(), self.id(), store, id).await?;
        if let Some(batch) = batch {
            return Ok(batch);
        }
        self.check_vector_store(store).await?;
        Err(batch_not_found(id))
    }

    pub async fn cancel_vector_store_batch(
        &self,
        store: &VectorStoreId,
        id: &BatchId,
    ) -> Result<Batch, ServiceError> {
        store::vector_store_batches::cancel(self.pool(), self.id(), store, id).await?;
        self.vector_store_batch(store, id).await
    }

    pub async fn list_vector_store_batch_files(
        &self,
        store: &VectorStoreId,
        id: &BatchId,
        status: Option<FileStatus>,
        request: &PageRequest,
    ) -> Result<Page<VectorStoreFile>, ServiceError> {
        let (pool, project, batch) = (self.pool(), self.id(), Some(id));
        let page =
            store::vector_store_files::list(pool, project, store, batch, status, request).await?;
        if page.data.is_empty() {
            self.vector_store_batch(store, id).await?;
        }
        Ok(page)
    }
}

fn batch_not_found(id: &BatchId) -> ServiceError {
    ServiceError::not_found("vector store file batch", id)
}
