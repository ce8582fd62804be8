use std::collections::HashMap;
use std::time::Instant;

use super::*;

/// A row of the table in memory. `due` is none when the job is completed.
struct Row {
    due: Option<Instant>,
    attempt: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Complete,
    Panic,
    CompleteAfter(Duration),
    Hang,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Job {
    id: i32,
    attempt: i32,
}

#[derive(Default)]
struct Table {
    rows: HashMap<i32, Row>,
    behaviours: HashMap<i32, Behaviour>,
    executed: Vec<Job>,
    running: usize,
    most_running: usize,
    renewed: Vec<Vec<Job>>,
    refuses_renewal: bool,
    claims: Vec<Instant>,
    refused_claims: usize,
}

#[derive(Clone)]
struct MemoryQueue {
    table: Arc<Mutex<Table>>,
    lease: Duration,
}

impl LeasedQueue for MemoryQueue {
    type Job = Job;
    type Outcome = ();

    const JOBS: &'static str = "test jobs";

    async fn claim(&self, limit: usize, _in_flight: &[Arc<Job>]) -> Result<Vec<Job>, StoreError> {
        let mut table = self.table.lock();
        let now = Instant::now();
        table.claims.push(now);
        if table.refused_claims > 0 {
            table.refused_claims -= 1;
            return Err(StoreError::LeaseLost);
        }
        let due = table
            .rows
            .iter_mut()
            .filter(|(_, row)| row.due.is_some_and(|due| due <= now));
        let claimed = due.take(limit).map(|(id, row)| {
            row.attempt += 1;
            row.due = Some(now + self.lease);
            Job {
                id: *id,
                attempt: row.attempt,
            }
        });
        Ok(claimed.collect())
    }

    async fn renew(&self, in_flight: &[Arc<Job>]) -> Result<(), StoreError> {
        let mut table = self.table.lock();
        table
            .renewed
            .push(in_flight.iter().map(|job| **job).collect());
        if table.refuses_renewal {
            return Err(StoreError::LeaseLost);
        }
        for job in in_flight {
            if let Some(row) = table.row_under_lease(job) {
                row.due = Some(Instant::now() + self.lease);
            }
        }
        Ok(())
    }

    async fn release(&self, job: &Job) -> Result<(), StoreError> {
        if let Some(row) = self.table.lock().row_under_lease(job) {
            row.due = Some(Instant::now());
        }
        Ok(())
    }

    fn span(&self, job: &Job) -> Span {
        tracing::info_span!("job", job.id = job.id)
    }

    async fn execute(&self, job: &Job) {
        let behaviour = {
            let mut table = self.table.lock();
            table.executed.push(*job);
            table.running += 1;
            table.most_running = table.most_running.max(table.running);
            let behaviour = table.behaviours.get(&job.id).copied();
            behaviour.unwrap_or(Behaviour::Complete)
        };
        match behaviour {
            Behaviour::Complete => tokio::task::yield_now().await,
            Behaviour::Panic => panic!("job {} panics", job.id),
            Behaviour::CompleteAfter(duration) => tokio::time::sleep(duration).await,
            Behaviour::Hang => std::future::pending().await,
        }
        self.table.lock().running -= 1;
    }

    async fn record(&self, job: &Job, (): ()) {
        if let Some(row) = self.table.lock().row_under_lease(job) {
            row.due = None;
        }
    }
}

impl Table {
    fn row_under_lease(&mut self, job: &Job) -> Option<&mut Row> {
        let row = self.rows.get_mut(&job.id)?;
        (row.attempt == job.attempt && row.due.is_some()).then_some(row)
    }

    fn attempts(&self, id: i32) -> usize {
        self.executed.iter().filter(|job| job.id == id).count()
    }
}

struct Fixture {
    queue: MemoryQueue,
    wake: Arc<Notify>,
    consumer: Consumer,
}

fn fixture(behaviours: &[(i32, Behaviour)], settings: Settings) -> Fixture {
    let mut table = Table::default();
    for (id, behaviour) in behaviours {
        let due = Some(Instant::now());
        table.rows.insert(*id, Row { due, attempt: 0 });
        table.behaviours.insert(*id, *behaviour);
    }
    start_on(table, settings)
}

fn start_on(table: Table, settings: Settings) -> Fixture {
    let queue = MemoryQueue {
        table: Arc::new(Mutex::new(table)),
        lease: settings.lease,
    };
    let wake = Arc::new(Notify::new());
    let consumer = Consumer::start(queue.clone(), settings, wake.clone());
    Fixture {
        queue,
        wake,
        consumer,
    }
}

impl Fixture {
    /// Waits until the table is in this state, with wake-ups in place of the poll interval.
    async fn wait_until(&self, what: &str, is_reached: impl Fn(&Table) -> bool) {
        for _ in 0..1_000 {
            if is_reached(&self.queue.table.lock()) {
                return;
            }
            self.wake.notify_one();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not reached within five seconds: {what}");
    }

    fn is_completed(table: &Table) -> bool {
        table.rows.values().all(|row| row.due.is_none())
    }
}

const SETTINGS: Settings = Settings {
    capacity: 3,
    batch: 2,
    lease: Duration::from_secs(60),
    grace: Duration::ZERO,
};

const SHORT_LEASE: Settings = Settings {
    lease: Duration::from_millis(600),
    ..SETTINGS
};

#[tokio::test]
async fn every_due_job_is_executed_once_and_no_more_at_a_time_than_the_capacity() {
    let briefly = Behaviour::CompleteAfter(Duration::from_millis(5));
    let jobs: Vec<_> = (0..20).map(|id| (id, briefly)).collect();
    let fixture = fixture(&jobs, SETTINGS);
    fixture
        .wait_until("all are completed", Fixture::is_completed)
        .await;
    {
        let table = fixture.queue.table.lock();
        assert_eq!(table.executed.len(), 20);
        assert_eq!(table.most_running, SETTINGS.capacity);
    }
    fixture.consumer.drain().await;
}

#[tokio::test]
async fn a_panic_frees_its_slot_and_its_job_is_claimed_again_when_the_lease_has_expired() {
    let jobs = [(1, Behaviour::Panic), (2, Behaviour::Complete)];
    let settings = Settings {
        capacity: 1,
        ..SHORT_LEASE
    };
    let fixture = fixture(&jobs, settings);
    let is_retried = |table: &Table| table.attempts(1) >= 3 && table.attempts(2) == 1;
    fixture
        .wait_until("the job is tried again", is_retried)
        .await;
    let attempts: Vec<i32> = {
        let table = fixture.queue.table.lock();
        let of_first = table.executed.iter().filter(|job| job.id == 1);
        of_first.map(|job| job.attempt).take(3).collect()
    };
    assert_eq!(attempts, [1, 2, 3]);
    fixture.consumer.drain().await;
}

#[tokio::test]
async fn heartbeats_keep_the_lease_of_a_long_job() {
    let long = Behaviour::CompleteAfter(SHORT_LEASE.lease * 4);
    let fixture = fixture(&[(1, long)], SHORT_LEASE);
    fixture
        .wait_until("it is completed", Fixture::is_completed)
        .await;
    assert_eq!(fixture.queue.table.lock().attempts(1), 1);
    fixture.consumer.drain().await;
}

#[tokio::test]
async fn an_attempt_that_lost_its_lease_neither_records_its_result_nor_ends_the_next_attempt() {
    let long = Behaviour::CompleteAfter(SHORT_LEASE.lease * 2);
    let fixture = fixture(&[(1, long)], SHORT_LEASE);
    fixture.queue.table.lock().refuses_renewal = true;
    fixture
        .wait_until("a second attempt", |table| table.attempts(1) == 2)
        .await;
    fixture.queue.table.lock().refuses_renewal = false;
    // The first attempt has ended, and only the second one sends heartbeats.
    let second = Job { id: 1, attempt: 2 };
    let is_alone = |table: &Table| table.renewed.last().is_some_and(|jobs| *jobs == [second]);
    fixture
        .wait_until("the first attempt has ended", is_alone)
        .await;
    assert!(!Fixture::is_completed(&fixture.queue.table.lock()));
    fixture
        .wait_until("it is completed", Fixture::is_completed)
        .await;
    assert_eq!(fixture.queue.table.lock().attempts(1), 2);
    fixture.consumer.drain().await;
}

#[tokio::test]
async fn a_drain_lets_jobs_end_within_the_grace_period_and_releases_the_rest() {
    let briefly = Behaviour::CompleteAfter(Duration::from_millis(100));
    let settings = Settings {
        grace: Duration::from_millis(500),
        ..SETTINGS
    };
    let fixture = fixture(&[(1, briefly), (2, Behaviour::Hang)], settings);
    fixture
        .wait_until("both are started", |table| table.executed.len() == 2)
        .await;
    fixture.consumer.drain().await;
    let table = fixture.queue.table.lock();
    assert_eq!(table.rows[&1].due, None);
    assert!(table.rows[&2].due.is_some_and(|due| due <= Instant::now()));
}

#[tokio::test]
async fn a_refused_claim_is_repeated_after_a_pause_that_no_wake_up_shortens() {
    let mut table = Table {
        refused_claims: 1,
        ..Table::default()
    };
    let due = Some(Instant::now());
    table.rows.insert(1, Row { due, attempt: 0 });
    let fixture = start_on(table, SETTINGS);
    fixture
        .wait_until("it is completed", Fixture::is_completed)
        .await;
    {
        let table = fixture.queue.table.lock();
        assert!(table.claims[1] - table.claims[0] >= POLL_INTERVAL);
    }
    fixture.consumer.drain().await;
}
