//! Indexing, and what is done to its files meanwhile.

use std::time::Duration;

use assistd::domain::vector_store::IndexError;
use assistd::store::StoreError;
use assistd::store::vector_store_jobs::{self as jobs, NewChunk};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::client::id;
use crate::cluster::Db;
use crate::eventually;
use crate::retrieval_fixture::{MODEL, Shelf, prose};
use crate::server::Server;

/// A store with a file that is half indexed; ids of both, and of the batch that it is in.
async fn half_indexed(shelf: &Shelf) -> (String, String, String) {
    shelf.model.embeddings.hold("the number 790.");
    let file = id(&shelf.client.upload("long.txt", prose("buoys", 800)).await);
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 100,
                                                    "chunk_overlap_tokens": 0}});
    let store = shelf.store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    let body = json!({"file_ids": [file], "chunking_strategy": small});
    let batch = id(&shelf.client.post(&path, body).await);
    shelf.model.embeddings.waits().await;
    assert!(shelf.count("select count(*) from chunks").await >= 64);
    (store, file, batch)
}

/// Lets the rest be embedded, and waits until nothing is left but the chunk of a new file.
async fn nothing_is_left(shelf: &Shelf) {
    shelf.model.embeddings.let_go();
    shelf.store_of("next.txt", "A lighthouse.").await;
    eventually("the end of what was half indexed", || async {
        (shelf.count("select count(*) from chunks").await == 1).then_some(())
    })
    .await;
    eventually("the end of the sweep", || async {
        let dropped = shelf.count("select count(*) from dropped_store_files");
        (dropped.await == 0).then_some(())
    })
    .await;
    shelf.verify_chunks(true).await;
}

#[tokio::test]
async fn a_cancelled_file_is_left_where_it_is_and_swept() {
    let shelf = Shelf::set().await;
    let (store, file, batch) = half_indexed(&shelf).await;
    let path = format!("/vector_stores/{store}/file_batches/{batch}");
    let cancelled = shelf
        .client
        .post(&format!("{path}/cancel"), json!({}))
        .await;
    assert_eq!(cancelled["status"], "cancelled");
    nothing_is_left(&shelf).await;
    assert_eq!(shelf.file_in(&store, &file).await["status"], "cancelled");
    assert_eq!(shelf.client.get(&path).await["file_counts"]["cancelled"], 1);

    // Added again, it is indexed from its beginning.
    let path = format!("/vector_stores/{store}/files");
    shelf.client.post(&path, json!({"file_id": file})).await;
    shelf.through(&store).await;
    assert_eq!(shelf.text_of(&store, &file).await, prose("buoys", 800));
    shelf.verify_chunks(true).await;
}

#[tokio::test]
async fn what_is_deleted_amid_its_indexing_leaves_nothing() {
    let shelf = Shelf::set().await;
    for way in ["the file", "its place", "the store"] {
        let (store, file, _) = half_indexed(&shelf).await;
        shelf
            .delete(&match way {
                "the file" => format!("/files/{file}"),
                "its place" => format!("/vector_stores/{store}/files/{file}"),
                _ => format!("/vector_stores/{store}"),
            })
            .await;
        nothing_is_left(&shelf).await;
        let stores = shelf.client.list("/vector_stores").await;
        for store in stores {
            shelf
                .delete(&format!("/vector_stores/{}", id(&store)))
                .await;
        }
        eventually("the end of all chunks", || async {
            (shelf.count("select count(*) from chunks").await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn other_chunks_that_are_asked_for_meanwhile_take_the_place_of_the_first() {
    let shelf = Shelf::set().await;
    let (store, file, _) = half_indexed(&shelf).await;
    let large = json!({"type": "static", "static": {"max_chunk_size_tokens": 4000,
                                                    "chunk_overlap_tokens": 0}});
    let path = format!("/vector_stores/{store}/files");
    let body = json!({"file_id": file, "chunking_strategy": large});
    shelf.client.post(&path, body).await;
    shelf.model.embeddings.let_go();
    shelf.through(&store).await;
    let object = shelf.file_in(&store, &file).await;
    assert_eq!(
        [&object["status"], &object["chunking_strategy"]],
        [&json!("completed"), &large]
    );
    assert_eq!(shelf.text_of(&store, &file).await, prose("buoys", 800));
    eventually("the end of the first chunks", || async {
        (shelf.count("select count(*) from chunks").await < 20).then_some(())
    })
    .await;
    shelf.verify_chunks(true).await;
}

#[tokio::test]
async fn a_file_without_contents_fails() {
    let shelf = Shelf::set().await;
    let file = id(&shelf.client.upload("gone.txt", "A ghost ship.").await);
    let blob = shelf.blobs().join(&file);
    std::fs::remove_file(&blob).unwrap_or_else(|error| panic!("{}: {error}", blob.display()));
    let store = shelf.store(std::slice::from_ref(&file)).await;
    let object = shelf.file_in(&store, &file).await;
    assert_eq!(object["status"], "failed", "{object}");
    assert_eq!(object["last_error"]["code"], "invalid_file");
    let message = object["last_error"]["message"]
        .as_str()
        .expect("it says why");
    assert!(message.contains("not on this server"), "{message}");
}

/// A second server beside the shelf's.
async fn second(shelf: &Shelf) -> Server {
    let blobs = shelf.blobs().to_str().expect("our names are text");
    let more = [MODEL, ("ASSISTD_LEASE", "1s"), ("ASSISTD_BLOBS", blobs)];
    let settings = [&shelf.model.settings()[..], &more].concat();
    Server::start(&shelf.db, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_work_and_one_that_stops_gives_its_part_back() {
    let shelf = Shelf::set().await;
    let mut other = second(&shelf).await;
    let texts = (0..200).map(|n| (format!("{n}.txt"), prose(&format!("buoy{n}"), 3)));
    let texts: Vec<(String, String)> = texts.collect();
    let named = texts.iter().map(|(name, text)| (&**name, &**text));
    let files = shelf.files(&named.collect::<Vec<_>>()).await;
    let body = json!({"file_ids": files});
    let store = id(&shelf.client.post("/vector_stores", body).await);
    let owners = "select count(distinct lease_owner) from vector_store_files";
    eventually("both at work", || async {
        (shelf.count(owners).await == 2).then_some(())
    })
    .await;
    other.terminate();
    assert_eq!(other.wait().await.code(), Some(0));
    let object = shelf.through(&store).await;
    assert_eq!(object["file_counts"]["completed"], 200, "{object}");
    shelf.verify_chunks(true).await;
    let embedded = shelf.model.embeddings.asked();
    let embedded: usize = embedded.iter().map(|(_, texts)| texts).sum();
    // What the one that stopped had in hand, 16 files at most, may have been embedded twice.
    assert!((200..=216).contains(&embedded), "{embedded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_too_long_writes_nothing_more() {
    let shelf = Shelf::set_with(&[MODEL, ("ASSISTD_LEASE", "1s")]).await;
    let (store, file, _) = half_indexed(&shelf).await;
    let attempt = || async {
        shelf
            .count("select attempt::bigint from vector_store_files")
            .await
    };
    assert_eq!(attempt().await, 1);
    kill(shelf.server.pid(), Signal::SIGSTOP).expect("it runs");
    let other = second(&shelf).await;
    eventually("another attempt", || async {
        (attempt().await == 2).then_some(())
    })
    .await;
    kill(shelf.server.pid(), Signal::SIGCONT).expect("it runs");
    shelf.model.embeddings.let_go();
    let path = format!("/vector_stores/{store}");
    let client = other.client();
    eventually("the end of the file", || async {
        (client.get(&path).await["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(attempt().await, 2);
    assert_eq!(client.get(&path).await["file_counts"]["completed"], 1);
    assert_eq!(shelf.text_of(&store, &file).await, prose("buoys", 800));
    shelf.verify_chunks(true).await;
}

#[tokio::test]
async fn whoever_lost_a_file_writes_nothing_to_it() {
    let db = Db::new().await;
    db.index_nothing().await;
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
        let claimed = claimed.expect("the queue can be read").pop();
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
        jobs::complete(&db.pool, &lost, &[0; 32]).await?;
        jobs::fail(&db.pool, &lost, &error).await?;
        jobs::release(&db.pool, &lost).await?;
        jobs::retry_after(&db.pool, &lost, Duration::ZERO).await
    };
    written.await.expect("the database answers");
    let row = async || -> (String, Option<String>, i32) {
        sqlx::query_as("select status, lease_owner, failures from vector_store_files")
            .fetch_one(&db.pool)
            .await
            .expect("the file is there")
    };
    let in_hand = ("in_progress".to_owned(), Some("second".to_owned()), 0);
    assert_eq!(row().await, in_hand);
    let stored = jobs::add_chunks(&db.pool, &held, "english", &chunks).await;
    stored.expect("whoever holds the lease writes");
    let done = jobs::complete(&db.pool, &held, &[0; 32]).await;
    done.expect("the database answers");
    assert_eq!(row().await.0, "completed");
}

#[tokio::test]
async fn a_file_that_takes_longer_than_a_lease_stays_in_the_same_hands() {
    let shelf = Shelf::set_with(&[MODEL, ("ASSISTD_LEASE", "1s")]).await;
    let (store, file, _) = half_indexed(&shelf).await;
    let due = || async {
        let due = "select (extract(epoch from due_at) * 1000)::bigint from vector_store_files";
        Duration::from_millis(shelf.count(due).await.unsigned_abs())
    };
    let begun = due().await;
    eventually("a lease that was renewed several times", || async {
        (due().await > begun + Duration::from_secs(2)).then_some(())
    })
    .await;
    shelf.model.embeddings.let_go();
    shelf.through(&store).await;
    let attempts = shelf
        .count("select attempt::bigint from vector_store_files")
        .await;
    assert_eq!(attempts, 1);
    let object = shelf.file_in(&store, &file).await;
    assert_eq!(object["last_error"], Value::Null);
    shelf.verify_chunks(true).await;
}
