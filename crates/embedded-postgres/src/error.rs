//! Errors of the embedded database. Their texts tell the operator what to do.

use std::io;
use std::path::Path;
use std::path::PathBuf;

pub(crate) const OLDEST_VERSION: u32 = 16;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    #[error(
        "another assistd{} uses the data folder {}; stop it, or choose another folder with \
         ASSISTD_DATA_DIR",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        data_dir.display()
    )]
    InUse { data_dir: PathBuf, pid: Option<i32> },
    #[error(
        "the database cannot run as the user {0:?}: it must exist and not be root; choose one with \
         ASSISTD_POSTGRES_USER"
    )]
    User(String),
    #[error(
        "{} belongs to another user (uid {uid}); start assistd as that user or as root, or choose \
         another folder with ASSISTD_DATA_DIR",
        path.display()
    )]
    NotOurs {
        /// The database's folder, or that of its socket.
        path: PathBuf,
        uid: u32,
    },
    #[error(
        "{} was created by PostgreSQL {found}, but the programs found are PostgreSQL {expected}; \
         name those of the old version in ASSISTD_POSTGRES_BIN, or upgrade the data with pg_upgrade",
        path.display()
    )]
    Version {
        path: PathBuf,
        found: String,
        expected: u32,
    },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("could not create the database in {}:\n{output}", path.display())]
    Init { path: PathBuf, output: String },
    #[error("PostgreSQL did not start:\n{output}\n(its log is in {})", log.display())]
    Start { output: String, log: PathBuf },
    #[error("PostgreSQL does not accept connections: {0}")]
    Silent(#[source] sqlx::Error),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "no PostgreSQL {OLDEST_VERSION} or later with pgvector was found for the embedded database\n\
     {}Do one of these:\n\
     - run `make setup` in the project's folder, which installs one into .venv\n\
     - name the folder of initdb and postgres in ASSISTD_POSTGRES_BIN\n\
     - use a running server: set DATABASE_URL=postgres://user:password@host/database",
    rejected.iter().map(|line| format!("  {line}\n")).collect::<String>()
)]
pub struct BinariesError {
    pub(crate) rejected: Vec<String>,
}

/// Adds the path to an I/O error.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> PostgresError + use<'_> {
    |source| PostgresError::File {
        path: path.to_owned(),
        source,
    }
}
