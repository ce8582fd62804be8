//! Addresses of sandbox workers.

use std::fmt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use crate::sandbox_client::error::SandboxError;

/// Where a worker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// All Unix sockets in a folder, of workers that come and go.
    Folder(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl FromStr for Address {
    type Err = &'static str;

    /// Reads `unix:/path`, `unix:/folder/` or `tcp:host:port`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(match path.ends_with('/') {
                true => Self::Folder(path.into()),
                false => Self::Unix(path.into()),
            }),
            Some(("tcp", place)) if place.contains(':') => Ok(Self::Tcp(place.to_owned())),
            _ => Err("expected unix:/PATH or tcp:HOST:PORT"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) | Self::Folder(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp:{place}"),
        }
    }
}

impl Address {
    /// The workers that are there: whose sockets are in a folder, or else this one.
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
            let place = folder.display();
            return Err(SandboxError::Unreachable(format!(
                "no worker listens in {place}"
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
            let address: Address = text.parse().expect("it is one");
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
            .expect("it is one");
        let nobody = address.workers().await.expect_err("it is empty");
        assert!(matches!(nobody, SandboxError::Unreachable(_)), "{nobody}");

        std::fs::write(path.join("notes"), "no socket").expect("written");
        let sockets = ["a.sock", "b.sock"].map(|name| path.join(name));
        let _listeners = sockets
            .clone()
            .map(|socket| std::os::unix::net::UnixListener::bind(socket).expect("a new name"));
        let mut found = address.workers().await.expect("there are two");
        found.sort_by_key(Address::to_string);
        assert_eq!(found, sockets.map(Address::Unix));

        let one: Address = "tcp:sandbox:7000".parse().expect("it is one");
        assert_eq!(one.workers().await.expect("itself"), [one]);
    }
}
