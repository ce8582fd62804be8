use crate::files::blobs::BlobError;
use crate::models::SetupError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
    #[error("file storage (ASSISTD_BLOBS) is not usable: {0}")]
    Blobs(#[from] BlobError),
    #[error("cannot use a sandbox worker: {0}")]
    Sandbox(&'static str),
    #[error("cannot load the embedding model: {0}")]
    Embedder(#[source] embedder::OpenError),
    #[error("cannot set up the models: {0}")]
    Models(#[from] SetupError),
    #[error(
        "this process may have {allowed} files open and needs {needed} to serve; raise the limit \
         (`ulimit -n 4096` in the shell, LimitNOFILE= of a systemd service, `ulimits` of a container)"
    )]
    OpenFiles { allowed: u64, needed: u64 },
    #[error("cannot set up webhooks: {0}")]
    Webhooks(#[source] reqwest::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}
