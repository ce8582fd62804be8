//! The live feed of a run, and its continuation in the event log: the only way from the engine to
//! readers.
//!
//! In the process that executes the run, events are kept in a numbered, append-only list in memory
//! that any number of readers follow, early or late. In other processes, and after the attempt has
//! ended, readers read the event log (`run_events`). Both hold the same sequence, and a reader
//! changes from one to the other without noticing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::Stream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::domain::event::{RunEvent, Seq};
use crate::domain::ids::{ProjectId, RunId, ThreadId};
use crate::domain::run::{Run, RunStatus};
use crate::events::notifications::{Notification, Notifier};
use crate::events::run_copy::{Changes, RunCopy};
use crate::store::Pool;
use crate::store::lease::Lease;
use crate::store::run_events::Segment;
use crate::store::{self, StoreError};

/// How long a reader of the log waits for a notification before it reads the log again.
const POLL: Duration = Duration::from_millis(500);

pub type Numbered = (Seq, Arc<RunEvent>);

/// Why a run's events stop without one that ends the stream.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("the run is gone")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    channels: RwLock<HashMap<RunId, Arc<Channel>>>,
    readers: Mutex<HashMap<RunId, Arc<Notify>>>,
    changes: Changes,
    notifier: Notifier,
}

/// The live feed of one attempt at a run.
#[derive(Debug)]
struct Channel {
    lease: Lease,
    first: Seq,
    events: RwLock<Vec<Arc<RunEvent>>>,
    /// How many events there are, and whether more may come.
    length: watch::Sender<(usize, bool)>,
    /// How many of the events are known to be in the log.
    logged: Mutex<usize>,
    is_committing: AtomicBool,
    copy: Mutex<Option<RunCopy>>,
}

/// Writes to the live feed of one attempt. Dropping it closes the feed.
#[derive(Debug)]
pub struct Publisher {
    channel: Arc<Channel>,
    inner: Arc<Inner>,
}

impl Feed {
    pub fn new(pool: Pool, notifier: Notifier) -> Self {
        let inner = Inner {
            pool,
            channels: RwLock::default(),
            readers: Mutex::default(),
            changes: Changes::default(),
            notifier,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub fn open(&self, lease: &Lease) -> Publisher {
        let channel = Arc::new(Channel {
            lease: lease.clone(),
            first: Seq::before_attempt(lease.attempt()).next(),
            events: RwLock::default(),
            length: watch::Sender::new((0, true)),
            logged: Mutex::default(),
            is_committing: AtomicBool::new(false),
            copy: Mutex::default(),
        });
        self.inner
            .channels
            .write()
            .insert(lease.run().clone(), channel.clone());
        self.wake(lease.run());
        Publisher {
            channel,
            inner: self.inner.clone(),
        }
    }

    /// The run, if this process executes it and has a valid copy of it.
    pub fn copy_of(&self, project: &ProjectId, thread: &ThreadId, run: &RunId) -> Option<Run> {
        let channel = self.inner.channels.read().get(run).cloned()?;
        let copy = channel.copy.lock();
        let run = self.inner.changes.valid(copy.as_ref()?)?;
        (run.project == *project && run.thread == *thread).then_some(run)
    }

    /// Drops the copies of the thread's runs. To be called before and after this process cancels a
    /// run of the thread or deletes the thread.
    pub fn drop_copies(&self, thread: &ThreadId) {
        self.inner.changes.note(thread);
    }

    pub fn wake(&self, run: &RunId) {
        if let Some(notify) = self.inner.readers.lock().get(run) {
            notify.notify_waiters();
        }
    }

    /// The events of all runs of this process that are not in the log yet. Whoever writes them
    /// there must call [`Unlogged::mark_logged`].
    pub fn unlogged(&self) -> Vec<Unlogged> {
        let channels: Vec<Arc<Channel>> = self.inner.channels.read().values().cloned().collect();
        channels
            .into_iter()
            .filter(|channel| !channel.is_committing.load(Ordering::Relaxed))
            .filter_map(Unlogged::of_channel)
            .collect()
    }

    /// Streams the run's events after `position`, up to and including the one that ends the
    /// client's stream: a terminal status, or `requires_action` as long as no outputs were
    /// submitted. [`Seq::START`] starts from the beginning of the run. The stream is empty if the
    /// run is idle and has no events after `position`.
    pub fn follow(
        &self,
        run: RunId,
        position: Seq,
    ) -> impl Stream<Item = Result<Numbered, FollowError>> + Send + use<> {
        let inner = self.inner.clone();
        async_stream::try_stream! {
            let mut position = position;
            let mut is_idle = false;
            let registration = ReaderRegistration::new(&inner, &run);
            loop {
                // Looked up before the log is read: an attempt that begins in between would be
                // missed otherwise.
                let live = inner.channels.read().get(&run).cloned();
                let woken = registration.notify.notified();
                if live.as_ref().is_none_or(|channel| position.next() < channel.first) {
                    let logged = store::run_events::after(&inner.pool, &run, position).await?;
                    if logged.is_empty() && is_idle {
                        return;
                    }
                    for (seq, event) in logged {
                        position = seq;
                        // A logged `requires_action` does not end the stream: outputs may have been
                        // submitted since.
                        let ends = event.run_status().is_some_and(RunStatus::is_terminal);
                        yield (seq, Arc::new(event));
                        if ends {
                            return;
                        }
                    }
                }
                if let Some(channel) = live {
                    let mut at = usize::try_from(position.0 - channel.first.0 + 1).unwrap_or(0);
                    let mut length = channel.length.subscribe();
                    loop {
                        let (count, is_open) = *length.borrow_and_update();
                        if at < count {
                            let events = channel.events.read()[at..count].to_vec();
                            for event in events {
                                position = channel.first.plus(at);
                                at += 1;
                                let ends = event.ends_stream();
                                yield (position, event);
                                if ends {
                                    return;
                                }
                            }
                        } else if is_open {
                            let _ = length.changed().await;
                        } else {
                            break;
                        }
                    }
                    // The attempt ended without terminating the run; another one follows.
                    is_idle = false;
                    continue;
                }
                // The status of an idle run and its last events are committed together, so one
                // more read of the log after this one is complete.
                is_idle = match store::runs::is_idle(&inner.pool, &run).await? {
                    Some(is_idle) => is_idle,
                    None => Err(FollowError::Gone)?,
                };
                if !is_idle {
                    let _ = tokio::time::timeout(POLL, woken).await;
                }
            }
        }
    }
}

/// Lets a reader of the log be woken. The last reader of a run removes the run's entry.
struct ReaderRegistration {
    inner: Arc<Inner>,
    run: RunId,
    notify: Arc<Notify>,
}

impl ReaderRegistration {
    fn new(inner: &Arc<Inner>, run: &RunId) -> Self {
        let notify = inner.readers.lock().entry(run.clone()).or_default().clone();
        Self {
            inner: inner.clone(),
            run: run.clone(),
            notify,
        }
    }
}

impl Drop for ReaderRegistration {
    fn drop(&mut self) {
        let mut readers = self.inner.readers.lock();
        // One reference is the map's, one is this registration's.
        if Arc::strong_count(&self.notify) == 2 {
            readers.remove(&self.run);
        }
    }
}

impl Publisher {
    /// Lets polls be answered with this run, which was claimed after this time.
    pub fn keep_copy(&self, run: Run, claimed_after: Instant) {
        *self.channel.copy.lock() = Some(RunCopy::new(run, claimed_after));
    }

    /// Until the guard is dropped, [`Feed::unlogged`] leaves out the events of this run: their commit
    /// writes them, and two statements that write them at the same time wait for each other, and so
    /// do the other runs of the same statements.
    pub fn committing(&self) -> Committing {
        self.channel.is_committing.store(true, Ordering::Relaxed);
        Committing(self.channel.clone())
    }

    pub fn drop_copy(&self) {
        *self.channel.copy.lock() = None;
    }

    pub fn publish(&self, events: impl IntoIterator<Item = RunEvent>) {
        let count = {
            let mut list = self.channel.events.write();
            list.extend(events.into_iter().map(Arc::new));
            list.len()
        };
        self.channel.length.send_replace((count, true));
    }

    /// The log segment to commit with `next`, the events that will be published next: these and
    /// all earlier ones that are not known to be in the log.
    pub fn segment(&self, next: &[RunEvent]) -> Result<Option<Segment>, StoreError> {
        let logged = *self.channel.logged.lock();
        let events = self.channel.events.read();
        let unlogged = events[logged..].iter().map(Arc::as_ref);
        Segment::new(self.channel.first.plus(logged), unlogged.chain(next))
    }

    /// The log segment that holds the last of `next` only, with the sequence number that it will
    /// have. The events before it stay missing in the log.
    pub fn last_segment(&self, next: &[RunEvent]) -> Result<Option<Segment>, StoreError> {
        let published = self.channel.events.read().len();
        let before = next.len().saturating_sub(1);
        Segment::new(self.channel.first.plus(published + before), next.last())
    }

    /// Publishes events that were committed to the log with [`Self::segment`] or
    /// [`Self::last_segment`], and notifies readers in other processes.
    pub fn publish_logged(&self, events: impl IntoIterator<Item = RunEvent>) {
        self.publish(events);
        *self.channel.logged.lock() = self.channel.events.read().len();
        let run = self.channel.lease.run().clone();
        self.inner.notifier.notify(Notification::Events(run));
    }

    pub fn unlogged(&self) -> Option<Unlogged> {
        Unlogged::of_channel(self.channel.clone())
    }
}

/// Marks a run whose worker is committing.
#[must_use]
#[derive(Debug)]
pub struct Committing(Arc<Channel>);

impl Drop for Committing {
    fn drop(&mut self) {
        self.0.is_committing.store(false, Ordering::Relaxed);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let run = self.channel.lease.run();
        let mut channels = self.inner.channels.write();
        if channels
            .get(run)
            .is_some_and(|current| Arc::ptr_eq(current, &self.channel))
        {
            channels.remove(run);
        }
        drop(channels);
        self.channel
            .length
            .send_modify(|(_, is_open)| *is_open = false);
    }
}

#[derive(Debug)]
pub struct Unlogged {
    pub lease: Lease,
    pub segment: Segment,
    channel: Arc<Channel>,
    /// Length of the feed up to the last of these events.
    until: usize,
}

impl Unlogged {
    fn of_channel(channel: Arc<Channel>) -> Option<Self> {
        let logged = *channel.logged.lock();
        let events = channel.events.read();
        let unlogged = events[logged..].iter().map(Arc::as_ref);
        let segment = match Segment::new(channel.first.plus(logged), unlogged) {
            Ok(segment) => segment?,
            Err(error) => {
                let run = channel.lease.run();
                tracing::error!(
                    run.id = %run,
                    error.cause = %error,
                    "run {run}: could not serialize events, they are missing from the event log: {error}"
                );
                return None;
            }
        };
        let until = events.len();
        drop(events);
        Some(Self {
            lease: channel.lease.clone(),
            segment,
            channel,
            until,
        })
    }

    pub fn mark_logged(self) {
        let mut logged = self.channel.logged.lock();
        *logged = (*logged).max(self.until);
    }
}
