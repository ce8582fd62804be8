//! The queue's promises, at the functions that keep them: who may take a run, and who may write it.

use std::collections::HashSet;

use assistd::domain::ids::RunId;
use assistd::domain::run::RunStatus;
use assistd::store::runs::{Changes, Claimed, Origin};
use assistd::store::{self, StoreError};

use crate::stage::{Stage, calls, claimant, message, segment, state, step};

#[tokio::test(flavor = "multi_thread")]
async fn eight_claimers_take_every_run_exactly_once() {
    const RUNS: usize = 200;
    let stage = Stage::new().await;
    for _ in 0..RUNS {
        stage.run(None).await;
    }
    let claimers = (0..8).map(|n| {
        let pool = stage.pool().clone();
        tokio::spawn(async move {
            let claimant = claimant(&format!("claimer {n}"));
            let mut taken = Vec::new();
            loop {
                let claimed = store::runs::claim(&pool, &claimant, 3, false).await;
                let claimed = claimed.expect("the queue can be read");
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
    let stage = Stage::new().await;
    let (run, _) = stage.leased(&claimant("first")).await;
    assert!(
        stage.claim(&claimant("second")).await.is_empty(),
        "too early"
    );
    stage.make_due(&run.id).await;
    let claimed = stage.claim(&claimant("second")).await;
    let [Claimed { lease, origin, .. }] = claimed.as_slice() else {
        panic!("not taken over: {claimed:?}");
    };
    assert_eq!((lease.attempt(), *origin), (2, Origin::Recovered(1)));
    assert!(
        stage.claim(&claimant("third")).await.is_empty(),
        "taken twice"
    );
}

#[tokio::test]
async fn a_renewed_lease_lasts() {
    let stage = Stage::new().await;
    let first = claimant("first");
    let (run, lease) = stage.leased(&first).await;
    stage.make_due(&run.id).await;
    let held = store::runs::renew(stage.pool(), &first, std::slice::from_ref(&lease)).await;
    assert_eq!(held.expect("leases can be renewed"), [run.id]);
    assert!(stage.claim(&claimant("second")).await.is_empty());
}

#[tokio::test]
async fn a_run_that_is_given_back_is_there_for_others_at_once() {
    let stage = Stage::new().await;
    let (_, lease) = stage.leased(&claimant("first")).await;
    let released = store::runs::release(stage.pool(), &[lease]).await;
    released.expect("it can be given back");
    let claimed = stage.claim(&claimant("second")).await;
    let [Claimed { lease, origin, .. }] = claimed.as_slice() else {
        panic!("not there: {claimed:?}");
    };
    assert_eq!((lease.attempt(), *origin), (2, Origin::Recovered(0)));
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_cannot_write() {
    let stage = Stage::new().await;
    let pool = stage.pool();
    let (loser, winner) = (claimant("loser"), claimant("winner"));
    let (run, lost) = stage.leased(&loser).await;
    stage.make_due(&run.id).await;
    let claimed = stage.claim(&winner).await;
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
        let refused = store::runs::commit(pool, &loser, &lost, &changes).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    }
    let events = [(lost.clone(), segment(&run, &lost))];
    let appended = store::run_events::append(pool, &events).await;
    appended.expect("events of others may be in the batch");
    let renewed = store::runs::renew(pool, &loser, std::slice::from_ref(&lost)).await;
    assert!(renewed.expect("leases can be renewed").is_empty());
    let released = store::runs::release(pool, std::slice::from_ref(&lost)).await;
    released.expect("others may be in the batch");

    for count in [
        "select count(*) from run_steps",
        "select count(*) from messages",
        "select count(*) from run_events",
    ] {
        assert_eq!(stage.rows(count).await, 0, "{count}");
    }
    let row = (RunStatus::InProgress, 2, Some("winner".to_owned()));
    assert_eq!(stage.row(&run.id).await, row);

    let changes = Changes {
        steps: vec![&step],
        messages: vec![&message],
        state: Some(&completed),
        events: Some(segment(&run, held)),
        used: None,
    };
    let done = store::runs::commit(pool, &winner, held, &changes).await;
    done.expect("whoever holds the lease writes");
    assert_eq!(stage.row(&run.id).await.0, RunStatus::Completed);
}

#[tokio::test]
async fn without_a_free_slot_only_runs_that_must_end_are_taken() {
    let stage = Stage::new().await;
    let (waiting, _) = stage.run(None).await;
    let (cancelled, _) = stage.run(None).await;
    let asked = store::runs::cancel(
        stage.pool(),
        &stage.project,
        &cancelled.thread,
        &cancelled.id,
    )
    .await;
    asked.expect("it can be cancelled");
    let claimed = store::runs::claim(stage.pool(), &claimant("full"), 100, true).await;
    let claimed = claimed.expect("the queue can be read");
    let ids: Vec<&RunId> = claimed.iter().map(|claimed| &claimed.run.id).collect();
    assert_eq!(ids, [&cancelled.id]);
    assert_eq!(stage.row(&waiting.id).await.0, RunStatus::Queued);
}
