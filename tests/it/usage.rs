//! Usage records: complete, and counted once.

use assistd::domain::ids;
use assistd::domain::run::RunStatus;
use assistd::domain::usage::{Amounts, UsageEntry, UsageQuery, UsageSum};
use assistd::store;
use assistd::store::run_queue::Changes;
use chrono::NaiveDate;
use serde_json::json;

use crate::client::id;
use crate::cluster::Db;
use crate::fake_worker::FakeWorker;
use crate::server::Server;
use crate::store_fixture::{StoreFixture, calls, claimant, state, step};
use assistd::store::Pool;

fn day(text: &str) -> NaiveDate {
    text.parse().expect("the literal is a date")
}

/// All usage by project, day and model.
pub async fn all(pool: &Pool) -> Vec<UsageSum> {
    let query = UsageQuery {
        project: None,
        from: day("2000-01-01"),
        to: day("2999-12-31"),
        by_day: true,
        by_model: true,
    };
    let sums = store::usage::sums(pool, &query).await;
    sums.expect("the database answers")
}

/// The sum of all usage.
pub async fn total(pool: &Pool) -> Amounts {
    let mut total = Amounts::default();
    for UsageSum { amounts, .. } in all(pool).await {
        total.runs += amounts.runs;
        total.model_calls += amounts.model_calls;
        total.prompt_tokens += amounts.prompt_tokens;
        total.completion_tokens += amounts.completion_tokens;
        total.code_calls += amounts.code_calls;
        total.search_calls += amounts.search_calls;
        total.function_calls += amounts.function_calls;
        total.sandbox_ms += amounts.sandbox_ms;
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_by_project_day_and_model() {
    let db = Db::new().await;
    let worker = FakeWorker::start();
    let address = worker.address();
    let keys = "alpha:sk-of-alpha,beta:sk-of-beta";
    let settings = [("ASSISTD_SANDBOX", &*address), ("ASSISTD_API_KEYS", keys)];
    let server = Server::start(&db, &settings).await;
    let alpha = server.client_with_key("sk-of-alpha");
    let beta = server.client_with_key("sk-of-beta");

    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let weather = json!({"model": "scripted/weather", "tools": [function]});
    let weather = alpha.create_assistant_with(weather).await;
    let thread = alpha.create_thread("What is it like outside?").await;
    let run = alpha.create_run(&thread, &weather).await;
    let waiting = alpha
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0];
    let output = json!({"tool_call_id": call["id"], "output": "sunny"});
    let path = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
    alpha.post(&path, json!({"tool_outputs": [output]})).await;
    let weather = alpha.wait_for_status(&thread, &run, &["completed"]).await;

    let tools = json!([{"type": "code_interpreter"}]);
    let coder = json!({"model": "scripted/coder", "tools": tools});
    let coder = alpha.create_assistant_with(coder).await;
    let run = alpha.create_run(&thread, &coder).await;
    let coder = alpha.wait_for_status(&thread, &run, &["completed"]).await;

    let hello = beta.create_assistant("hello").await;
    let thread = beta.create_thread("Hello?").await;
    let mut greeted = Vec::new();
    for _ in 0..2 {
        let run = beta.create_run(&thread, &hello).await;
        greeted.push(beta.wait_for_status(&thread, &run, &["completed"]).await);
    }
    let deleted = beta
        .send(reqwest::Method::DELETE, &format!("/threads/{thread}"), None)
        .await;
    assert_eq!(deleted.expect("the server answers").status, 200);

    let tokens = |runs: &[&serde_json::Value], name: &str| -> i64 {
        let counts = runs.iter().map(|run| run["usage"][name].as_i64());
        counts
            .map(|count| count.expect("an ended run has its usage"))
            .sum()
    };
    let today: NaiveDate = sqlx::query_scalar("select (now() at time zone 'UTC')::date")
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
    let expected = [
        ("alpha", "scripted/coder", vec![&coder], (1, 2, 1, 0)),
        ("alpha", "scripted/weather", vec![&weather], (1, 2, 0, 1)),
        (
            "beta",
            "scripted/hello",
            greeted.iter().collect(),
            (2, 2, 0, 0),
        ),
    ];
    let before = all(&db.pool).await;
    assert_eq!(before.len(), expected.len(), "{before:#?}");
    for (sum, (project, model, runs, counts)) in std::iter::zip(&before, expected) {
        let amounts = sum.amounts;
        assert_eq!(
            (&*sum.project_name, sum.model.as_deref()),
            (project, Some(model))
        );
        assert!(sum.day <= Some(today), "{sum:?}");
        assert_eq!(amounts.prompt_tokens, tokens(&runs, "prompt_tokens"));
        assert_eq!(
            amounts.completion_tokens,
            tokens(&runs, "completion_tokens")
        );
        assert_eq!(
            (
                amounts.runs,
                amounts.model_calls,
                amounts.code_calls,
                amounts.function_calls
            ),
            counts
        );
    }

    verify_summing_up(&db).await;
}

/// Checks that summing up by day changes no total.
async fn verify_summing_up(db: &Db) {
    sqlx::raw_sql(
        "insert into usage_entries (project_id, at, id, model, runs, model_calls, prompt_tokens,
                                    completion_tokens, code_calls, search_calls, function_calls,
                                    sandbox_ms)
         select id, now(), gen_random_uuid(), 'every/kind', 1, 2, 3, 4, 5, 6, 7, 8
         from projects, generate_series(1, 5) where name = 'alpha'",
    )
    .execute(&db.pool)
    .await
    .expect("the database answers");
    sqlx::raw_sql("update usage_entries set at = at - interval '2 hours'")
        .execute(&db.pool)
        .await
        .expect("the database answers");
    let aged = all(&db.pool).await;
    let (one, other) = tokio::join!(
        store::usage::sum_up(&db.pool, 3),
        store::usage::sum_up(&db.pool, 3),
    );
    let mut summed = one.expect("the database answers") + other.expect("the database answers");
    while let left @ 1.. = store::usage::sum_up(&db.pool, 2)
        .await
        .expect("the server answers")
    {
        summed += left;
    }
    assert!(summed > 4, "{summed}");
    assert_eq!(all(&db.pool).await, aged);
    assert_eq!(total(&db.pool).await.runs, 9);
    let left: i64 = sqlx::query_scalar("select count(*) from usage_entries")
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_has_used_what_it_was_told() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    let assistant = client.create_assistant("slow").await;
    let thread = client.create_thread("Hello?").await;
    let mut stream = client.stream_run(&thread, &assistant).await;
    let run = id(&stream.until("thread.run.created").await[0].data);
    stream.until("thread.message.delta").await;
    let path = format!("/threads/{thread}/runs/{run}/cancel");
    client.post(&path, json!({})).await;
    let ended = client.wait_for_status(&thread, &run, &["cancelled"]).await;
    let total = total(&db.pool).await;
    assert_eq!((total.runs, total.model_calls), (1, 1));
    assert_eq!(ended["usage"]["prompt_tokens"], total.prompt_tokens);
    assert_eq!(ended["usage"]["completion_tokens"], total.completion_tokens);
    assert!(
        total.prompt_tokens > 0 && total.completion_tokens > 0,
        "{total:?}"
    );
}

#[tokio::test]
async fn what_is_written_again_counts_once_and_what_is_refused_not_at_all() {
    let fixture = StoreFixture::new().await;
    let worker = claimant("worker");
    let (run, lease) = fixture.create_leased_run(&worker).await;
    let step = step(&run, calls());
    let completed = state(&run, RunStatus::Completed);
    let entry = |runs| UsageEntry {
        id: ids::hex32(),
        at: run.created_at,
        model: "scripted/hello".to_owned(),
        amounts: Amounts {
            runs,
            prompt_tokens: 3,
            ..Amounts::default()
        },
    };
    let changes = Changes {
        steps: vec![&step],
        used: Some(entry(0)),
        ..Changes::default()
    };
    // A worker repeats a commit whose reply it did not receive.
    for _ in 0..2 {
        let done = store::run_queue::commit(fixture.pool(), &worker, &lease, &changes).await;
        done.expect("the lease is held");
    }
    assert_eq!(total(fixture.pool()).await.prompt_tokens, 3);
    let ending = Changes {
        state: Some(&completed),
        used: Some(entry(1)),
        ..Changes::default()
    };
    fixture.make_due(&run.id).await;
    let claimed = fixture.claim(&claimant("other")).await;
    let refused = store::run_queue::commit(fixture.pool(), &worker, &lease, &ending).await;
    assert!(refused.is_err(), "the lease is lost");
    let held = &claimed[0].lease;
    let done = store::run_queue::commit(fixture.pool(), &worker, held, &ending).await;
    done.expect("the lease is held");
    let total = total(fixture.pool()).await;
    assert_eq!((total.runs, total.prompt_tokens), (1, 6));
    // Maintenance keeps recent entries.
    let summed = store::usage::sum_up(fixture.pool(), 100).await;
    assert_eq!(summed.expect("the database answers"), 0);
}
