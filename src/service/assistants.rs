use serde_json::{Map, Value};

use crate::domain::Metadata;
use crate::domain::assistant::{Assistant, AssistantConfig, FileSearchResources, ToolResources};
use crate::domain::ids::AssistantId;
use crate::domain::page::{Page, PageRequest};
use crate::service::{ProjectService, ServiceError};
use crate::store;
use crate::wire::tool_resources::NewToolResources;

impl ProjectService {
    pub async fn create_assistant(
        &self,
        config: &AssistantConfig,
        resources: NewToolResources,
        metadata: &Metadata,
    ) -> Result<Assistant, ServiceError> {
        let NewToolResources {
            mut named,
            vector_store,
        } = resources;
        self.check_tool_resources(&named).await?;
        let Some(new) = vector_store else {
            return Ok(
                store::assistants::insert(self.pool(), self.id(), config, &named, metadata).await?,
            );
        };
        self.check_files_exist(new.files.iter().map(|new| &new.file))
            .await?;
        let mut transaction = self.pool().begin().await?;
        let vector_store = store::vector_stores::insert(&mut transaction, self.id(), &new).await?;
        named.file_search = Some(FileSearchResources {
            vector_store_ids: vec![vector_store],
        });
        let assistant =
            store::assistants::insert(&mut *transaction, self.id(), config, &named, metadata)
                .await?;
        transaction.commit().await?;
        self.notify_indexing();
        Ok(assistant)
    }

    pub async fn list_assistants(
        &self,
        request: &PageRequest,
    ) -> Result<Page<Assistant>, ServiceError> {
        Ok(store::assistants::list(self.pool(), self.id(), request).await?)
    }

    pub async fn assistant(&self, id: &AssistantId) -> Result<Assistant, ServiceError> {
        store::assistants::find(self.pool(), self.id(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("assistant", id))
    }

    pub async fn update_assistant(
        &self,
        id: &AssistantId,
        changes: &Map<String, Value>,
        resources: &ToolResources,
        metadata: Option<&Metadata>,
    ) -> Result<Assistant, ServiceError> {
        self.check_tool_resources(resources).await?;
        store::assistants::update(self.pool(), self.id(), id, changes, resources, metadata)
            .await?
            .ok_or_else(|| ServiceError::not_found("assistant", id))
    }

    pub async fn delete_assistant(&self, id: &AssistantId) -> Result<(), ServiceError> {
        match store::assistants::delete(self.pool(), self.id(), id).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("assistant", id)),
        }
    }
}
