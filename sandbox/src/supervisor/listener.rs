//! The worker's listening socket.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::net::UnixListener;

use crate::settings::Address;
use crate::settings::ListenSettings;
use crate::supervisor::connection::Connection;

/// Why the worker cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: String,
    source: io::Error,
}

pub enum Listener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// User ids that may connect.
        allowed_users: Vec<u32>,
    },
    /// The listener and its local address, whose port the system may have chosen.
    Tcp(TcpListener, String),
}

impl Listener {
    pub fn bind(settings: &ListenSettings) -> Result<Self, ListenError> {
        match &settings.address {
            Address::Unix(path) => {
                let listener =
                    bind_unix(path, !settings.peer_uid.is_empty()).map_err(|source| {
                        ListenError {
                            address: path.display().to_string(),
                            source,
                        }
                    })?;
                let own_user = nix::unistd::Uid::effective().as_raw();
                Ok(Self::Unix {
                    listener,
                    path: path.clone(),
                    allowed_users: [&[0, own_user], settings.peer_uid.as_slice()].concat(),
                })
            }
            Address::Tcp(address) => {
                let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    let local_address = listener.local_addr()?.to_string();
                    Ok((TcpListener::from_std(listener)?, local_address))
                });
                let (listener, local_address) = bound.map_err(|source| ListenError {
                    address: address.to_string(),
                    source,
                })?;
                Ok(Self::Tcp(listener, local_address))
            }
        }
    }

    /// The path or the local address, for the log.
    pub fn address(&self) -> String {
        match self {
            Self::Unix { path, .. } => path.display().to_string(),
            Self::Tcp(_, local_address) => local_address.clone(),
        }
    }

    /// Accepts the next connection; `None` if its user may not connect.
    pub async fn accept(&self) -> io::Result<Option<Connection>> {
        match self {
            Self::Unix {
                listener,
                allowed_users,
                ..
            } => {
                let (stream, _) = listener.accept().await?;
                if !allowed_users.contains(&stream.peer_cred()?.uid()) {
                    return Ok(None);
                }
                let (reader, writer) = stream.into_split();
                Ok(Some(Connection::new(reader, writer)))
            }
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok(Some(Connection::new(reader, writer)))
            }
        }
    }

    /// Stops listening and removes the socket file.
    pub fn close(self) {
        if let Self::Unix { path, .. } = &self {
            // A file that stays is replaced by the next worker.
            let _ = fs::remove_file(path);
        }
    }
}

/// Binds a Unix socket and replaces one on which no process listens. With `allow_others`, any user
/// may open the socket, and [`Listener::accept`] checks the user id.
fn bind_unix(path: &Path, allow_others: bool) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::other("another worker listens there"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let mode = if allow_others { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
