//! The system under test: two replicas on one database, each behind a proxy of its own, and a model
//! that answers by itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::plan::REPLICAS;
use crate::client::Client;
use crate::cluster::Db;
use crate::fake_model::{FakeModel, ModelCall};
use crate::proxy::{KillPoint, Proxy};
use crate::server::Server;

/// The model's text before a function call.
pub const PREFACE: &str = "Let me look.";

/// The model's answer, token by token.
pub const ANSWER: [&str; 6] = ["It", " is", " sunny", " in", " Oslo", " today."];

const TIME_PER_TOKEN: Duration = Duration::from_millis(15);

pub struct System {
    _db: Db,
    model: Arc<FakeModel>,
    replicas: Vec<Replica>,
    pause: Option<JoinHandle<()>>,
    answering_assistant: String,
    calling_assistant: String,
}

struct Replica {
    server: Server,
    client: Client,
    proxy: Arc<Proxy>,
    is_kill_pending: bool,
    /// The length of the log that has been checked for errors.
    checked_log: usize,
}

impl System {
    pub async fn start() -> Self {
        let db = Db::new().await;
        let model = Arc::new(FakeModel::start().await);
        model.answer_calls(answer);
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            let proxy = Arc::new(Proxy::start(&db).await);
            let server = start_server(&proxy, &model).await;
            replicas.push(Replica {
                client: server.client(),
                server,
                proxy,
                is_kill_pending: false,
                checked_log: 0,
            });
        }
        let client = &replicas[0].client;
        let tool = json!({"type": "function", "function": {"name": "get_weather"}});
        let caller = json!({"model": "fake", "tools": [tool]});
        Self {
            answering_assistant: client.create_assistant_with(json!({"model": "fake"})).await,
            calling_assistant: client.create_assistant_with(caller).await,
            _db: db,
            model,
            replicas,
            pause: None,
        }
    }

    /// The id of an assistant that calls a function before it answers, or of one that only answers.
    pub fn assistant(&self, calls_function: bool) -> &str {
        match calls_function {
            true => &self.calling_assistant,
            false => &self.answering_assistant,
        }
    }

    /// A client of the replica, which is replaced first if it was killed.
    pub async fn client(&mut self, replica: usize) -> Client {
        if self.replicas[replica].is_killed() {
            self.end_pause().await;
            let model = self.model.clone();
            self.replicas[replica].replace(&model).await;
        }
        self.replicas[replica].client.clone()
    }

    /// Kills the replica at the `statement`th statement from now, unless a kill is pending.
    pub fn kill(&mut self, replica: usize, statement: usize, point: KillPoint) {
        let replica = &mut self.replicas[replica];
        if !replica.is_kill_pending {
            replica.is_kill_pending = true;
            let pid = replica.server.pid();
            replica.proxy.kill_at(statement, point, pid);
        }
    }

    /// Drops all database connections, and accepts new ones only after this time.
    pub async fn pause_database(&mut self, duration: Duration) {
        self.end_pause().await;
        let proxies: Vec<_> = self
            .replicas
            .iter()
            .map(|replica| replica.proxy.clone())
            .collect();
        proxies.iter().for_each(|proxy| proxy.disconnect());
        self.pause = Some(tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            proxies.iter().for_each(|proxy| proxy.reconnect());
        }));
    }

    async fn end_pause(&mut self) {
        if let Some(pause) = self.pause.take() {
            pause.await.expect("the task does not panic");
        }
    }

    /// Ends all disruptions: afterwards both replicas serve.
    pub async fn restore(&mut self) {
        self.end_pause().await;
        let model = self.model.clone();
        for replica in &mut self.replicas {
            if replica.is_killed() {
                replica.replace(&model).await;
            }
            replica.proxy.disarm();
            replica.is_kill_pending = false;
        }
    }

    /// The errors in the replicas' logs since the last call.
    pub fn take_logged_errors(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        for replica in &mut self.replicas {
            let log = replica.server.log();
            let new = log[replica.checked_log..].lines();
            errors.extend(
                new.filter(|line| line.contains(" ERROR "))
                    .map(str::to_owned),
            );
            replica.checked_log = log.len();
        }
        errors
    }
}

impl Replica {
    fn is_killed(&self) -> bool {
        self.is_kill_pending && self.proxy.has_fired()
    }

    /// Starts another server in the place of the killed one.
    async fn replace(&mut self, model: &FakeModel) {
        self.server.wait().await;
        self.server = start_server(&self.proxy, model).await;
        self.client = self.server.client();
        self.is_kill_pending = false;
        self.checked_log = 0;
    }
}

async fn start_server(proxy: &Proxy, model: &FakeModel) -> Server {
    let settings = [
        ("ASSISTD_LEASE", "1s"),
        ("ASSISTD_EMBEDDING_MODEL", "off"),
        ("ASSISTD_DATABASE_CONNECTIONS", "6"),
    ];
    let settings = [&settings[..], &model.settings()].concat();
    Server::start_at(&proxy.url, &settings).await
}

/// Calls the function that is offered, or answers if there is none or its output is known.
async fn answer(call: ModelCall) {
    let messages = call.request["messages"].as_array();
    let last = messages.and_then(|messages| messages.last());
    let has_output = last.is_some_and(|message| message["role"] == "tool");
    let calls_function = call.request["tools"].is_array() && !has_output;
    let mut answer = call.start_answer();
    if calls_function {
        answer.send_text(PREFACE).await;
        answer.send_tool_call(0, "get_weather", &["{}"]).await;
    } else {
        for token in ANSWER {
            answer.send_text(token).await;
            tokio::time::sleep(TIME_PER_TOKEN).await;
        }
    }
    answer.finish().await;
}
