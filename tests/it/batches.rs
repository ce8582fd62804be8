//! Statements of concurrent callers are combined without any of them noticing.

use std::time::Duration;

use assistd::domain::run::RunStatus;
use assistd::store::run_queue::{Changes, Claimed};
use assistd::store::runs::CreateRunError;
use assistd::store::threads::NewThreadRow;
use assistd::store::{self, StoreError, Transaction};
use futures::future::join_all;

use crate::store_fixture::{StoreFixture, calls, claimant, message, state, step};

/// Locks a table, so that statements on it wait until the transaction ends.
async fn lock(fixture: &StoreFixture, statement: &'static str) -> Transaction {
    let mut transaction = fixture.pool().begin().await.expect("a session is free");
    let locked = sqlx::query(statement).execute(&mut *transaction).await;
    locked.expect("nobody holds the lock");
    transaction
}

/// Ends the transaction as soon as a statement waits for its lock. By then, all callers have asked:
/// the second statement combines all but the first.
async fn unlock_when_waited_for(fixture: &StoreFixture, transaction: Transaction) {
    let waiting = "select count(*) from pg_stat_activity
                   where wait_event_type = 'Lock' and datname = current_database()";
    while fixture.count(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    transaction.commit().await.expect("the database answers");
}

#[tokio::test]
async fn a_refused_row_fails_its_own_caller_only() {
    let fixture = StoreFixture::new().await;
    let locked = lock(&fixture, "lock table threads in share mode").await;
    let insert = |n: usize| {
        let value = if n == 5 {
            "\0".to_owned()
        } else {
            n.to_string()
        };
        let row = NewThreadRow {
            project: fixture.project.clone(),
            metadata: [("n".to_owned(), value)].into_iter().collect(),
            tool_resources: Default::default(),
        };
        store::threads::insert(fixture.pool(), row)
    };
    let (inserted, ()) = tokio::join!(
        join_all((0..8).map(insert)),
        unlock_when_waited_for(&fixture, locked)
    );
    for (n, thread) in inserted.into_iter().enumerate() {
        match (n, thread) {
            (5, Err(StoreError::Database(error))) => {
                let code = error.as_database_error().and_then(|error| error.code());
                assert_eq!(code.as_deref(), Some("22P05"));
            }
            (_, Ok(thread)) => {
                assert_eq!(thread.metadata.get("n"), Some(&n.to_string()));
            }
            (n, other) => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(fixture.count("select count(*) from threads").await, 7);
}

#[tokio::test]
async fn combined_reads_return_to_each_caller_only_what_it_may_see() {
    let fixture = StoreFixture::new().await;
    let pool = fixture.pool();
    let (first, _) = fixture.create_run(None).await;
    let (second, _) = fixture.create_run(None).await;
    let stranger = store::projects::find_or_create(pool, "stranger").await;
    let stranger = stranger.expect("the database answers");
    let locked = lock(&fixture, "lock table runs in access exclusive mode").await;
    let asked = [
        (&first.project, &first),
        (&first.project, &second),
        (&stranger, &second),
        (&first.project, &first),
        (&first.project, &second),
        (&stranger, &first),
        (&first.project, &first),
    ];
    let find = |(project, run)| {
        let run: &assistd::domain::run::Run = run;
        store::runs::find(pool, project, &run.thread, &run.id)
    };
    let (found, ()) = tokio::join!(
        join_all(asked.map(find)),
        unlock_when_waited_for(&fixture, locked)
    );
    for ((project, run), found) in asked.into_iter().zip(found) {
        let found = found.expect("the database answers").map(|found| found.id);
        assert_eq!(found.as_ref(), (*project == run.project).then_some(&run.id));
    }
}

#[tokio::test]
async fn of_combined_runs_on_one_thread_one_is_created() {
    let fixture = StoreFixture::new().await;
    let pool = fixture.pool();
    let idle = fixture.new_run(None).await;
    let other = fixture.new_run(None).await;
    let busy = fixture.new_run(None).await;
    let locked = lock(&fixture, "lock table runs in share mode").await;
    let new: Vec<_> = [&idle, &other, &busy, &busy, &idle, &busy]
        .into_iter()
        .map(|new| store::runs::NewRun {
            id: assistd::domain::ids::RunId::generate(),
            ..new.clone()
        })
        .collect();
    let (created, ()) = tokio::join!(
        join_all(new.iter().map(|new| store::runs::insert(pool, new))),
        unlock_when_waited_for(&fixture, locked)
    );
    for thread in [&idle.thread, &other.thread, &busy.thread] {
        let outcomes = new
            .iter()
            .zip(&created)
            .filter(|(new, _)| new.thread == *thread);
        let (done, refused): (Vec<_>, Vec<_>) = outcomes.partition(|(_, created)| created.is_ok());
        assert_eq!(done.len(), 1);
        for (_, refused) in refused {
            assert!(
                matches!(refused, Err(CreateRunError::ThreadBusy)),
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_lost_lease_among_combined_commits_writes_nothing() {
    let fixture = StoreFixture::new().await;
    let pool = fixture.pool();
    let worker = claimant("worker");
    let (run, lost) = fixture.create_leased_run(&worker).await;
    fixture.make_due(&run.id).await;
    let claimed = fixture.claim(&worker).await;
    let [Claimed { lease: held, .. }] = claimed.as_slice() else {
        panic!("not there: {claimed:?}");
    };
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(fixture.create_leased_run(&worker).await);
    }
    let mut workers: Vec<_> = others.iter().map(|(run, lease)| (run, lease)).collect();
    workers.push((&run, &lost));
    workers.push((&run, held));
    let objects: Vec<_> = workers
        .iter()
        .map(|(run, _)| {
            (
                step(run, calls()),
                message(run),
                state(run, RunStatus::Completed),
            )
        })
        .collect();
    let changes: Vec<_> = objects
        .iter()
        .map(|(step, message, state)| Changes {
            steps: vec![step],
            messages: vec![message],
            state: Some(state),
            ..Changes::default()
        })
        .collect();
    let locked = lock(&fixture, "lock table runs in share mode").await;
    let commits = workers
        .iter()
        .zip(&changes)
        .map(|((_, lease), changes)| store::run_queue::commit(pool, &worker, lease, changes));
    let (committed, ()) = tokio::join!(join_all(commits), unlock_when_waited_for(&fixture, locked));
    for ((_, lease), committed) in workers.iter().zip(committed) {
        match **lease == lost {
            true => assert!(
                matches!(committed, Err(StoreError::LeaseLost)),
                "{committed:?}"
            ),
            false => committed.expect("the lease is held"),
        }
    }
    let lost_step = &objects[4].0.id;
    let lost_steps = sqlx::query_scalar::<_, i64>("select count(*) from run_steps where id = $1")
        .bind(lost_step)
        .fetch_one(pool)
        .await;
    assert_eq!(lost_steps.expect("the database answers"), 0);
    assert_eq!(fixture.count("select count(*) from run_steps").await, 5);
    assert_eq!(fixture.count("select count(*) from messages").await, 5);
}
