//! The supervisor's handle of a zygote process.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::process::Stdio;
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
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::timeout;

use crate::descriptors;
use crate::zygote;
use crate::zygote::messages::ForkRequest;
use crate::zygote::messages::ZygoteMessage;
use crate::zygote::messages::ZygoteSetup;

/// Time limit for loading Python and its packages; a loaded machine has needed 16 seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a zygote may take to end after its control socket has closed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a session could not be created; the message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Python does not start, whatever the confinement.
    #[error("Python does not start: {0}; run scripts/setup")]
    Python(String),
    #[error("{0}")]
    Other(String),
}

impl SessionError {
    pub fn new(reason: impl Into<String>) -> Self {
        Self::Other(reason.into())
    }
}

/// A running zygote. Dropping it closes the control socket, which ends the process.
pub struct ZygoteProcess {
    control: tokio::sync::Mutex<AsyncFd<OwnedFd>>,
    python: String,
    forks: AtomicU32,
    broken: AtomicBool,
    started: Instant,
    process: Child,
}

impl ZygoteProcess {
    /// Starts a zygote and waits until it is ready to fork.
    pub async fn start(setup: &ZygoteSetup) -> Result<Self, SessionError> {
        let failed =
            |error: io::Error| SessionError::new(format!("could not start a zygote: {error}"));
        let (control, zygote_end) = message_socket_pair().map_err(failed)?;
        let mut process = Command::new("/proc/self/exe")
            .arg0(zygote::NAME)
            .env_clear()
            .stdin(Stdio::from(zygote_end))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        descriptors::send(control.get_ref(), setup, &[]).map_err(failed)?;
        let Ok(message) = timeout(START_TIMEOUT, receive(&control)).await else {
            // Killing it fails only if the process has just ended.
            let _ = process.start_kill();
            return Err(SessionError::new(
                "Python took too long to load its packages",
            ));
        };
        match message {
            Ok((ZygoteMessage::Ready { python }, _)) => Ok(Self {
                control: tokio::sync::Mutex::new(control),
                python,
                forks: AtomicU32::new(0),
                broken: AtomicBool::new(false),
                started: Instant::now(),
                process,
            }),
            Ok((ZygoteMessage::PythonFailed { message }, _)) => Err(SessionError::Python(message)),
            Ok((
                ZygoteMessage::Failed { message } | ZygoteMessage::ForkFailed { message, .. },
                _,
            )) => Err(SessionError::new(message)),
            Ok((ZygoteMessage::Forked { .. }, _)) => {
                Err(SessionError::new("the zygote sent an unexpected message"))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The version of Python that the zygote runs.
    pub fn python(&self) -> &str {
        &self.python
    }

    /// The number of fork requests so far.
    pub fn forks(&self) -> u32 {
        self.forks.load(Ordering::Relaxed)
    }

    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the zygote can fork no more sessions.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub fn mark_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Forks session `number` with these descriptors; see [`ForkRequest`].
    pub async fn fork(&self, number: u32, ends: [OwnedFd; 4]) -> Result<(), SessionError> {
        let control = self.control.lock().await;
        self.forks.fetch_add(1, Ordering::Relaxed);
        let raw = ends.each_ref().map(AsRawFd::as_raw_fd);
        let mut exchange = descriptors::send(control.get_ref(), &ForkRequest { number }, &raw);
        while exchange.is_ok() {
            match receive::<ZygoteMessage>(&control).await {
                Ok((ZygoteMessage::Forked { number: answered }, _)) if answered == number => {
                    return Ok(());
                }
                Ok((
                    ZygoteMessage::ForkFailed {
                        number: answered,
                        message,
                    },
                    _,
                )) if answered == number => {
                    return Err(SessionError::new(message));
                }
                // The answer to an earlier request that timed out.
                Ok((ZygoteMessage::Forked { .. } | ZygoteMessage::ForkFailed { .. }, _)) => {}
                Ok((
                    ZygoteMessage::Ready { .. }
                    | ZygoteMessage::PythonFailed { .. }
                    | ZygoteMessage::Failed { .. },
                    _,
                )) => {
                    exchange = Err(io::ErrorKind::InvalidData.into());
                }
                Err(error) => exchange = Err(error),
            }
        }
        self.mark_broken();
        Err(SessionError::new("the zygote has ended"))
    }

    /// Closes the control socket and waits for the process to end.
    pub async fn shut_down(self) {
        let Self {
            control,
            mut process,
            ..
        } = self;
        drop(control);
        // A zygote that does not end in time is killed by the kernel when this process ends.
        let _ = timeout(SHUTDOWN_TIMEOUT, process.wait()).await;
    }
}

/// A SEQPACKET socket pair; the first end does not block.
pub fn message_socket_pair() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (own_end, other_end) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    fcntl(&own_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((descriptors::watch(own_end)?, other_end))
}

/// Receives a message and its descriptors.
pub async fn receive<T: DeserializeOwned>(
    socket: &AsyncFd<OwnedFd>,
) -> io::Result<(T, Vec<OwnedFd>)> {
    socket
        .async_io(Interest::READABLE, |socket| descriptors::receive(socket))
        .await
}
