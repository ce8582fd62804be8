//! One loop for every table whose due rows are jobs: claim, heartbeat, execution, result, drain.
//!
//! A job is claimed for a bounded time, its lease. Whatever ends without a recorded result (a
//! panic, a crash, a database that is away) is claimed again when the lease has expired, so every
//! job must be safe to repeat.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use crate::store::StoreError;

const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Heartbeats per lease, so that a few may fail before it expires.
const HEARTBEATS_PER_LEASE: u32 = 4;

/// How long cancelled jobs may take to release their leases.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The statements of one table of jobs, and what executing a job means.
pub trait LeasedQueue: Send + Sync + 'static {
    /// A claimed job with its attempt, the fencing number that its statements must show.
    type Job: Send + Sync + 'static;
    /// What an execution that ran to its end has to record.
    type Outcome: Send + 'static;

    /// The jobs' name in the log, in the plural.
    const JOBS: &'static str;

    /// Claims up to `limit` due jobs. `in_flight` are those that this process holds already.
    fn claim(
        &self,
        limit: usize,
        in_flight: &[Arc<Self::Job>],
    ) -> impl Future<Output = Result<Vec<Self::Job>, StoreError>> + Send;

    /// Renews the leases of jobs in flight. The default is for jobs that always end within one
    /// lease.
    fn renew(
        &self,
        _in_flight: &[Arc<Self::Job>],
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Ends the lease of a job whose execution was cancelled, so that it is due at once.
    fn release(&self, job: &Self::Job) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn span(&self, job: &Self::Job) -> Span;

    /// Executes a job. Dropped when a drain runs out of time.
    fn execute(&self, job: &Self::Job) -> impl Future<Output = Self::Outcome> + Send;

    /// Records the result of an execution. Not cancelled by a drain.
    fn record(&self, job: &Self::Job, outcome: Self::Outcome) -> impl Future<Output = ()> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub capacity: usize,
    /// Most jobs that one statement claims. A small batch leaves jobs to other processes.
    pub batch: usize,
    /// The lease that [`LeasedQueue::claim`] and [`LeasedQueue::renew`] give, for the heartbeat.
    pub lease: Duration,
    /// How long jobs in flight may go on when the process stops. There is no heartbeat then, so it
    /// must be well below the lease.
    pub grace: Duration,
}

pub struct Consumer {
    tasks: TaskTracker,
    /// Ends claims and the heartbeat; `cancel` ends executions.
    stop: CancellationToken,
    cancel: CancellationToken,
    grace: Duration,
    jobs: &'static str,
}

impl Consumer {
    /// Starts to claim jobs: at each notification of `wake`, after each job that ends, and every
    /// second.
    pub fn start<Q: LeasedQueue>(queue: Q, settings: Settings, wake: Arc<Notify>) -> Self {
        let worker = Arc::new(Worker {
            queue,
            settings,
            in_flight: Arc::new(InFlight {
                jobs: Mutex::default(),
                wake,
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cancel: CancellationToken::new(),
        });
        worker.tasks.spawn(claim_jobs(worker.clone()));
        worker.tasks.spawn(send_heartbeats(worker.clone()));
        Self {
            tasks: worker.tasks.clone(),
            stop: worker.stop.clone(),
            cancel: worker.cancel.clone(),
            grace: settings.grace,
            jobs: Q::JOBS,
        }
    }

    /// Claims nothing more, lets jobs in flight end within the grace period, and releases the rest.
    pub async fn drain(self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(self.grace, self.tasks.wait()).await;
        if ended.is_ok() {
            return;
        }
        self.cancel.cancel();
        let released = tokio::time::timeout(RELEASE_TIMEOUT, self.tasks.wait()).await;
        if released.is_err() {
            let jobs = self.jobs;
            tracing::warn!(
                "shutdown: some {jobs} could not be released; others claim them when their leases \
                 have expired"
            );
        }
    }
}

struct Worker<Q: LeasedQueue> {
    queue: Q,
    settings: Settings,
    in_flight: Arc<InFlight<Q::Job>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    cancel: CancellationToken,
}

/// The jobs that this process executes. Only their leases are renewed: a job whose result could not
/// be recorded must be claimed again.
struct InFlight<J> {
    jobs: Mutex<Vec<Arc<J>>>,
    wake: Arc<Notify>,
}

impl<J> InFlight<J> {
    fn register(self: &Arc<Self>, job: J) -> Registered<J> {
        let job = Arc::new(job);
        self.jobs.lock().push(job.clone());
        Registered {
            in_flight: self.clone(),
            job,
        }
    }

    fn snapshot(&self) -> Vec<Arc<J>> {
        self.jobs.lock().clone()
    }
}

/// Keeps a job in flight until it is dropped, also by a panic. Then there is room for another one,
/// and jobs that waited for this one may be due.
struct Registered<J> {
    in_flight: Arc<InFlight<J>>,
    job: Arc<J>,
}

impl<J> Drop for Registered<J> {
    fn drop(&mut self) {
        let mut jobs = self.in_flight.jobs.lock();
        jobs.retain(|job| !Arc::ptr_eq(job, &self.job));
        drop(jobs);
        self.in_flight.wake.notify_one();
    }
}

async fn claim_jobs<Q: LeasedQueue>(worker: Arc<Worker<Q>>) {
    let Settings {
        capacity, batch, ..
    } = worker.settings;
    let slots = Arc::new(Semaphore::new(capacity));
    loop {
        let free = slots.clone().acquire_owned();
        let Some(Ok(first)) = worker.stop.run_until_cancelled(free).await else {
            return;
        };
        let mut free = vec![first];
        free.extend((1..batch).map_while(|_| slots.clone().try_acquire_owned().ok()));
        let limit = free.len();
        let in_flight = worker.in_flight.snapshot();
        match worker.queue.claim(limit, &in_flight).await {
            Ok(claimed) => {
                let is_full_batch = claimed.len() == limit;
                for (job, slot) in claimed.into_iter().zip(free) {
                    start(&worker, job, slot);
                }
                if is_full_batch {
                    continue;
                }
            }
            Err(error) => {
                let jobs = Q::JOBS;
                tracing::warn!(
                    error.cause = %error,
                    "could not claim {jobs}: {error}; retrying in 1 s"
                );
                // Not in the select below: a wake-up must not shorten this pause.
                let pause = tokio::time::sleep(POLL_INTERVAL);
                if worker.stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = worker.stop.cancelled() => return,
            () = worker.in_flight.wake.notified() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

fn start<Q: LeasedQueue>(worker: &Arc<Worker<Q>>, job: Q::Job, slot: OwnedSemaphorePermit) {
    let span = worker.queue.span(&job);
    let registered = worker.in_flight.register(job);
    let execution = execute(worker.clone(), registered, slot);
    worker.tasks.spawn(execution.instrument(span));
}

async fn execute<Q: LeasedQueue>(
    worker: Arc<Worker<Q>>,
    registered: Registered<Q::Job>,
    slot: OwnedSemaphorePermit,
) {
    let job = &*registered.job;
    let execution = worker.queue.execute(job);
    match worker.cancel.run_until_cancelled(execution).await {
        Some(outcome) => worker.queue.record(job, outcome).await,
        None => {
            if let Err(error) = worker.queue.release(job).await {
                tracing::warn!(
                    error.cause = %error,
                    "could not release the job, waiting for its lease to expire: {error}"
                );
            }
        }
    }
    drop(slot);
}

async fn send_heartbeats<Q: LeasedQueue>(worker: Arc<Worker<Q>>) {
    loop {
        let pause = tokio::time::sleep(worker.settings.lease / HEARTBEATS_PER_LEASE);
        if worker.stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        let in_flight = worker.in_flight.snapshot();
        if in_flight.is_empty() {
            continue;
        }
        if let Err(error) = worker.queue.renew(&in_flight).await {
            let jobs = Q::JOBS;
            tracing::warn!(error.cause = %error, "could not renew leases of {jobs}, retrying before they expire: {error}");
        }
    }
}
