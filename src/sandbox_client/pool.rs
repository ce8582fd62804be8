//! The pool of sandbox workers: finds the session of a thread, on whichever worker it is.
//!
//! Each session name has its own order of workers (rendezvous hashing), so all processes of the
//! server find the same session without communicating.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::{Report, Tier};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::sandbox_client::address::Address;
use crate::sandbox_client::connection::{Connection, OpenOutcome};
use crate::sandbox_client::embedded::{self, EmbeddedWorker};
use crate::sandbox_client::error::SandboxError;
use crate::sandbox_client::session::Session;

/// How long a run waits for a free session, or for a reachable worker.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

const RETRY_DELAY: Duration = Duration::from_millis(250);

/// How long a worker may take to accept a connection and answer the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct SandboxPool {
    workers: Arc<Workers>,
    allow_unsafe: bool,
}

#[derive(Debug)]
enum Workers {
    None(String),
    Embedded {
        address: Address,
        state: watch::Receiver<embedded::State>,
    },
    /// Workers that are started separately.
    Remote {
        addresses: Vec<Address>,
        token: Option<String>,
    },
}

impl SandboxPool {
    pub fn off(reason: impl Into<String>) -> Self {
        Self::of(Workers::None(reason.into()))
    }

    pub fn remote(addresses: Vec<Address>, token: Option<String>) -> Self {
        Self::of(Workers::Remote { addresses, token })
    }

    pub fn embedded(worker: &EmbeddedWorker) -> Self {
        Self::of(Workers::Embedded {
            address: worker.address(),
            state: worker.state(),
        })
    }

    fn of(workers: Workers) -> Self {
        Self {
            workers: Arc::new(workers),
            allow_unsafe: false,
        }
    }

    /// Sets whether workers of the unsafe tier are accepted. For development on a local machine
    /// only.
    pub fn with_unsafe(mut self, allow: bool) -> Self {
        self.allow_unsafe = allow;
        self
    }

    /// The reason why no code can run, as far as it is known without connecting to a worker.
    pub fn unavailable(&self) -> Option<String> {
        match &*self.workers {
            Workers::None(reason) => Some(reason.clone()),
            Workers::Embedded { state, .. } => match &*state.borrow() {
                embedded::State::Failed(reason) => Some(reason.clone()),
                embedded::State::Starting | embedded::State::Ready => None,
            },
            Workers::Remote { .. } => None,
        }
    }

    /// Asks every worker for its report; by address.
    pub async fn reports(&self) -> Vec<(String, Result<Report, SandboxError>)> {
        let (addresses, token) = match &*self.workers {
            Workers::None(_) => return Vec::new(),
            Workers::Embedded { address, .. } => (std::slice::from_ref(address), None),
            Workers::Remote { addresses, token } => (addresses.as_slice(), token.as_deref()),
        };
        let mut reports = Vec::with_capacity(addresses.len());
        for address in addresses {
            match address.workers().await {
                Ok(workers) => {
                    for worker in workers {
                        let report = connect(&worker, token).await.map(|(_, report)| report);
                        reports.push((worker.to_string(), report));
                    }
                }
                Err(error) => reports.push((address.to_string(), Err(error))),
            }
        }
        reports
    }

    /// Opens the session of this name, and creates it if it does not exist. `project` is the label
    /// by which workers balance their sessions. Waits while another connection holds the session,
    /// and up to [`OPEN_TIMEOUT`] for a free session or a reachable worker.
    pub async fn open(&self, name: &str, project: &str) -> Result<Session, SandboxError> {
        let (addresses, token) = match &*self.workers {
            Workers::None(reason) => return Err(SandboxError::Unavailable(reason.clone())),
            Workers::Embedded { address, state } => {
                wait_until_ready(state.clone()).await?;
                (std::slice::from_ref(address), None)
            }
            Workers::Remote { addresses, token } => (addresses.as_slice(), token.as_deref()),
        };
        let deadline = Instant::now() + OPEN_TIMEOUT;
        loop {
            let error = match self.try_open(addresses, token, name, project).await {
                Ok(session) => return Ok(session),
                Err(error @ (SandboxError::Busy | SandboxError::Unreachable(_))) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            sleep(RETRY_DELAY).await;
        }
    }

    async fn try_open(
        &self,
        addresses: &[Address],
        token: Option<&str>,
        name: &str,
        project: &str,
    ) -> Result<Session, SandboxError> {
        let mut workers = Vec::new();
        let mut unreachable = None;
        for address in addresses {
            match address.workers().await {
                Ok(listed) => workers.extend(listed),
                Err(error) => unreachable = Some(error),
            }
        }
        workers.sort_by_cached_key(|worker| rank(worker, name));
        // With several workers, all are searched before a session is created: it may exist on a
        // worker that was not the first choice when it was created.
        let create_rounds: &[bool] = match workers.as_slice() {
            [_] => &[true],
            _ => &[false, true],
        };
        let mut busy = false;
        for &create in create_rounds {
            for worker in &workers {
                let opened = async {
                    let (mut connection, report) = connect(worker, token).await?;
                    self.check_tier(worker, &report)?;
                    Ok((connection.open(name, project, create).await?, connection))
                };
                match opened.await {
                    Ok((
                        OpenOutcome::Opened {
                            fresh,
                            files,
                            notice,
                        },
                        connection,
                    )) => return Ok(Session::new(connection, fresh, files, notice)),
                    Ok((OpenOutcome::Absent, _)) => {}
                    Ok((OpenOutcome::Busy, _)) => busy = true,
                    Err(error @ SandboxError::Refused(_)) => return Err(error),
                    Err(error) => unreachable = Some(error),
                }
            }
        }
        match unreachable {
            _ if busy => Err(SandboxError::Busy),
            Some(error) => Err(SandboxError::Unreachable(error.to_string())),
            None => Err(SandboxError::Unreachable("no worker answers".into())),
        }
    }

    fn check_tier(&self, address: &Address, report: &Report) -> Result<(), SandboxError> {
        if report.tier != Tier::Unsafe {
            return Ok(());
        }
        if !self.allow_unsafe {
            return Err(SandboxError::Refused(
                "its worker does not isolate code, which is only accepted by a server on a loopback \
                 address"
                    .into(),
            ));
        }
        tracing::warn!("the sandbox worker at {address} does not isolate code; development only");
        Ok(())
    }
}

async fn wait_until_ready(mut state: watch::Receiver<embedded::State>) -> Result<(), SandboxError> {
    let started = state.wait_for(|state| !matches!(state, embedded::State::Starting));
    match timeout(OPEN_TIMEOUT, started).await {
        Ok(Ok(state)) => match &*state {
            embedded::State::Failed(reason) => Err(SandboxError::Unavailable(reason.clone())),
            embedded::State::Starting | embedded::State::Ready => Ok(()),
        },
        Ok(Err(_)) => Err(SandboxError::Unavailable("it is being stopped".into())),
        Err(_) => Err(SandboxError::Unavailable(
            "it takes too long to start".into(),
        )),
    }
}

/// Sort key of a worker for a session name (rendezvous hashing): adding or removing a worker does
/// not change the order of the others.
fn rank(address: &Address, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (address.to_string(), name).hash(&mut hasher);
    hasher.finish()
}

async fn connect(
    address: &Address,
    token: Option<&str>,
) -> Result<(Connection, Report), SandboxError> {
    let connected = async {
        let mut connection = Connection::connect(address).await?;
        let report = connection.hello(token).await?;
        Ok((connection, report))
    };
    timeout(HELLO_TIMEOUT, connected)
        .await
        .unwrap_or_else(|_| Err(SandboxError::Lost(format!("{address} does not answer"))))
}
