//! Files that messages give to a thread's tools: those for code_interpreter become the thread's,
//! those for file_search go into its vector store.

use sqlx::PgConnection;

use crate::domain::assistant::{FileSearchResources, ToolResources};
use crate::domain::ids::{FileId, ProjectId, ThreadId, VectorStoreId};
use crate::domain::message::AttachmentTool;
use crate::domain::message::NewMessage;
use crate::domain::vector_store::{NewStoreFile, NewVectorStore};
use crate::http::state::ApiState;
use crate::store;
use crate::store::StoreError;

/// The attachments of some messages, by tool; each file once.
#[derive(Debug)]
pub struct Attached {
    code_interpreter: Vec<FileId>,
    file_search: Vec<FileId>,
}

impl Attached {
    /// What these messages bring.
    pub fn by(messages: &[NewMessage]) -> Self {
        Self {
            code_interpreter: files_for(messages, AttachmentTool::CodeInterpreter),
            file_search: files_for(messages, AttachmentTool::FileSearch),
        }
    }

    /// Whether they bring nothing.
    pub fn is_empty(&self) -> bool {
        self.code_interpreter.is_empty() && self.file_search.is_empty()
    }

    /// Gives the files to a thread that exists.
    pub async fn add_to_thread(
        &self,
        conn: &mut PgConnection,
        state: &ApiState,
        project: &ProjectId,
        thread: &ThreadId,
    ) -> Result<(), StoreError> {
        if !self.code_interpreter.is_empty() {
            let files = &self.code_interpreter;
            store::threads::add_code_interpreter_files(&mut *conn, project, thread, files).await?;
        }
        if !self.file_search.is_empty()
            && let Some(resources) = store::threads::lock(&mut *conn, project, thread).await?
        {
            let now = resources.vector_stores().next();
            if let Some(made) = self.fill_store(&mut *conn, state, project, now).await? {
                store::threads::set_vector_store(conn, project, thread, &made).await?;
            }
        }
        Ok(())
    }

    /// Gives the files to a thread that is about to be made with these resources.
    pub async fn add_to(
        self,
        conn: &mut PgConnection,
        state: &ApiState,
        project: &ProjectId,
        resources: &mut ToolResources,
    ) -> Result<(), StoreError> {
        if !self.file_search.is_empty() {
            let now = resources.vector_stores().next();
            if let Some(made) = self.fill_store(conn, state, project, now).await? {
                resources.file_search = Some(FileSearchResources {
                    vector_store_ids: vec![made],
                });
            }
        }
        if !self.code_interpreter.is_empty() {
            let files = &mut resources.code_interpreter.get_or_insert_default().file_ids;
            let new = |file: &FileId| !files.contains(file);
            let new: Vec<FileId> = self.code_interpreter.into_iter().filter(new).collect();
            files.extend(new);
        }
        Ok(())
    }

    /// Whether some of them have to be indexed.
    pub fn are_indexed(&self) -> bool {
        !self.file_search.is_empty()
    }

    /// Adds the files to the thread's vector store. If it has none, or one that is no more, a new
    /// one is made and returned.
    async fn fill_store(
        &self,
        conn: &mut PgConnection,
        state: &ApiState,
        project: &ProjectId,
        now: Option<&VectorStoreId>,
    ) -> Result<Option<VectorStoreId>, StoreError> {
        let file = |file: &FileId| NewStoreFile {
            file: file.clone(),
            attributes: None,
            chunking: None,
        };
        let files: Vec<NewStoreFile> = self.file_search.iter().map(file).collect();
        if let Some(now) = now
            && store::vector_store_files::insert(&mut *conn, project, now, &files).await?
        {
            return Ok(None);
        }
        let new = NewVectorStore {
            expires_after_days: state.limits.thread_store_days,
            files,
            ..NewVectorStore::default()
        };
        store::vector_stores::insert(conn, project, &new)
            .await
            .map(Some)
    }
}

/// The files that messages attach for a tool, each once.
pub fn files_for(messages: &[NewMessage], tool: AttachmentTool) -> Vec<FileId> {
    let attached = messages.iter().flat_map(|message| &message.attachments);
    let wanted = attached
        .filter(|attachment| attachment.tools.contains(&tool))
        .filter_map(|attachment| attachment.file_id.clone());
    let mut seen = std::collections::HashSet::new();
    wanted.filter(|file| seen.insert(file.clone())).collect()
}
