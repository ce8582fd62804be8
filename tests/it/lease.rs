//! The run queue in the store: who may claim a run, and who may write it.

use std::collections::HashSet;
use std::time::Duration;

use assistd::domain::ids::RunId;
use assistd::domain::run::RunStatus;
use assistd::store::lease::Claimant;
use assistd::store::run_queue::{self, Backoff};
use assistd::store::run_queue::{Changes, Claimed, Origin};
use assistd::store::{self, StoreError};

use crate::store_fixture::{StoreFixture, calls, claimant, message, segment, state, step};

#[tokio::test(flavor = "multi_thread")]
async fn eight_claimers_take_every_run_exactly_once() {
    const RUNS: usize = 200;
    let fixture = StoreFixture::new().await;
    for _ in 0..RUNS {
        fixture.create_run(None).await;
    }
    let claimers = (0..8).map(|n| {
        let pool = fixture.pool().clone();
        tokio::spawn(async move {
            let claimant = claimant(&format!("claimer {n}"));
            let mut taken = Vec::new();
            loop {
                let claimed = store::run_queue::claim(&pool, &claimant, 3, false).await;
                let claimed = claimed.expect("the database answers");
                if claimed.is_empty() {
                    return taken;
                }
                taken.extend(claimed);
            }
        })
    });
    let taken = futures::future::try_join_all(claimers).await;
    let taken: Vec<Claimed> = taken
        .expect("no claimer panics")
        .into_iter()
        .flatten()
        .collect();
    let distinct: HashSet<&RunId> = taken.iter().map(|claimed| &claimed.run.id).collect();
    assert_eq!((taken.len(), distinct.len()), (RUNS, RUNS));
    for claimed in &taken {
        assert_eq!(
            (claimed.lease.attempt(), claimed.origin),
            (1, Origin::Created)
        );
        assert_eq!(claimed.run.state.status, RunStatus::InProgress);
    }
}

#[tokio::test]
async fn a_run_is_taken_over_when_its_lease_has_run_out_and_not_before() {
    let fixture = StoreFixture::new().await;
    let (run, _) = fixture.create_leased_run(&claimant("first")).await;
    assert!(
        fixture.claim(&claimant("second")).await.is_empty(),
        "too early"
    );
    fixture.make_due(&run.id).await;
    let claimed = fixture.claim(&claimant("second")).await;
    let [Claimed { lease, origin, .. }] = claimed.as_slice() else {
        panic!("not taken over: {claimed:?}");
    };
    assert_eq!((lease.attempt(), *origin), (2, Origin::Recovered(1)));
    assert!(
        fixture.claim(&claimant("third")).await.is_empty(),
        "taken twice"
    );
}

#[tokio::test]
async fn a_renewed_lease_lasts() {
    let fixture = StoreFixture::new().await;
    let first = claimant("first");
    let (run, lease) = fixture.create_leased_run(&first).await;
    fixture.make_due(&run.id).await;
    let held = store::run_queue::renew(fixture.pool(), &first, std::slice::from_ref(&lease)).await;
    assert_eq!(held.expect("the database answers"), [run.id]);
    assert!(fixture.claim(&claimant("second")).await.is_empty());
}

#[tokio::test]
async fn a_run_that_is_given_back_is_there_for_others_at_once() {
    let fixture = StoreFixture::new().await;
    let (_, lease) = fixture.create_leased_run(&claimant("first")).await;
    let released = store::run_queue::release(fixture.pool(), &[lease]).await;
    released.expect("the database answers");
    let claimed = fixture.claim(&claimant("second")).await;
    let [Claimed { lease, origin, .. }] = claimed.as_slice() else {
        panic!("not there: {claimed:?}");
    };
    assert_eq!((lease.attempt(), *origin), (2, Origin::Recovered(0)));
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_cannot_write() {
    let fixture = StoreFixture::new().await;
    let pool = fixture.pool();
    let (loser, winner) = (claimant("loser"), claimant("winner"));
    let (run, lost) = fixture.create_leased_run(&loser).await;
    fixture.make_due(&run.id).await;
    let claimed = fixture.claim(&winner).await;
    let held = &claimed[0].lease;

    let (step, message) = (step(&run, calls()), message(&run));
    let completed = state(&run, RunStatus::Completed);
    for ending in [None, Some(&completed)] {
        let changes = Changes {
            steps: vec![&step],
            messages: vec![&message],
            state: ending,
            events: Some(segment(&run, &lost)),
            used: None,
        };
        let refused = store::run_queue::commit(pool, &loser, &lost, &changes).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    }
    let events = [(lost.clone(), segment(&run, &lost))];
    let appended = store::run_events::append(pool, &events).await;
    appended.expect("lost leases are skipped");
    let renewed = store::run_queue::renew(pool, &loser, std::slice::from_ref(&lost)).await;
    assert!(renewed.expect("the database answers").is_empty());
    let released = store::run_queue::release(pool, std::slice::from_ref(&lost)).await;
    released.expect("lost leases are skipped");

    for count in [
        "select count(*) from run_steps",
        "select count(*) from messages",
        "select count(*) from run_events",
    ] {
        assert_eq!(fixture.count(count).await, 0, "{count}");
    }
    let row = (RunStatus::InProgress, 2, Some("winner".to_owned()));
    assert_eq!(fixture.run_row(&run.id).await, row);

    let changes = Changes {
        steps: vec![&step],
        messages: vec![&message],
        state: Some(&completed),
        events: Some(segment(&run, held)),
        used: None,
    };
    let done = store::run_queue::commit(pool, &winner, held, &changes).await;
    done.expect("the lease is held");
    assert_eq!(fixture.run_row(&run.id).await.0, RunStatus::Completed);
}

#[tokio::test]
async fn without_a_free_slot_only_runs_that_must_end_are_taken() {
    let fixture = StoreFixture::new().await;
    let (waiting, _) = fixture.create_run(None).await;
    let (cancelled, _) = fixture.create_run(None).await;
    let cancelled_run = store::runs::cancel(
        fixture.pool(),
        &fixture.project,
        &cancelled.thread,
        &cancelled.id,
    )
    .await;
    cancelled_run.expect("the database answers");
    let claimed = store::run_queue::claim(fixture.pool(), &claimant("full"), 100, true).await;
    let claimed = claimed.expect("the database answers");
    let ids: Vec<&RunId> = claimed.iter().map(|claimed| &claimed.run.id).collect();
    assert_eq!(ids, [&cancelled.id]);
    assert_eq!(fixture.run_row(&waiting.id).await.0, RunStatus::Queued);
}

#[tokio::test]
async fn an_outage_of_the_database_costs_a_run_no_recovery() {
    let fixture = StoreFixture::new().await;
    let (run, lease) = fixture.create_leased_run(&claimant("first")).await;
    let suspended = run_queue::suspend(fixture.pool(), &lease, Duration::from_hours(1)).await;
    suspended.expect("the lease is held");
    let second = claimant("second");
    assert!(fixture.claim(&second).await.is_empty(), "it pauses");
    fixture.make_due(&run.id).await;
    let claimed = fixture.claim(&second).await;
    assert_eq!(claimed[0].origin, Origin::Recovered(0));
}

#[tokio::test]
async fn a_run_that_could_not_be_ended_has_no_recoveries_left_and_waits_longer_each_time() {
    const HOUR: Duration = Duration::from_hours(1);
    let fixture = StoreFixture::new().await;
    let worker = claimant("worker");
    let (run, mut lease) = fixture.create_leased_run(&worker).await;
    let backoff = Backoff {
        first: HOUR,
        max: HOUR * 5,
    };
    for (hours, recoveries) in [(1, 6), (2, 7), (4, 8), (5, 9), (5, 10)] {
        let exhausted = run_queue::exhaust(fixture.pool(), &lease, 5, backoff).await;
        exhausted.expect("the lease is held");
        let due = fixture
            .count("select round(extract(epoch from due_at - now()) / 3600)::bigint from runs");
        assert_eq!(due.await, hours);
        fixture.make_due(&run.id).await;
        let claimed = fixture.claim(&worker).await;
        assert_eq!(claimed[0].origin, Origin::Recovered(recoveries));
        lease = claimed[0].lease.clone();
    }
    // A lost lease changes nothing.
    fixture.make_due(&run.id).await;
    fixture.claim(&worker).await;
    let late = run_queue::exhaust(fixture.pool(), &lease, 5, backoff).await;
    late.expect("the database answers");
    let owner = (RunStatus::InProgress, 7, Some("worker".to_owned()));
    assert_eq!(fixture.run_row(&run.id).await, owner);
}

#[tokio::test]
async fn a_worker_that_is_lost_while_it_ends_a_run_counts_as_well() {
    let fixture = StoreFixture::new().await;
    let (worker, other) = (claimant("worker"), claimant("other"));
    let (cancelled, _) = fixture.create_leased_run(&worker).await;
    let thread = &cancelled.thread;
    let cancelled_run =
        store::runs::cancel(fixture.pool(), &fixture.project, thread, &cancelled.id).await;
    cancelled_run.expect("the database answers");
    let (expired, _) = fixture.create_run(None).await;
    sqlx::query("update runs set expires_at = now() where id = $1")
        .bind(&expired.id)
        .execute(fixture.pool())
        .await
        .expect("the run exists");
    let taken = fixture.claim(&worker).await;
    assert_eq!(taken[0].origin, Origin::Created, "it was never claimed");
    for lost in 1..4 {
        fixture.make_due(&cancelled.id).await;
        fixture.make_due(&expired.id).await;
        let claimed = fixture.claim(&other).await;
        let origins: Vec<Origin> = claimed.iter().map(|claimed| claimed.origin).collect();
        assert_eq!(origins, [Origin::Recovered(lost); 2]);
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_read_keeps_no_other_from_being_taken() {
    let fixture = StoreFixture::new().await;
    let (unreadable, _) = fixture.create_run(None).await;
    let (run, _) = fixture.create_run(None).await;
    sqlx::query("update runs set config = '{}' where id = $1")
        .bind(&unreadable.id)
        .execute(fixture.pool())
        .await
        .expect("the run exists");
    let claimed = fixture.claim(&claimant("worker")).await;
    let ids: Vec<&RunId> = claimed.iter().map(|claimed| &claimed.run.id).collect();
    assert_eq!(ids, [&run.id]);
}

#[tokio::test]
async fn a_run_whose_workers_vanish_is_tried_again_later_each_time() {
    let fixture = StoreFixture::new().await;
    let hour = Duration::from_hours(1);
    let worker = Claimant {
        lease: hour,
        ..claimant("worker")
    };
    let (run, mut lease) = fixture.create_leased_run(&worker).await;
    let mut pauses = Vec::new();
    for recoveries in 1..15 {
        let released = run_queue::release_orphans(fixture.pool(), &worker, &[lease]).await;
        assert_eq!(released.expect("the database answers"), 1);
        let pause = "select extract(epoch from greatest(due_at - now(), '0'))::bigint from runs";
        pauses.push(fixture.count(pause).await);
        fixture.make_due(&run.id).await;
        let claimed = fixture.claim(&worker).await;
        assert_eq!(claimed[0].origin, Origin::Recovered(recoveries));
        lease = claimed[0].lease.clone();
    }
    assert_eq!(pauses[0], 0, "most are never executed");
    assert!(pauses.is_sorted() && pauses[9] > 250, "{pauses:?}");
    assert!(pauses[13] <= 1800, "{pauses:?}");
}
