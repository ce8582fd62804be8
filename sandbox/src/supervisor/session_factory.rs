//! Creates sessions by forking a zygote, and keeps pre-forked sessions in reserve.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use sandbox_protocol::Tier;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::python::Venv;
use crate::settings::Settings;
use crate::supervisor::kernel_link::KernelLink;
use crate::supervisor::kernel_link::KernelMessage;
use crate::supervisor::kernel_link::KernelRequest;
use crate::supervisor::pipe_reader::PipeReader;
use crate::supervisor::session_processes::SessionProcesses;
use crate::supervisor::workspace::Workspace;
use crate::supervisor::zygote_process::SessionError;
use crate::supervisor::zygote_process::ZygoteProcess;
use crate::supervisor::zygote_process::message_socket_pair;
use crate::supervisor::zygote_process::receive;
use crate::zygote::messages::SessionReport;
use crate::zygote::messages::ZygoteSetup;

/// Time limit for forking and confining a session, and for its warm-up.
const FORK_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between the use of a pre-forked session and its replacement, so that the first cell does
/// not compete with a fork for the CPU.
const REFILL_DELAY: Duration = Duration::from_millis(60);

/// Pause before another attempt after a failure to pre-fork a session.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Session numbers wrap around after this many, far more than are alive at a time.
const SESSION_NUMBERS: u32 = 100_000;

/// A session that has run no cell: its processes and their connections with the supervisor.
pub struct ForkedSession {
    pub link: KernelLink,
    /// Standard output of the session's programs.
    pub stdout: PipeReader,
    /// Standard error of the session's programs.
    pub stderr: PipeReader,
    pub processes: Arc<SessionProcesses>,
    pub workspace: Workspace,
    /// The Landlock ABI version in force; 0 if there is none.
    pub landlock: i32,
    /// Whether the session has a `/proc` of its own.
    pub has_process_list: bool,
    /// User id outside the session, if it differs from the worker's.
    pub user: Option<u32>,
    /// Sessions end with their zygote, so each keeps it alive.
    _zygote: Arc<ZygoteProcess>,
}

/// Creates sessions of one tier.
pub struct SessionFactory {
    settings: Arc<Settings>,
    setup: ZygoteSetup,
    /// Locked while a zygote starts, so that only one is started.
    zygote: tokio::sync::Mutex<Option<Arc<ZygoteProcess>>>,
    preforked: Mutex<VecDeque<ForkedSession>>,
    /// Notified when a pre-forked session was requested.
    requested: Notify,
    next_number: AtomicU32,
}

impl SessionFactory {
    /// A factory that has started no process yet.
    pub fn new(settings: Arc<Settings>, venv: &Venv, tier: Tier) -> Self {
        let setup = ZygoteSetup {
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
            preforked: Mutex::new(VecDeque::new()),
            requested: Notify::new(),
            next_number: AtomicU32::new(0),
        }
    }

    /// The version of Python, as reported by the zygote.
    pub async fn python_version(&self) -> Result<String, SessionError> {
        Ok(self.zygote().await?.python().to_owned())
    }

    /// Returns a pre-forked session, or forks one if there is none.
    pub async fn take(&self) -> Result<ForkedSession, SessionError> {
        loop {
            let preforked = self.lock_preforked().pop_front();
            self.requested.notify_one();
            match preforked {
                Some(session) if session.processes.is_alive() => return Ok(session),
                Some(_) => {}
                None => return self.fork().await,
            }
        }
    }

    /// Forks a session.
    pub async fn fork(&self) -> Result<ForkedSession, SessionError> {
        loop {
            let zygote = self.zygote().await?;
            let number = self.next_number.fetch_add(1, Ordering::Relaxed) % SESSION_NUMBERS;
            let forked = match timeout(FORK_TIMEOUT, self.fork_from(&zygote, number)).await {
                Ok(forked) => forked,
                Err(_) => {
                    zygote.mark_broken();
                    return Err(SessionError::new("a new session took too long to start"));
                }
            };
            // A zygote that has ended since its last fork is replaced. One that ends at its first
            // fork would end again.
            let has_served = zygote.forks() > 1;
            if forked.is_ok() || !has_served || !zygote.is_broken() {
                return forked;
            }
            tracing::warn!("the zygote has ended unexpectedly; starting another");
        }
    }

    /// Replaces used pre-forked sessions and renews the zygote. Never returns.
    pub async fn maintain(&self) {
        // In these tiers the worker has one session, ever.
        let is_single = self.setup.tier != Tier::Namespaces;
        let wanted = if is_single {
            1
        } else {
            self.settings.spares as usize
        };
        loop {
            if let Err(error) = self.refill(wanted).await {
                tracing::warn!(
                    error = %error,
                    "could not pre-fork a session: {error}; retrying in {} s",
                    RETRY_DELAY.as_secs()
                );
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            if is_single {
                return std::future::pending().await;
            }
            self.requested.notified().await;
            tokio::time::sleep(REFILL_DELAY).await;
        }
    }

    /// Ends the pre-forked sessions, and the zygote unless other sessions still use it.
    pub async fn shut_down(&self) {
        self.lock_preforked().clear();
        let zygote = self.zygote.lock().await.take();
        if let Some(zygote) = zygote.and_then(Arc::into_inner) {
            zygote.shut_down().await;
        }
    }

    async fn refill(&self, wanted: usize) -> Result<(), SessionError> {
        self.renew_zygote().await?;
        loop {
            {
                let mut preforked = self.lock_preforked();
                preforked.retain(|session| session.processes.is_alive());
                if preforked.len() >= wanted {
                    return Ok(());
                }
            }
            let mut session = self.fork().await?;
            warm_up(&mut session.link).await.map_err(|error| {
                SessionError::new(format!("a new session does not answer: {error}"))
            })?;
            self.lock_preforked().push_back(session);
        }
    }

    /// Starts another zygote if the current one has reached its age or session limit. Sessions of
    /// the old zygote keep it alive until they end; its pre-forked sessions end now.
    async fn renew_zygote(&self) -> Result<(), SessionError> {
        let current = self.zygote().await?;
        let max_age = Duration::from_secs(self.settings.zygote_seconds);
        if current.forks() < self.settings.zygote_sessions && current.age() < max_age {
            return Ok(());
        }
        let new = Arc::new(ZygoteProcess::start(&self.setup).await?);
        *self.zygote.lock().await = Some(new);
        self.lock_preforked().clear();
        tracing::info!("renewed the zygote");
        Ok(())
    }

    async fn zygote(&self) -> Result<Arc<ZygoteProcess>, SessionError> {
        let mut current = self.zygote.lock().await;
        if let Some(zygote) = current.as_ref()
            && !zygote.is_broken()
        {
            return Ok(zygote.clone());
        }
        let zygote = Arc::new(ZygoteProcess::start(&self.setup).await?);
        *current = Some(zygote.clone());
        Ok(zygote)
    }

    async fn fork_from(
        &self,
        zygote: &Arc<ZygoteProcess>,
        number: u32,
    ) -> Result<ForkedSession, SessionError> {
        let failed =
            |error: io::Error| SessionError::new(format!("could not start a session: {error}"));
        let (kernel, kernel_end) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        kernel.set_nonblocking(true).map_err(failed)?;
        let link = KernelLink::new(UnixStream::from_std(kernel).map_err(failed)?);
        let (stdout, stdout_end) = output_pipe().map_err(failed)?;
        let (stderr, stderr_end) = output_pipe().map_err(failed)?;
        let (report, report_end) = message_socket_pair().map_err(failed)?;
        let kernel_end = OwnedFd::from(kernel_end);
        zygote
            .fork(number, [kernel_end, stdout_end, stderr_end, report_end])
            .await?;
        let (report, descriptors) = receive::<SessionReport>(&report)
            .await
            .map_err(|_| SessionError::new("a new session ended before it was confined"))?;
        let (landlock, has_process_list, user) = match report {
            SessionReport::Confined {
                landlock,
                has_process_list,
                user,
            } => (landlock, has_process_list, user),
            SessionReport::Failed { message } => return Err(SessionError::new(message)),
        };
        let [init, python, data] = <[OwnedFd; 3]>::try_from(descriptors)
            .map_err(|_| SessionError::new("a new session did not send its descriptors"))?;
        let own_namespace = self.setup.tier == Tier::Namespaces;
        let memory_bytes = self.setup.limits.memory_bytes;
        let processes =
            SessionProcesses::new(init, python, own_namespace, memory_bytes).map_err(failed)?;
        let mut session = ForkedSession {
            link,
            stdout,
            stderr,
            processes: Arc::new(processes),
            workspace: Workspace::new(data, user, &self.settings),
            landlock,
            has_process_list,
            user,
            _zygote: zygote.clone(),
        };
        match session.link.messages.next().await {
            Ok(KernelMessage::Ready) => Ok(session),
            _ => {
                let stderr = session.stderr.read_rest();
                Err(SessionError::new(format!(
                    "a new session ended: {}",
                    stderr.trim()
                )))
            }
        }
    }

    fn lock_preforked(&self) -> MutexGuard<'_, VecDeque<ForkedSession>> {
        self.preforked
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

/// Runs a trivial cell, which makes the first real one faster.
async fn warm_up(link: &mut KernelLink) -> io::Result<()> {
    let exchange = async {
        link.send(&KernelRequest::Warm).await?;
        while link.messages.next().await? != KernelMessage::Warm {}
        Ok(())
    };
    timeout(FORK_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn output_pipe() -> io::Result<(PipeReader, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((PipeReader::new(pipe::Receiver::from_owned_fd(read)?), write))
}
