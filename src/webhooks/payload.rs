//! The body of a delivery: an event with the object in the form of the API.

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

pub fn body(
    id: &EventId,
    kind: &str,
    created_at: Timestamp,
    subject: &Subject,
) -> Result<Vec<u8>, serde_json::Error> {
    let event = EventHead {
        id: id.as_str(),
        kind,
        created_at: seconds(created_at),
    };
    match subject {
        Subject::Run(run) => event.with_data(RunObject::from(&**run)),
        Subject::File(file) => event.with_data(VectorStoreFileObject::from(&**file)),
        Subject::Batch(batch) => event.with_data(BatchObject::from(batch)),
        Subject::Test(endpoint) => event.with_data(EndpointObject {
            id: endpoint.as_str(),
            object: "webhook_endpoint",
        }),
    }
}

struct EventHead<'a> {
    id: &'a str,
    kind: &'a str,
    created_at: i64,
}

impl EventHead<'_> {
    fn with_data(self, data: impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&EventObject {
            id: self.id,
            object: "event",
            created_at: self.created_at,
            r#type: self.kind,
            data,
        })
    }
}
