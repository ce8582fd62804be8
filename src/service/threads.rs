use serde_json::{Map, json};
use sqlx::PgConnection;

use crate::domain::Metadata;
use crate::domain::assistant::{FileSearchResources, ToolResources};
use crate::domain::ids::ThreadId;
use crate::domain::page::{Page, PageRequest};
use crate::domain::thread::{Thread, ThreadFilter};
use crate::domain::vector_store::NewVectorStore;
use crate::events::notifications::Notification;
use crate::service::attachments::Attachments;
use crate::service::{ProjectService, ServiceError};
use crate::store;
use crate::store::threads::NewThreadRow;
use crate::wire::thread::NewThread;
use crate::wire::tool_resources::NewToolResources;

/// Maximum number of tries of a write to a thread that was busy with a run which had ended by the time
/// it was looked up.
pub(super) const MAX_TRIES_WHEN_BUSY: usize = 6;

impl ProjectService {
    /// Creates a thread with its messages, and the vector store that its tool resources define or its
    /// attachments need.
    pub async fn create_thread(&self, new: NewThread) -> Result<Thread, ServiceError> {
        self.check_new_thread(&new).await?;
        if new.messages.is_empty() && new.tool_resources.vector_store.is_none() {
            // A single statement needs no transaction.
            let row = self.thread_row(new.metadata, new.tool_resources.named);
            return Ok(store::threads::insert(self.pool(), row).await?);
        }
        let needs_indexing = needs_indexing(&new);
        let mut transaction = self.pool().begin().await?;
        let thread = self.insert_thread(&mut transaction, new).await?;
        transaction.commit().await?;
        if needs_indexing {
            self.notify_indexing();
        }
        Ok(thread)
    }

    pub(super) async fn check_new_thread(&self, new: &NewThread) -> Result<(), ServiceError> {
        let NewToolResources {
            named,
            vector_store,
        } = &new.tool_resources;
        self.check_tool_resources(named).await?;
        let indexed = vector_store.iter().flat_map(|new| &new.files);
        self.check_files_exist(indexed.map(|new| &new.file)).await?;
        self.check_message_files(&new.messages).await
    }

    pub(super) async fn insert_thread(
        &self,
        connection: &mut PgConnection,
        new: NewThread,
    ) -> Result<Thread, ServiceError> {
        let NewThread {
            messages,
            tool_resources:
                NewToolResources {
                    named: mut resources,
                    vector_store,
                },
            metadata,
        } = new;
        if let Some(new) = vector_store {
            let new = NewVectorStore {
                expires_after_days: self.settings().thread_store_expiry,
                ..new
            };
            let created = store::vector_stores::insert(&mut *connection, self.id(), &new).await?;
            resources.file_search = Some(FileSearchResources {
                vector_store_ids: vec![created],
            });
        }
        let attachments = Attachments::of(&messages);
        self.add_attachments_to_resources(&mut *connection, attachments, &mut resources)
            .await?;
        let row = self.thread_row(metadata, resources);
        let thread = store::threads::insert_in_transaction(&mut *connection, row).await?;
        if !messages.is_empty() {
            store::messages::insert_all(connection, self.id(), &thread.id, &messages).await?;
        }
        Ok(thread)
    }

    fn thread_row(&self, metadata: Metadata, tool_resources: ToolResources) -> NewThreadRow {
        NewThreadRow {
            project: self.id().clone(),
            metadata,
            tool_resources,
        }
    }

    pub async fn list_threads(
        &self,
        filter: &ThreadFilter,
        request: &PageRequest,
    ) -> Result<Page<Thread>, ServiceError> {
        Ok(store::threads::list(self.pool(), self.id(), filter, request).await?)
    }

    pub async fn thread(&self, id: &ThreadId) -> Result<Thread, ServiceError> {
        store::threads::find(self.pool(), self.id(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("thread", id))
    }

    /// Replaces `metadata` if it is present, and the resources of each tool that has some.
    pub async fn update_thread(
        &self,
        id: &ThreadId,
        resources: &ToolResources,
        metadata: Option<&Metadata>,
    ) -> Result<Thread, ServiceError> {
        self.check_tool_resources(resources).await?;
        let mut changes = Map::new();
        if let Some(files) = &resources.code_interpreter {
            changes.insert("code_interpreter".into(), json!(files));
        }
        if let Some(stores) = &resources.file_search {
            changes.insert("file_search".into(), json!(stores));
        }
        store::threads::update(self.pool(), self.id(), id, metadata, &changes)
            .await?
            .ok_or_else(|| ServiceError::not_found("thread", id))
    }

    /// Deletes a thread with its messages and runs. The worker of an active run stops, and the streams
    /// of its events end.
    pub async fn delete_thread(&self, id: &ThreadId) -> Result<(), ServiceError> {
        let deps = &self.shared.deps;
        let active = store::runs::active_on(self.pool(), self.id(), id).await?;
        deps.feed.drop_copies(id);
        if !store::threads::delete(self.pool(), self.id(), id).await? {
            return Err(ServiceError::not_found("thread", id));
        }
        deps.feed.drop_copies(id);
        if let Some(run) = active {
            deps.notifier.notify(Notification::Cancel(run.id));
            self.outlive_copies(run.holder).await;
        }
        Ok(())
    }

    pub(super) async fn check_thread(&self, id: &ThreadId) -> Result<(), ServiceError> {
        match store::threads::exists(self.pool(), self.id(), id).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("thread", id)),
        }
    }
}

pub(super) fn needs_indexing(new: &NewThread) -> bool {
    new.tool_resources.vector_store.is_some() || Attachments::of(&new.messages).need_indexing()
}
