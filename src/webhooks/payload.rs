//! The body of a delivery: an event that holds the object as the API shows it.

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::ids::EventId;
use crate::domain::webhook::Subject;
use crate::wire::run::RunObject;
use crate::wire::seconds;
use crate::wire::vector_store_batch::BatchObject;
use crate::wire::vector_store_file::VectorStoreFileObject;

#[derive(Serialize)]
struct EventObject<'a, T> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    r#type: &'a str,
    data: T,
}

#[derive(Serialize)]
struct EndpointObject<'a> {
    id: &'a str,
    object: &'static str,
}

/// Writes the event.
pub fn body(
    id: &EventId,
    kind: &str,
    created_at: Timestamp,
    subject: &Subject,
) -> Result<Vec<u8>, serde_json::Error> {
    let event = Head {
        id: id.as_str(),
        kind,
        created_at: seconds(created_at),
    };
    match subject {
        Subject::Run(run) => event.write(RunObject::from(&**run)),
        Subject::File(file) => event.write(VectorStoreFileObject::from(&**file)),
        Subject::Batch(batch) => event.write(BatchObject::from(batch)),
        Subject::Test(endpoint) => event.write(EndpointObject {
            id: endpoint.as_str(),
            object: "webhook_endpoint",
        }),
    }
}

/// What all events have.
struct Head<'a> {
    id: &'a str,
    kind: &'a str,
    created_at: i64,
}

impl Head<'_> {
    fn write(self, data: impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&EventObject {
            id: self.id,
            object: "event",
            created_at: self.created_at,
            r#type: self.kind,
            data,
        })
    }
}
