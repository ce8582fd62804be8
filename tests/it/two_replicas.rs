//! Two replicas, which most promises about streams and ends need.

use serde_json::json;

use crate::cluster::Db;
use crate::fake_model::FakeModel;
use crate::server::Server;

/// Two replicas on one database, with a model that the test plays.
pub struct Pair {
    /// The model.
    pub model: FakeModel,
    /// The replica that the run is created on, which also drives it.
    pub here: Server,
    /// The other.
    pub there: Server,
    /// An assistant of the model.
    pub assistant: String,
}

impl Pair {
    /// Starts them with these settings.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let model = FakeModel::start().await;
        let settings = [settings, &model.settings()].concat();
        let here = Server::start(&db, &settings).await;
        let there = Server::start(&db, &settings).await;
        let assistant = here.client().assistant_with(json!({"model": "fake"})).await;
        Self {
            model,
            here,
            there,
            assistant,
        }
    }

    /// A new run on a new thread: ids of both.
    pub async fn run(&self) -> (String, String) {
        let client = self.here.client();
        let thread = client.thread("Hello?").await;
        let run = client.run(&thread, &self.assistant).await;
        (thread, run)
    }
}
