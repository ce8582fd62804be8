//! What an import must know of ids that others have made, the same for every table of objects.

use std::collections::HashSet;

use sqlx::{PgExecutor, QueryBuilder};

use crate::domain::ids::{FileId, ProjectId};
use crate::store::StoreError;

/// A table of objects with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `files`
    Files,
    /// `vector_stores`
    VectorStores,
    /// `vector_store_batches`
    VectorStoreBatches,
    /// `assistants`
    Assistants,
    /// `threads`
    Threads,
    /// `messages`
    Messages,
    /// `runs`
    Runs,
    /// `run_steps`
    RunSteps,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::VectorStores => "vector_stores",
            Self::VectorStoreBatches => "vector_store_batches",
            Self::Assistants => "assistants",
            Self::Threads => "threads",
            Self::Messages => "messages",
            Self::Runs => "runs",
            Self::RunSteps => "run_steps",
        }
    }
}

/// Who has these ids already.
#[derive(Debug, Default)]
pub struct Taken {
    /// The project itself.
    pub ours: HashSet<String>,
    /// Others.
    pub others: HashSet<String>,
}

/// Who has which of these ids.
pub async fn taken(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    table: Table,
    ids: &[&str],
) -> Result<Taken, StoreError> {
    let mut query = QueryBuilder::new("select id, project_id = ");
    query.push_bind(project);
    query.push(" from ").push(table.name());
    query.push(" where id = any (").push_bind(ids).push(")");
    let rows: Vec<(String, bool)> = query.build_query_as().fetch_all(db).await?;
    let mut taken = Taken::default();
    for (id, is_ours) in rows {
        if is_ours {
            taken.ours.insert(id);
        } else {
            taken.others.insert(id);
        }
    }
    Ok(taken)
}

/// A file whose contents may have to be found.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Described {
    /// Its id.
    pub id: FileId,
    /// Its name.
    pub filename: String,
    /// The size that its contents have.
    pub bytes: i64,
}

/// The project's files in the order of their ids, from after one of them on.
pub async fn files_after(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    after: &str,
    limit: i64,
) -> Result<Vec<Described>, StoreError> {
    let files = sqlx::query_as(
        "select id, filename, bytes from files
         where project_id = $1 and id > $2 and (expires_at is null or expires_at > now())
         order by id limit $3",
    )
    .bind(project)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(files)
}
