//! Table `run_events`: the event log of runs.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{PgExecutor, Row};

use crate::domain::event::{ContentDelta, RunEvent, Seq};
use crate::domain::ids::{MessageId, RunId};
use crate::store::StoreError;
use crate::store::lease::Lease;

/// Consecutive events of one run, serialised.
#[derive(Debug, Clone)]
pub struct Segment {
    pub first: Seq,
    pub last: Seq,
    /// A JSON array of the events. Consecutive tokens of one text share an element, which is an
    /// eighth of the size.
    pub json: String,
}

/// An element of a segment.
#[derive(Serialize)]
#[serde(untagged)]
enum Element<'a> {
    Tokens(Tokens<'a>),
    Event(&'a RunEvent),
}

/// As many events as there are tokens: each appends a text to the same content part.
#[derive(Serialize, Deserialize)]
struct Tokens<'a> {
    #[serde(borrow)]
    tokens: Vec<Cow<'a, str>>,
    message: Cow<'a, MessageId>,
    index: usize,
}

impl<'a> Tokens<'a> {
    /// How an element of this kind begins, which no event does.
    const BEGIN: &'static str = "{\"tokens\":";

    fn of(event: &'a RunEvent) -> Option<Self> {
        match event {
            RunEvent::MessageDelta {
                message,
                index,
                first: false,
                delta: ContentDelta::Text(text),
            } => Some(Self {
                tokens: vec![text.into()],
                message: Cow::Borrowed(message),
                index: *index,
            }),
            _ => None,
        }
    }

    fn continues_with(&self, next: &Self) -> bool {
        self.message == next.message && self.index == next.index
    }

    fn into_events(self) -> impl Iterator<Item = RunEvent> {
        let (message, index) = (self.message.into_owned(), self.index);
        self.tokens
            .into_iter()
            .map(move |text| RunEvent::MessageDelta {
                message: message.clone(),
                index,
                first: false,
                delta: ContentDelta::Text(text.into_owned()),
            })
    }
}

impl Segment {
    /// Serialises events that begin at `first`. `None` if there are none.
    pub fn new<'a>(
        first: Seq,
        events: impl IntoIterator<Item = &'a RunEvent>,
    ) -> Result<Option<Self>, StoreError> {
        let mut count = 0;
        let mut elements: Vec<Element<'_>> = Vec::new();
        for event in events {
            count += 1;
            match (elements.last_mut(), Tokens::of(event)) {
                (Some(Element::Tokens(last)), Some(next)) if last.continues_with(&next) => {
                    last.tokens.extend(next.tokens);
                }
                (_, Some(next)) => elements.push(Element::Tokens(next)),
                (_, None) => elements.push(Element::Event(event)),
            }
        }
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            first,
            last: Seq(first.plus(count).0 - 1),
            json: serde_json::to_string(&elements)?,
        }))
    }

    fn decode(json: &str) -> Result<Vec<RunEvent>, serde_json::Error> {
        let elements: Vec<&RawValue> = serde_json::from_str(json)?;
        let mut events = Vec::with_capacity(elements.len());
        for element in elements {
            match element.get() {
                tokens if tokens.starts_with(Tokens::BEGIN) => {
                    let tokens: Tokens<'_> = serde_json::from_str(tokens)?;
                    events.extend(tokens.into_events());
                }
                event => events.push(serde_json::from_str(event)?),
            }
        }
        Ok(events)
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
        let events = Segment::decode(row.try_get("events")?)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::RunState;

    fn delta(message: &MessageId, index: usize, first: bool, text: &str) -> RunEvent {
        RunEvent::MessageDelta {
            message: message.clone(),
            index,
            first,
            delta: ContentDelta::Text(text.to_owned()),
        }
    }

    #[test]
    fn events_are_read_as_they_were_written_and_tokens_share_elements() {
        let (message, other) = (MessageId::generate(), MessageId::generate());
        let state: RunState = serde_json::from_value(serde_json::json!({
            "status": "in_progress", "started_at": null, "expires_at": "2026-01-01T00:00:00Z",
            "ended_at": null, "outcome": {}
        }))
        .expect("a state of a run");
        let mut events = vec![RunEvent::RunChanged(Box::new(state.clone()))];
        events.push(delta(&message, 0, true, "one"));
        let words = ["", " two", "\n\"three\"", "\u{1f980}"];
        events.extend(words.map(|text| delta(&message, 0, false, text)));
        events.push(delta(&message, 1, false, "another part"));
        events.push(delta(&other, 1, false, "another message"));
        events.push(delta(&message, 1, true, "first"));
        events.push(RunEvent::RunChanged(Box::new(state)));

        let segment = Segment::new(Seq(7), &events);
        let segment = segment.expect("events are JSON").expect("there are events");
        assert_eq!((segment.first, segment.last), (Seq(7), Seq(16)));
        let elements: Vec<serde_json::Value> =
            serde_json::from_str(&segment.json).expect("an array");
        assert_eq!(elements.len(), 7, "{}", segment.json);
        let read = Segment::decode(&segment.json).expect("what was written");
        assert_eq!(read, events);
    }

    #[test]
    fn segments_without_shared_elements_are_read() {
        let message = MessageId::generate();
        let events = ["a", "b"].map(|text| delta(&message, 0, false, text));
        let json = serde_json::to_string(&events).expect("events are JSON");
        assert_eq!(Segment::decode(&json).expect("an older segment"), events);
    }
}
