//! Files outlive the faults of what makes their vectors.

use serde_json::{Value, json};

use crate::client::id;
use crate::eventually;
use crate::fake_embeddings::Fault;
use crate::fake_model::FakeModel;
use crate::retrieval_fixture::{MODEL, Shelf, prose};

/// A store with one file of more than two batches of chunks; ids of both.
async fn long_file(shelf: &Shelf) -> (String, String) {
    let file = id(&shelf.client.upload("long.txt", prose("oars", 1_000)).await);
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 120,
                                                    "chunk_overlap_tokens": 0}});
    let body = json!({"file_ids": [file], "chunking_strategy": small});
    (id(&shelf.client.post("/vector_stores", body).await), file)
}

#[tokio::test]
async fn texts_are_sent_in_batches_which_are_tried_again() {
    let shelf = Shelf::set().await;
    let faults = [429, 401, 500].map(|status| Some(Fault::Status(status)));
    shelf
        .model
        .embeddings
        .next([None].into_iter().chain(faults));
    let (store, file) = long_file(&shelf).await;
    let object = shelf.through(&store).await;
    assert_eq!(object["file_counts"]["completed"], 1, "{object}");
    let asked = shelf.model.embeddings.asked();
    let sizes: Vec<usize> = asked.iter().map(|(_, size)| *size).collect();
    let chunks = shelf.count("select count(*) from chunks").await;
    let left = usize::try_from(chunks).expect("it is small") - 128;
    assert!((1..64).contains(&left), "three batches: {chunks}");
    assert_eq!(
        sizes,
        [64, 64, 64, 64, 64, left],
        "the second is sent again"
    );
    assert_eq!(shelf.text_of(&store, &file).await, prose("oars", 1_000));
    shelf.verify_chunks(true).await;
}

#[tokio::test]
async fn vectors_that_are_of_no_use_fail_the_file_and_say_so() {
    let shelf = Shelf::set().await;
    for (fault, reason) in [
        (Fault::Status(400), "The vectors are out."),
        (Fault::Status(404), "The vectors are out."),
        (Fault::OneMissing, "does not have a vector for each text"),
        (Fault::OneShorter, "its vectors differ in length"),
        (Fault::NoJson, "its answer cannot be read"),
    ] {
        shelf.model.embeddings.next([Some(fault)]);
        let (store, file) = long_file(&shelf).await;
        let object = shelf.through(&store).await;
        assert_eq!(object["file_counts"]["failed"], 1, "{fault:?}: {object}");
        assert_eq!(object["status"], "completed");
        assert_eq!(shelf.model.embeddings.asked().len(), 1, "{fault:?}");
        let object = shelf.file_in(&store, &file).await;
        assert_eq!(object["status"], "failed");
        assert_eq!(object["usage_bytes"], 0);
        let error = &object["last_error"];
        assert_eq!(error["code"], "server_error");
        let message = error["message"].as_str().expect("it says why");
        assert!(message.contains(reason), "{fault:?}: {message}");
        assert!(message.contains("embed"), "it names the model: {message}");
        assert_eq!(shelf.text_of(&store, &file).await, "");

        // Nothing of that is held against the file.
        let path = format!("/vector_stores/{store}/files");
        let again = shelf.client.post(&path, json!({"file_id": file})).await;
        assert_eq!(again["last_error"], Value::Null);
        let object = shelf.through(&store).await;
        assert_eq!(object["file_counts"]["completed"], 1, "{fault:?}: {object}");
        shelf.model.embeddings.take();
        shelf.delete(&format!("/vector_stores/{store}")).await;
        eventually("the end of the store's chunks", || async {
            (shelf.count("select count(*) from chunks").await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn files_wait_for_a_model_that_cannot_be_reached() {
    let shelf = Shelf::set_beside(FakeModel::asleep(), &[MODEL]).await;
    let file = id(&shelf.client.upload("a.txt", "A boat.").await);
    let body = json!({"file_ids": [file]});
    let store = id(&shelf.client.post("/vector_stores", body).await);
    eventually("a try that fails", || async {
        let failures = "select failures::bigint from vector_store_files";
        (shelf.count(failures).await > 0).then_some(())
    })
    .await;
    let object = shelf.file_in(&store, &file).await;
    assert_eq!(object["status"], "in_progress", "{object}");
    shelf.model.wake().await;
    let object = shelf.through(&store).await;
    assert_eq!(object["file_counts"]["completed"], 1, "{object}");
    assert_eq!(shelf.names(&store, "boat").await, ["a.txt"]);
    shelf.verify_chunks(true).await;
}
