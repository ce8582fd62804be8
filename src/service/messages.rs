use crate::domain::Metadata;
use crate::domain::ids::{FileId, MessageId, RunId, ThreadId};
use crate::domain::message::{AttachmentTool, Content, Message, NewMessage};
use crate::domain::page::{Page, PageRequest};
use crate::service::attachments::{Attachments, files_for};
use crate::service::threads::MAX_TRIES_WHEN_BUSY;
use crate::service::{ProjectService, RunRefusal, ServiceError};
use crate::store;
use crate::store::messages::NewMessageRow;

impl ProjectService {
    /// Appends a message to a thread without an active run, and adds its attachments to the thread's
    /// tool resources.
    pub async fn create_message(
        &self,
        thread: &ThreadId,
        new: &NewMessage,
    ) -> Result<Message, ServiceError> {
        self.check_message_files(std::slice::from_ref(new)).await?;
        for _ in 0..MAX_TRIES_WHEN_BUSY {
            if let Some(message) = self.insert_message(thread, new).await? {
                return Ok(message);
            }
            if let Some(run) = store::runs::active_on(self.pool(), self.id(), thread).await? {
                let thread = thread.clone();
                let run = run.id;
                return Err(RunRefusal::ThreadLocked { thread, run }.into());
            }
            self.check_thread(thread).await?;
        }
        Err(RunRefusal::ThreadContended.into())
    }

    /// `None` when the thread does not exist or has an active run.
    async fn insert_message(
        &self,
        thread: &ThreadId,
        new: &NewMessage,
    ) -> Result<Option<Message>, ServiceError> {
        let attachments = Attachments::of(std::slice::from_ref(new));
        let row = NewMessageRow {
            project: self.id().clone(),
            thread: thread.clone(),
            message: new.clone(),
        };
        if attachments.is_empty() {
            return Ok(store::messages::insert(self.pool(), row).await?);
        }
        let mut transaction = self.pool().begin().await?;
        let message = store::messages::insert_in_transaction(&mut transaction, row).await?;
        if message.is_some() {
            self.add_attachments(&mut transaction, thread, &attachments)
                .await?;
            transaction.commit().await?;
            if attachments.need_indexing() {
                self.notify_indexing();
            }
        }
        Ok(message)
    }

    pub async fn list_messages(
        &self,
        thread: &ThreadId,
        run: Option<&RunId>,
        request: &PageRequest,
    ) -> Result<Page<Message>, ServiceError> {
        let page = store::messages::list(self.pool(), self.id(), thread, run, request).await?;
        if page.data.is_empty() {
            self.check_thread(thread).await?;
        }
        Ok(page)
    }

    pub async fn message(
        &self,
        thread: &ThreadId,
        id: &MessageId,
    ) -> Result<Message, ServiceError> {
        let message = store::messages::find(self.pool(), self.id(), thread, id).await?;
        self.message_or_not_found(thread, id, message).await
    }

    pub async fn update_message(
        &self,
        thread: &ThreadId,
        id: &MessageId,
        metadata: Option<&Metadata>,
    ) -> Result<Message, ServiceError> {
        let message = store::messages::update(self.pool(), self.id(), thread, id, metadata).await?;
        self.message_or_not_found(thread, id, message).await
    }

    pub async fn delete_message(
        &self,
        thread: &ThreadId,
        id: &MessageId,
    ) -> Result<(), ServiceError> {
        let is_deleted = store::messages::delete(self.pool(), self.id(), thread, id).await?;
        self.message_or_not_found(thread, id, is_deleted.then_some(()))
            .await
    }

    async fn message_or_not_found<T>(
        &self,
        thread: &ThreadId,
        id: &MessageId,
        result: Option<T>,
    ) -> Result<T, ServiceError> {
        match result {
            Some(result) => Ok(result),
            None => {
                self.check_thread(thread).await?;
                Err(ServiceError::not_found("message", id))
            }
        }
    }

    /// Refuses messages whose files do not exist or cannot be read by the tool they are attached for.
    pub(super) async fn check_message_files(
        &self,
        messages: &[NewMessage],
    ) -> Result<(), ServiceError> {
        let attachments = messages.iter().flat_map(|message| &message.attachments);
        let attached = attachments.filter_map(|attachment| attachment.file_id.as_ref());
        let content = messages.iter().flat_map(|message| &message.content);
        let images: Vec<FileId> = content
            .filter_map(|content| match content {
                Content::ImageFile { file, .. } => Some(file.clone()),
                Content::Text { .. } | Content::Refusal { .. } | Content::ImageUrl { .. } => None,
            })
            .collect();
        self.check_files_exist(attached.chain(&images)).await?;
        let searched = files_for(messages, AttachmentTool::FileSearch);
        self.check_searchable(&searched).await?;
        self.check_images(&images).await
    }
}
