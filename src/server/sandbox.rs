//! The sandbox workers of the settings: a pool of them, and the embedded worker if there is one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::error::ServeError;
use crate::config::{Config, SandboxWorkers};
use crate::sandbox_client::{Address, EmbeddedWorker, SandboxPool, WorkerProgram};

/// Longest path of a Unix socket in bytes that every system allows.
const SOCKET_BYTES: usize = 100;

pub struct Sandbox {
    pub pool: SandboxPool,
    embedded: Option<EmbeddedWorker>,
}

impl Sandbox {
    /// Starts the embedded worker, or takes the addresses of remote ones.
    ///
    /// # Errors
    /// If an address is not valid.
    pub fn start(config: &Config) -> Result<Self, ServeError> {
        let settings = &config.sandbox;
        let pool = match &settings.sandbox {
            SandboxWorkers::Off => SandboxPool::off("it is switched off by ASSISTD_SANDBOX"),
            SandboxWorkers::Remote(addresses) => {
                let addresses: Result<Vec<Address>, _> =
                    addresses.iter().map(|address| address.parse()).collect();
                let addresses = addresses.map_err(ServeError::Sandbox)?;
                let token = settings.sandbox_token.as_ref();
                SandboxPool::remote(addresses, token.map(|token| token.expose().to_owned()))
            }
            SandboxWorkers::Embedded => match sandbox_program(config) {
                Ok(program) => {
                    let embedded = EmbeddedWorker::start(program);
                    return Ok(Self {
                        pool: SandboxPool::embedded(&embedded),
                        embedded: Some(embedded),
                    });
                }
                Err(reason) => {
                    tracing::warn!("code_interpreter is off: {reason}");
                    SandboxPool::off(reason)
                }
            },
        };
        let embedded = None;
        Ok(Self { pool, embedded })
    }

    pub(super) async fn stop(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// The program of the embedded worker with its environment, or the reason why it cannot be run.
pub fn sandbox_program(config: &Config) -> Result<WorkerProgram, String> {
    let assistd = std::env::current_exe().ok();
    let beside = || assistd.as_deref().and_then(WorkerProgram::beside);
    let path = config.sandbox.sandbox_program.clone().or_else(beside);
    let path = path.ok_or(
        "the program assistd-sandbox is not beside assistd; `make setup` says what it needs, and \
         `make run` builds it",
    )?;
    Ok(WorkerProgram {
        path,
        environment: config.sandbox.sandbox_environment.clone(),
        socket: socket_path(&config.files.data_dir),
    })
}

/// A socket in the data folder, or in the folder for temporary files if that path would be too long
/// for a socket.
fn socket_path(data_dir: &Path) -> PathBuf {
    let path = data_dir.join("sandbox").join("worker.sock");
    if path.as_os_str().len() <= SOCKET_BYTES {
        return path;
    }
    let mut hasher = DefaultHasher::new();
    data_dir.hash(&mut hasher);
    let folder = format!("assistd-sandbox-{:016x}", hasher.finish());
    std::env::temp_dir().join(folder).join("worker.sock")
}
