//! The state of this server and its database, for operators.

use std::time::{Duration, Instant};

use crate::domain::health::DatabaseHealth;
use crate::service::{Service, ServiceError};
use crate::store;

#[derive(Debug, Clone)]
pub struct Health {
    pub database: DatabaseHealth,
    /// Time of a round trip to the database.
    pub latency: Duration,
    /// Why code_interpreter cannot be used now; `None` if it can.
    pub code_interpreter_unavailable: Option<String>,
    /// The model that computes embeddings; `None` if stores are searched lexically only.
    pub embedding_model: Option<String>,
}

impl Service {
    pub async fn health(&self) -> Result<Health, ServiceError> {
        let deps = &self.0.deps;
        let started = Instant::now();
        self.check_database().await?;
        let latency = started.elapsed();
        Ok(Health {
            database: store::health::read(self.pool()).await?,
            latency,
            code_interpreter_unavailable: (deps.code_interpreter_unavailable)(),
            embedding_model: deps.retrieval.embedding_model().map(str::to_owned),
        })
    }
}
