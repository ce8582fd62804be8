//! Table `run_events`: the event log of runs.

use serde_json::value::RawValue;
use sqlx::{PgExecutor, Row};

use crate::domain::event::{RunEvent, Seq};
use crate::domain::ids::RunId;
use crate::store::StoreError;
use crate::store::lease::Lease;

/// Consecutive events of one run, serialised.
#[derive(Debug, Clone)]
pub struct Segment {
    pub first: Seq,
    pub last: Seq,
    /// A JSON array of the events.
    pub json: String,
}

impl Segment {
    /// Serialises events that begin at `first`. `None` if there are none.
    pub fn new<'a>(
        first: Seq,
        events: impl IntoIterator<Item = &'a RunEvent>,
    ) -> Result<Option<Self>, StoreError> {
        let serialised: Vec<Box<RawValue>> = events
            .into_iter()
            .map(serde_json::value::to_raw_value)
            .collect::<Result<_, serde_json::Error>>()?;
        if serialised.is_empty() {
            return Ok(None);
        }
        let last = Seq(first.plus(serialised.len()).0 - 1);
        Ok(Some(Self {
            first,
            last,
            json: serde_json::to_string(&serialised)?,
        }))
    }
}

/// Appends segments of several runs in one statement. Segments whose lease is lost are skipped; one
/// that was written before is left unchanged.
///
/// The session need not wait for the disk (`synchronous_commit = off`): only deltas may be lost if
/// the machine fails, since the objects are committed separately.
pub async fn append(
    db: impl PgExecutor<'_>,
    segments: &[(Lease, Segment)],
) -> Result<(), StoreError> {
    let runs: Vec<&str> = segments
        .iter()
        .map(|(lease, _)| lease.run().as_str())
        .collect();
    let attempts: Vec<i32> = segments.iter().map(|(lease, _)| lease.attempt()).collect();
    let firsts: Vec<i64> = segments
        .iter()
        .map(|(_, segment)| segment.first.0)
        .collect();
    let lasts: Vec<i64> = segments.iter().map(|(_, segment)| segment.last.0).collect();
    let events: Vec<&str> = segments
        .iter()
        .map(|(_, segment)| segment.json.as_str())
        .collect();
    sqlx::query(
        "insert into run_events (run_id, first_seq, last_seq, events)
         select new.run_id, new.first_seq, new.last_seq, new.events
         from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::text[])
             as new (run_id, attempt, first_seq, last_seq, events)
         join runs on runs.id = new.run_id and runs.attempt = new.attempt
             and runs.lease_owner is not null
         on conflict (run_id, first_seq) do nothing",
    )
    .bind(runs)
    .bind(attempts)
    .bind(firsts)
    .bind(lasts)
    .bind(events)
    .execute(db)
    .await?;
    Ok(())
}

/// The logged events of a run after a sequence number, in order and without duplicates.
pub async fn after(
    db: impl PgExecutor<'_>,
    run: &RunId,
    after: Seq,
) -> Result<Vec<(Seq, RunEvent)>, StoreError> {
    let rows = sqlx::query(
        "select first_seq, events from run_events
         where run_id = $1 and last_seq > $2 order by first_seq",
    )
    .bind(run)
    .bind(after)
    .fetch_all(db)
    .await?;
    let mut last = after;
    let mut numbered = Vec::new();
    for row in &rows {
        let first: Seq = row.try_get("first_seq")?;
        let events: Vec<RunEvent> = serde_json::from_str(row.try_get("events")?)?;
        for (n, event) in events.into_iter().enumerate() {
            let seq = first.plus(n);
            if seq > last {
                last = seq;
                numbered.push((seq, event));
            }
        }
    }
    Ok(numbered)
}

/// Deletes the events of runs that ended longer than `age` ago. Returns the number of rows.
pub async fn forget(db: impl PgExecutor<'_>, age: std::time::Duration) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "delete from run_events where (run_id, first_seq) in (
             select run_id, first_seq from run_events
             join runs on runs.id = run_id
             where written_at < now() - $1 and ended_at < now() - $1 limit 10000)",
    )
    .bind(age)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
