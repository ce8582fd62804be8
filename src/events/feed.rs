//! A run's events on their way to readers: the only path there is.
//!
//! In the process that drives the run, events live in a numbered, append-only list in memory that
//! any number of readers follow, early or late. Everywhere else, and after the run has left the
//! process, they are read from the log (`run_events`). Both hold the same sequence; a reader is
//! moved from one to the other without noticing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};

use crate::domain::event::{RunEvent, Seq};
use crate::domain::ids::RunId;
use crate::domain::run::RunStatus;
use crate::store::Pool;
use crate::store::notifications::Hint;
use crate::store::run_events::Segment;
use crate::store::runs::Lease;
use crate::store::{self, StoreError};

/// How long a reader of the log waits for a hint before it looks by itself.
const POLL: Duration = Duration::from_millis(500);

/// An event and its position, as readers get it.
pub type Numbered = (Seq, Arc<RunEvent>);

/// Why a run's events stop without one that ends the stream.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The run was deleted.
    #[error("the run is gone")]
    Gone,
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All feeds of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    channels: RwLock<HashMap<RunId, Arc<Channel>>>,
    readers: Mutex<HashMap<RunId, Arc<Notify>>>,
    hints: mpsc::UnboundedSender<Hint>,
}

/// One attempt at a run, in memory.
#[derive(Debug)]
struct Channel {
    lease: Lease,
    first: Seq,
    events: RwLock<Vec<Arc<RunEvent>>>,
    /// How many events there are, and whether more may come.
    length: watch::Sender<(usize, bool)>,
    /// How many events are in the log for certain.
    logged: Mutex<usize>,
}

/// The driver's end of a run's feed. Dropping it closes the feed for this attempt.
#[derive(Debug)]
pub struct Publisher {
    channel: Arc<Channel>,
    inner: Arc<Inner>,
}

impl Feed {
    /// Feeds over this database. The receiver yields hints for other processes.
    pub fn new(pool: Pool) -> (Self, mpsc::UnboundedReceiver<Hint>) {
        let (hints, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            pool,
            channels: RwLock::default(),
            readers: Mutex::default(),
            hints,
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            receiver,
        )
    }

    /// Opens the feed of a run that this process is about to drive.
    pub fn open(&self, lease: &Lease) -> Publisher {
        let channel = Arc::new(Channel {
            lease: lease.clone(),
            first: Seq::before_attempt(lease.attempt()).next(),
            events: RwLock::default(),
            length: watch::Sender::new((0, true)),
            logged: Mutex::default(),
        });
        self.inner
            .channels
            .write()
            .insert(lease.run().clone(), channel.clone());
        self.inner.wake(lease.run());
        Publisher {
            channel,
            inner: self.inner.clone(),
        }
    }

    /// Sends a hint to other processes, soon and in company with others.
    pub fn hint(&self, hint: Hint) {
        self.inner.hint(hint);
    }

    /// Wakes the readers of a run's log in this process.
    pub fn wake(&self, run: &RunId) {
        self.inner.wake(run);
    }

    /// What has not been written to the log yet, of all runs of this process. The caller says
    /// with [`Unlogged::done`] that it has been.
    pub fn unlogged(&self) -> Vec<Unlogged> {
        let channels: Vec<Arc<Channel>> = self.inner.channels.read().values().cloned().collect();
        channels.into_iter().filter_map(Unlogged::of).collect()
    }

    /// The run's events after `seen`, as they come, up to and including the one that ends the
    /// client's stream: a terminal status, or `requires_action` as long as the caller has not
    /// answered. Starts from the beginning of the run with [`Seq::START`]. Ends at once when such
    /// an event is not after `seen`.
    pub fn follow(
        &self,
        run: RunId,
        seen: Seq,
    ) -> impl Stream<Item = Result<Numbered, FollowError>> + Send + use<> {
        let inner = self.inner.clone();
        async_stream::try_stream! {
            let mut seen = seen;
            let mut is_over = false;
            let reader = Reader::register(&inner, &run);
            loop {
                // Looked up before the log is read, or an attempt that begins in between would
                // be missed.
                let live = inner.channels.read().get(&run).cloned();
                let woken = reader.notify.notified();
                if live.as_ref().is_none_or(|channel| seen.next() < channel.first) {
                    let logged = store::run_events::after(&inner.pool, &run, seen).await?;
                    if logged.is_empty() && is_over {
                        return;
                    }
                    for (seq, event) in logged {
                        seen = seq;
                        // Answered or not, a run that waited for its caller may go on.
                        let ends = event.run_status().is_some_and(RunStatus::is_terminal);
                        yield (seq, Arc::new(event));
                        if ends {
                            return;
                        }
                    }
                }
                if let Some(channel) = live {
                    let mut at = usize::try_from(seen.0 - channel.first.0 + 1).unwrap_or(0);
                    let mut length = channel.length.subscribe();
                    loop {
                        let (count, open) = *length.borrow_and_update();
                        if at < count {
                            let fresh = channel.events.read()[at..count].to_vec();
                            for event in fresh {
                                seen = channel.first.plus(at);
                                at += 1;
                                let ends = event.ends_stream();
                                yield (seen, event);
                                if ends {
                                    return;
                                }
                            }
                        } else if open {
                            let _ = length.changed().await;
                        } else {
                            break;
                        }
                    }
                    // The attempt ended without ending the run: others go on with it.
                    is_over = false;
                    continue;
                }
                // The end of a run and its events are committed together, so one more look at
                // the log after this shows all there is.
                is_over = match store::runs::rests(&inner.pool, &run).await? {
                    Some(rests) => rests,
                    None => Err(FollowError::Gone)?,
                };
                if !is_over {
                    let _ = tokio::time::timeout(POLL, woken).await;
                }
            }
        }
    }
}

impl Inner {
    fn wake(&self, run: &RunId) {
        if let Some(notify) = self.readers.lock().get(run) {
            notify.notify_waiters();
        }
    }

    fn hint(&self, hint: Hint) {
        // The receiver is gone only while the process stops, when nobody needs hints any more.
        let _ = self.hints.send(hint);
    }
}

/// A reader's registration for hints about a run; the last one to go takes the entry along.
struct Reader {
    inner: Arc<Inner>,
    run: RunId,
    notify: Arc<Notify>,
}

impl Reader {
    fn register(inner: &Arc<Inner>, run: &RunId) -> Self {
        let notify = inner.readers.lock().entry(run.clone()).or_default().clone();
        Self {
            inner: inner.clone(),
            run: run.clone(),
            notify,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.inner.readers.lock();
        // One count is the map's, one is ours.
        if Arc::strong_count(&self.notify) == 2 {
            readers.remove(&self.run);
        }
    }
}

impl Publisher {
    /// Appends events; readers in this process see them at once.
    pub fn publish(&self, events: impl IntoIterator<Item = RunEvent>) {
        let count = {
            let mut list = self.channel.events.write();
            list.extend(events.into_iter().map(Arc::new));
            list.len()
        };
        self.channel.length.send_replace((count, true));
    }

    /// What has to be written to the log together with `coming`, which will be published next:
    /// everything the log does not hold for certain.
    pub fn segment(&self, coming: &[RunEvent]) -> Result<Option<Segment>, StoreError> {
        let logged = *self.channel.logged.lock();
        let events = self.channel.events.read();
        let pending = events[logged..].iter().map(Arc::as_ref);
        Segment::new(self.channel.first.plus(logged), pending.chain(coming))
    }

    /// What has to be written to the log if of all the events that it lacks, those in `coming`
    /// included, it is to hold the last one only.
    pub fn last_segment(&self, coming: &[RunEvent]) -> Result<Option<Segment>, StoreError> {
        let published = self.channel.events.read().len();
        let before = coming.len().saturating_sub(1);
        Segment::new(self.channel.first.plus(published + before), coming.last())
    }

    /// Publishes events that were committed to the log, or are to be missing there.
    pub fn publish_logged(&self, events: impl IntoIterator<Item = RunEvent>) {
        self.publish(events);
        *self.channel.logged.lock() = self.channel.events.read().len();
        self.inner
            .hint(Hint::Events(self.channel.lease.run().clone()));
    }

    /// What has not been written to the log yet, if anything.
    pub fn unlogged(&self) -> Option<Unlogged> {
        Unlogged::of(self.channel.clone())
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
        self.channel.length.send_modify(|(_, open)| *open = false);
    }
}

/// Events of one run that the log lacks.
#[derive(Debug)]
pub struct Unlogged {
    /// The attempt they belong to.
    pub lease: Lease,
    /// The events, written out.
    pub segment: Segment,
    channel: Arc<Channel>,
    until: usize,
}

impl Unlogged {
    fn of(channel: Arc<Channel>) -> Option<Self> {
        let logged = *channel.logged.lock();
        let events = channel.events.read();
        let pending = events[logged..].iter().map(Arc::as_ref);
        let segment = match Segment::new(channel.first.plus(logged), pending) {
            Ok(segment) => segment?,
            Err(error) => {
                tracing::error!(run.id = %channel.lease.run(), %error, "events cannot be written out");
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

    /// The log holds these events now.
    pub fn done(self) {
        let mut logged = self.channel.logged.lock();
        *logged = (*logged).max(self.until);
    }
}
