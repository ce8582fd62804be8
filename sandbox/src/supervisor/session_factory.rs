//! Where sessions come from: the zygote, and sessions kept warm for whoever comes next.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::socketpair;
use sandbox_protocol::Tier;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::descriptors;
use crate::python::Venv;
use crate::settings::Settings;
use crate::supervisor::kernel_link::KernelLink;
use crate::supervisor::kernel_link::Order;
use crate::supervisor::kernel_link::Said;
use crate::supervisor::pipe_reader::PipeText;
use crate::supervisor::session_processes::Vitals;
use crate::supervisor::workspace::Workspace;
use crate::zygote;
use crate::zygote::Fork;
use crate::zygote::News;
use crate::zygote::Setup;
use crate::zygote::session_process::Birth;

/// How long warming up may take; on a loaded machine it has taken 16 seconds.
const WARM_UP: Duration = Duration::from_secs(120);

/// How long the birth of a session may take.
const BIRTH: Duration = Duration::from_secs(30);

/// How long a zygote may take to end when its worker does.
const FAREWELL: Duration = Duration::from_secs(2);

/// Spares are made a moment after one was taken, so that its first cell has the processors.
const REFILL_DELAY: Duration = Duration::from_millis(60);

/// How long to wait after a failure before spares are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Numbers of sessions start again after this many. Far more than live at a time.
const NUMBERS: u32 = 100_000;

/// Why there is no session; a sentence for whoever operates the worker.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// Python does not start, however sessions are confined.
    #[error("Python does not start: {0}; run scripts/setup")]
    Python(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl NoSession {
    /// This is why.
    pub fn new(why: impl Into<String>) -> Self {
        Self::Other(why.into())
    }
}

/// A session's processes and what connects them with the supervisor.
pub struct Newborn {
    /// What the kernel says and is told.
    pub link: KernelLink,
    /// What programs write to their standard output.
    pub stdout: PipeText,
    /// What programs write to their standard error.
    pub stderr: PipeText,
    /// Its processes.
    pub vitals: Arc<Vitals>,
    /// Its `/mnt/data`.
    pub workspace: Workspace,
    /// The Landlock version that holds, or 0.
    pub landlock: i32,
    /// Whether it has a process list of its own.
    pub processes: bool,
    /// Its user outside, if it has one of its own.
    pub user: Option<u32>,
    /// Sessions end with their zygote, so it has to stay.
    _zygote: Arc<Zygote>,
}

/// A zygote process. It ends when this is dropped.
struct Zygote {
    control: tokio::sync::Mutex<AsyncFd<OwnedFd>>,
    python: String,
    forks: AtomicU32,
    broken: AtomicBool,
    born: Instant,
    process: Child,
}

/// Makes sessions.
pub struct Nursery {
    settings: Arc<Settings>,
    setup: Setup,
    /// Held while a zygote is started, so that only one is.
    zygote: tokio::sync::Mutex<Option<Arc<Zygote>>>,
    spares: Mutex<VecDeque<Newborn>>,
    taken: Notify,
    number: AtomicU32,
}

impl Nursery {
    /// A nursery of sessions in this tier. Nothing is started yet.
    pub fn new(settings: Arc<Settings>, venv: &Venv, tier: Tier) -> Self {
        let setup = Setup {
            tier,
            venv: venv.path.clone(),
            base: venv.base.clone(),
            limits: settings.limits(),
            first_id: settings.first_uid,
        };
        Self {
            settings,
            setup,
            zygote: tokio::sync::Mutex::new(None),
            spares: Mutex::new(VecDeque::new()),
            taken: Notify::new(),
            number: AtomicU32::new(0),
        }
    }

    /// The version of Python that the zygote has started.
    pub async fn python(&self) -> Result<String, NoSession> {
        Ok(self.zygote().await?.python.clone())
    }

    /// A session that has run nothing.
    pub async fn take(&self) -> Result<Newborn, NoSession> {
        loop {
            let spare = self.lock_spares().pop_front();
            self.taken.notify_one();
            match spare {
                Some(spare) if spare.vitals.alive() => return Ok(spare),
                Some(_) => {}
                None => return self.make().await,
            }
        }
    }

    /// Forks a session.
    pub async fn make(&self) -> Result<Newborn, NoSession> {
        loop {
            let zygote = self.zygote().await?;
            let number = self.number.fetch_add(1, Ordering::Relaxed) % NUMBERS;
            let newborn = match timeout(BIRTH, self.bear(&zygote, number)).await {
                Ok(newborn) => newborn,
                Err(_) => {
                    zygote.broken.store(true, Ordering::Relaxed);
                    return Err(NoSession::new("a new session took too long to start"));
                }
            };
            // One that has ended while nobody looked is replaced; one that ends at its first fork
            // would end again.
            let served = zygote.forks.load(Ordering::Relaxed) > 1;
            if newborn.is_ok() || !served || !zygote.broken.load(Ordering::Relaxed) {
                return newborn;
            }
            tracing::warn!("the warm interpreter has ended; another is started");
        }
    }

    /// Keeps spares in stock, and the zygote young. Never returns.
    pub async fn keep(&self) {
        let single = self.setup.tier != Tier::Namespaces;
        let wanted = if single {
            1
        } else {
            self.settings.spares as usize
        };
        loop {
            if let Err(error) = self.refill(wanted).await {
                tracing::warn!(error = %error, "no spare session: {error}");
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            if single {
                // The worker has one session, ever.
                return std::future::pending().await;
            }
            self.taken.notified().await;
            tokio::time::sleep(REFILL_DELAY).await;
        }
    }

    /// Ends the spares, and the zygote if no session is left that needs it.
    pub async fn end(&self) {
        self.lock_spares().clear();
        let zygote = self.zygote.lock().await.take();
        if let Some(zygote) = zygote.and_then(Arc::into_inner) {
            zygote.end().await;
        }
    }

    async fn refill(&self, wanted: usize) -> Result<(), NoSession> {
        self.renew_zygote().await?;
        loop {
            {
                let mut spares = self.lock_spares();
                spares.retain(|spare| spare.vitals.alive());
                if spares.len() >= wanted {
                    return Ok(());
                }
            }
            let mut spare = self.make().await?;
            warm(&mut spare.link).await.map_err(|error| {
                NoSession::new(format!("a new session does not answer: {error}"))
            })?;
            self.lock_spares().push_back(spare);
        }
    }

    /// Starts another zygote when the one there is has served its time. Sessions of the old one
    /// keep it until they end; its spares end now.
    async fn renew_zygote(&self) -> Result<(), NoSession> {
        let old = self.zygote().await?;
        let age = Duration::from_secs(self.settings.zygote_seconds);
        if old.forks.load(Ordering::Relaxed) < self.settings.zygote_sessions
            && old.born.elapsed() < age
        {
            return Ok(());
        }
        let new = Arc::new(self.start_zygote().await?);
        *self.zygote.lock().await = Some(new);
        self.lock_spares().clear();
        tracing::info!("the warm interpreter was started anew");
        Ok(())
    }

    async fn zygote(&self) -> Result<Arc<Zygote>, NoSession> {
        let mut place = self.zygote.lock().await;
        if let Some(zygote) = place.as_ref()
            && !zygote.broken.load(Ordering::Relaxed)
        {
            return Ok(zygote.clone());
        }
        let zygote = Arc::new(self.start_zygote().await?);
        *place = Some(zygote.clone());
        Ok(zygote)
    }

    async fn start_zygote(&self) -> Result<Zygote, NoSession> {
        let cannot = |error: io::Error| NoSession::new(format!("cannot start a zygote: {error}"));
        let (ours, theirs) = message_pair().map_err(cannot)?;
        let mut process = Command::new("/proc/self/exe")
            .arg0(zygote::NAME)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        descriptors::send(ours.get_ref(), &self.setup, &[]).map_err(cannot)?;
        let Ok(news) = timeout(WARM_UP, receive(&ours)).await else {
            // It may have ended by itself meanwhile.
            let _ = process.start_kill();
            return Err(NoSession::new("Python took too long to warm up"));
        };
        match news {
            Ok((News::Ready { python }, _)) => Ok(Zygote {
                control: tokio::sync::Mutex::new(ours),
                python,
                forks: AtomicU32::new(0),
                broken: AtomicBool::new(false),
                born: Instant::now(),
                process,
            }),
            Ok((News::NoPython { message }, _)) => Err(NoSession::Python(message)),
            Ok((News::Failed { message } | News::NotForked { message, .. }, _)) => {
                Err(NoSession::new(message))
            }
            Ok((News::Forked { .. }, _)) => Err(NoSession::new("the zygote speaks out of turn")),
            Err(error) => Err(cannot(error)),
        }
    }

    async fn bear(&self, zygote: &Arc<Zygote>, number: u32) -> Result<Newborn, NoSession> {
        let cannot = |error: io::Error| NoSession::new(format!("cannot start a session: {error}"));
        let (kernel, kernel_end) = std::os::unix::net::UnixStream::pair().map_err(cannot)?;
        kernel.set_nonblocking(true).map_err(cannot)?;
        let link = KernelLink::new(UnixStream::from_std(kernel).map_err(cannot)?);
        let (stdout, stdout_end) = output_pipe().map_err(cannot)?;
        let (stderr, stderr_end) = output_pipe().map_err(cannot)?;
        let (report, report_end) = message_pair().map_err(cannot)?;
        let kernel_end = OwnedFd::from(kernel_end);
        zygote
            .fork(number, [kernel_end, stdout_end, stderr_end, report_end])
            .await?;
        let (birth, held) = receive::<Birth>(&report)
            .await
            .map_err(|_| NoSession::new("a new session ended before it was confined"))?;
        let (landlock, processes, user) = match birth {
            Birth::Born {
                landlock,
                processes,
                user,
            } => (landlock, processes, user),
            Birth::Failed { message } => return Err(NoSession::new(message)),
        };
        let [init, python, data] = <[OwnedFd; 3]>::try_from(held)
            .map_err(|_| NoSession::new("a new session did not tell of its processes"))?;
        let own_namespace = self.setup.tier == Tier::Namespaces;
        let vitals = Vitals::new(init, python, own_namespace, self.setup.limits.memory_bytes)
            .map_err(cannot)?;
        let mut newborn = Newborn {
            link,
            stdout,
            stderr,
            vitals: Arc::new(vitals),
            workspace: Workspace::new(data, user, &self.settings),
            landlock,
            processes,
            user,
            _zygote: zygote.clone(),
        };
        match newborn.link.ear.next().await {
            Ok(Said::Ready) => Ok(newborn),
            _ => {
                let words = newborn.stderr.rest();
                Err(NoSession::new(format!(
                    "a new session ended: {}",
                    words.trim()
                )))
            }
        }
    }

    fn lock_spares(&self) -> std::sync::MutexGuard<'_, VecDeque<Newborn>> {
        self.spares
            .lock()
            .expect("nothing panics while it holds this")
    }
}

impl Zygote {
    async fn fork(&self, number: u32, ends: [OwnedFd; 4]) -> Result<(), NoSession> {
        let control = self.control.lock().await;
        self.forks.fetch_add(1, Ordering::Relaxed);
        let raw = ends.each_ref().map(AsRawFd::as_raw_fd);
        let mut sent = descriptors::send(control.get_ref(), &Fork { number }, &raw);
        while sent.is_ok() {
            match receive::<News>(&control).await {
                Ok((News::Forked { number: of }, _)) if of == number => return Ok(()),
                Ok((
                    News::NotForked {
                        number: of,
                        message,
                    },
                    _,
                )) if of == number => {
                    return Err(NoSession::new(message));
                }
                // An answer that somebody has not waited for.
                Ok((News::Forked { .. } | News::NotForked { .. }, _)) => {}
                Ok((News::Ready { .. } | News::NoPython { .. } | News::Failed { .. }, _)) => {
                    sent = Err(io::ErrorKind::InvalidData.into());
                }
                Err(error) => sent = Err(error),
            }
        }
        self.broken.store(true, Ordering::Relaxed);
        Err(NoSession::new("the warm interpreter has ended"))
    }

    /// Waits until the process has ended, having told it to.
    async fn end(self) {
        let Self {
            control,
            mut process,
            ..
        } = self;
        drop(control);
        // If it does not end by itself, it ends with this process.
        let _ = timeout(FAREWELL, process.wait()).await;
    }
}

/// Lets a kernel run something trivial, which makes its first cell quicker.
async fn warm(link: &mut KernelLink) -> io::Result<()> {
    let warming = async {
        link.send(&Order::Warm).await?;
        while link.ear.next().await? != Said::Warm {}
        Ok(())
    };
    timeout(BIRTH, warming)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Two ends of a socket that keeps messages apart; the first does not block.
fn message_pair() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((descriptors::watch(ours)?, theirs))
}

fn output_pipe() -> io::Result<(PipeText, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((PipeText::new(pipe::Receiver::from_owned_fd(read)?), write))
}

async fn receive<T: DeserializeOwned>(socket: &AsyncFd<OwnedFd>) -> io::Result<(T, Vec<OwnedFd>)> {
    socket
        .async_io(Interest::READABLE, |socket| descriptors::receive(socket))
        .await
}
