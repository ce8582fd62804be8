//! Domain objects as API objects; the inverse of [`read`](super::read).

use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::Timestamp;
use crate::domain::assistant::Assistant;
use crate::domain::file::File;
use crate::domain::ids::BatchId;
use crate::domain::message::Message;
use crate::domain::run::Run;
use crate::domain::run_step::RunStep;
use crate::domain::thread::Thread;
use crate::domain::vector_store::{Batch, VectorStore, VectorStoreFile};
use crate::store::StoreError;
use crate::store::workspace_files::WrittenFile;
use crate::transfer::UNSHOWN;
use crate::wire::assistant::AssistantObject;
use crate::wire::file::FileObject;
use crate::wire::message::MessageObject;
use crate::wire::run::RunObject;
use crate::wire::run_step::StepObject;
use crate::wire::thread::ThreadObject;
use crate::wire::vector_store::VectorStoreObject;
use crate::wire::vector_store_batch::BatchObject;
use crate::wire::vector_store_file::VectorStoreFileObject;

/// An API object, and the values that the API does not show.
pub(super) struct Shown {
    object: Value,
    unshown: Value,
}

type Show = Result<Shown, StoreError>;

impl Shown {
    fn new(object: impl Serialize, unshown: Value) -> Show {
        Ok(Self {
            object: serde_json::to_value(object)?,
            unshown,
        })
    }

    pub(super) fn plain(self) -> Value {
        self.object
    }

    /// The API object with the other values in the field [`UNSHOWN`].
    pub(super) fn whole(mut self) -> Value {
        if let Some(fields) = self.object.as_object_mut() {
            fields.insert(UNSHOWN.to_owned(), self.unshown);
        }
        self.object
    }
}

/// A date to the microsecond; the API shows seconds only.
fn exact(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(super) fn file(file: &File) -> Show {
    let unshown = json!({
        "created_at": exact(file.created_at),
        "expires_at": file.expires_at.map(exact),
    });
    Shown::new(FileObject::from(file), unshown)
}

pub(super) fn vector_store(store: &VectorStore) -> Show {
    let unshown = json!({
        "created_at": exact(store.created_at),
        "last_active_at": exact(store.last_active_at),
    });
    Shown::new(VectorStoreObject::from(store), unshown)
}

pub(super) fn batch(batch: &Batch) -> Show {
    let unshown = json!({"created_at": exact(batch.created_at)});
    Shown::new(BatchObject::from(batch), unshown)
}

pub(super) fn store_file(file: &VectorStoreFile, batch: Option<&BatchId>) -> Show {
    let unshown = json!({"created_at": exact(file.created_at), "batch_id": batch});
    Shown::new(VectorStoreFileObject::from(file), unshown)
}

pub(super) fn assistant(assistant: &Assistant) -> Show {
    let unshown = json!({
        "created_at": exact(assistant.created_at),
        "temperature": assistant.config.temperature,
        "top_p": assistant.config.top_p,
    });
    Shown::new(AssistantObject::from(assistant), unshown)
}

pub(super) fn thread(thread: &Thread, written: &[WrittenFile]) -> Show {
    let written = written.iter().map(|file| (&file.path, &file.file_id));
    let unshown = json!({
        "created_at": exact(thread.created_at),
        "workspace": written.collect::<Vec<_>>(),
    });
    Shown::new(ThreadObject::from(thread), unshown)
}

pub(super) fn run(run: &Run) -> Show {
    let unshown = json!({
        "created_at": exact(run.created_at),
        "started_at": run.state.started_at.map(exact),
        "expires_at": exact(run.state.expires_at),
        "ended_at": run.state.ended_at.map(exact),
        "temperature": run.config.temperature,
        "top_p": run.config.top_p,
        "incomplete_reason": run.state.outcome.incomplete_reason,
    });
    Shown::new(RunObject::from(run), unshown)
}

pub(super) fn step(step: &RunStep) -> Show {
    let unshown = json!({
        "created_at": exact(step.created_at),
        "expires_at": exact(step.expires_at),
        "ended_at": step.ended_at.map(exact),
        "details": step.details,
    });
    Shown::new(StepObject::stored(step, true), unshown)
}

pub(super) fn message(message: &Message) -> Show {
    let unshown = json!({
        "created_at": exact(message.created_at),
        "ended_at": message.ended_at.map(exact),
    });
    Shown::new(MessageObject::from(message), unshown)
}
