//! Turns sections of the settings into what they stand for: blob storage, models, a certificate.

use std::io;
use std::path::{Path, PathBuf};

use documents::child::Reader;
use embedder::Embedder;

use super::EXTRACT;
use super::error::ServeError;
use crate::config::{
    Bytes, EmbeddingModel, FileSettings, HttpSettings, ModelSettings, RetrievalSettings, Secret,
    UpstreamKind,
};
use crate::files::blobs::{BlobError, Blobs, BucketKey};
use crate::http::connections;
use crate::http::connections::tls::{self, Certificate, TlsError};
use crate::models;
use crate::models::{SetupError, Upstreams};
use crate::retrieval::Embeddings;

/// Files that a process opens besides client connections: those of the database, upstreams,
/// sandboxes and blob storage.
const OTHER_FILES: usize = 512;

/// Fewest client connections to serve with, unless the settings allow fewer: connection pools of
/// clients, health checks and metrics need some each.
const MIN_CONNECTIONS: u64 = 64;

pub fn blobs(files: &FileSettings) -> Result<Blobs, BlobError> {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|it| it.expose().to_owned());
    let key = BucketKey {
        id: text(&files.aws_access_key_id),
        secret: text(&files.aws_secret_access_key),
    };
    Blobs::open(&files.blob_location(), key)
}

/// Builds the clients of all upstreams, with the routes of model names.
///
/// # Errors
/// If the script of the scripted model is not valid, or no HTTP client can be built.
pub fn upstreams(settings: &ModelSettings) -> Result<Upstreams, SetupError> {
    let upstreams = settings.upstreams.iter();
    let upstreams = upstreams.map(|upstream| models::UpstreamOptions {
        name: upstream.name.clone(),
        kind: match (upstream.kind, &upstream.api_version) {
            (UpstreamKind::Azure, Some(version)) => models::UpstreamKind::Azure {
                api_version: version.clone(),
            },
            (UpstreamKind::OpenAi | UpstreamKind::Azure, _) => models::UpstreamKind::OpenAi,
        },
        base_url: upstream.base_url.to_string(),
        api_key: upstream.api_key.as_ref().map(|key| key.expose().to_owned()),
        unsupported: upstream.unsupported.clone(),
    });
    let routes = settings.routes.iter().map(|route| models::RouteOptions {
        pattern: route.pattern.clone(),
        upstream: route.upstream.clone(),
        model: route.model.clone(),
        context_window: route.context_window,
    });
    let bytes = |Bytes(bytes): Bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    Upstreams::new(models::Options {
        upstreams: upstreams.collect(),
        routes: routes.collect(),
        default_model: settings.default_model.clone(),
        script: settings.script.clone(),
        idle_timeout: settings.upstream_timeout,
        max_line_bytes: bytes(settings.max_upstream_line_bytes),
        max_answer_bytes: bytes(settings.max_upstream_answer_bytes),
        retries: settings.upstream_retries,
        ..models::Options::default()
    })
}

/// A path to the program of this process that stays valid when its file is replaced, as by an
/// upgrade while the server runs.
fn this_program() -> io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok(PathBuf::from("/proc/self/exe")),
        false => std::env::current_exe(),
    }
}

/// Finds the embedding models: the default one, and the local one.
///
/// # Errors
/// If the folder of the settings has no model.
pub fn embeddings(
    settings: &RetrievalSettings,
    upstreams: Upstreams,
) -> Result<Embeddings, ServeError> {
    let local_name = Some(embedder::MODEL.to_owned());
    // Vector stores keep their model: those with the local one need it whatever the default is.
    let installed = installed_model();
    let (default, local) = match &settings.embedding_model {
        EmbeddingModel::Off => (None, installed),
        EmbeddingModel::Folder(folder) => {
            Embedder::open(folder).map_err(ServeError::Embedder)?;
            (local_name, Some(folder.clone()))
        }
        EmbeddingModel::Upstream(name) => {
            let installed = installed.filter(|_| name != embedder::MODEL);
            (Some(name.clone()), installed)
        }
        EmbeddingModel::Installed if installed.is_some() => (local_name, installed),
        EmbeddingModel::Installed => {
            tracing::warn!(
                "no embedding model is installed, so vector stores are searched lexically only; \
                 `make setup` installs one, or name one in ASSISTD_EMBEDDING_MODEL"
            );
            (None, None)
        }
    };
    Ok(Embeddings::new(default, local, upstreams))
}

/// Folder of the embedding model that `make setup` installs, if it is there.
pub fn installed_model() -> Option<PathBuf> {
    let model = Path::new("models").join(embedder::MODEL);
    let mut folders = installed::environments().into_iter();
    folders.find_map(|environment| Some(environment.join(&model)).filter(|it| it.is_dir()))
}

/// What extracts the text of files: this program, in a process of its own.
///
/// # Errors
/// If the path of this program or of the working folder cannot be determined.
pub fn document_reader(settings: &RetrievalSettings) -> io::Result<Reader> {
    let pdfium = match &settings.pdfium {
        // The process has another working folder.
        Some(library) => Some(std::path::absolute(library)?),
        None => installed::pdfium(),
    };
    Ok(Reader {
        program: this_program()?,
        arguments: vec![EXTRACT.to_owned()],
        pdfium,
    })
}

/// Reads the certificate, if the settings name one.
///
/// # Errors
/// If it is not valid, or only one of certificate and key is named.
pub fn certificate(http: &HttpSettings) -> Result<Option<Certificate>, TlsError> {
    match (&http.tls_cert, &http.tls_key) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => {
            let (chain, key) = (chain.clone(), key.clone());
            Certificate::open(tls::Files { chain, key }).map(Some)
        }
        (Some(_), None) | (None, Some(_)) => Err(TlsError::Half),
    }
}

/// Checks that this process may open enough files to serve, and returns how many it may open.
///
/// # Errors
/// If it may not: most clients would never get a connection.
pub fn check_open_files(http: &HttpSettings) -> Result<u64, ServeError> {
    let allowed = connections::open_file_limit();
    let needed = OTHER_FILES as u64 + MIN_CONNECTIONS.min(http.max_connections.into());
    match allowed < needed {
        true => Err(ServeError::OpenFiles { allowed, needed }),
        false => Ok(allowed),
    }
}

/// Limits of client connections. Raises the limit of open files as far as the system allows.
pub(super) fn connection_limits(http: &HttpSettings) -> connections::Limits {
    let wanted = usize::try_from(http.max_connections).unwrap_or(usize::MAX);
    let files = usize::try_from(connections::raise_open_file_limit()).unwrap_or(usize::MAX);
    let connections = wanted.min(files.saturating_sub(OTHER_FILES).max(1));
    if connections < wanted {
        tracing::warn!(
            connections,
            files,
            "limiting client connections to {connections}: this process may open only {files} \
             files; raise that limit (ulimit -n, LimitNOFILE)"
        );
    }
    connections::Limits {
        connections,
        idle_timeout: http.idle_timeout,
        reader_timeout: http.reader_timeout,
    }
}

/// Bytes for all request bodies together: as set, or an eighth of the memory.
pub(super) fn body_memory(http: &HttpSettings) -> u64 {
    /// Assumed where the system does not say how much memory there is.
    const UNKNOWN: u64 = 4 << 30;
    match http.max_body_memory {
        Some(Bytes(bytes)) => bytes,
        None => embedded_postgres::memory().unwrap_or(UNKNOWN) / 8,
    }
}
