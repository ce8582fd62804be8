//! The search endpoint of vector stores.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::id;
use crate::eventually;
use crate::fake_embeddings::Fault;
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture, filenames, numbered_sentences};

/// Creates a store of ships with attributes; the ids of the store and its files.
async fn fleet(fixture: &RetrievalFixture) -> (String, Vec<String>) {
    let ships = [
        (
            "ada.txt",
            "The ship Ada carries grain.",
            json!({"length": 80, "port": "Bergen", "sails": true}),
        ),
        (
            "bea.txt",
            "The ship Bea carries timber.",
            json!({"length": 95.5, "port": "Narvik", "sails": false}),
        ),
        (
            "cia.txt",
            "The ship Cia carries grain and salt.",
            json!({"length": 120, "port": "Bergen"}),
        ),
        (
            "dea.txt",
            "The ship Dea carries nothing.",
            json!({"length": "unknown"}),
        ),
    ];
    let mut files = Vec::new();
    for (name, text, attributes) in ships {
        let file = id(&fixture.client.upload(name, text).await);
        files.push(json!({"file_id": file, "attributes": attributes}));
    }
    let store = fixture.create_store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    fixture.client.post(&path, json!({"files": files})).await;
    fixture.wait_until_indexed(&store).await;
    let ids = files.iter().map(|file| file["file_id"].as_str());
    let ids = ids.map(|id| id.expect("an id is a string").to_owned());
    (store, ids.collect())
}

#[tokio::test]
async fn filters_leave_the_files_whose_attributes_fit() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fleet(&fixture).await;
    let by =
        |kind: &str, key: &str, value: Value| json!({"type": kind, "key": key, "value": value});
    let all = |kind: &str, filters: Value| json!({"type": kind, "filters": filters});
    let bergen = by("eq", "port", json!("Bergen"));
    let long = by("gt", "length", json!(100));
    for (filter, expected) in [
        (bergen.clone(), "ac"),
        (by("eq", "length", json!(80)), "a"),
        (by("eq", "length", json!(80.0)), "a"),
        (by("eq", "length", json!("80")), ""),
        (by("eq", "sails", json!(true)), "a"),
        (by("ne", "port", json!("Bergen")), "bd"),
        (by("ne", "sails", json!(true)), "bcd"),
        (long.clone(), "c"),
        (by("gte", "length", json!(95.5)), "bc"),
        (by("lt", "length", json!(95.5)), "a"),
        (by("lte", "length", json!(95.5)), "ab"),
        (by("gt", "port", json!("Bergen")), "b"),
        (by("in", "port", json!(["Narvik", "Oslo"])), "b"),
        (by("in", "length", json!([80, "unknown"])), "ad"),
        (by("nin", "port", json!(["Narvik"])), "acd"),
        (by("eq", "colour", json!("red")), ""),
        (all("and", json!([bergen, long])), "c"),
        (
            all("or", json!([by("eq", "port", json!("Narvik")), long])),
            "bc",
        ),
        (
            all(
                "and",
                json!([
                    all("or", json!([long, by("lt", "length", json!(90))])),
                    bergen
                ]),
            ),
            "ac",
        ),
    ] {
        let body = json!({"query": "ship", "filters": filter});
        let mut found = filenames(&fixture.search(&store, body).await);
        found.sort();
        let found: String = found.iter().map(|name| &name[..1]).collect();
        assert_eq!(found, expected, "{filter}");
    }
    // Changed attributes apply to later searches.
    let files = fixture
        .client
        .list(&format!("/vector_stores/{store}/files"))
        .await;
    let path = format!("/vector_stores/{store}/files/{}", id(&files[3]));
    fixture
        .client
        .post(&path, json!({"attributes": {"port": "Bergen"}}))
        .await;
    let body = json!({"query": "ship", "filters": bergen});
    let found = fixture.search(&store, body).await;
    assert_eq!(filenames(&found).len(), 3, "{found:?}");
    let changed = found
        .iter()
        .find(|result| result["file_id"] == files[3]["id"]);
    let changed = changed.expect("the attributes are valid");
    assert_eq!(changed["attributes"], json!({"port": "Bergen"}));
}

#[tokio::test]
async fn results_are_as_many_and_as_good_as_is_asked_for() {
    let fixture = RetrievalFixture::start().await;
    let (store, ids) = fleet(&fixture).await;
    let path = format!("/vector_stores/{store}/search");
    let page = fixture
        .client
        .post(&path, json!({"query": "Who carries timber?"}))
        .await;
    assert_eq!(page["search_query"], json!(["Who carries timber?"]));
    assert_eq!(
        [&page["has_more"], &page["next_page"]],
        [&json!(false), &Value::Null]
    );
    let results = page["data"].as_array().expect("a page has `data`");
    let best = json!({
        "file_id": ids[1], "filename": "bea.txt", "score": results[0]["score"],
        "attributes": {"length": 95.5, "port": "Narvik", "sails": false},
        "content": [{"type": "text", "text": "The ship Bea carries timber."}],
    });
    assert_eq!(results[0], best);
    let score = |result: &Value| result["score"].as_f64().expect("the value is a number");
    let scores: Vec<f64> = results.iter().map(score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    assert_eq!(results.len(), 4, "all have something to do with it");

    let some = |body: Value| fixture.search(&store, body);
    for limit in [1, 2] {
        let found = some(json!({"query": "Who carries timber?", "max_num_results": limit})).await;
        assert_eq!(found, results[..limit], "the best {limit}");
    }
    let threshold = scores[1] + 1e-9;
    let ranking = json!({"ranker": "auto", "score_threshold": threshold});
    let body = json!({"query": "Who carries timber?", "ranking_options": ranking});
    assert_eq!(some(body).await, results[..1], "what is good enough");
    let ranking = json!({"score_threshold": 1.0});
    let body = json!({"query": "Who carries timber?", "ranking_options": ranking});
    assert_eq!(some(body).await, Vec::<Value>::new());

    let both = json!({"query": ["timber", "salt"], "max_num_results": 2});
    let mut found = filenames(&some(both).await);
    found.sort();
    assert_eq!(found, ["bea.txt", "cia.txt"], "one for each");

    let ask = "Please tell me about the timber?";
    let body = json!({"query": ask, "rewrite_query": true});
    let page = fixture.client.post(&path, body).await;
    assert_eq!(page["search_query"], json!(["the timber"]));
    assert_eq!(page["data"][0]["filename"], "bea.txt");
}

#[tokio::test]
async fn a_reranker_has_the_last_word_if_it_has_one() {
    let fixture =
        RetrievalFixture::start_with(&[EMBEDDING_MODEL, ("ASSISTD_RERANK_MODEL", "judge")]).await;
    let (store, _) = fleet(&fixture).await;
    let first = async |query: &str, ranking: Value| {
        let body = json!({"query": query, "max_num_results": 1, "ranking_options": ranking});
        let found = fixture.search(&store, body).await;
        (filenames(&found), found[0]["score"].clone())
    };
    // The reranker may put a hit first that would not be returned without it.
    let judged = (vec!["dea.txt".to_owned()], json!(0.9));
    assert_eq!(first("Who carries timber?", json!({})).await, judged);
    for (query, ranking) in [
        ("Who carries timber?", json!({"ranker": "none"})),
        ("Who carries timber without fault?", json!({})),
    ] {
        let (found, _) = first(query, ranking).await;
        assert_eq!(found, ["bea.txt"], "{query}");
    }
}

#[tokio::test]
async fn only_what_is_completely_there_is_found() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fixture
        .create_store_with("small.txt", "A small text on buoys.")
        .await;
    let small = json!({"type": "static", "static": {"max_chunk_size_tokens": 100,
                                                    "chunk_overlap_tokens": 0}});
    let path = format!("/vector_stores/{store}");
    let files = format!("{path}/files");
    let long = id(&fixture
        .client
        .upload("long.txt", numbered_sentences("buoys", 800))
        .await);
    // The first batch of chunks is stored, a later one is not.
    fixture.model.embeddings.hold("the number 790.");
    let body = json!({"file_id": long, "chunking_strategy": small});
    fixture.client.post(&files, body.clone()).await;
    fixture.model.embeddings.wait_for_held_request().await;
    assert!(fixture.count("select count(*) from chunks").await > 64);
    assert_eq!(fixture.client.get(&path).await["status"], "in_progress");
    assert_eq!(fixture.matching_files(&store, "buoys").await, ["small.txt"]);
    fixture
        .model
        .embeddings
        .fail_next([Some(Fault::Status(400))]);
    fixture.model.embeddings.release();
    let object = fixture.wait_until_indexed(&store).await;
    assert_eq!(object["file_counts"]["failed"], 1, "{object}");
    assert_eq!(fixture.matching_files(&store, "buoys").await, ["small.txt"]);
    eventually("the end of a failed file's chunks", || async {
        (fixture.count("select count(*) from chunks").await == 1).then_some(())
    })
    .await;

    fixture.client.post(&files, body).await;
    fixture.wait_until_indexed(&store).await;
    assert_eq!(fixture.matching_files(&store, "buoys").await.len(), 2);
    let all = fixture
        .search(&store, json!({"query": "buoys", "max_num_results": 50}))
        .await;
    assert!(all.len() > 10);
    fixture.delete(&format!("{files}/{long}")).await;
    assert_eq!(fixture.matching_files(&store, "buoys").await, ["small.txt"]);
    eventually("the end of a removed file's chunks", || async {
        (fixture.count("select count(*) from chunks").await == 1).then_some(())
    })
    .await;
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn what_is_deleted_is_found_no_more_and_goes() {
    let fixture = RetrievalFixture::start().await;
    let files = fixture
        .upload_files(&[
            ("one.txt", "A pier of stone."),
            ("two.txt", "A pier of wood."),
        ])
        .await;
    let first = fixture.create_store(&files).await;
    let second = fixture.create_store(&files).await;
    fixture.delete(&format!("/files/{}", files[0])).await;
    for store in [&first, &second] {
        assert_eq!(
            fixture.matching_files(store, "pier of stone").await,
            ["two.txt"]
        );
        let object = fixture.client.get(&format!("/vector_stores/{store}")).await;
        assert_eq!(object["file_counts"]["total"], 1);
    }
    fixture.delete(&format!("/vector_stores/{first}")).await;
    let path = format!("/vector_stores/{first}/search");
    let query = json!({"query": "pier"});
    let gone = fixture.client.send(Method::POST, &path, Some(&query)).await;
    assert_eq!(gone.expect("the server answers").status, 404);
    assert_eq!(
        fixture.matching_files(&second, "pier of stone").await,
        ["two.txt"]
    );
    eventually("the end of what was deleted", || async {
        let left = fixture.count(
            "select (select count(*) from chunks) + (select count(*) from chunk_embeddings)",
        );
        (left.await == 2).then_some(())
    })
    .await;
    fixture.verify_chunks(true).await;
}

#[tokio::test]
async fn strangers_search_nothing() {
    let projects = ("ASSISTD_API_KEYS", "acme:key-of-acme,other:key-of-other");
    let mut fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, projects]).await;
    fixture.client = fixture.server.client_with_key("key-of-acme");
    let (store, _) = fixture
        .create_store_with("secret.txt", "The chart shows a wreck.")
        .await;
    assert_eq!(
        fixture.matching_files(&store, "wreck").await,
        ["secret.txt"]
    );
    fixture.model.embeddings.take_requests();
    let other = fixture.server.client_with_key("key-of-other");
    let path = format!("/vector_stores/{store}/search");
    let query = json!({"query": "wreck"});
    let reply = other.send(Method::POST, &path, Some(&query)).await;
    let reply = reply.expect("the server answers");
    assert_eq!(reply.status, 404, "{reply:?}");
    assert!(!reply.body.to_string().contains("secret"), "{reply:?}");
    assert_eq!(
        fixture.model.embeddings.take_batches(),
        [],
        "nothing was done for it"
    );
}

#[tokio::test]
async fn a_search_without_a_vector_says_why() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fixture.create_store_with("a.txt", "A lock.").await;
    fixture
        .model
        .embeddings
        .fail_next([Some(Fault::Status(400))]);
    let path = format!("/vector_stores/{store}/search");
    let query = json!({"query": "lock"});
    let reply = fixture.client.send(Method::POST, &path, Some(&query)).await;
    let reply = reply.expect("the server answers");
    assert_eq!(reply.status, 502, "{reply:?}");
    let message = reply.body["error"]["message"]
        .as_str()
        .expect("an error has a message");
    assert!(message.contains("The vectors are out."), "{message}");
    assert_eq!(fixture.matching_files(&store, "lock").await, ["a.txt"]);
}

#[tokio::test]
async fn queries_that_ask_nothing_are_refused() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fixture.create_store_with("a.txt", "A lock.").await;
    fixture.model.embeddings.take_requests();
    let path = format!("/vector_stores/{store}/search");
    for query in [json!(""), json!(" \n"), json!(["lock", ""]), json!([])] {
        let body = json!({"query": query});
        let reply = fixture.client.send(Method::POST, &path, Some(&body)).await;
        let reply = reply.expect("the server answers");
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        assert_eq!(reply.body["error"]["param"], "query", "{query}: {reply:?}");
    }
    assert_eq!(
        fixture.model.embeddings.take_batches(),
        [],
        "no model was called"
    );
    // Queries without words, or with very common words only, are valid.
    for query in ["?!", "the of and"] {
        assert_eq!(fixture.matching_files(&store, query).await, ["a.txt"]);
    }
}

#[tokio::test]
async fn words_that_are_everywhere_still_find_something() {
    let fixture = RetrievalFixture::start().await;
    let door = id(&fixture.client.upload("door.txt", "A green door.").await);
    let lock = id(&fixture.client.upload("lock.txt", "A rusty lock.").await);
    let store = fixture.create_store(&[door, lock]).await;
    for (lexeme, chunks) in [("door", 90_000_i64), ("lock", 50_000)] {
        sqlx::query("insert into common_lexemes values ($1, $2, $3)")
            .bind(&store)
            .bind(lexeme)
            .bind(chunks)
            .execute(&fixture.db.pool)
            .await
            .expect("the database answers");
    }
    let words_alone = json!({"hybrid_search": {"embedding_weight": 0, "text_weight": 1}});
    let body = json!({"query": "door lock", "ranking_options": words_alone});
    let path = format!("/vector_stores/{store}/search");
    let found = fixture.client.post(&path, body).await;
    let names: Vec<&Value> = found["data"]
        .as_array()
        .expect("the value is a list")
        .iter()
        .map(|hit| &hit["filename"])
        .collect();
    assert_eq!(names, ["lock.txt"], "no chunk has both; fewer have the one");
}

#[tokio::test]
async fn a_result_has_the_score_for_the_query_that_it_answers() {
    let fixture = RetrievalFixture::start().await;
    let texts = [
        ("bea.txt", "The ship Bea carries timber."),
        ("keeper.txt", "A keeper lives in the lighthouse."),
    ];
    let store = fixture
        .create_store(&fixture.upload_files(&texts).await)
        .await;
    let queries = ["Who carries timber?", "lighthouse keeper"];
    let best = async |query: Value| fixture.search(&store, json!({"query": query})).await;
    let (ship, keeper) = (best(json!(queries[0])).await, best(json!(queries[1])).await);
    assert_eq!(filenames(&ship)[0], "bea.txt");
    assert_eq!(filenames(&keeper)[0], "keeper.txt");
    let score = |result: &Value| result["score"].as_f64().expect("the value is a number");
    let alone = [score(&ship[0]), score(&keeper[0])];
    for queries in [queries, [queries[1], queries[0]]] {
        let both = best(json!(queries)).await;
        assert_eq!(both.len(), 2, "{both:?}");
        let lower = alone[0].min(alone[1]);
        assert!(score(&both[0]) >= lower, "{both:?}, alone {alone:?}");
        assert_eq!(score(&both[1]), lower, "{both:?}, alone {alone:?}");
    }
}

#[tokio::test]
async fn scores_change_nothing_of_the_order_by_fused_ranks() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fleet(&fixture).await;
    for query in [
        "Who carries timber?",
        "grain and salt",
        "nothing from Bergen",
    ] {
        let way = async |embedding_weight: u8, text_weight: u8| {
            let weights = json!({"embedding_weight": embedding_weight, "text_weight": text_weight});
            let ranking = json!({"hybrid_search": weights});
            let body = json!({"query": query, "ranking_options": ranking});
            filenames(&fixture.search(&store, body).await)
        };
        let ways = [way(1, 0).await, way(0, 1).await];
        let rank = |name: &String| {
            let places = ways
                .iter()
                .flat_map(|way| way.iter().position(|it| it == name));
            places.map(|place| 1.0 / (61.0 + place as f64)).sum::<f64>()
        };
        let fused = way(1, 1).await;
        assert_eq!(fused.len(), 4, "{query}");
        let ordered = fused.is_sorted_by(|a, b| rank(a) > rank(b) - 1e-12);
        assert!(ordered, "{query}: {fused:?} of {ways:?}");
    }
}

/// Texts with their scores in two recordings of the hosted service.
const RECORDED: [(&str, f64); 2] = [
    (
        "This file describes the favorite foods of several people.\n\nSummanus Ferdinand: tacos\n\
         Tekakwitha Effie: pizza\nFilip Carola: cake",
        0.7507,
    ),
    (
        "The favorite food of several people:\n- Summanus Ferdinand: tacos\n- Tekakwitha Effie: \
         pizza\n- Filip Carola: cake",
        0.6800,
    ),
];
const RECORDED_QUESTION: &str = "Using the files you have available, what's Filip's favorite food?";

#[tokio::test]
async fn the_installed_model_scores_as_the_hosted_service_was_recorded_to() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/models/all-minilm-l6-v2");
    let fixture = RetrievalFixture::start_with(&[("ASSISTD_EMBEDDING_MODEL", model)]).await;
    for (text, recorded) in RECORDED {
        let (store, _) = fixture.create_store_with("favorite_foods.txt", text).await;
        let found = fixture
            .search(&store, json!({"query": RECORDED_QUESTION}))
            .await;
        let score = found[0]["score"].as_f64().expect("the value is a number");
        assert!((score - recorded).abs() < 0.05, "{score}, not {recorded}");
        // A score threshold keeps and drops the same hits as on the hosted service.
        let strict = json!({"score_threshold": 0.6});
        for (query, results) in [(RECORDED_QUESTION, 1), ("How do I tune a violin?", 0)] {
            let body = json!({"query": query, "ranking_options": strict});
            assert_eq!(fixture.search(&store, body).await.len(), results, "{query}");
        }
        let unrelated = fixture
            .search(&store, json!({"query": "How do I tune a violin?"}))
            .await;
        let score = unrelated[0]["score"]
            .as_f64()
            .expect("the value is a number");
        assert!(score < 0.2, "{score}");
    }
}
