//! The SQL allows exactly the transitions of `RunStatus::allowed_from`, for every pair of statuses.

use assistd::domain::run::{Run, RunOutcome, RunStatus};
use assistd::store::lease::Lease;
use assistd::store::run_queue::Changes;
use assistd::store::runs::SubmitError;
use assistd::store::{self, StoreError};

use crate::store_fixture::{CALL, StoreFixture, call, calls, claimant, state, step};

#[tokio::test]
async fn every_transition_obeys_the_table() {
    let fixture = StoreFixture::new().await;
    for from in RunStatus::ALL {
        for to in RunStatus::ALL {
            let (run, lease) = fixture.create_run_in(from).await;
            let allowed = to.allowed_from().contains(&from);
            assert_eq!(
                fixture.try_to(&run, &lease, to).await,
                allowed,
                "{from:?} -> {to:?}"
            );
            let now = fixture.run_row(&run.id).await.0;
            assert_eq!(now, if allowed { to } else { from }, "{from:?} -> {to:?}");
            sqlx::query("delete from runs")
                .execute(fixture.pool())
                .await
                .expect("the database answers");
        }
    }
}

impl StoreFixture {
    /// Creates a due run in this status with a pending function call; the lease of its last worker.
    async fn create_run_in(&self, status: RunStatus) -> (Run, Lease) {
        let worker = claimant("worker");
        let (run, lease) = self.create_leased_run(&worker).await;
        let waiting = step(&run, calls());
        let changes = Changes {
            steps: vec![&waiting],
            ..Changes::default()
        };
        let stored = store::run_queue::commit(self.pool(), &worker, &lease, &changes).await;
        stored.expect("a worker can write");
        let outcome = RunOutcome {
            required_calls: vec![call()],
            ..RunOutcome::default()
        };
        sqlx::query(
            "update runs set status = $2, outcome = $3,
                 ended_at = case when $4 then now() end,
                 due_at = case when not $4 then now() end,
                 lease_owner = case when $2 in ('in_progress', 'cancelling') then lease_owner end
             where id = $1",
        )
        .bind(&run.id)
        .bind(status.as_str())
        .bind(sqlx::types::Json(outcome))
        .bind(status.is_terminal())
        .execute(self.pool())
        .await
        .expect("the schema allows every status");
        (run, lease)
    }

    /// Attempts the transition with the function that performs it; whether it succeeded.
    async fn try_to(&self, run: &Run, lease: &Lease, to: RunStatus) -> bool {
        let pool = self.pool();
        match to {
            RunStatus::Queued => {
                let outputs = [(CALL.to_owned(), "sunny".to_owned())];
                let (project, thread) = (&self.project, &run.thread);
                match store::runs::submit(pool, project, thread, &run.id, &outputs, None).await {
                    Ok(submitted) => submitted.is_some(),
                    Err(SubmitError::WrongStatus(_)) => false,
                    Err(error) => panic!("{error}"),
                }
            }
            RunStatus::InProgress => {
                let claimed = self.claim(&claimant("other")).await;
                claimed.iter().any(|claimed| claimed.run.state.status == to)
            }
            RunStatus::Cancelling => {
                let cancelled_run =
                    store::runs::cancel(pool, &self.project, &run.thread, &run.id).await;
                cancelled_run.expect("the database answers").is_some()
            }
            RunStatus::RequiresAction
            | RunStatus::Cancelled
            | RunStatus::Failed
            | RunStatus::Completed
            | RunStatus::Incomplete
            | RunStatus::Expired => {
                let state = state(run, to);
                let changes = Changes {
                    state: Some(&state),
                    ..Changes::default()
                };
                match store::run_queue::commit(pool, &claimant("worker"), lease, &changes).await {
                    Ok(()) => true,
                    Err(StoreError::LeaseLost) => false,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}
