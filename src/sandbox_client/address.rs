//! Addresses of sandbox workers.

use std::fmt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use crate::sandbox_client::error::SandboxError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// All Unix sockets in a folder; workers may come and go.
    Folder(PathBuf),
    Tcp(String),
}

impl FromStr for Address {
    type Err = &'static str;

    /// Parses `unix:/path`, `unix:/folder/` or `tcp:host:port`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(match path.ends_with('/') {
                true => Self::Folder(path.into()),
                false => Self::Unix(path.into()),
            }),
            Some(("tcp", endpoint)) if endpoint.contains(':') => Ok(Self::Tcp(endpoint.to_owned())),
            _ => Err("expected unix:/PATH or tcp:HOST:PORT"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) | Self::Folder(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(endpoint) => write!(f, "tcp:{endpoint}"),
        }
    }
}

impl Address {
    /// Lists the sockets in a folder; any other address is returned as it is.
    ///
    /// # Errors
    /// If the folder cannot be read or has no socket.
    pub(super) async fn workers(&self) -> Result<Vec<Self>, SandboxError> {
        let Self::Folder(folder) = self else {
            return Ok(vec![self.clone()]);
        };
        let failed = |error: std::io::Error| {
            SandboxError::Unreachable(format!("{}: {error}", folder.display()))
        };
        let mut entries = tokio::fs::read_dir(folder).await.map_err(failed)?;
        let mut workers = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            if entry.file_type().await.map_err(failed)?.is_socket() {
                workers.push(Self::Unix(entry.path()));
            }
        }
        if workers.is_empty() {
            return Err(SandboxError::Unreachable(format!(
                "no worker listens in {}",
                folder.display()
            )));
        }
        Ok(workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "unix:/run/sandbox.sock",
            "unix:/run/sandboxes/",
            "tcp:sandbox:7000",
            "tcp:[::1]:7000",
        ] {
            let address: Address = text.parse().expect("the address is valid");
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "unix:relative",
            "tcp:host",
            "http://host:1",
            "/run/sandbox.sock",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_folder_stands_for_the_sockets_in_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let address: Address = format!("unix:{}/", path.display())
            .parse()
            .expect("the address is valid");
        let error = address.workers().await.expect_err("the folder is empty");
        assert!(matches!(error, SandboxError::Unreachable(_)), "{error}");

        std::fs::write(path.join("notes"), "no socket").expect("the folder is writable");
        let sockets = ["a.sock", "b.sock"].map(|name| path.join(name));
        let _listeners = sockets.clone().map(|socket| {
            std::os::unix::net::UnixListener::bind(socket).expect("the name is free")
        });
        let mut workers = address.workers().await.expect("the folder has two sockets");
        workers.sort_by_key(Address::to_string);
        assert_eq!(workers, sockets.map(Address::Unix));

        let one: Address = "tcp:sandbox:7000".parse().expect("the address is valid");
        assert_eq!(
            one.workers()
                .await
                .expect("a single address needs no lookup"),
            [one]
        );
    }
}
