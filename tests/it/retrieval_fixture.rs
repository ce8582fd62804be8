//! A server that indexes files and searches them, with models that the test plays.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Reply, id};
use crate::cluster::Db;
use crate::fake_model::FakeModel;
use crate::server::Server;

/// The model of new stores.
pub const MODEL: (&str, &str) = ("ASSISTD_EMBEDDING_MODEL", "embed");

/// What no test needs longer than, per file: documents are read by a process of their own.
const PER_FILE: Duration = Duration::from_secs(10);

/// Files that are uploaded at a time.
const UPLOADS: usize = 8;

/// A server with its surroundings, which outlive it.
pub struct Shelf {
    /// The database.
    pub db: Db,
    /// What answers and makes vectors.
    pub model: FakeModel,
    /// The server.
    pub server: Server,
    /// Its client.
    pub client: Client,
    blobs: tempfile::TempDir,
}

impl Shelf {
    /// With vectors.
    pub async fn set() -> Self {
        Self::set_with(&[MODEL]).await
    }

    /// With these settings.
    pub async fn set_with(settings: &[(&str, &str)]) -> Self {
        Self::set_beside(FakeModel::start().await, settings).await
    }

    /// With this model server and these settings.
    pub async fn set_beside(model: FakeModel, settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let blobs = tempfile::tempdir().expect("a folder can be made");
        let server = start(&db.url, &model, &blobs, settings).await;
        let client = server.client();
        Self {
            db,
            model,
            server,
            client,
            blobs,
        }
    }

    /// Kills the server, and starts another in its place, with these settings.
    pub async fn restart(&mut self, settings: &[(&str, &str)]) {
        let url = self.db.url.clone();
        self.restart_at(&url, settings).await;
    }

    /// Likewise at this database URL.
    pub async fn restart_at(&mut self, url: &str, settings: &[(&str, &str)]) {
        kill(self.server.pid(), Signal::SIGKILL).expect("it runs");
        self.start_again(url, settings).await;
    }

    /// Starts another server in the place of one that was killed, at this database URL.
    pub async fn start_again(&mut self, url: &str, settings: &[(&str, &str)]) {
        self.server.wait().await;
        self.server = start(url, &self.model, &self.blobs, settings).await;
        self.client = self.server.client();
    }

    /// Where the contents of files are.
    pub fn blobs(&self) -> &Path {
        self.blobs.path()
    }

    /// New files with these texts; their ids.
    pub async fn files(&self, texts: &[(&str, &str)]) -> Vec<String> {
        let uploads = texts.iter().map(|(name, text)| async move {
            let name = (*name).to_owned();
            id(&self.client.upload(&name, text).await)
        });
        stream::iter(uploads).buffered(UPLOADS).collect().await
    }

    /// A new store with these files, when all are through; its id.
    pub async fn store(&self, files: &[String]) -> String {
        let store = self
            .client
            .post("/vector_stores", json!({"file_ids": files}))
            .await;
        let store = id(&store);
        self.through(&store).await;
        store
    }

    /// A new store with a file of this name and text; ids of both.
    pub async fn store_of(&self, name: &str, text: &str) -> (String, String) {
        let file = id(&self.client.upload(name, text).await);
        (self.store(std::slice::from_ref(&file)).await, file)
    }

    /// The store, when all of its files are through.
    pub async fn through(&self, store: &str) -> Value {
        let path = format!("/vector_stores/{store}");
        let begun = Instant::now();
        loop {
            let store = self.client.get(&path).await;
            if store["status"] != "in_progress" {
                return store;
            }
            let files = store["file_counts"]["total"].as_u64().unwrap_or_default();
            let patience = PER_FILE * u32::try_from(files + 5).expect("it is small");
            assert!(begun.elapsed() < patience, "never came: {store}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The file in the store.
    pub async fn file_in(&self, store: &str, file: &str) -> Value {
        let path = format!("/vector_stores/{store}/files/{file}");
        self.client.get(&path).await
    }

    /// The text of a file in a store.
    pub async fn text_of(&self, store: &str, file: &str) -> String {
        let path = format!("/vector_stores/{store}/files/{file}/content");
        let content = self.client.get(&path).await;
        let data = content["data"].as_array().expect("a page has data");
        assert!(data.len() < 2, "{content}");
        let text = data.first().and_then(|part| part["text"].as_str());
        text.unwrap_or_default().to_owned()
    }

    /// What a search finds.
    pub async fn search(&self, store: &str, body: Value) -> Vec<Value> {
        let path = format!("/vector_stores/{store}/search");
        let page = self.client.post(&path, body).await;
        assert_eq!(page["object"], "vector_store.search_results.page");
        page["data"].as_array().expect("a page has data").clone()
    }

    /// Names of the files that a search finds, each once, the best first.
    pub async fn names(&self, store: &str, query: &str) -> Vec<String> {
        let body = json!({"query": query, "max_num_results": 50});
        names(&self.search(store, body).await)
    }

    /// `DELETE` that must succeed.
    pub async fn delete(&self, path: &str) {
        let sent = self.client.send(Method::DELETE, path, None).await;
        let Reply { status, body, .. } = sent.expect("the server answers");
        assert_eq!(status, 200, "{path}: {body}");
    }

    /// The one number that a query yields.
    pub async fn count(&self, query: &'static str) -> i64 {
        let count = sqlx::query_scalar(query).fetch_one(&self.db.pool).await;
        count.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Chunks are numbered from 0 without gaps in every completed file, as many as the file says,
    /// each with a vector if `vectors` says so; and there are no others.
    pub async fn verify_chunks(&self, vectors: bool) {
        let odd: Vec<(String, i64, i64, Option<i32>, i64)> = sqlx::query_as(
            "select f.file_id, f.chunks::bigint, count(c.id), max(c.ordinal),
                    count(distinct e.chunk_id)
             from vector_store_files as f
             left join chunks as c on c.store_file = f.seq
             left join chunk_embeddings as e on e.chunk_id = c.id
                 and e.store_file = f.seq and e.vector_store_id = c.vector_store_id
             where f.status = 'completed'
             group by f.seq, f.file_id, f.chunks
             having count(c.id) <> f.chunks or f.chunks = 0 or max(c.ordinal) <> f.chunks - 1
                 or count(distinct e.chunk_id) <> case when $1 then f.chunks else 0 end",
        )
        .bind(vectors)
        .fetch_all(&self.db.pool)
        .await
        .expect("the database answers");
        assert_eq!(odd, [], "file, chunks it says, has, last ordinal, vectors");
        let strays = self
            .count(
                "select (select count(*) from chunks
                         where store_file not in (select seq from vector_store_files
                                                  where status = 'completed'))
                      + (select count(*) from chunk_embeddings
                         where chunk_id not in (select id from chunks))",
            )
            .await;
        assert_eq!(strays, 0, "chunks of nothing");
    }
}

/// Names of files in results, each once, in order.
pub fn names(results: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for result in results {
        let name = result["filename"].as_str().expect("a result has a name");
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A text of so many different sentences.
pub fn prose(topic: &str, sentences: usize) -> String {
    let sentences = (0..sentences)
        .map(|n| format!("Sentence {n} of this text is about {topic} and the number {n}."));
    sentences.collect::<Vec<_>>().join("\n")
}

async fn start(
    url: &str,
    model: &FakeModel,
    blobs: &tempfile::TempDir,
    settings: &[(&str, &str)],
) -> Server {
    let blobs = blobs.path().to_str().expect("our names are text");
    let settings = [&model.settings()[..], &[("ASSISTD_BLOBS", blobs)], settings].concat();
    Server::start_at(url, &settings).await
}
