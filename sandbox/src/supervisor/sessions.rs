//! Which sessions there are, and who has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use sandbox_protocol::Tier;
use tokio::sync::Notify;
use tokio::sync::OwnedMutexGuard;

use crate::settings::Settings;
use crate::supervisor::nursery::NoSession;
use crate::supervisor::nursery::Nursery;
use crate::supervisor::session::Session;
use crate::supervisor::vitals::Vitals;

/// How often sessions are looked at that nobody uses.
const ROUND: Duration = Duration::from_secs(1);

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
    /// How many there have been.
    ever: u64,
}

/// Has a session, as long as there is one.
type Guard = OwnedMutexGuard<Option<Session>>;

/// The place of a session. Whoever holds its lock has the session.
struct Room {
    name: String,
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
    pub async fn open(self: &Arc<Self>, name: &str, create: bool) -> Result<Opening, NoSession> {
        loop {
            let (claim, new_guard) = match self.claim(name, create) {
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
            if guard
                .as_ref()
                .is_some_and(|session| session.vitals().alive())
            {
                return Ok(Opening::Opened {
                    attached: Box::new(Attached { guard, claim }),
                    fresh: is_new,
                });
            }
            // It ended while we waited, or while nobody looked.
            self.remove(&claim.room);
        }
    }

    /// Ends sessions that have been unused or alive for too long, that have died, or that use too
    /// much memory. Never returns.
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
        if vitals.exceeds_memory(vitals.usage()) {
            tracing::warn!(
                session = room.name,
                "session {} uses too much memory",
                room.name
            );
            vitals.kill_for_memory();
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
                    if table.rooms.len() >= self.limit {
                        evicted = Some(table.evict().ok_or(Opening::Busy)?);
                    }
                    table.ever += 1;
                    let room = Arc::new(Room::new(name));
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
            tracing::info!(
                session = room.name,
                "session {} made room for another",
                room.name
            );
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
    /// Takes out the room that nobody has used for longest, if there is one that nobody has.
    fn evict(&mut self) -> Option<Arc<Room>> {
        let name = self
            .rooms
            .values()
            .filter(|room| room.usage().claims == 0)
            .min_by_key(|room| room.usage().last_used)
            .map(|room| room.name.clone())?;
        self.rooms.remove(&name)
    }
}

impl Room {
    fn new(name: &str) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
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
