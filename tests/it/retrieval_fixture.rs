//! A server that indexes and searches files, with models that the test controls.

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

/// The setting that makes new vector stores use the embeddings of [`FakeModel`].
pub const EMBEDDING_MODEL: (&str, &str) = ("ASSISTD_EMBEDDING_MODEL", "embed");

/// Time limit for indexing, per file: each document is extracted by its own process.
const TIMEOUT_PER_FILE: Duration = Duration::from_secs(10);

/// Files that are uploaded concurrently.
const CONCURRENT_UPLOADS: usize = 8;

/// A server with the database, model and blob storage that survive its restarts.
pub struct RetrievalFixture {
    pub db: Db,
    pub model: FakeModel,
    pub server: Server,
    pub client: Client,
    blobs: tempfile::TempDir,
}

impl RetrievalFixture {
    /// Starts a server with embeddings.
    pub async fn start() -> Self {
        Self::start_with(&[EMBEDDING_MODEL]).await
    }

    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_with_model(FakeModel::start().await, settings).await
    }

    pub async fn start_with_model(model: FakeModel, settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let blobs = tempfile::tempdir().expect("the temporary folder is writable");
        let server = start_server(&db.url, &model, &blobs, settings).await;
        let client = server.client();
        Self {
            db,
            model,
            server,
            client,
            blobs,
        }
    }

    /// Kills the server and starts another one with these settings.
    pub async fn restart(&mut self, settings: &[(&str, &str)]) {
        let url = self.db.url.clone();
        self.restart_at(&url, settings).await;
    }

    /// Like [`RetrievalFixture::restart`], with another database URL.
    pub async fn restart_at(&mut self, url: &str, settings: &[(&str, &str)]) {
        kill(self.server.pid(), Signal::SIGKILL).expect("the server is running");
        self.start_replacement(url, settings).await;
    }

    /// Waits until the server has exited, then starts another one.
    pub async fn start_replacement(&mut self, url: &str, settings: &[(&str, &str)]) {
        self.server.wait().await;
        self.server = start_server(url, &self.model, &self.blobs, settings).await;
        self.client = self.server.client();
    }

    /// The folder of the blob storage.
    pub fn blobs_dir(&self) -> &Path {
        self.blobs.path()
    }

    /// Uploads files with these names and texts; their ids.
    pub async fn upload_files(&self, texts: &[(&str, &str)]) -> Vec<String> {
        let uploads = texts.iter().map(|(name, text)| async move {
            let name = (*name).to_owned();
            id(&self.client.upload(&name, text).await)
        });
        stream::iter(uploads)
            .buffered(CONCURRENT_UPLOADS)
            .collect()
            .await
    }

    /// Creates a vector store with these files and waits until they are indexed; its id.
    pub async fn create_store(&self, files: &[String]) -> String {
        let store = self
            .client
            .post("/vector_stores", json!({"file_ids": files}))
            .await;
        let store = id(&store);
        self.wait_until_indexed(&store).await;
        store
    }

    /// Creates a vector store with one new file; the ids of both.
    pub async fn create_store_with(&self, name: &str, text: &str) -> (String, String) {
        let file = id(&self.client.upload(name, text).await);
        (self.create_store(std::slice::from_ref(&file)).await, file)
    }

    /// Waits until no file of the store is in progress; the store.
    pub async fn wait_until_indexed(&self, store: &str) -> Value {
        let path = format!("/vector_stores/{store}");
        let started = Instant::now();
        loop {
            let store = self.client.get(&path).await;
            if store["status"] != "in_progress" {
                return store;
            }
            let files = store["file_counts"]["total"].as_u64().unwrap_or_default();
            let timeout = TIMEOUT_PER_FILE * u32::try_from(files + 5).expect("tests use few files");
            assert!(started.elapsed() < timeout, "never indexed: {store}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn store_file(&self, store: &str, file: &str) -> Value {
        let path = format!("/vector_stores/{store}/files/{file}");
        self.client.get(&path).await
    }

    /// The text extracted from a file of a store.
    pub async fn parsed_text(&self, store: &str, file: &str) -> String {
        let path = format!("/vector_stores/{store}/files/{file}/content");
        let content = self.client.get(&path).await;
        let data = content["data"].as_array().expect("a page has `data`");
        assert!(data.len() < 2, "{content}");
        let text = data.first().and_then(|part| part["text"].as_str());
        text.unwrap_or_default().to_owned()
    }

    /// Searches a store; the hits, best first.
    pub async fn search(&self, store: &str, body: Value) -> Vec<Value> {
        let path = format!("/vector_stores/{store}/search");
        let page = self.client.post(&path, body).await;
        assert_eq!(page["object"], "vector_store.search_results.page");
        page["data"].as_array().expect("a page has `data`").clone()
    }

    /// The names of the files with hits, each once, best first.
    pub async fn matching_files(&self, store: &str, query: &str) -> Vec<String> {
        let body = json!({"query": query, "max_num_results": 50});
        filenames(&self.search(store, body).await)
    }

    /// Sends a `DELETE` that must succeed.
    pub async fn delete(&self, path: &str) {
        let sent = self.client.send(Method::DELETE, path, None).await;
        let Reply { status, body, .. } = sent.expect("the server answers");
        assert_eq!(status, 200, "{path}: {body}");
    }

    /// The number that a query yields.
    pub async fn count(&self, query: &'static str) -> i64 {
        let count = sqlx::query_scalar(query).fetch_one(&self.db.pool).await;
        count.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Checks that every completed file has exactly its chunks, numbered from 0 without gaps, that
    /// each of them has an embedding if `has_embeddings`, and that there are no other chunks.
    pub async fn verify_chunks(&self, has_embeddings: bool) {
        let inconsistent: Vec<(String, i64, i64, Option<i32>, i64)> = sqlx::query_as(
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
        .bind(has_embeddings)
        .fetch_all(&self.db.pool)
        .await
        .expect("the database answers");
        assert_eq!(
            inconsistent,
            [],
            "file, recorded chunks, actual chunks, last ordinal, embeddings"
        );
        let orphans = self
            .count(
                "select (select count(*) from chunks
                         where store_file not in (select seq from vector_store_files
                                                  where status = 'completed'))
                      + (select count(*) from chunk_embeddings
                         where chunk_id not in (select id from chunks))",
            )
            .await;
        assert_eq!(orphans, 0, "chunks without a completed file");
    }
}

/// The filenames of search hits, each once, in order.
pub fn filenames(results: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for result in results {
        let name = result["filename"].as_str().expect("a hit has a filename");
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A text of that many distinct sentences.
pub fn numbered_sentences(topic: &str, sentences: usize) -> String {
    let sentences = (0..sentences)
        .map(|n| format!("Sentence {n} of this text is about {topic} and the number {n}."));
    sentences.collect::<Vec<_>>().join("\n")
}

async fn start_server(
    url: &str,
    model: &FakeModel,
    blobs: &tempfile::TempDir,
    settings: &[(&str, &str)],
) -> Server {
    let blobs = blobs.path().to_str().expect("temporary paths are UTF-8");
    let settings = [&model.settings()[..], &[("ASSISTD_BLOBS", blobs)], settings].concat();
    Server::start_at(url, &settings).await
}
