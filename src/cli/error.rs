use crate::domain::webhook::EventType;
use crate::domain::webhook::UnknownEventType;
use crate::files::blobs::BlobError;
use crate::http::connections::tls::TlsError;
use crate::models::SetupError;
use crate::server::ServeError;
use crate::store::api_keys::CreateKeyError;
use crate::store::{ListError, StoreError};
use crate::telemetry::TelemetryError;
use crate::transfer::TransferError;
use crate::webhooks::UrlError;
use embedded_postgres::PostgresError;

#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("DATABASE_URL is not a PostgreSQL URL; it looks like postgres://user@host/database")]
    DatabaseUrl,
    /// `address` does not contain the password.
    #[error(
        "could not connect to the database at {address}: {source}\nCheck that it is running and that DATABASE_URL is right."
    )]
    Connect {
        address: String,
        source: sqlx::Error,
    },
    #[error(
        "{0} is a connection pooler in transaction mode, such as PgBouncer, which assistd cannot use: \
         it needs sessions of its own for prepared statements, LISTEN and advisory locks. Name the \
         database itself in DATABASE_URL, or a pooler in session mode; assistd pools its connections"
    )]
    Pooler(String),
    #[error("the database is PostgreSQL {0}; assistd needs 16 or later")]
    OldDatabase(String),
    #[error("could not migrate the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    CreateKey(#[from] CreateKeyError),
    #[error(
        "`assistd postgres` is for the embedded database only; give DATABASE_URL to the program itself"
    )]
    NotEmbedded,
    #[error("name a program, for example: assistd postgres psql")]
    NoProgram,
    #[error("{}: {source}", program.display())]
    Program {
        program: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("the system's random source failed: {0}")]
    Randomness(#[from] rand::rand_core::OsError),
    #[error("file storage (ASSISTD_BLOBS) is not usable: {0}")]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("project {0:?} not found; `assistd projects list` lists them")]
    NoSuchProject(String),
    #[error("key {0} not found; `assistd keys list` lists them")]
    NoSuchKey(String),
    #[error("endpoint {0} not found; `assistd webhooks list` lists them")]
    NoSuchEndpoint(String),
    #[error("{0}; the types are {known}", known = EventType::ALL.map(EventType::as_str).join(", "))]
    NoSuchEvent(#[from] UnknownEventType),
    #[error("cannot post webhooks to this URL: {0}")]
    Webhook(#[source] UrlError),
    #[error("the server did not deliver the test event: {0}")]
    Undelivered(String),
    #[error("no server claimed the test event within {0} s; is one running on this database?")]
    NoServer(u64),
    #[error("endpoint {id} is disabled ({reason}); enable it with `assistd webhooks enable {id}`")]
    EndpointDisabled { id: String, reason: String },
    #[error("a project named {0:?} exists already")]
    NameTaken(String),
    #[error("a key in ASSISTD_API_KEYS for project {0:?} belongs to another project")]
    KeyTaken(String),
    #[error(
        "refusing to serve on {0}, which other machines can reach, while no API key exists: \
         anybody could use this server. Create a key with `assistd keys create --project NAME`, \
         or set ASSISTD_API_KEYS=project:key, or ASSISTD_ADMIN_KEY to create keys with the admin API"
    )]
    Exposed(std::net::SocketAddr),
    #[error("cannot serve on {address}: {source}; choose another address with ASSISTD_LISTEN")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot serve HTTPS: {0}")]
    Tls(#[from] TlsError),
    #[error("could not set up the models: {0}")]
    Models(#[from] SetupError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
}
