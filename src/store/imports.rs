//! Queries of imports, which are the same for several tables.

use std::collections::HashSet;

use sqlx::{PgExecutor, QueryBuilder};

use crate::domain::ids::{FileId, ProjectId};
use crate::store::StoreError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Files,
    VectorStores,
    VectorStoreBatches,
    Assistants,
    Threads,
    Messages,
    Runs,
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

/// Ids that exist already: those of the project itself, and those of other projects.
#[derive(Debug, Default)]
pub struct ExistingIds {
    pub ours: HashSet<String>,
    pub others: HashSet<String>,
}

pub async fn existing_ids(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    table: Table,
    ids: &[&str],
) -> Result<ExistingIds, StoreError> {
    let mut query = QueryBuilder::new("select id, project_id = ");
    query.push_bind(project);
    query.push(" from ").push(table.name());
    query.push(" where id = any (").push_bind(ids).push(")");
    let rows: Vec<(String, bool)> = query.build_query_as().fetch_all(db).await?;
    let mut existing = ExistingIds::default();
    for (id, is_ours) in rows {
        if is_ours {
            existing.ours.insert(id);
        } else {
            existing.others.insert(id);
        }
    }
    Ok(existing)
}

/// A file whose content may be missing.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FileSummary {
    pub id: FileId,
    pub filename: String,
    pub bytes: i64,
}

/// The project's files in the order of their ids, beginning after the id `after`.
pub async fn files_after(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    after: &str,
    limit: i64,
) -> Result<Vec<FileSummary>, StoreError> {
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
