//! Indexing survives faults of the embedding model.

use serde_json::{Value, json};

use crate::client::id;
use crate::eventually;
use crate::fake_embeddings::Fault;
use crate::fake_model::FakeModel;
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture, numbered_sentences};

/// Creates a store with one file of more than two batches of chunks; the ids of both.
async fn long_file(fixture: &RetrievalFixture) -> (String, String) {
    let file = id(&fixture
        .client
        .upload("long.txt", numbered_sentences("oars", 1_000))
        .await);
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 120,
                                                    "chunk_overlap_tokens": 0}});
    let body = json!({"file_ids": [file], "chunking_strategy": small});
    (id(&fixture.client.post("/vector_stores", body).await), file)
}

#[tokio::test]
async fn texts_are_sent_in_batches_which_are_tried_again() {
    let fixture = RetrievalFixture::start().await;
    let faults = [429, 401, 500].map(|status| Some(Fault::Status(status)));
    fixture
        .model
        .embeddings
        .fail_next([None].into_iter().chain(faults));
    let (store, file) = long_file(&fixture).await;
    let object = fixture.wait_until_indexed(&store).await;
    assert_eq!(object["file_counts"]["completed"], 1, "{object}");
    let batches = fixture.model.embeddings.take_batches();
    let sizes: Vec<usize> = batches.iter().map(|(_, size)| *size).collect();
    let chunks = fixture.count("select count(*) from chunks").await;
    let left = usize::try_from(chunks).expect("the number is small") - 128;
    assert!((1..64).contains(&left), "three batches: {chunks}");
    assert_eq!(
        sizes,
        [64, 64, 64, 64, 64, left],
        "the second is sent again"
    );
    assert_eq!(
        fixture.parsed_text(&store, &file).await,
        numbered_sentences("oars", 1_000)
    );
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn vectors_that_are_of_no_use_fail_the_file_and_say_so() {
    let fixture = RetrievalFixture::start().await;
    for (fault, reason) in [
        (Fault::Status(400), "The vectors are out."),
        (Fault::Status(404), "The vectors are out."),
        (Fault::OneMissing, "does not have a vector for each text"),
        (Fault::OneShorter, "its vectors differ in length"),
        (Fault::InvalidJson, "its answer cannot be read"),
    ] {
        fixture.model.embeddings.fail_next([Some(fault)]);
        let (store, file) = long_file(&fixture).await;
        let object = fixture.wait_until_indexed(&store).await;
        assert_eq!(object["file_counts"]["failed"], 1, "{fault:?}: {object}");
        assert_eq!(object["status"], "completed");
        assert_eq!(
            fixture.model.embeddings.take_batches().len(),
            1,
            "{fault:?}"
        );
        let object = fixture.store_file(&store, &file).await;
        assert_eq!(object["status"], "failed");
        assert_eq!(object["usage_bytes"], 0);
        let error = &object["last_error"];
        assert_eq!(error["code"], "server_error");
        let message = error["message"].as_str().expect("an error has a message");
        assert!(message.contains(reason), "{fault:?}: {message}");
        assert!(message.contains("embed"), "it names the model: {message}");
        assert_eq!(fixture.parsed_text(&store, &file).await, "");

        // The failed attempts do not count against the file.
        let path = format!("/vector_stores/{store}/files");
        let again = fixture.client.post(&path, json!({"file_id": file})).await;
        assert_eq!(again["last_error"], Value::Null);
        let object = fixture.wait_until_indexed(&store).await;
        assert_eq!(object["file_counts"]["completed"], 1, "{fault:?}: {object}");
        fixture.model.embeddings.take_requests();
        fixture.delete(&format!("/vector_stores/{store}")).await;
        eventually("the end of the store's chunks", || async {
            (fixture.count("select count(*) from chunks").await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn files_wait_for_a_model_that_cannot_be_reached() {
    let fixture =
        RetrievalFixture::start_with_model(FakeModel::unstarted(), &[EMBEDDING_MODEL]).await;
    let file = id(&fixture.client.upload("a.txt", "A boat.").await);
    let body = json!({"file_ids": [file]});
    let store = id(&fixture.client.post("/vector_stores", body).await);
    eventually("a try that fails", || async {
        let failures = "select failures::bigint from vector_store_files";
        (fixture.count(failures).await > 0).then_some(())
    })
    .await;
    let object = fixture.store_file(&store, &file).await;
    assert_eq!(object["status"], "in_progress", "{object}");
    fixture.model.serve().await;
    let object = fixture.wait_until_indexed(&store).await;
    assert_eq!(object["file_counts"]["completed"], 1, "{object}");
    assert_eq!(fixture.matching_files(&store, "boat").await, ["a.txt"]);
    fixture.verify_chunks(true).await;
}
