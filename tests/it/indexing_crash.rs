//! Indexing survives the death of its process: nothing is lost, nothing is there twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::client::id;
use crate::eventually;
use crate::proxy::{Moment, Proxy};
use crate::retrieval_fixture::{MODEL, Shelf, prose};

/// What is lost is to be taken over soon.
const SETTINGS: [(&str, &str); 2] = [MODEL, ("ASSISTD_LEASE", "1s")];

/// Files of the large batch.
const FILES: usize = 1_000;

/// Chunks that a server has in hand at most: 16 files at a time, a few of which have several.
const IN_HAND: usize = 24;

/// How long the large batch may take, on a machine that has other things to do.
const BATCH_WITHIN: Duration = Duration::from_secs(600);

/// Waits until so many files are indexed.
async fn indexed(shelf: &Shelf, files: i64) {
    let begun = Instant::now();
    let completed = "select count(*) from vector_store_files where status = 'completed'";
    while shelf.count(completed).await < files {
        assert!(begun.elapsed() < BATCH_WITHIN, "never indexed: {files}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_are_indexed_once_each_whoever_is_killed_meanwhile() {
    let mut shelf = Shelf::set_with(&SETTINGS).await;
    let texts = (0..FILES).map(|n| {
        let sentences = if n % 50 == 0 { 120 } else { 2 };
        (format!("{n}.txt"), prose(&format!("topic{n}"), sentences))
    });
    let texts: Vec<(String, String)> = texts.collect();
    let named = texts.iter().map(|(name, text)| (&**name, &**text));
    let files = shelf.files(&named.collect::<Vec<_>>()).await;
    let store = shelf.store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    let batch = shelf.client.post(&path, json!({"file_ids": files})).await;
    for kill_after in [130, 610] {
        indexed(&shelf, kill_after).await;
        shelf.restart(&SETTINGS).await;
        let path = format!("{path}/{}", id(&batch));
        let batch = shelf.client.get(&path).await;
        assert_eq!(batch["status"], "in_progress", "killed amid it: {batch}");
        assert_eq!(batch["file_counts"]["total"], FILES);
        assert_eq!(batch["file_counts"]["failed"], 0);
    }
    indexed(&shelf, i64::try_from(FILES).expect("it is small")).await;

    let counts = json!({"in_progress": 0, "completed": FILES, "failed": 0, "cancelled": 0,
                        "total": FILES});
    let batch = shelf.client.get(&format!("{path}/{}", id(&batch))).await;
    assert_eq!(
        [&batch["status"], &batch["file_counts"]],
        [&json!("completed"), &counts]
    );
    let object = shelf.client.get(&format!("/vector_stores/{store}")).await;
    assert_eq!(
        [&object["status"], &object["file_counts"]],
        [&json!("completed"), &counts]
    );
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    assert_eq!(object["usage_bytes"], bytes, "all text, once");
    let there: Vec<String> = sqlx::query_scalar("select file_id from vector_store_files")
        .fetch_all(&shelf.db.pool)
        .await
        .expect("the database answers");
    let there: BTreeSet<String> = there.into_iter().collect();
    assert_eq!(there, files.into_iter().collect());
    shelf.verify_chunks(true).await;

    // Only what was in hand was done again.
    let embedded = shelf.model.embeddings.asked();
    let embedded: usize = embedded.iter().map(|(_, texts)| texts).sum();
    let chunks = shelf.count("select count(*) from chunks").await;
    let chunks = usize::try_from(chunks).expect("it is small");
    assert!(chunks >= FILES + 20, "some files have several");
    assert!(
        (chunks..=chunks + 2 * IN_HAND).contains(&embedded),
        "{embedded} {chunks}"
    );
    for n in [0, 129, 611, 999] {
        let query = format!("topic{n}");
        let best = &shelf.search(&store, json!({"query": query})).await[0];
        assert_eq!(best["filename"], format!("{n}.txt"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_indexed_once_when_its_server_is_killed_at_any_statement() {
    // At every second statement each: those of the two lie between one another.
    let lanes = [(Moment::Told, 1), (Moment::Untold, 2)].map(|(moment, first)| {
        tokio::spawn(async move { kill_at_every_other_statement(moment, first).await })
    });
    for lane in futures::future::join_all(lanes).await {
        let statements = lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        assert!(statements > 20, "only {statements} were seen");
    }
}

/// Kills until a file goes through undisturbed; how many statements that took.
async fn kill_at_every_other_statement(moment: Moment, first: usize) -> usize {
    let mut shelf = Shelf::set_with(&SETTINGS).await;
    let proxy = Proxy::start(&shelf.db).await;
    shelf.restart_at(&proxy.url, &SETTINGS).await;
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 100,
                                                    "chunk_overlap_tokens": 0}});
    let store = shelf.store(&[]).await;
    for statement in (first..).step_by(2) {
        // Of three batches, and unlike all others.
        let text = prose(&format!("shoal{statement}"), 800);
        let file = id(&shelf.client.upload("shoals.txt", &text).await);
        let path = format!("/vector_stores/{store}/files");
        let body = json!({"file_id": file, "chunking_strategy": small});
        proxy.kill_at(statement, moment, shelf.server.pid());
        // Told or not, it is in the store or will be put there below.
        let _ = shelf.client.send(Method::POST, &path, Some(&body)).await;
        let pool = shelf.db.pool.clone();
        let spared = eventually("the end of the file or of the server", || async {
            let killed = proxy.has_killed();
            let status = "select status from vector_store_files where file_id = $1";
            let status: Option<String> = sqlx::query_scalar(status)
                .bind(&file)
                .fetch_optional(&pool)
                .await
                .expect("the database answers");
            (killed || status.is_some_and(|status| status == "completed")).then_some(!killed)
        })
        .await;
        let spared = spared && proxy.disarm();
        if !spared {
            shelf.start_again(&proxy.url, &SETTINGS).await;
        }
        shelf.client.post(&path, body).await;
        let object = shelf.through(&store).await;
        assert_eq!(object["file_counts"]["failed"], 0, "{object}");
        assert_eq!(
            shelf.text_of(&store, &file).await,
            text,
            "at {statement} {moment:?}"
        );
        shelf.verify_chunks(true).await;
        // Only the batch in hand was done again.
        let chunks: i64 = sqlx::query_scalar(
            "select count(*) from chunks join vector_store_files as f on f.seq = store_file
             where file_id = $1",
        )
        .bind(&file)
        .fetch_one(&shelf.db.pool)
        .await
        .expect("the database answers");
        let most = usize::try_from(chunks).expect("it is small") + 64;
        let embedded = shelf.model.embeddings.asked();
        let embedded: usize = embedded.iter().map(|(_, texts)| texts).sum();
        assert!(embedded <= most, "{embedded} at {statement} {moment:?}");
        if spared {
            return statement - 1;
        }
    }
    unreachable!("there are no more statements than numbers");
}
