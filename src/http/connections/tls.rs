//! The certificate that connections are encrypted with, read again when its files change.

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

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why a certificate cannot be used. No text has anything of the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has no certificate, or no key, in PEM.
    #[error("{path}: {what} in PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        source: pem::Error,
    },
    /// A certificate without a key, or the other way round.
    #[error("HTTPS needs both a certificate and its key: set ASSISTD_TLS_CERT and ASSISTD_TLS_KEY")]
    Half,
    /// The file of certificates has none.
    #[error("{0}: no certificate in PEM")]
    Empty(PathBuf),
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("the certificate cannot be used with the key: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The files that a certificate comes from.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate, then those that lead to one that clients know, in PEM.
    pub chain: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// A certificate in use. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Certificate {
    files: Files,
    current: Arc<RwLock<Loaded>>,
}

/// What was read, and what was made of it.
struct Loaded {
    texts: (Vec<u8>, Vec<u8>),
    acceptor: TlsAcceptor,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// If there is no usable certificate in them.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let texts = files.read()?;
        let acceptor = files.acceptor(&texts)?;
        Ok(Self {
            files,
            current: Arc::new(RwLock::new(Loaded { texts, acceptor })),
        })
    }

    /// What makes an encrypted connection of a plain one, as of now.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().acceptor.clone()
    }

    /// Takes over what is in the files now, if it is something else. What is open stays open. Files
    /// that are no good change nothing: somebody may be writing them.
    fn look_again(&self) -> Result<bool, TlsError> {
        let texts = self.files.read()?;
        if self.current.read().texts == texts {
            return Ok(false);
        }
        let acceptor = self.files.acceptor(&texts)?;
        *self.current.write() = Loaded { texts, acceptor };
        Ok(true)
    }

    /// Looks at the files every minute and at each SIGHUP, until `stop`.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub async fn keep_fresh(self, stop: CancellationToken) -> std::io::Result<()> {
        let mut asked = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = asked.recv() => {}
            }
            match self.look_again() {
                Ok(true) => tracing::info!("a new certificate is in use"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the certificate in use stays as it was: {error}");
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
        let wrong = |path: &Path, what| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, what, source }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(wrong(&self.chain, "no certificate"))?;
        if chain.is_empty() {
            return Err(TlsError::Empty(self.chain.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(wrong(&self.key, "no private key"))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
