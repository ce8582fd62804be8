//! Indexing: text extraction, chunks and embeddings.

use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::fake_model::FakeModel;
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture, numbered_sentences};

/// The folder of binary documents.
macro_rules! document {
    ($name:literal) => {
        include_bytes!(concat!("../../crates/documents/tests/fixtures/", $name)).as_slice()
    };
}

#[tokio::test]
async fn files_of_every_kind_become_text() {
    let fixture = RetrievalFixture::start().await;
    // A part of the text, and a query that only this document matches.
    let files: [(&str, &[u8], &[&str], &str); 9] = [
        (
            "log.md",
            document!("notes.md"),
            &["Before all.", "Fair wind.", "# no heading", "Calm."],
            "wind",
        ),
        (
            "kite.txt",
            b"A kite needs a tail.\n",
            &["A kite needs a tail."],
            "kite tail",
        ),
        (
            "tides.html",
            document!("page.html"),
            &["High water at noon.", "full moon", "3.2 m"],
            "high water",
        ),
        (
            "fees.csv",
            b"port,fee\nBergen,41\n",
            &["port,fee\nBergen,41"],
            "Bergen",
        ),
        (
            "config.json",
            br#"{"lanterns": {"colour": "amber"}}"#,
            &[r#""lanterns": {"colour": "amber"}"#],
            "lanterns",
        ),
        (
            "main.py",
            b"def moor(boat):\n    return boat.rope\n",
            &["def moor(boat):\n    return boat.rope"],
            "def moor",
        ),
        (
            "handbook.docx",
            document!("handbook.docx"),
            &["Read this first.", "bow line", "Show a white light."],
            "white light at night",
        ),
        (
            "report.pdf",
            document!("report.pdf"),
            &["4711 containers", "Forty-two people"],
            "containers handled",
        ),
        (
            "berths.xlsx",
            document!("berths.xlsx"),
            &["summer", "15.5"],
            "summer season price",
        ),
    ];
    let mut ids = Vec::new();
    for (name, bytes, ..) in files {
        ids.push(id(&fixture.client.upload(name, bytes).await));
    }
    let store = fixture.create_store(&ids).await;
    let object = fixture.client.get(&format!("/vector_stores/{store}")).await;
    let counts = json!({"in_progress": 0, "completed": 9, "failed": 0, "cancelled": 0, "total": 9});
    assert_eq!(object["file_counts"], counts);
    assert_eq!(object["status"], "completed");
    let mut usage = 0;
    for (file, (name, _, phrases, question)) in ids.iter().zip(files) {
        let object = fixture.store_file(&store, file).await;
        assert_eq!(object["status"], "completed", "{name}: {object}");
        assert_eq!(object["last_error"], Value::Null);
        let bytes = object["usage_bytes"]
            .as_u64()
            .expect("the value is a number");
        let text = fixture.parsed_text(&store, file).await;
        assert_eq!(bytes, text.len() as u64, "{name} holds what it says");
        usage += bytes;
        for phrase in phrases {
            assert!(text.contains(phrase), "{name} lacks {phrase}: {text}");
        }
        let markup = ["<p>", "hidden", "color: red", "w:t"];
        assert!(!markup.iter().any(|word| text.contains(word)), "{text}");
        assert_eq!(
            fixture.matching_files(&store, question).await[0],
            name,
            "{question}"
        );
    }
    assert_eq!(object["usage_bytes"], usage);
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn a_file_whose_text_is_mostly_lost_says_so_in_every_store() {
    let fixture = RetrievalFixture::start().await;
    let file = id(&fixture
        .client
        .upload("mixed.pdf", document!("mixed.pdf"))
        .await);
    // The second store gets copies of the chunks.
    for _ in 0..2 {
        let store = fixture.create_store(std::slice::from_ref(&file)).await;
        let object = fixture.store_file(&store, &file).await;
        assert_eq!(object["status"], "completed");
        assert_eq!(object["last_error"]["code"], "invalid_file");
        let message = object["last_error"]["message"].as_str();
        let expected = "Of 3 pages, these were left out: 2 without text";
        assert!(
            message.is_some_and(|text| text.contains(expected)),
            "{object}"
        );
        let text = fixture.parsed_text(&store, &file).await;
        assert_eq!(text, "The appendix follows as a scan.");
    }
}

#[tokio::test]
async fn chunks_are_as_large_as_the_strategy_says() {
    let fixture = RetrievalFixture::start().await;
    let text = numbered_sentences("knots", 200);
    let file = id(&fixture.client.upload("knots.txt", &text).await);
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 100,
                                                    "chunk_overlap_tokens": 25}});
    let fitted = fixture.create_store(&[]).await;
    let body = json!({"file_id": file, "chunking_strategy": small, "attributes": {"deck": 3}});
    let path = format!("/vector_stores/{fitted}/files");
    let added = fixture.client.post(&path, body).await;
    assert_eq!(added["chunking_strategy"], small);
    fixture.wait_until_indexed(&fitted).await;
    let plain = fixture.create_store(std::slice::from_ref(&file)).await;

    let sizes: Vec<(String, i64, i32, i32)> = sqlx::query_as(
        "select vector_store_id, count(*), max(tokens), max(overlap_bytes) from chunks
         group by vector_store_id order by count(*) desc",
    )
    .fetch_all(&fixture.db.pool)
    .await
    .expect("the database answers");
    let [(first, many, largest, repeated), (_, few, large, _)] = sizes.as_slice() else {
        panic!("two stores have chunks: {sizes:?}");
    };
    assert_eq!(*first, fitted);
    assert!((50..=100).contains(largest), "{sizes:?}");
    assert!((400..=800).contains(large), "{sizes:?}");
    assert!(*repeated > 0 && many > &(few * 4), "{sizes:?}");
    for store in [&fitted, &plain] {
        assert_eq!(
            fixture.parsed_text(store, &file).await,
            text,
            "all of it, once"
        );
    }
    let results = fixture
        .search(&fitted, json!({"query": "knots and the number 77"}))
        .await;
    assert_eq!(results[0]["attributes"], json!({"deck": 3}));
    let found = results[0]["content"][0]["text"]
        .as_str()
        .expect("the value is a string");
    assert!(found.contains("Sentence 77 ") && found.len() < text.len() / 8);
    let auto = json!({"type": "static", "static": {"max_chunk_size_tokens": 800,
                                                   "chunk_overlap_tokens": 400}});
    let object = fixture.store_file(&plain, &file).await;
    assert_eq!(object["chunking_strategy"], auto);
    fixture.verify_chunks(true).await;
}

const PROJECTS: (&str, &str) = ("ASSISTD_API_KEYS", "acme:key-of-acme,other:key-of-other");

#[tokio::test]
async fn the_same_contents_get_their_vectors_once_in_a_project() {
    let mut fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, PROJECTS]).await;
    let acme = fixture.server.client_with_key("key-of-acme");
    let other: Client = fixture.server.client_with_key("key-of-other");
    fixture.client = acme;
    let text = numbered_sentences("sails", 60);
    let (first, _) = fixture.create_store_with("sails.txt", &text).await;
    let batches = fixture.model.embeddings.take_batches();
    assert_eq!(batches.len(), 1, "it is one batch: {batches:?}");

    let (second, file) = fixture.create_store_with("again.txt", &text).await;
    assert_eq!(fixture.model.embeddings.take_batches(), [], "it is known");
    assert_eq!(fixture.parsed_text(&second, &file).await, text);
    let found = fixture.search(&second, json!({"query": "sails"})).await;
    assert_eq!(found[0]["filename"], "again.txt");
    let again = fixture.search(&first, json!({"query": "sails"})).await;
    assert_eq!(found[0]["score"], again[0]["score"]);
    fixture.model.embeddings.take_requests();

    // Other chunk sizes and other projects need their own embeddings.
    for overlap in [0, 100] {
        let halves = json!({"type": "static", "static": {"max_chunk_size_tokens": 200,
                                                         "chunk_overlap_tokens": overlap}});
        let body = json!({"file_ids": [file], "chunking_strategy": halves});
        let third = id(&fixture.client.post("/vector_stores", body).await);
        fixture.wait_until_indexed(&third).await;
        assert_eq!(
            fixture.model.embeddings.take_batches().len(),
            1,
            "{overlap}"
        );
    }
    fixture.client = other;
    fixture.create_store_with("theirs.txt", &text).await;
    assert_eq!(fixture.model.embeddings.take_batches().len(), 1);
    fixture.verify_chunks(true).await;
}

/// The distinct dimensions of a store's embeddings.
async fn dimensions(fixture: &RetrievalFixture, store: &str) -> Vec<i32> {
    sqlx::query_scalar(
        "select distinct vector_dims(embedding) from chunk_embeddings
         where vector_store_id = $1",
    )
    .bind(store)
    .fetch_all(&fixture.db.pool)
    .await
    .expect("the database answers")
}

#[tokio::test]
async fn a_store_keeps_its_model_when_new_ones_get_another() {
    let mut fixture = RetrievalFixture::start().await;
    let (old, _) = fixture
        .create_store_with("rope.txt", "A rope of hemp.")
        .await;
    fixture
        .restart(&[("ASSISTD_EMBEDDING_MODEL", "embed-small")])
        .await;
    fixture.model.embeddings.take_requests();

    let anchor = id(&fixture
        .client
        .upload("anchor.txt", "An anchor of iron.")
        .await);
    let files = format!("/vector_stores/{old}/files");
    fixture
        .client
        .post(&files, json!({"file_id": anchor}))
        .await;
    fixture.wait_until_indexed(&old).await;
    assert_eq!(
        fixture.matching_files(&old, "anchor").await[0],
        "anchor.txt"
    );
    let of_old = ("embed".to_owned(), 1);
    let batches = fixture.model.embeddings.take_batches();
    assert_eq!(batches, [of_old.clone(), of_old], "a file and a query");

    // The same contents, but embeddings of another model cannot be copied.
    let (new, _) = fixture
        .create_store_with("same.txt", "A rope of hemp.")
        .await;
    assert_eq!(fixture.matching_files(&new, "rope").await, ["same.txt"]);
    let of_new = ("embed-small".to_owned(), 1);
    let batches = fixture.model.embeddings.take_batches();
    assert_eq!(batches, [of_new.clone(), of_new]);
    let (newer, _) = fixture
        .create_store_with("copy.txt", "A rope of hemp.")
        .await;
    assert_eq!(fixture.model.embeddings.take_batches(), [], "it is known");

    assert_eq!(dimensions(&fixture, &old).await, [64]);
    assert_eq!(dimensions(&fixture, &new).await, [32]);
    assert_eq!(dimensions(&fixture, &newer).await, [32]);
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn without_a_model_words_find_what_they_can() {
    let off = ("ASSISTD_EMBEDDING_MODEL", "off");
    let mut fixture = RetrievalFixture::start_with_model(FakeModel::start().await, &[off]).await;
    let texts = [
        ("whale.txt", "Whales sing below the ice."),
        ("gull.txt", "Gulls follow the plough."),
    ];
    let files = fixture.upload_files(&texts).await;
    let store = fixture.create_store(&files).await;
    assert_eq!(
        fixture.matching_files(&store, "singing whale").await,
        ["whale.txt"]
    );
    assert_eq!(
        fixture.matching_files(&store, "submarine").await,
        Vec::<String>::new()
    );
    assert_eq!(fixture.model.embeddings.take_batches(), []);
    fixture.verify_chunks(false).await;

    // Files added after a model is set get embeddings, even if their contents are known without.
    fixture.restart(&[EMBEDDING_MODEL]).await;
    let (new, _) = fixture.create_store_with("song.txt", texts[0].1).await;
    assert_eq!(dimensions(&fixture, &new).await, [64]);
    assert_eq!(
        fixture.matching_files(&store, "singing whale").await,
        ["whale.txt"]
    );
    assert_eq!(dimensions(&fixture, &store).await, Vec::<i32>::new());
    let (_, fish) = fixture
        .create_store_with("fish.txt", "Herrings shine.")
        .await;
    let path = format!("/vector_stores/{store}/files");
    fixture.client.post(&path, json!({"file_id": fish})).await;
    fixture.wait_until_indexed(&store).await;
    for (query, name) in [("whale", "whale.txt"), ("herrings", "fish.txt")] {
        assert_eq!(fixture.matching_files(&store, query).await[0], name);
    }
}

#[tokio::test]
async fn stores_of_the_installed_model_stay_searchable_under_another_default() {
    let mut fixture = RetrievalFixture::start_with(&[]).await;
    let texts = [
        ("storm.txt", "A gale from the north-west."),
        ("cook.txt", "Potatoes with butter and dill."),
    ];
    let files = fixture.upload_files(&texts).await;
    let store = fixture.create_store(&files).await;
    assert_eq!(
        dimensions(&fixture, &store).await,
        [384],
        "`make setup` installs it"
    );
    // The query shares no word with the text, so only semantic search can match.
    let question = "heavy weather with strong wind";
    assert_eq!(
        fixture.matching_files(&store, question).await[0],
        "storm.txt"
    );
    for default in [EMBEDDING_MODEL, ("ASSISTD_EMBEDDING_MODEL", "off")] {
        fixture.restart(&[default]).await;
        assert_eq!(
            fixture.matching_files(&store, question).await[0],
            "storm.txt"
        );
        let dish = id(&fixture.client.upload("fish.txt", "Cod in mustard.").await);
        let path = format!("/vector_stores/{store}/files");
        fixture.client.post(&path, json!({"file_id": dish})).await;
        fixture.wait_until_indexed(&store).await;
        assert_eq!(dimensions(&fixture, &store).await, [384], "{default:?}");
        let path = format!("/files/{dish}");
        fixture.delete(&path).await;
    }
    assert_eq!(
        fixture.model.embeddings.take_batches(),
        [],
        "no other model was called"
    );
}
