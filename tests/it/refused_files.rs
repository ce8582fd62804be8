//! What the database refuses of a file ends its indexing with an error.

use serde_json::Value;

use crate::retrieval_fixture::{MODEL, Shelf};

/// Checks that the file has failed, without what was refused; its error.
async fn assert_failed(shelf: &Shelf, store: &str, file: &str) -> Value {
    let object = shelf.file_in(store, file).await;
    assert_eq!(object["status"], "failed", "{object}");
    let error = object["last_error"].clone();
    assert_eq!(error["code"], "server_error");
    let message = "The file could not be indexed: what was read of it cannot be stored.";
    assert_eq!(error["message"], message);
    error
}

#[tokio::test]
async fn a_chunk_that_is_refused_fails_its_file_once_and_no_other() {
    let shelf = Shelf::set().await;
    for code in ["22P05", "23514", "P0001"] {
        let poison = "new.content like '%poison%'";
        shelf.db.refuse("chunks", poison, code).await;
        let (store, file) = shelf.store_of("a.txt", &format!("A poison: {code}")).await;
        assert_failed(&shelf, &store, &file).await;
        assert_eq!(shelf.model.embeddings.asked().len(), 1, "{code}");
        let (store, file) = shelf.store_of("b.txt", &format!("A cure: {code}")).await;
        assert_eq!(shelf.file_in(&store, &file).await["status"], "completed");
        shelf.model.embeddings.take();
        shelf.db.accept("chunks").await;
    }
    let attempts = "select max(attempt)::bigint from vector_store_files";
    assert_eq!(shelf.count(attempts).await, 1);
}

#[tokio::test]
async fn a_result_that_is_refused_fails_the_file_instead() {
    let shelf = Shelf::set().await;
    let table = "vector_store_files";
    let completed = "new.status = 'completed'";
    shelf.db.refuse(table, completed, "P0001").await;
    let (store, file) = shelf.store_of("a.txt", "A rope.").await;
    assert_failed(&shelf, &store, &file).await;
    shelf.db.accept(table).await;

    let error = "new.last_error::text like '%The file is empty%'";
    shelf.db.refuse(table, error, "22P05").await;
    let (store, file) = shelf.store_of("b.txt", " ").await;
    assert_failed(&shelf, &store, &file).await;
    let attempts = "select max(attempt)::bigint from vector_store_files";
    assert_eq!(shelf.count(attempts).await, 1);
}

#[tokio::test]
async fn a_result_that_was_not_stored_is_computed_again_when_the_lease_has_run_out() {
    let shelf = Shelf::set_with(&[MODEL, ("ASSISTD_LEASE", "1s")]).await;
    // As if the database had been away for a moment.
    let completed = "new.status = 'completed'";
    shelf
        .db
        .refuse("vector_store_files", completed, "57P01")
        .await;
    let uploaded = shelf.client.upload("a.txt", "A rope.").await;
    let file = crate::client::id(&uploaded);
    let body = serde_json::json!({"file_ids": [file]});
    let store = crate::client::id(&shelf.client.post("/vector_stores", body).await);
    crate::eventually("a result that is not stored", || async {
        let asked = shelf.model.embeddings.asked().len();
        (asked > 0).then_some(())
    })
    .await;
    crate::eventually("another attempt", || async {
        let attempts = "select attempt::bigint from vector_store_files";
        (shelf.count(attempts).await > 1).then_some(())
    })
    .await;
    shelf.db.accept("vector_store_files").await;
    shelf.through(&store).await;
    assert_eq!(shelf.file_in(&store, &file).await["status"], "completed");
}

#[tokio::test]
async fn a_file_that_cannot_be_ended_is_read_only_so_often() {
    let shelf = Shelf::set().await;
    let ended = "new.status <> 'in_progress'";
    shelf.db.refuse("vector_store_files", ended, "P0001").await;
    let uploaded = shelf.client.upload("a.txt", "A rope.").await;
    let file = crate::client::id(&uploaded);
    let body = serde_json::json!({"file_ids": [file]});
    let store = crate::client::id(&shelf.client.post("/vector_stores", body).await);
    crate::eventually("a failure", || async {
        let failures = "select failures::bigint from vector_store_files";
        (shelf.count(failures).await == 1).then_some(())
    })
    .await;
    shelf.model.embeddings.take();
    // As if it had failed as often as a file may.
    let exhaust = "update vector_store_files set failures = 10, due_at = now(), chunk_tokens = 100";
    sqlx::query(exhaust)
        .execute(&shelf.db.pool)
        .await
        .expect("the database answers");
    crate::eventually("another failure", || async {
        let failures = "select failures::bigint from vector_store_files";
        (shelf.count(failures).await > 10).then_some(())
    })
    .await;
    assert_eq!(shelf.model.embeddings.asked(), [], "it is read no more");
    shelf.db.accept("vector_store_files").await;
    sqlx::query("update vector_store_files set due_at = now()")
        .execute(&shelf.db.pool)
        .await
        .expect("the database answers");
    shelf.through(&store).await;
    assert_failed(&shelf, &store, &file).await;
}
