//! Files that messages attach for tools. Those for code_interpreter are added to the thread's files,
//! those for file_search to its vector store.

use std::collections::HashSet;

use sqlx::PgConnection;

use crate::domain::assistant::{FileSearchResources, ToolResources};
use crate::domain::ids::{FileId, ThreadId, VectorStoreId};
use crate::domain::message::{AttachmentTool, NewMessage};
use crate::domain::vector_store::{NewStoreFile, NewVectorStore};
use crate::service::ProjectService;
use crate::store;
use crate::store::vector_store_files::AddFilesError;

/// The attached files of messages by tool, without repetitions.
#[derive(Debug)]
pub(super) struct Attachments {
    code_interpreter: Vec<FileId>,
    file_search: Vec<FileId>,
}

impl Attachments {
    pub(super) fn of(messages: &[NewMessage]) -> Self {
        Self {
            code_interpreter: files_for(messages, AttachmentTool::CodeInterpreter),
            file_search: files_for(messages, AttachmentTool::FileSearch),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.code_interpreter.is_empty() && self.file_search.is_empty()
    }

    pub(super) fn need_indexing(&self) -> bool {
        !self.file_search.is_empty()
    }
}

impl ProjectService {
    /// Adds attachments to the tool resources of an existing thread.
    pub(super) async fn add_attachments(
        &self,
        connection: &mut PgConnection,
        thread: &ThreadId,
        attachments: &Attachments,
    ) -> Result<(), AddFilesError> {
        let project = self.id();
        if !attachments.code_interpreter.is_empty() {
            let files = &attachments.code_interpreter;
            store::threads::add_code_interpreter_files(&mut *connection, project, thread, files)
                .await?;
        }
        if !attachments.file_search.is_empty()
            && let Some(resources) = store::threads::lock(&mut *connection, project, thread).await?
        {
            let current = resources.vector_stores().next();
            let files = &attachments.file_search;
            let created = self.add_to_store(&mut *connection, files, current).await?;
            if let Some(created) = created {
                store::threads::set_vector_store(connection, project, thread, &created).await?;
            }
        }
        Ok(())
    }

    /// Adds attachments to the tool resources of a thread that is about to be created.
    pub(super) async fn add_attachments_to_resources(
        &self,
        connection: &mut PgConnection,
        attachments: Attachments,
        resources: &mut ToolResources,
    ) -> Result<(), AddFilesError> {
        if !attachments.file_search.is_empty() {
            let current = resources.vector_stores().next();
            let files = &attachments.file_search;
            if let Some(created) = self.add_to_store(connection, files, current).await? {
                resources.file_search = Some(FileSearchResources {
                    vector_store_ids: vec![created],
                });
            }
        }
        if !attachments.code_interpreter.is_empty() {
            let files = &mut resources.code_interpreter.get_or_insert_default().file_ids;
            let is_new = |file: &FileId| !files.contains(file);
            let new: Vec<FileId> = attachments
                .code_interpreter
                .into_iter()
                .filter(is_new)
                .collect();
            files.extend(new);
        }
        Ok(())
    }

    /// Adds files to the thread's current vector store. If there is none, or it was deleted,
    /// creates one and returns its id.
    async fn add_to_store(
        &self,
        connection: &mut PgConnection,
        files: &[FileId],
        current: Option<&VectorStoreId>,
    ) -> Result<Option<VectorStoreId>, AddFilesError> {
        let files: Vec<NewStoreFile> = files
            .iter()
            .map(|file| NewStoreFile {
                file: file.clone(),
                attributes: None,
                chunking: None,
            })
            .collect();
        if let Some(current) = current
            && store::vector_store_files::insert(&mut *connection, self.id(), current, &files)
                .await?
        {
            return Ok(None);
        }
        let new = NewVectorStore {
            expires_after_days: self.settings().thread_store_expiry,
            files,
            ..NewVectorStore::default()
        };
        store::vector_stores::insert(connection, self.id(), &new)
            .await
            .map(Some)
    }
}

pub(super) fn files_for(messages: &[NewMessage], tool: AttachmentTool) -> Vec<FileId> {
    let attachments = messages.iter().flat_map(|message| &message.attachments);
    let files = attachments
        .filter(|attachment| attachment.tools.contains(&tool))
        .filter_map(|attachment| attachment.file_id.clone());
    let mut seen = HashSet::new();
    files.filter(|file| seen.insert(file.clone())).collect()
}
