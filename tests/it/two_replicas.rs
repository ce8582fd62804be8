//! Two replicas on one database, with a model that the test answers for.

use serde_json::json;

use crate::cluster::Db;
use crate::fake_model::FakeModel;
use crate::server::Server;

pub struct TwoReplicas {
    pub model: FakeModel,
    /// The replica on which runs are created and which therefore executes them.
    pub first: Server,
    pub second: Server,
    /// The id of an assistant that uses the model.
    pub assistant: String,
}

impl TwoReplicas {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let model = FakeModel::start().await;
        let settings = [settings, &model.settings()].concat();
        let first = Server::start(&db, &settings).await;
        let second = Server::start(&db, &settings).await;
        let assistant = json!({"model": "fake"});
        let assistant = first.client().create_assistant_with(assistant).await;
        Self {
            model,
            first,
            second,
            assistant,
        }
    }

    /// Creates a run on a new thread; the ids of thread and run.
    pub async fn create_run(&self) -> (String, String) {
        let client = self.first.client();
        let thread = client.create_thread("Hello?").await;
        let run = client.create_run(&thread, &self.assistant).await;
        (thread, run)
    }
}
