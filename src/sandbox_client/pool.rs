//! Sandbox workers: found or started, and asked for sessions. The server itself never runs Python.
//!
//! A thread's session is on the worker that its name picks, so that every process of the server
//! finds it without asking the others.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::{Report, Tier};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::sandbox_client::address::Address;
use crate::sandbox_client::connection::{Connection, Opening};
use crate::sandbox_client::embedded::{self, Embedded};
use crate::sandbox_client::error::SandboxError;
use crate::sandbox_client::session::Session;

/// How long a run waits for a session while all are at work, or for a worker to be there.
const WAIT: Duration = Duration::from_secs(60);

/// Pause between two tries.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// How long a worker may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// All workers of this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SandboxPool {
    workers: Arc<Workers>,
    /// Whether a worker that confines nothing will do.
    unsafe_will_do: bool,
}

#[derive(Debug)]
enum Workers {
    /// There are none, and why.
    None(String),
    /// A child process of this server.
    Embedded {
        address: Address,
        state: watch::Receiver<embedded::State>,
    },
    /// Others', at these addresses.
    Remote {
        addresses: Vec<Address>,
        token: Option<String>,
    },
}

impl SandboxPool {
    /// No workers, for this reason.
    pub fn off(reason: impl Into<String>) -> Self {
        Self::of(Workers::None(reason.into()))
    }

    /// Workers that others started.
    pub fn remote(addresses: Vec<Address>, token: Option<String>) -> Self {
        Self::of(Workers::Remote { addresses, token })
    }

    /// A worker that this process starts and keeps alive.
    pub fn embedded(worker: &Embedded) -> Self {
        Self::of(Workers::Embedded {
            address: worker.address(),
            state: worker.state(),
        })
    }

    fn of(workers: Workers) -> Self {
        Self {
            workers: Arc::new(workers),
            unsafe_will_do: false,
        }
    }

    /// Takes workers that confine nothing too: for development, on a machine of one's own.
    pub fn with_unsafe(mut self, will_do: bool) -> Self {
        self.unsafe_will_do = will_do;
        self
    }

    /// Why no code can run, if that is known without asking a worker.
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

    /// What every worker says of itself.
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
                        let report = greet(&worker, token).await.map(|(_, report)| report);
                        reports.push((worker.to_string(), report));
                    }
                }
                Err(error) => reports.push((address.to_string(), Err(error))),
            }
        }
        reports
    }

    /// The session of this name, made if there is none. `project` says with whom workers share it
    /// out. Waits while another connection has the session, and a minute for a worker or a place to
    /// be free.
    pub async fn open(&self, name: &str, project: &str) -> Result<Session, SandboxError> {
        let (addresses, token) = match &*self.workers {
            Workers::None(reason) => return Err(SandboxError::Unavailable(reason.clone())),
            Workers::Embedded { address, state } => {
                ready(state.clone()).await?;
                (std::slice::from_ref(address), None)
            }
            Workers::Remote { addresses, token } => (addresses.as_slice(), token.as_deref()),
        };
        let until = Instant::now() + WAIT;
        loop {
            let error = match self.try_open(addresses, token, name, project).await {
                Ok(session) => return Ok(session),
                Err(error @ (SandboxError::Busy | SandboxError::Unreachable(_))) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= until {
                return Err(error);
            }
            sleep(RETRY_EVERY).await;
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
                Ok(found) => workers.extend(found),
                Err(error) => unreachable = Some(error),
            }
        }
        workers.sort_by_cached_key(|worker| rank(worker, name));
        // A session may be on a worker that was not the first choice when it was made.
        let rounds: &[bool] = match workers.as_slice() {
            [_] => &[true],
            _ => &[false, true],
        };
        let mut busy = false;
        for &create in rounds {
            for worker in &workers {
                let opened = async {
                    let (mut connection, report) = greet(worker, token).await?;
                    self.check(worker, &report)?;
                    Ok((connection.open(name, project, create).await?, connection))
                };
                match opened.await {
                    Ok((
                        Opening::Opened {
                            fresh,
                            files,
                            notice,
                        },
                        connection,
                    )) => return Ok(Session::new(connection, fresh, files, notice)),
                    Ok((Opening::Absent, _)) => {}
                    Ok((Opening::Busy, _)) => busy = true,
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

    /// Refuses a worker that is not good enough.
    fn check(&self, address: &Address, report: &Report) -> Result<(), SandboxError> {
        if report.tier != Tier::Unsafe {
            return Ok(());
        }
        if !self.unsafe_will_do {
            return Err(SandboxError::Refused(
                "its worker confines nothing, which will do for a server on this machine's own \
                 address only"
                    .into(),
            ));
        }
        tracing::warn!("code runs unconfined: the worker at {address} is for development only");
        Ok(())
    }
}

/// Waits until the embedded worker has started.
async fn ready(mut state: watch::Receiver<embedded::State>) -> Result<(), SandboxError> {
    let started = state.wait_for(|state| !matches!(state, embedded::State::Starting));
    match timeout(WAIT, started).await {
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

/// Workers in the order in which a session of this name looks for its place. Each name has an
/// order of its own, and a worker that is added or lost moves no other's sessions.
fn rank(address: &Address, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (address.to_string(), name).hash(&mut hasher);
    hasher.finish()
}

async fn greet(
    address: &Address,
    token: Option<&str>,
) -> Result<(Connection, Report), SandboxError> {
    let greeted = async {
        let mut connection = Connection::dial(address).await?;
        let report = connection.hello(token).await?;
        Ok((connection, report))
    };
    timeout(HELLO_WITHIN, greeted)
        .await
        .unwrap_or_else(|_| Err(SandboxError::Lost(format!("{address} does not answer"))))
}
