//! Table `messages`.

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::ids::{AssistantId, MessageId, ProjectId, RunId, ThreadId};
use crate::domain::message::{
    Attachment, Content, IncompleteReason, Message, MessageStatus, NewMessage, Role,
};
use crate::domain::page::{Page, PageRequest};
use crate::domain::{Metadata, Timestamp};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::batch::{Batch, found_in_order};
use crate::store::{StoreError, json, page};

macro_rules! columns {
    () => {
        "id, thread_id, created_at, status, incomplete_reason, ended_at, role, content, \
         attachments, assistant_id, run_id, metadata"
    };
}

impl FromRow<'_, PgRow> for Message {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            thread: row.try_get("thread_id")?,
            created_at: row.try_get("created_at")?,
            status: row.try_get("status")?,
            incomplete_reason: row.try_get("incomplete_reason")?,
            ended_at: row.try_get("ended_at")?,
            role: row.try_get("role")?,
            content: json(row, "content")?,
            attachments: json(row, "attachments")?,
            assistant: row.try_get("assistant_id")?,
            run: row.try_get("run_id")?,
            metadata: json(row, "metadata")?,
        })
    }
}

/// A row of the table as JSON, with the names of its columns.
#[derive(Debug, Serialize)]
pub(super) struct MessageRow<'a> {
    id: &'a MessageId,
    thread_id: &'a ThreadId,
    created_at: Timestamp,
    status: MessageStatus,
    incomplete_reason: Option<IncompleteReason>,
    ended_at: Option<Timestamp>,
    role: Role,
    content: &'a [Content],
    attachments: &'a [Attachment],
    assistant_id: Option<&'a AssistantId>,
    run_id: Option<&'a RunId>,
    metadata: &'a Metadata,
}

impl<'a> From<&'a Message> for MessageRow<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            id: &message.id,
            thread_id: &message.thread,
            created_at: message.created_at,
            status: message.status,
            incomplete_reason: message.incomplete_reason,
            ended_at: message.ended_at,
            role: message.role,
            content: &message.content,
            attachments: &message.attachments,
            assistant_id: message.assistant.as_ref(),
            run_id: message.run.as_ref(),
            metadata: &message.metadata,
        }
    }
}

/// A message to append to a thread.
#[derive(Debug)]
pub struct NewMessageRow {
    pub project: ProjectId,
    pub thread: ThreadId,
    pub message: NewMessage,
}

impl Batch for NewMessageRow {
    type Output = Option<Message>;

    async fn execute(pool: &Pool, items: &[Self]) -> Result<Vec<Self::Output>, StoreError> {
        insert_rows(pool, items).await
    }
}

/// Appends a message, in one statement with those of other callers. `None` if the thread does not
/// exist or has an active run; `runs::active_on` finds the latter.
pub async fn insert(pool: &Pool, message: NewMessageRow) -> Result<Option<Message>, StoreError> {
    pool.batched(message).await
}

/// Appends a message as [`insert`] does.
pub async fn insert_in_transaction(
    connection: &mut PgConnection,
    message: NewMessageRow,
) -> Result<Option<Message>, StoreError> {
    let inserted = insert_rows(connection, &[message]).await?;
    Ok(inserted.into_iter().flatten().next())
}

async fn insert_rows(
    db: impl PgExecutor<'_>,
    rows: &[NewMessageRow],
) -> Result<Vec<Option<Message>>, StoreError> {
    let ids: Vec<MessageId> = rows.iter().map(|_| MessageId::generate()).collect();
    let text = |column: fn(&NewMessageRow) -> &str| rows.iter().map(column).collect::<Vec<_>>();
    let messages = || rows.iter().map(|row| &row.message);
    let inserted = sqlx::query_as(concat!(
        "insert into messages (id, project_id, thread_id, status, ended_at, role, content,
                               attachments, metadata)
         select new.id, t.project_id, t.id, 'completed', now(), role, content, attachments, metadata
         from unnest((select $1::text[]), $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[],
                     $7::jsonb[]) with ordinality
             as new (id, project_id, thread_id, role, content, attachments, metadata, n),
         lateral (select project_id, id from threads
                  where project_id = new.project_id and id = new.thread_id for key share) as t
         where not exists (select from runs where thread_id = t.id and
             status in ('queued', 'in_progress', 'requires_action', 'cancelling'))
         order by n
         returning ",
        columns!()
    ))
    .bind(ids.iter().map(MessageId::as_str).collect::<Vec<_>>())
    .bind(text(|row| row.project.as_str()))
    .bind(text(|row| row.thread.as_str()))
    .bind(text(|row| role(row.message.role)))
    .bind(messages().map(|it| Json(&it.content)).collect::<Vec<_>>())
    .bind(
        messages()
            .map(|it| Json(&it.attachments))
            .collect::<Vec<_>>(),
    )
    .bind(messages().map(|it| Json(&it.metadata)).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    Ok(found_in_order(&ids, inserted, |message: &Message| {
        &message.id
    }))
}

/// Appends messages in this order. The thread must be the project's and have no active run.
pub async fn insert_all(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    messages: &[NewMessage],
) -> Result<(), StoreError> {
    let ids: Vec<MessageId> = messages.iter().map(|_| MessageId::generate()).collect();
    let ids: Vec<&str> = ids.iter().map(MessageId::as_str).collect();
    sqlx::query(
        "insert into messages (id, project_id, thread_id, status, ended_at, role, content,
                               attachments, metadata)
         select ids.id, $1, $2, 'completed', now(), m ->> 'role', m -> 'content',
                m -> 'attachments', m -> 'metadata'
         from jsonb_array_elements($3) with ordinality as rows (m, n)
         join unnest($4::text[]) with ordinality as ids (id, n) using (n) order by n",
    )
    .bind(project)
    .bind(thread)
    .bind(Json(messages))
    .bind(ids)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &MessageId,
) -> Result<Option<Message>, StoreError> {
    let message = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from messages where project_id = $1 and thread_id = $2 and id = $3"
    ))
    .bind(project)
    .bind(thread)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(message)
}

/// The thread of a message of which only the id is known.
pub async fn thread_of(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &MessageId,
) -> Result<Option<ThreadId>, StoreError> {
    let thread =
        sqlx::query_scalar("select thread_id from messages where project_id = $1 and id = $2")
            .bind(project)
            .bind(id)
            .fetch_optional(db)
            .await?;
    Ok(thread)
}

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    run: Option<&RunId>,
    request: &PageRequest,
) -> Result<Page<Message>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        "
         from messages where project_id = "
    ));
    query
        .push_bind(project)
        .push(" and thread_id = ")
        .push_bind(thread);
    if let Some(run) = run {
        query.push(" and run_id = ").push_bind(run);
    }
    page::fetch(pool, query, "messages", project, request).await
}

/// The part of a message that a prompt needs.
#[derive(Debug, Clone)]
pub struct PromptMessage {
    pub id: MessageId,
    pub created_at: Timestamp,
    pub role: Role,
    pub content: Vec<Content>,
    pub run: Option<RunId>,
    /// Orders messages of the same time.
    pub seq: i64,
}

/// The thread's messages before a position, newest first, for prompts.
pub async fn newest(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    before: Option<(Timestamp, i64)>,
    limit: i64,
) -> Result<Vec<PromptMessage>, StoreError> {
    let (created_at, seq) = before.unzip();
    let rows = sqlx::query(
        "select id, created_at, role, content, run_id, seq
         from messages
         where project_id = $1 and thread_id = $2
             and (created_at, seq) < (coalesce($3, 'infinity'), coalesce($4, 0))
         order by created_at desc, seq desc limit $5",
    )
    .bind(project)
    .bind(thread)
    .bind(created_at)
    .bind(seq)
    .bind(limit)
    .fetch_all(db)
    .await?;
    // Columns are read by position: looking names up in each of thousands of rows takes longer.
    let read = |row: &PgRow| {
        Ok(PromptMessage {
            id: row.try_get(0)?,
            created_at: row.try_get(1)?,
            role: row.try_get(2)?,
            content: row.try_get::<Json<Vec<Content>>, _>(3)?.0,
            run: row.try_get(4)?,
            seq: row.try_get(5)?,
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
}

pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &MessageId,
    metadata: Option<&Metadata>,
) -> Result<Option<Message>, StoreError> {
    let message = sqlx::query_as(concat!(
        "update messages set metadata = coalesce($4, metadata)
         where project_id = $1 and thread_id = $2 and id = $3
         returning ",
        columns!()
    ))
    .bind(project)
    .bind(thread)
    .bind(id)
    .bind(metadata.map(Json))
    .fetch_optional(db)
    .await?;
    Ok(message)
}

pub async fn delete(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &MessageId,
) -> Result<bool, StoreError> {
    let done =
        sqlx::query("delete from messages where project_id = $1 and thread_id = $2 and id = $3")
            .bind(project)
            .bind(thread)
            .bind(id)
            .execute(db)
            .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    messages: &[Message],
) -> Result<u64, StoreError> {
    let rows: Vec<MessageRow<'_>> = messages.iter().map(MessageRow::from).collect();
    let done = sqlx::query(concat!(
        "insert into messages (project_id, ",
        columns!(),
        ") select $1, ",
        columns!(),
        " from jsonb_populate_recordset(null::messages, $2) with ordinality
         order by ordinality on conflict (id) do nothing"
    ))
    .bind(project)
    .bind(Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}
