//! A file whose rows the database rejects fails with an error.

use serde_json::Value;

use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture};

/// Checks that the file has failed and has no chunks; its error.
async fn assert_failed(fixture: &RetrievalFixture, store: &str, file: &str) -> Value {
    let object = fixture.store_file(store, file).await;
    assert_eq!(object["status"], "failed", "{object}");
    let error = object["last_error"].clone();
    assert_eq!(error["code"], "server_error");
    let message = "The file could not be indexed: what was read of it cannot be stored.";
    assert_eq!(error["message"], message);
    error
}

#[tokio::test]
async fn a_chunk_that_is_refused_fails_its_file_once_and_no_other() {
    let fixture = RetrievalFixture::start().await;
    for code in ["22P05", "23514", "P0001"] {
        let poison = "new.content like '%poison%'";
        fixture.db.reject_rows("chunks", poison, code).await;
        let (store, file) = fixture
            .create_store_with("a.txt", &format!("A poison: {code}"))
            .await;
        assert_failed(&fixture, &store, &file).await;
        assert_eq!(fixture.model.embeddings.take_batches().len(), 1, "{code}");
        let (store, file) = fixture
            .create_store_with("b.txt", &format!("A cure: {code}"))
            .await;
        assert_eq!(
            fixture.store_file(&store, &file).await["status"],
            "completed"
        );
        fixture.model.embeddings.take_requests();
        fixture.db.accept_rows("chunks").await;
    }
    let attempts = "select max(attempt)::bigint from vector_store_files";
    assert_eq!(fixture.count(attempts).await, 1);
}

#[tokio::test]
async fn a_result_that_is_refused_fails_the_file_instead() {
    let fixture = RetrievalFixture::start().await;
    let table = "vector_store_files";
    let completed = "new.status = 'completed'";
    fixture.db.reject_rows(table, completed, "P0001").await;
    let (store, file) = fixture.create_store_with("a.txt", "A rope.").await;
    assert_failed(&fixture, &store, &file).await;
    fixture.db.accept_rows(table).await;

    let error = "new.last_error::text like '%The file is empty%'";
    fixture.db.reject_rows(table, error, "22P05").await;
    let (store, file) = fixture.create_store_with("b.txt", " ").await;
    assert_failed(&fixture, &store, &file).await;
    let attempts = "select max(attempt)::bigint from vector_store_files";
    assert_eq!(fixture.count(attempts).await, 1);
}

#[tokio::test]
async fn a_result_that_was_not_stored_is_computed_again_when_the_lease_has_run_out() {
    let fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, ("ASSISTD_LEASE", "1s")]).await;
    // An SQLSTATE of an unavailable database.
    let completed = "new.status = 'completed'";
    fixture
        .db
        .reject_rows("vector_store_files", completed, "57P01")
        .await;
    let uploaded = fixture.client.upload("a.txt", "A rope.").await;
    let file = crate::client::id(&uploaded);
    let body = serde_json::json!({"file_ids": [file]});
    let store = crate::client::id(&fixture.client.post("/vector_stores", body).await);
    crate::eventually("a result that is not stored", || async {
        let batches = fixture.model.embeddings.take_batches().len();
        (batches > 0).then_some(())
    })
    .await;
    crate::eventually("another attempt", || async {
        let attempts = "select attempt::bigint from vector_store_files";
        (fixture.count(attempts).await > 1).then_some(())
    })
    .await;
    fixture.db.accept_rows("vector_store_files").await;
    fixture.wait_until_indexed(&store).await;
    assert_eq!(
        fixture.store_file(&store, &file).await["status"],
        "completed"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_ended_is_read_only_so_often() {
    let fixture = RetrievalFixture::start().await;
    let ended = "new.status <> 'in_progress'";
    fixture
        .db
        .reject_rows("vector_store_files", ended, "P0001")
        .await;
    let uploaded = fixture.client.upload("a.txt", "A rope.").await;
    let file = crate::client::id(&uploaded);
    let body = serde_json::json!({"file_ids": [file]});
    let store = crate::client::id(&fixture.client.post("/vector_stores", body).await);
    crate::eventually("a failure", || async {
        let failures = "select failures::bigint from vector_store_files";
        (fixture.count(failures).await == 1).then_some(())
    })
    .await;
    fixture.model.embeddings.take_requests();
    // The file has used all its attempts.
    let exhaust = "update vector_store_files set failures = 10, due_at = now(), chunk_tokens = 100";
    sqlx::query(exhaust)
        .execute(&fixture.db.pool)
        .await
        .expect("the database answers");
    crate::eventually("another failure", || async {
        let failures = "select failures::bigint from vector_store_files";
        (fixture.count(failures).await > 10).then_some(())
    })
    .await;
    assert_eq!(
        fixture.model.embeddings.take_batches(),
        [],
        "it is read no more"
    );
    fixture.db.accept_rows("vector_store_files").await;
    sqlx::query("update vector_store_files set due_at = now()")
        .execute(&fixture.db.pool)
        .await
        .expect("the database answers");
    fixture.wait_until_indexed(&store).await;
    assert_failed(&fixture, &store, &file).await;
}
