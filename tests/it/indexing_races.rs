//! Requests about files while they are being indexed.

use std::time::Duration;

use assistd::domain::vector_store::IndexError;
use assistd::store::StoreError;
use assistd::store::vector_store_jobs::{self as jobs, NewChunk};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::client::id;
use crate::cluster::Db;
use crate::eventually;
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture, numbered_sentences};
use crate::server::Server;

/// Creates a store with a half-indexed file; the ids of both and of the file's batch.
async fn half_indexed(fixture: &RetrievalFixture) -> (String, String, String) {
    fixture.model.embeddings.hold("the number 790.");
    let file = id(&fixture
        .client
        .upload("long.txt", numbered_sentences("buoys", 800))
        .await);
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 100,
                                                    "chunk_overlap_tokens": 0}});
    let store = fixture.create_store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    let body = json!({"file_ids": [file], "chunking_strategy": small});
    let batch = id(&fixture.client.post(&path, body).await);
    fixture.model.embeddings.wait_for_held_request().await;
    assert!(fixture.count("select count(*) from chunks").await >= 64);
    (store, file, batch)
}

/// Releases the held embeddings, and checks that the file's chunks are deleted.
async fn assert_no_chunks_left(fixture: &RetrievalFixture) {
    fixture.model.embeddings.release();
    fixture.create_store_with("next.txt", "A lighthouse.").await;
    eventually("the end of what was half indexed", || async {
        (fixture.count("select count(*) from chunks").await == 1).then_some(())
    })
    .await;
    eventually("the end of the sweep", || async {
        let dropped = fixture.count("select count(*) from dropped_store_files");
        (dropped.await == 0).then_some(())
    })
    .await;
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn a_cancelled_file_is_left_where_it_is_and_swept() {
    let fixture = RetrievalFixture::start().await;
    let (store, file, batch) = half_indexed(&fixture).await;
    let path = format!("/vector_stores/{store}/file_batches/{batch}");
    let cancelled = fixture
        .client
        .post(&format!("{path}/cancel"), json!({}))
        .await;
    assert_eq!(cancelled["status"], "cancelled");
    assert_no_chunks_left(&fixture).await;
    assert_eq!(
        fixture.store_file(&store, &file).await["status"],
        "cancelled"
    );
    assert_eq!(
        fixture.client.get(&path).await["file_counts"]["cancelled"],
        1
    );

    // Added again, the file is indexed from the start.
    let path = format!("/vector_stores/{store}/files");
    fixture.client.post(&path, json!({"file_id": file})).await;
    fixture.wait_until_indexed(&store).await;
    assert_eq!(
        fixture.parsed_text(&store, &file).await,
        numbered_sentences("buoys", 800)
    );
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn what_is_deleted_amid_its_indexing_leaves_nothing() {
    let fixture = RetrievalFixture::start().await;
    for way in ["the file", "its place", "the store"] {
        let (store, file, _) = half_indexed(&fixture).await;
        fixture
            .delete(&match way {
                "the file" => format!("/files/{file}"),
                "its place" => format!("/vector_stores/{store}/files/{file}"),
                _ => format!("/vector_stores/{store}"),
            })
            .await;
        assert_no_chunks_left(&fixture).await;
        let stores = fixture.client.list("/vector_stores").await;
        for store in stores {
            fixture
                .delete(&format!("/vector_stores/{}", id(&store)))
                .await;
        }
        eventually("the end of all chunks", || async {
            (fixture.count("select count(*) from chunks").await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn other_chunks_that_are_asked_for_meanwhile_take_the_place_of_the_first() {
    let fixture = RetrievalFixture::start().await;
    let (store, file, _) = half_indexed(&fixture).await;
    let large = json!({"type": "static", "static": {"max_chunk_size_tokens": 4000,
                                                    "chunk_overlap_tokens": 0}});
    let path = format!("/vector_stores/{store}/files");
    let body = json!({"file_id": file, "chunking_strategy": large});
    fixture.client.post(&path, body).await;
    fixture.model.embeddings.release();
    fixture.wait_until_indexed(&store).await;
    let object = fixture.store_file(&store, &file).await;
    assert_eq!(
        [&object["status"], &object["chunking_strategy"]],
        [&json!("completed"), &large]
    );
    assert_eq!(
        fixture.parsed_text(&store, &file).await,
        numbered_sentences("buoys", 800)
    );
    eventually("the end of the first chunks", || async {
        (fixture.count("select count(*) from chunks").await < 20).then_some(())
    })
    .await;
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn a_file_without_contents_fails() {
    let fixture = RetrievalFixture::start().await;
    let file = id(&fixture.client.upload("gone.txt", "A ghost ship.").await);
    let blob = fixture.blobs_dir().join(&file);
    std::fs::remove_file(&blob).unwrap_or_else(|error| panic!("{}: {error}", blob.display()));
    let store = fixture.create_store(std::slice::from_ref(&file)).await;
    let object = fixture.store_file(&store, &file).await;
    assert_eq!(object["status"], "failed", "{object}");
    assert_eq!(object["last_error"]["code"], "invalid_file");
    let message = object["last_error"]["message"]
        .as_str()
        .expect("an error has a message");
    assert!(message.contains("not on this server"), "{message}");
}

/// Starts a second replica.
async fn start_replica(fixture: &RetrievalFixture) -> Server {
    let blobs = fixture
        .blobs_dir()
        .to_str()
        .expect("temporary paths are UTF-8");
    let more = [
        EMBEDDING_MODEL,
        ("ASSISTD_LEASE", "1s"),
        ("ASSISTD_BLOBS", blobs),
    ];
    let settings = [&fixture.model.settings()[..], &more].concat();
    Server::start(&fixture.db, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_work_and_one_that_stops_gives_its_part_back() {
    let fixture = RetrievalFixture::start().await;
    let mut other = start_replica(&fixture).await;
    let texts = (0..200).map(|n| {
        (
            format!("{n}.txt"),
            numbered_sentences(&format!("buoy{n}"), 3),
        )
    });
    let texts: Vec<(String, String)> = texts.collect();
    let named = texts.iter().map(|(name, text)| (&**name, &**text));
    let files = fixture.upload_files(&named.collect::<Vec<_>>()).await;
    let body = json!({"file_ids": files});
    let store = id(&fixture.client.post("/vector_stores", body).await);
    let owners = "select count(distinct lease_owner) from vector_store_files";
    eventually("both at work", || async {
        (fixture.count(owners).await == 2).then_some(())
    })
    .await;
    other.terminate();
    assert_eq!(other.wait().await.code(), Some(0));
    let object = fixture.wait_until_indexed(&store).await;
    assert_eq!(object["file_counts"]["completed"], 200, "{object}");
    fixture.verify_chunks(true).await;
    let embedded = fixture.model.embeddings.take_batches();
    let embedded: usize = embedded.iter().map(|(_, texts)| texts).sum();
    // The files in progress on the stopped replica, at most 16, may have been embedded twice.
    assert!((200..=216).contains(&embedded), "{embedded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_too_long_writes_nothing_more() {
    let fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, ("ASSISTD_LEASE", "1s")]).await;
    let (store, file, _) = half_indexed(&fixture).await;
    let attempt = || async {
        fixture
            .count("select attempt::bigint from vector_store_files")
            .await
    };
    assert_eq!(attempt().await, 1);
    kill(fixture.server.pid(), Signal::SIGSTOP).expect("the server is running");
    let other = start_replica(&fixture).await;
    eventually("another attempt", || async {
        (attempt().await == 2).then_some(())
    })
    .await;
    kill(fixture.server.pid(), Signal::SIGCONT).expect("the server is running");
    fixture.model.embeddings.release();
    let path = format!("/vector_stores/{store}");
    let client = other.client();
    eventually("the end of the file", || async {
        (client.get(&path).await["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(attempt().await, 2);
    assert_eq!(client.get(&path).await["file_counts"]["completed"], 1);
    assert_eq!(
        fixture.parsed_text(&store, &file).await,
        numbered_sentences("buoys", 800)
    );
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn whoever_lost_a_file_writes_nothing_to_it() {
    let db = Db::new().await;
    db.disable_indexing().await;
    let server = Server::start(&db, &[]).await;
    let file = id(&server.client().upload("a.txt", "A quay.").await);
    let body = json!({"file_ids": [file]});
    server.client().post("/vector_stores", body).await;
    server.kill().await;
    let claim = async |owner: &str| {
        let due = "update vector_store_files set due_at = now()";
        let due = sqlx::query(due).execute(&db.pool).await;
        due.expect("the database answers");
        let claimed = jobs::claim(&db.pool, owner, Duration::from_secs(60), 1).await;
        let claimed = claimed.expect("the database answers").pop();
        claimed.expect("the file is due")
    };
    let (lost, held) = (claim("first").await, claim("second").await);
    let chunks = [NewChunk {
        ordinal: 0,
        page: None,
        heading: None,
        content: "A quay.".to_owned(),
        tokens: 3,
        overlap_bytes: 0,
        embedding: None,
    }];
    let refused = jobs::add_chunks(&db.pool, &lost, "english", &chunks).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    let error = IndexError::without_contents();
    let written = async {
        jobs::complete(&db.pool, &lost, &[0; 32], None).await?;
        jobs::fail(&db.pool, &lost, &error).await?;
        jobs::release(&db.pool, &lost).await?;
        jobs::retry_after(&db.pool, &lost, Duration::ZERO).await
    };
    written.await.expect("the database answers");
    let row = async || -> (String, Option<String>, i32) {
        sqlx::query_as("select status, lease_owner, failures from vector_store_files")
            .fetch_one(&db.pool)
            .await
            .expect("the file exists")
    };
    let in_hand = ("in_progress".to_owned(), Some("second".to_owned()), 0);
    assert_eq!(row().await, in_hand);
    let stored = jobs::add_chunks(&db.pool, &held, "english", &chunks).await;
    stored.expect("the lease is held");
    let done = jobs::complete(&db.pool, &held, &[0; 32], None).await;
    done.expect("the database answers");
    assert_eq!(row().await.0, "completed");
}

#[tokio::test]
async fn a_file_that_takes_longer_than_a_lease_stays_in_the_same_hands() {
    let fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, ("ASSISTD_LEASE", "1s")]).await;
    let (store, file, _) = half_indexed(&fixture).await;
    let due = || async {
        let due = "select (extract(epoch from due_at) * 1000)::bigint from vector_store_files";
        Duration::from_millis(fixture.count(due).await.unsigned_abs())
    };
    let first_due = due().await;
    eventually("a lease that was renewed several times", || async {
        (due().await > first_due + Duration::from_secs(2)).then_some(())
    })
    .await;
    fixture.model.embeddings.release();
    fixture.wait_until_indexed(&store).await;
    let attempts = fixture
        .count("select attempt::bigint from vector_store_files")
        .await;
    assert_eq!(attempts, 1);
    let object = fixture.store_file(&store, &file).await;
    assert_eq!(object["last_error"], Value::Null);
    fixture.verify_chunks(true).await;
}
