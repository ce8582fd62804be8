//! The TLS certificate, which is reloaded when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Why a certificate cannot be used. No error text contains parts of the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {what} in PEM: {source}")]
    Pem {
        path: PathBuf,
        what: &'static str,
        source: pem::Error,
    },
    #[error("HTTPS needs both a certificate and its key: set ASSISTD_TLS_CERT and ASSISTD_TLS_KEY")]
    Half,
    #[error("{0}: no certificate in PEM")]
    Empty(PathBuf),
    #[error("the certificate cannot be used with the key: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The files of a certificate, in PEM.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate, followed by intermediate certificates.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// The current certificate. Cheap to clone; a reload changes all clones.
#[derive(Clone)]
pub struct Certificate {
    files: Files,
    current: Arc<RwLock<Loaded>>,
}

struct Loaded {
    texts: (Vec<u8>, Vec<u8>),
    acceptor: TlsAcceptor,
}

impl Certificate {
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let texts = files.read()?;
        let acceptor = files.acceptor(&texts)?;
        Ok(Self {
            files,
            current: Arc::new(RwLock::new(Loaded { texts, acceptor })),
        })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().acceptor.clone()
    }

    /// Loads the files if they have changed; returns whether they had. Open connections keep their
    /// certificate. Invalid files change nothing, because they may be in the middle of being written.
    fn reload(&self) -> Result<bool, TlsError> {
        let texts = self.files.read()?;
        if self.current.read().texts == texts {
            return Ok(false);
        }
        let acceptor = self.files.acceptor(&texts)?;
        *self.current.write() = Loaded { texts, acceptor };
        Ok(true)
    }

    /// Checks the files every minute and at each SIGHUP, until `stop`. Fails if the handler of
    /// SIGHUP cannot be installed.
    pub async fn watch_files(self, stop: CancellationToken) -> std::io::Result<()> {
        let mut hangups = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                _ = hangups.recv() => {}
            }
            match self.reload() {
                Ok(true) => tracing::info!("reloaded the TLS certificate"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "could not reload the TLS certificate, keeping the current certificate: {error}");
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::File {
                path: path.to_owned(),
                source,
            })
        };
        Ok((read(&self.chain)?, read(&self.key)?))
    }

    fn acceptor(&self, (chain, key): &(Vec<u8>, Vec<u8>)) -> Result<TlsAcceptor, TlsError> {
        let pem_error = |path: &Path, what| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, what, source }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(pem_error(&self.chain, "no certificate"))?;
        if chain.is_empty() {
            return Err(TlsError::Empty(self.chain.clone()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(pem_error(&self.key, "no private key"))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
