//! Vector stores and searches in them.

use crate::domain::ids::VectorStoreId;
use crate::domain::page::{Page, PageRequest};
use crate::domain::vector_store::{NewVectorStore, VectorStore, VectorStoreChanges};
use crate::retrieval::{SearchHit, SearchQuery};
use crate::service::{ProjectService, ServiceError};
use crate::store;

impl ProjectService {
    pub async fn create_vector_store(
        &self,
        new: &NewVectorStore,
    ) -> Result<VectorStore, ServiceError> {
        self.check_files_exist(new.files.iter().map(|new| &new.file))
            .await?;
        let mut transaction = self.pool().begin().await?;
        let id = store::vector_stores::insert(&mut transaction, self.id(), new).await?;
        let created = store::vector_stores::find(&mut *transaction, self.id(), &id).await?;
        transaction.commit().await?;
        if !new.files.is_empty() {
            self.notify_indexing();
        }
        created.ok_or_else(|| ServiceError::not_found("vector store", &id))
    }

    pub async fn list_vector_stores(
        &self,
        request: &PageRequest,
    ) -> Result<Page<VectorStore>, ServiceError> {
        Ok(store::vector_stores::list(self.pool(), self.id(), request).await?)
    }

    pub async fn vector_store(&self, id: &VectorStoreId) -> Result<VectorStore, ServiceError> {
        store::vector_stores::find(self.pool(), self.id(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("vector store", id))
    }

    pub async fn update_vector_store(
        &self,
        id: &VectorStoreId,
        changes: &VectorStoreChanges,
    ) -> Result<VectorStore, ServiceError> {
        if !store::vector_stores::update(self.pool(), self.id(), id, changes).await? {
            return Err(ServiceError::not_found("vector store", id));
        }
        self.vector_store(id).await
    }

    pub async fn delete_vector_store(&self, id: &VectorStoreId) -> Result<(), ServiceError> {
        let mut transaction = self.pool().begin().await?;
        if !store::vector_stores::delete(&mut transaction, self.id(), id).await? {
            return Err(ServiceError::not_found("vector store", id));
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Searches a vector store. This counts as activity for its expiry.
    pub async fn search_vector_store(
        &self,
        id: &VectorStoreId,
        query: &SearchQuery<'_>,
    ) -> Result<Vec<SearchHit>, ServiceError> {
        let store = store::vector_stores::touch(self.pool(), self.id(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("vector store", id))?;
        if store.is_expired {
            return Err(ServiceError::SearchInExpiredStore(id.clone()));
        }
        Ok(self.shared.deps.retrieval.search(&store, query).await?)
    }
}
