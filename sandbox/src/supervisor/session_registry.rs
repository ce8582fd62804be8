//! The sessions of a worker by name, and which connection holds each.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use sandbox_protocol::Notice;
use sandbox_protocol::Tier;
use tokio::sync::Notify;
use tokio::sync::OwnedMutexGuard;

use crate::settings::Settings;
use crate::supervisor::session::Session;
use crate::supervisor::session_factory::SessionFactory;
use crate::supervisor::session_processes::SessionProcesses;
use crate::supervisor::zygote_process::SessionError;

/// Interval at which the limits of all sessions are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// For how many ended sessions the reason is kept until their name is opened again.
const ENDED_MAX: usize = 1_000;

/// Every session of this worker, by name.
pub struct SessionRegistry {
    settings: Arc<Settings>,
    factory: Arc<SessionFactory>,
    /// Maximum number of sessions.
    limit: usize,
    /// Whether the worker has one session, ever.
    is_single: bool,
    table: Mutex<Table>,
    single_session_ended: Notify,
}

#[derive(Default)]
struct Table {
    entries: HashMap<String, Arc<Entry>>,
    /// Why sessions were ended between cells, by name, oldest first.
    ended: VecDeque<(String, Notice)>,
    /// Number of sessions created so far.
    created: u64,
}

/// Exclusive access to a session; `None` before it is created and after it has ended.
type Guard = OwnedMutexGuard<Option<Session>>;

/// A named session.
struct Entry {
    name: String,
    project: String,
    session: Arc<tokio::sync::Mutex<Option<Session>>>,
    /// Set once the session exists. Not guarded by the session's lock, so that a session can be
    /// killed while a cell runs.
    processes: OnceLock<Arc<SessionProcesses>>,
    created: Instant,
    /// Only accessed while the table is locked.
    usage: Mutex<Usage>,
}

struct Usage {
    /// Number of connections that hold the session or wait for it.
    references: usize,
    last_used: Instant,
}

/// The result of opening a session.
pub enum OpenOutcome {
    Opened {
        held: Box<HeldSession>,
        /// Whether the session is new.
        fresh: bool,
        /// What the worker did to the session of this name since its last cell.
        notice: Option<Notice>,
    },
    /// The session does not exist and was not to be created.
    Absent,
    /// The session limit is reached, and all sessions are in use.
    Busy,
}

/// A session held by one connection until this is dropped.
pub struct HeldSession {
    guard: Guard,
    reference: Reference,
}

/// A counted use of an entry, which protects it from eviction and expiry.
struct Reference {
    sessions: Arc<SessionRegistry>,
    entry: Arc<Entry>,
}

impl SessionRegistry {
    /// An empty registry.
    pub fn new(settings: Arc<Settings>, factory: Arc<SessionFactory>, tier: Tier) -> Arc<Self> {
        let is_single = tier != Tier::Namespaces;
        Arc::new(Self {
            limit: if is_single {
                1
            } else {
                settings.sessions as usize
            },
            is_single,
            settings,
            factory,
            table: Mutex::default(),
            single_session_ended: Notify::new(),
        })
    }

    /// Maximum number of sessions.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Current number of sessions.
    pub fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Opens the session of this name. Waits while another connection holds it.
    pub async fn open(
        self: &Arc<Self>,
        name: &str,
        project: &str,
        create: bool,
    ) -> Result<OpenOutcome, SessionError> {
        loop {
            let (reference, new_guard) = match self.reference(name, project, create) {
                Ok(referenced) => referenced,
                Err(outcome) => return Ok(outcome),
            };
            let is_new = new_guard.is_some();
            let mut guard = match new_guard {
                Some(guard) => guard,
                None => reference.entry.session.clone().lock_owned().await,
            };
            if is_new {
                let forked = match self.factory.take().await {
                    Ok(forked) => forked,
                    Err(error) => {
                        self.remove(&reference.entry);
                        return Err(error);
                    }
                };
                let session = Session::new(forked, self.settings.clone());
                // An entry gets one session, so the cell is empty.
                let _ = reference.entry.processes.set(session.processes().clone());
                *guard = Some(session);
                tracing::info!(session = name, "session {name} started");
            }
            if let Some(session) = guard.as_ref()
                && session.processes().is_alive()
            {
                let notice = if is_new {
                    self.lock().take_ended(name)
                } else {
                    session.processes().take_notice()
                };
                return Ok(OpenOutcome::Opened {
                    held: Box::new(HeldSession { guard, reference }),
                    fresh: is_new,
                    notice,
                });
            }
            // The session ended while this connection waited, or unnoticed before.
            self.remove(&reference.entry);
        }
    }

    /// Ends sessions that are idle or alive for too long, that have died, or that exceed a limit.
    /// Never returns.
    pub async fn maintain(&self) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let entries: Vec<_> = self.lock().entries.values().cloned().collect();
            for entry in entries {
                self.check_entry(&entry);
            }
        }
    }

    pub fn end_all(&self) {
        for entry in self.lock().entries.drain().map(|(_, entry)| entry) {
            if let Some(processes) = entry.processes.get() {
                processes.kill();
            }
        }
    }

    /// Waits until the session of a worker with a single session has ended.
    pub async fn single_session_ended(&self) {
        self.single_session_ended.notified().await;
    }

    fn check_entry(&self, entry: &Arc<Entry>) {
        let Some(processes) = entry.processes.get() else {
            return;
        };
        if let Some(notice) = processes.enforce_limits() {
            let name = &entry.name;
            match notice {
                Notice::ProcessesKilled => tracing::warn!(
                    session = name,
                    "session {name}: CPU limit between cells exceeded, killed its child processes"
                ),
                Notice::EndedForCpu => tracing::warn!(
                    session = name,
                    "session {name}: CPU limit between cells exceeded, ended the session"
                ),
                Notice::EndedForMemory => tracing::warn!(
                    session = name,
                    "session {name}: memory limit exceeded, ended the session"
                ),
            }
        }
        // If a connection holds the session, it detects its death; and the session is not idle.
        let Ok(mut session) = entry.session.try_lock() else {
            return;
        };
        let idle_limit = Duration::from_secs(self.settings.idle_seconds);
        let life_limit = Duration::from_secs(self.settings.life_seconds);
        let reason = {
            let _table = self.lock();
            let usage = entry.usage();
            if !processes.is_alive() {
                "its processes have ended"
            } else if usage.references == 0 && usage.last_used.elapsed() >= idle_limit {
                "idle limit reached"
            } else if usage.references == 0 && entry.created.elapsed() >= life_limit {
                "lifetime limit reached"
            } else {
                return;
            }
        };
        *session = None;
        drop(session);
        let name = &entry.name;
        tracing::info!(session = name, "session {name} ended: {reason}");
        self.remove(entry);
    }

    /// References the entry of this name, or a new one. A new entry comes with its lock held, so
    /// that other connections wait until its session exists.
    fn reference(
        self: &Arc<Self>,
        name: &str,
        project: &str,
        create: bool,
    ) -> Result<(Reference, Option<Guard>), OpenOutcome> {
        let mut evicted = None;
        let referenced = {
            let mut table = self.lock();
            let existing = table.entries.get(name).cloned();
            let mut guard = None;
            let entry = match existing {
                Some(entry) => entry,
                None if !create => return Err(OpenOutcome::Absent),
                None if self.is_single && table.created > 0 => return Err(OpenOutcome::Busy),
                None => {
                    let quota = self.settings.project_sessions as usize;
                    evicted = table.evict_for(project, self.limit, quota)?;
                    table.created += 1;
                    let entry = Arc::new(Entry::new(name, project));
                    guard = entry.session.clone().try_lock_owned().ok();
                    table.entries.insert(name.to_owned(), entry.clone());
                    entry
                }
            };
            entry.usage().references += 1;
            let sessions = self.clone();
            (Reference { sessions, entry }, guard)
        };
        if let Some(entry) = evicted {
            tracing::info!(session = entry.name, "evicted idle session {}", entry.name);
            entry.end();
        }
        Ok(referenced)
    }

    /// Removes an entry and ends its session, unless the name belongs to another entry by now.
    fn remove(&self, entry: &Arc<Entry>) {
        let mut table = self.lock();
        if table
            .entries
            .get(&entry.name)
            .is_some_and(|other| Arc::ptr_eq(other, entry))
        {
            table.entries.remove(&entry.name);
        }
        let notice = entry.processes.get().and_then(|it| it.take_notice());
        if let Some(notice @ (Notice::EndedForCpu | Notice::EndedForMemory)) = notice {
            table.remember_ended(&entry.name, notice);
        }
        drop(table);
        entry.end();
        if self.is_single {
            self.single_session_ended.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl Table {
    /// Makes room for a session of this project: removes and returns the entry to evict, if one has
    /// to go. `limit` is the worker's; `quota` is that of each project, 0 for none.
    ///
    /// Only idle entries are evicted. The victim belongs to the project that would have the most
    /// sessions, so a project that opens many evicts its own; among equal projects it is the
    /// requesting one, and then the session that was idle for longest. If all sessions of a project
    /// are in use, the next smaller project is considered.
    fn evict_for(
        &mut self,
        project: &str,
        limit: usize,
        quota: usize,
    ) -> Result<Option<Arc<Entry>>, OpenOutcome> {
        let mut counts: HashMap<&str, usize> = HashMap::from([(project, 1)]);
        for entry in self.entries.values() {
            *counts.entry(&entry.project).or_default() += 1;
        }
        let over_quota = quota > 0 && counts[project] > quota;
        if !over_quota && self.entries.len() < limit {
            return Ok(None);
        }
        let victim = self
            .entries
            .values()
            .filter(|entry| entry.usage().references == 0)
            .filter(|entry| !over_quota || entry.project == project)
            .max_by_key(|entry| {
                let count = counts[entry.project.as_str()];
                let last_used = Reverse(entry.usage().last_used);
                (count, entry.project == project, last_used)
            })
            .map(|entry| entry.name.clone());
        match victim.and_then(|name| self.entries.remove(&name)) {
            Some(entry) => Ok(Some(entry)),
            None => Err(OpenOutcome::Busy),
        }
    }

    fn remember_ended(&mut self, name: &str, notice: Notice) {
        self.take_ended(name);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((name.to_owned(), notice));
    }

    /// Takes the reason why the last session of this name was ended between cells.
    fn take_ended(&mut self, name: &str) -> Option<Notice> {
        let index = self.ended.iter().position(|(ended, _)| ended == name)?;
        self.ended.remove(index).map(|(_, notice)| notice)
    }
}

impl Entry {
    fn new(name: &str, project: &str) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            project: project.to_owned(),
            session: Arc::default(),
            processes: OnceLock::new(),
            created: now,
            usage: Mutex::new(Usage {
                references: 0,
                last_used: now,
            }),
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Ends the session, even while a connection holds it.
    fn end(&self) {
        if let Some(processes) = self.processes.get() {
            processes.kill();
        }
        if let Ok(mut session) = self.session.try_lock() {
            *session = None;
        }
    }
}

impl HeldSession {
    pub fn session(&mut self) -> &mut Session {
        self.guard
            .as_mut()
            .expect("the session is only taken out by `close`, which consumes this")
    }

    /// Ends the session.
    pub fn close(mut self) {
        *self.guard = None;
        self.reference.sessions.remove(&self.reference.entry);
        let name = &self.reference.entry.name;
        tracing::info!(session = name, "session {name} closed");
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _table = self.sessions.lock();
        let mut usage = self.entry.usage();
        usage.references -= 1;
        usage.last_used = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of these sessions: name, project, number of connections. Each was used later than
    /// the ones before it.
    fn table(sessions: &[(&str, &str, usize)]) -> Table {
        let mut table = Table::default();
        let start = Instant::now();
        for ((name, project, references), number) in sessions.iter().zip(0..) {
            let entry = Entry::new(name, project);
            entry.usage().references = *references;
            entry.usage().last_used = start + Duration::from_millis(number);
            table.entries.insert((*name).to_owned(), Arc::new(entry));
        }
        table
    }

    /// The session evicted when this project opens one; `""` if none is.
    fn evicted(
        sessions: &[(&str, &str, usize)],
        project: &str,
        limit: usize,
        quota: usize,
    ) -> Result<String, &'static str> {
        match table(sessions).evict_for(project, limit, quota) {
            Ok(entry) => Ok(entry.map_or(String::new(), |entry| entry.name.clone())),
            Err(_) => Err("busy"),
        }
    }

    #[test]
    fn a_project_with_many_sessions_evicts_its_own_and_not_anothers() {
        let sessions = [
            ("b1", "b", 0),
            ("a1", "a", 0),
            ("a2", "a", 0),
            ("a3", "a", 0),
        ];
        assert_eq!(evicted(&sessions, "a", 5, 0), Ok(String::new()));
        assert_eq!(evicted(&sessions, "a", 4, 0), Ok("a1".into()));
        assert_eq!(evicted(&sessions, "b", 4, 0), Ok("a1".into()));
        assert_eq!(evicted(&sessions, "c", 4, 0), Ok("a1".into()));
    }

    #[test]
    fn of_equal_projects_the_one_that_asks_gives_and_else_the_longest_unused() {
        let sessions = [
            ("b1", "b", 0),
            ("b2", "b", 0),
            ("a1", "a", 0),
            ("a2", "a", 0),
        ];
        assert_eq!(evicted(&sessions, "a", 4, 0), Ok("a1".into()));
        assert_eq!(evicted(&sessions, "b", 4, 0), Ok("b1".into()));
        assert_eq!(evicted(&sessions, "c", 4, 0), Ok("b1".into()));
        let singles = [("b1", "b", 0), ("a1", "a", 0)];
        assert_eq!(evicted(&singles, "c", 2, 0), Ok("b1".into()));
    }

    #[test]
    fn sessions_at_work_never_go_and_smaller_projects_give_only_then() {
        let sessions = [
            ("b1", "b", 0),
            ("a1", "a", 1),
            ("a2", "a", 1),
            ("a3", "a", 0),
        ];
        assert_eq!(evicted(&sessions, "b", 4, 0), Ok("a3".into()));
        let sessions = [("b1", "b", 0), ("a1", "a", 1), ("a2", "a", 1)];
        assert_eq!(evicted(&sessions, "a", 3, 0), Ok("b1".into()));
        let sessions = [("b1", "b", 2), ("a1", "a", 1), ("a2", "a", 1)];
        assert_eq!(evicted(&sessions, "a", 3, 0), Err("busy"));
    }

    #[test]
    fn a_quota_bites_before_the_worker_is_full() {
        let sessions = [("b1", "b", 0), ("a1", "a", 1), ("a2", "a", 0)];
        assert_eq!(evicted(&sessions, "a", 16, 3), Ok(String::new()));
        assert_eq!(evicted(&sessions, "a", 16, 2), Ok("a2".into()));
        let sessions = [("b1", "b", 0), ("a1", "a", 1), ("a2", "a", 1)];
        assert_eq!(evicted(&sessions, "a", 16, 2), Err("busy"));
        assert_eq!(evicted(&sessions, "b", 16, 2), Ok(String::new()));
    }
}
