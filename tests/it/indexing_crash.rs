//! Indexing survives a kill of its process: nothing is lost or duplicated.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::client::id;
use crate::eventually;
use crate::proxy::{KillPoint, Proxy};
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture, numbered_sentences};

/// A short lease, so that lost files are soon reassigned.
const SETTINGS: [(&str, &str); 2] = [EMBEDDING_MODEL, ("ASSISTD_LEASE", "1s")];

const FILES: usize = 1_000;

/// The most chunks in progress on a server: 16 files, a few of which have several chunks.
const MAX_IN_PROGRESS: usize = 24;

/// Time limit for the large batch on a busy machine.
const BATCH_TIMEOUT: Duration = Duration::from_secs(600);

/// Waits until this many files are indexed.
async fn wait_until_indexed(fixture: &RetrievalFixture, files: i64) {
    let started = Instant::now();
    let completed = "select count(*) from vector_store_files where status = 'completed'";
    while fixture.count(completed).await < files {
        assert!(started.elapsed() < BATCH_TIMEOUT, "never indexed: {files}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_are_indexed_once_each_whoever_is_killed_meanwhile() {
    let mut fixture = RetrievalFixture::start_with(&SETTINGS).await;
    let texts = (0..FILES).map(|n| {
        let sentences = if n % 50 == 0 { 120 } else { 2 };
        (
            format!("{n}.txt"),
            numbered_sentences(&format!("topic{n}"), sentences),
        )
    });
    let texts: Vec<(String, String)> = texts.collect();
    let named = texts.iter().map(|(name, text)| (&**name, &**text));
    let files = fixture.upload_files(&named.collect::<Vec<_>>()).await;
    let store = fixture.create_store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    let batch = fixture.client.post(&path, json!({"file_ids": files})).await;
    for kill_after in [130, 610] {
        wait_until_indexed(&fixture, kill_after).await;
        fixture.restart(&SETTINGS).await;
        let path = format!("{path}/{}", id(&batch));
        let batch = fixture.client.get(&path).await;
        assert_eq!(batch["status"], "in_progress", "killed amid it: {batch}");
        assert_eq!(batch["file_counts"]["total"], FILES);
        assert_eq!(batch["file_counts"]["failed"], 0);
    }
    wait_until_indexed(&fixture, i64::try_from(FILES).expect("the number is small")).await;

    let counts = json!({"in_progress": 0, "completed": FILES, "failed": 0, "cancelled": 0,
                        "total": FILES});
    let batch = fixture.client.get(&format!("{path}/{}", id(&batch))).await;
    assert_eq!(
        [&batch["status"], &batch["file_counts"]],
        [&json!("completed"), &counts]
    );
    let object = fixture.client.get(&format!("/vector_stores/{store}")).await;
    assert_eq!(
        [&object["status"], &object["file_counts"]],
        [&json!("completed"), &counts]
    );
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    assert_eq!(object["usage_bytes"], bytes, "all text, once");
    let there: Vec<String> = sqlx::query_scalar("select file_id from vector_store_files")
        .fetch_all(&fixture.db.pool)
        .await
        .expect("the database answers");
    let there: BTreeSet<String> = there.into_iter().collect();
    assert_eq!(there, files.into_iter().collect());
    fixture.verify_chunks(true).await;

    // Only the chunks in progress were embedded again.
    let embedded = fixture.model.embeddings.take_batches();
    let embedded: usize = embedded.iter().map(|(_, texts)| texts).sum();
    let chunks = fixture.count("select count(*) from chunks").await;
    let chunks = usize::try_from(chunks).expect("the number is small");
    assert!(chunks >= FILES + 20, "some files have several");
    assert!(
        (chunks..=chunks + 2 * MAX_IN_PROGRESS).contains(&embedded),
        "{embedded} {chunks}"
    );
    for n in [0, 129, 611, 999] {
        let query = format!("topic{n}");
        let best = &fixture.search(&store, json!({"query": query})).await[0];
        assert_eq!(best["filename"], format!("{n}.txt"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_indexed_once_when_its_server_is_killed_at_any_statement() {
    // Each kills at every second statement, one at odd and one at even ones.
    let lanes = [(KillPoint::AfterReply, 1), (KillPoint::BeforeReply, 2)].map(|(point, first)| {
        tokio::spawn(async move { kill_at_every_other_statement(point, first).await })
    });
    for lane in futures::future::join_all(lanes).await {
        let statements = lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        assert!(statements > 20, "only {statements} were seen");
    }
}

/// Kills until a file is indexed before the kill; the number of statements.
async fn kill_at_every_other_statement(point: KillPoint, first: usize) -> usize {
    let mut fixture = RetrievalFixture::start_with(&SETTINGS).await;
    let proxy = Proxy::start(&fixture.db).await;
    fixture.restart_at(&proxy.url, &SETTINGS).await;
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 100,
                                                    "chunk_overlap_tokens": 0}});
    let store = fixture.create_store(&[]).await;
    for statement in (first..).step_by(2) {
        // Three batches of chunks that no other file has.
        let text = numbered_sentences(&format!("shoal{statement}"), 800);
        let file = id(&fixture.client.upload("shoals.txt", &text).await);
        let path = format!("/vector_stores/{store}/files");
        let body = json!({"file_id": file, "chunking_strategy": small});
        proxy.kill_at(statement, point, fixture.server.pid());
        // If the file was not added because of the kill, it is added below.
        let _ = fixture.client.send(Method::POST, &path, Some(&body)).await;
        let pool = fixture.db.pool.clone();
        let spared = eventually("the end of the file or of the server", || async {
            let killed = proxy.has_fired();
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
            fixture.start_replacement(&proxy.url, &SETTINGS).await;
        }
        fixture.client.post(&path, body).await;
        let object = fixture.wait_until_indexed(&store).await;
        assert_eq!(object["file_counts"]["failed"], 0, "{object}");
        assert_eq!(
            fixture.parsed_text(&store, &file).await,
            text,
            "at {statement} {point:?}"
        );
        fixture.verify_chunks(true).await;
        // Only the batch in progress was embedded again.
        let chunks: i64 = sqlx::query_scalar(
            "select count(*) from chunks join vector_store_files as f on f.seq = store_file
             where file_id = $1",
        )
        .bind(&file)
        .fetch_one(&fixture.db.pool)
        .await
        .expect("the database answers");
        let most = usize::try_from(chunks).expect("the number is small") + 64;
        let embedded = fixture.model.embeddings.take_batches();
        let embedded: usize = embedded.iter().map(|(_, texts)| texts).sum();
        assert!(embedded <= most, "{embedded} at {statement} {point:?}");
        if spared {
            return statement - 1;
        }
    }
    unreachable!("there are no more statements than numbers");
}
