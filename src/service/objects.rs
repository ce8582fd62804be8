//! Objects of which only the id is known.

use crate::domain::assistant::Assistant;
use crate::domain::file::File;
use crate::domain::ids::{MessageId, RunId, StepId};
use crate::domain::message::Message;
use crate::domain::run::Run;
use crate::domain::run_step::RunStep;
use crate::domain::thread::Thread;
use crate::domain::vector_store::VectorStore;
use crate::service::{ProjectService, ServiceError};
use crate::store;

/// An object of one of the kinds that ids can be resolved to.
pub enum AnyObject {
    Assistant(Assistant),
    Thread(Thread),
    Message(Message),
    Run(Run),
    Step(RunStep),
    File(File),
    VectorStore(VectorStore),
}

impl ProjectService {
    /// The object with this id, whose prefix tells the kind.
    pub async fn object(&self, id: &str) -> Result<AnyObject, ServiceError> {
        Ok(if let Ok(id) = id.parse() {
            AnyObject::Assistant(self.assistant(&id).await?)
        } else if let Ok(id) = id.parse() {
            AnyObject::Thread(self.thread(&id).await?)
        } else if let Ok(id) = id.parse() {
            AnyObject::Message(self.message_by_id(&id).await?)
        } else if let Ok(id) = id.parse() {
            AnyObject::Run(self.run_by_id(&id).await?)
        } else if let Ok(id) = id.parse() {
            AnyObject::Step(self.run_step_by_id(&id).await?)
        } else if let Ok(id) = id.parse() {
            AnyObject::File(self.file(&id).await?)
        } else if let Ok(id) = id.parse() {
            AnyObject::VectorStore(self.vector_store(&id).await?)
        } else {
            let shown: String = id.chars().take(64).collect();
            return Err(ServiceError::not_found("object", shown));
        })
    }

    async fn message_by_id(&self, id: &MessageId) -> Result<Message, ServiceError> {
        match store::messages::thread_of(self.pool(), self.id(), id).await? {
            Some(thread) => self.message(&thread, id).await,
            None => Err(ServiceError::not_found("message", id)),
        }
    }

    async fn run_by_id(&self, id: &RunId) -> Result<Run, ServiceError> {
        match store::runs::thread_of(self.pool(), self.id(), id).await? {
            Some(thread) => self.run(&thread, id).await,
            None => Err(ServiceError::not_found("run", id)),
        }
    }

    async fn run_step_by_id(&self, id: &StepId) -> Result<RunStep, ServiceError> {
        match store::run_steps::parents_of(self.pool(), self.id(), id).await? {
            Some((thread, run)) => self.run_step(&thread, &run, id).await,
            None => Err(ServiceError::not_found("run step", id)),
        }
    }
}
