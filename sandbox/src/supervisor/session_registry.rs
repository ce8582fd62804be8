//! Which sessions there are, and who has them.

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
use crate::supervisor::session_factory::NoSession;
use crate::supervisor::session_factory::Nursery;
use crate::supervisor::session_processes::Vitals;

/// How often sessions are looked at that nobody uses.
const ROUND: Duration = Duration::from_secs(1);

/// For how many ended sessions the reason is remembered until somebody opens them again.
const ENDED_MAX: usize = 1_000;

/// Every session of this worker, by name.
pub struct Sessions {
    settings: Arc<Settings>,
    nursery: Arc<Nursery>,
    /// Most sessions at a time.
    limit: usize,
    /// Whether there is one session, ever.
    single: bool,
    table: Mutex<Table>,
    spent: Notify,
}

#[derive(Default)]
struct Table {
    rooms: HashMap<String, Arc<Room>>,
    /// Why sessions were ended between cells, by name, the oldest first.
    ended: VecDeque<(String, Notice)>,
    /// How many there have been.
    ever: u64,
}

/// Has a session, as long as there is one.
type Guard = OwnedMutexGuard<Option<Session>>;

/// The place of a session. Whoever holds its lock has the session.
struct Room {
    name: String,
    /// Whose session it is.
    project: String,
    session: Arc<tokio::sync::Mutex<Option<Session>>>,
    vitals: OnceLock<Arc<Vitals>>,
    born: Instant,
    /// Guarded by the table's lock, like every use of a room.
    usage: Mutex<RoomUsage>,
}

struct RoomUsage {
    /// How many connections have the session or wait for it.
    claims: usize,
    last_used: Instant,
}

/// What came of opening a session.
pub enum Opening {
    /// It is there.
    Opened {
        /// The session.
        attached: Box<Attached>,
        /// Whether it was made just now.
        fresh: bool,
        /// What the output of the next cell begins with.
        notice: Option<Notice>,
    },
    /// It is not there, and was not to be made.
    Absent,
    /// There can be no more sessions, and all are in use.
    Busy,
}

/// A session that one connection has for itself, until this is dropped.
pub struct Attached {
    guard: Guard,
    claim: Claim,
}

/// Keeps a room from being cleared.
struct Claim {
    sessions: Arc<Sessions>,
    room: Arc<Room>,
}

impl Sessions {
    /// No sessions yet; they come from this nursery.
    pub fn new(settings: Arc<Settings>, nursery: Arc<Nursery>, tier: Tier) -> Arc<Self> {
        let single = tier != Tier::Namespaces;
        Arc::new(Self {
            limit: if single {
                1
            } else {
                settings.sessions as usize
            },
            single,
            settings,
            nursery,
            table: Mutex::default(),
            spent: Notify::new(),
        })
    }

    /// Most sessions at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.lock().rooms.len()
    }

    /// Takes the session of this name. Waits while another connection has it.
    pub async fn open(
        self: &Arc<Self>,
        name: &str,
        project: &str,
        create: bool,
    ) -> Result<Opening, NoSession> {
        loop {
            let (claim, new_guard) = match self.claim(name, project, create) {
                Ok(claimed) => claimed,
                Err(opening) => return Ok(opening),
            };
            let is_new = new_guard.is_some();
            let mut guard = match new_guard {
                Some(guard) => guard,
                None => claim.room.session.clone().lock_owned().await,
            };
            if is_new {
                let newborn = match self.nursery.take().await {
                    Ok(newborn) => newborn,
                    Err(error) => {
                        self.remove(&claim.room);
                        return Err(error);
                    }
                };
                let session = Session::new(newborn, self.settings.clone());
                // A room gets one session, so the place is empty.
                let _ = claim.room.vitals.set(session.vitals().clone());
                *guard = Some(session);
                tracing::info!(session = name, "session {name} began");
            }
            if let Some(session) = guard.as_ref()
                && session.vitals().alive()
            {
                let notice = match is_new {
                    true => self.lock().take_ended(name),
                    false => session.vitals().take_notice(),
                };
                return Ok(Opening::Opened {
                    attached: Box::new(Attached { guard, claim }),
                    fresh: is_new,
                    notice,
                });
            }
            // It ended while we waited, or while nobody looked.
            self.remove(&claim.room);
        }
    }

    /// Ends sessions that have been unused or alive for too long, that have died, or that use too
    /// much memory, or too much processor time between cells. Never returns.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            let rooms: Vec<_> = self.lock().rooms.values().cloned().collect();
            for room in rooms {
                self.look_after(&room);
            }
        }
    }

    /// Ends all sessions.
    pub fn clear(&self) {
        for room in self.lock().rooms.drain().map(|(_, room)| room) {
            if let Some(vitals) = room.vitals.get() {
                vitals.kill();
            }
        }
    }

    /// Waits until the one session of a worker that has only one has ended.
    pub async fn spent(&self) {
        self.spent.notified().await;
    }

    fn look_after(&self, room: &Arc<Room>) {
        let Some(vitals) = room.vitals.get() else {
            return;
        };
        if let Some(done) = vitals.enforce_limits() {
            let done = match done {
                Notice::ProcessesKilled => "killed its processes: too much CPU time between cells",
                Notice::EndedForCpu => "ended: too much CPU time between cells",
                Notice::EndedForMemory => "ended: too much memory",
            };
            tracing::warn!(session = room.name, "session {} {done}", room.name);
        }
        // Nobody runs a cell while this is held. Where somebody does, the cell is looked after.
        let Ok(mut session) = room.session.try_lock() else {
            return;
        };
        let idle = Duration::from_secs(self.settings.idle_seconds);
        let life = Duration::from_secs(self.settings.life_seconds);
        let why = {
            let _table = self.lock();
            let usage = room.usage();
            if !vitals.alive() {
                "it has died"
            } else if usage.claims == 0 && usage.last_used.elapsed() >= idle {
                "it was not used for too long"
            } else if usage.claims == 0 && room.born.elapsed() >= life {
                "it has lived for too long"
            } else {
                return;
            }
        };
        *session = None;
        drop(session);
        tracing::info!(session = room.name, "session {} ended: {why}", room.name);
        self.remove(room);
    }

    /// Claims the room of this name, or a new one. A new one comes locked, so that whoever finds
    /// it finds a session in it.
    fn claim(
        self: &Arc<Self>,
        name: &str,
        project: &str,
        create: bool,
    ) -> Result<(Claim, Option<Guard>), Opening> {
        let mut evicted = None;
        let claimed = {
            let mut table = self.lock();
            let found = table.rooms.get(name).cloned();
            let mut guard = None;
            let room = match found {
                Some(room) => room,
                None if !create => return Err(Opening::Absent),
                None if self.single && table.ever > 0 => return Err(Opening::Busy),
                None => {
                    let quota = self.settings.project_sessions as usize;
                    evicted = table.make_place(project, self.limit, quota)?;
                    table.ever += 1;
                    let room = Arc::new(Room::new(name, project));
                    guard = room.session.clone().try_lock_owned().ok();
                    table.rooms.insert(name.to_owned(), room.clone());
                    room
                }
            };
            room.usage().claims += 1;
            let sessions = self.clone();
            (Claim { sessions, room }, guard)
        };
        if let Some(room) = evicted {
            tracing::info!(session = room.name, "evicted idle session {}", room.name);
            room.end();
        }
        Ok(claimed)
    }

    /// Forgets a room and ends its session, unless another has its name by now.
    fn remove(&self, room: &Arc<Room>) {
        let mut table = self.lock();
        if table
            .rooms
            .get(&room.name)
            .is_some_and(|other| Arc::ptr_eq(other, room))
        {
            table.rooms.remove(&room.name);
        }
        let notice = room.vitals.get().and_then(|vitals| vitals.take_notice());
        if let Some(notice @ (Notice::EndedForCpu | Notice::EndedForMemory)) = notice {
            table.remember_ended(&room.name, notice);
        }
        drop(table);
        room.end();
        if self.single {
            self.spent.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("nothing panics while it holds this")
    }
}

impl Table {
    /// Makes place for a session of this project, and takes out the room that has to go for it, if
    /// one has to. `limit` is the worker's, and `quota` each project's if it is not 0.
    ///
    /// A room goes only if nobody has it. The project that would have the most sessions gives one,
    /// so that a project that opens many gives its own: of equals the one that asks, and then the
    /// one whose session was not used for longest. Where all sessions of a project are at work, the
    /// next smaller one gives.
    fn make_place(
        &mut self,
        project: &str,
        limit: usize,
        quota: usize,
    ) -> Result<Option<Arc<Room>>, Opening> {
        let mut counts: HashMap<&str, usize> = HashMap::from([(project, 1)]);
        for room in self.rooms.values() {
            *counts.entry(&room.project).or_default() += 1;
        }
        let over_quota = quota > 0 && counts[project] > quota;
        if !over_quota && self.rooms.len() < limit {
            return Ok(None);
        }
        let chosen = self
            .rooms
            .values()
            .filter(|room| room.usage().claims == 0)
            .filter(|room| !over_quota || room.project == project)
            .max_by_key(|room| {
                let count = counts[room.project.as_str()];
                let last_used = Reverse(room.usage().last_used);
                (count, room.project == project, last_used)
            })
            .map(|room| room.name.clone());
        match chosen.and_then(|name| self.rooms.remove(&name)) {
            Some(room) => Ok(Some(room)),
            None => Err(Opening::Busy),
        }
    }

    fn remember_ended(&mut self, name: &str, notice: Notice) {
        self.take_ended(name);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((name.to_owned(), notice));
    }

    /// Why the last session of this name was ended between cells, if it was.
    fn take_ended(&mut self, name: &str) -> Option<Notice> {
        let at = self.ended.iter().position(|(ended, _)| ended == name)?;
        self.ended.remove(at).map(|(_, notice)| notice)
    }
}

impl Room {
    fn new(name: &str, project: &str) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            project: project.to_owned(),
            session: Arc::default(),
            vitals: OnceLock::new(),
            born: now,
            usage: Mutex::new(RoomUsage {
                claims: 0,
                last_used: now,
            }),
        }
    }

    fn usage(&self) -> MutexGuard<'_, RoomUsage> {
        self.usage
            .lock()
            .expect("nothing panics while it holds this")
    }

    /// Ends the session, whoever has it.
    fn end(&self) {
        if let Some(vitals) = self.vitals.get() {
            vitals.kill();
        }
        if let Ok(mut session) = self.session.try_lock() {
            *session = None;
        }
    }
}

impl Attached {
    /// The session.
    pub fn session(&mut self) -> &mut Session {
        self.guard
            .as_mut()
            .expect("it is there until this is dropped")
    }

    /// Ends the session for good.
    pub fn close(mut self) {
        *self.guard = None;
        self.claim.sessions.remove(&self.claim.room);
        tracing::info!(
            session = self.claim.room.name,
            "session {} closed",
            self.claim.room.name
        );
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _table = self.sessions.lock();
        let mut usage = self.room.usage();
        usage.claims -= 1;
        usage.last_used = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with these sessions: name, project, and how many connections have it. Each was used
    /// after those before it.
    fn table(sessions: &[(&str, &str, usize)]) -> Table {
        let mut table = Table::default();
        let start = Instant::now();
        for ((name, project, claims), number) in sessions.iter().zip(0..) {
            let room = Room::new(name, project);
            room.usage().claims = *claims;
            room.usage().last_used = start + Duration::from_millis(number);
            table.rooms.insert((*name).to_owned(), Arc::new(room));
        }
        table
    }

    /// Which session goes when this project opens one; `""` if none has to.
    fn evicted(
        sessions: &[(&str, &str, usize)],
        project: &str,
        limit: usize,
        quota: usize,
    ) -> Result<String, &'static str> {
        match table(sessions).make_place(project, limit, quota) {
            Ok(room) => Ok(room.map_or(String::new(), |room| room.name.clone())),
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
