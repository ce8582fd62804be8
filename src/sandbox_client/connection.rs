//! One connection to a worker.

use std::fmt;
use std::mem;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use sandbox_protocol::{
    Frame, FrameError, HEADER_BYTES, Notice, PlacedFile, Report, Request, Response, VERSION,
    parse_header,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::domain::text::without_nul;
use crate::sandbox_client::SandboxError;

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

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and who is at the other end.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    peer: String,
}

/// What became of the wish for a session.
#[derive(Debug)]
pub(super) enum Opening {
    /// It is there.
    Opened {
        /// Whether it was made just now.
        fresh: bool,
        /// Files that were put into it.
        files: Vec<PlacedFile>,
        /// What happened to it since its last cell.
        notice: Option<Notice>,
    },
    /// It is not there, and was not to be made.
    Absent,
    /// There is no place.
    Busy,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) async fn dial(address: &Address) -> Result<Self, SandboxError> {
        let peer = address.to_string();
        let failed = |error: std::io::Error| {
            SandboxError::Unreachable(format!("cannot connect to {peer}: {error}"))
        };
        let stream: Box<dyn Stream> = match address {
            // A folder stands for workers; connecting to one itself is refused by the system.
            Address::Unix(path) | Address::Folder(path) => {
                Box::new(UnixStream::connect(path).await.map_err(failed)?)
            }
            Address::Tcp(place) => {
                let stream = TcpStream::connect(place).await.map_err(failed)?;
                // Requests are small and waited for.
                stream.set_nodelay(true).map_err(failed)?;
                Box::new(stream)
            }
        };
        Ok(Self {
            stream: BufReader::new(stream),
            peer,
        })
    }

    pub(super) async fn hello(&mut self, token: Option<&str>) -> Result<Report, SandboxError> {
        self.send(&Request::Hello {
            version: VERSION,
            token: token.map(str::to_owned),
        })
        .await?;
        match self.receive().await? {
            Response::Hello(report) => Ok(report),
            other => Err(self.unexpected(other)),
        }
    }

    pub(super) async fn open(
        &mut self,
        name: &str,
        project: &str,
        create: bool,
    ) -> Result<Opening, SandboxError> {
        self.send(&Request::Open {
            session: name.to_owned(),
            project: project.to_owned(),
            create,
        })
        .await?;
        match self.receive().await? {
            Response::Opened {
                fresh,
                files,
                notice,
            } => Ok(Opening::Opened {
                fresh,
                files,
                notice,
            }),
            Response::Absent => Ok(Opening::Absent),
            Response::Busy => Ok(Opening::Busy),
            other => Err(self.unexpected(other)),
        }
    }

    pub(super) async fn send(&mut self, request: &Request) -> Result<(), SandboxError> {
        let frame = Frame::message(request);
        self.write(frame).await
    }

    /// Sends a piece of a file.
    pub(super) async fn send_data(&mut self, data: &[u8]) -> Result<(), SandboxError> {
        self.write(Ok(Frame::Data(data.to_vec()))).await
    }

    async fn write(&mut self, frame: Result<Frame, FrameError>) -> Result<(), SandboxError> {
        let bytes = frame.and_then(|frame| frame.encode());
        let bytes = bytes.map_err(|error| self.lost(&error))?;
        let written = self.stream.write_all(&bytes).await;
        written.map_err(|error| self.lost(&error))
    }

    pub(super) async fn receive(&mut self) -> Result<Response, SandboxError> {
        let frame = self.frame().await?;
        let response = frame.read().map_err(|error| self.lost(&error))?;
        Ok(storable(response))
    }

    /// A piece of a file or picture.
    pub(super) async fn receive_data(&mut self) -> Result<Vec<u8>, SandboxError> {
        match self.frame().await? {
            Frame::Data(data) => Ok(data),
            Frame::Message(_) => Err(self.lost(&FrameError::OutOfTurn)),
        }
    }

    async fn frame(&mut self) -> Result<Frame, SandboxError> {
        let mut header = [0; HEADER_BYTES];
        let read = self.stream.read_exact(&mut header).await;
        read.map_err(|error| self.lost(&error))?;
        let (kind, length) = parse_header(header).map_err(|error| self.lost(&error))?;
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body).await;
        read.map_err(|error| self.lost(&error))?;
        Frame::new(kind, body).map_err(|error| self.lost(&error))
    }

    /// What to make of an answer that was not expected.
    pub(super) fn unexpected(&self, response: Response) -> SandboxError {
        match response {
            Response::Refused { message } => SandboxError::Refused(message),
            _ => self.lost(&FrameError::OutOfTurn),
        }
    }

    fn lost(&self, error: &dyn fmt::Display) -> SandboxError {
        SandboxError::Lost(format!("{}: {error}", self.peer))
    }
}

/// The response without what cannot be stored: code may print any character.
fn storable(mut response: Response) -> Response {
    match &mut response {
        Response::Text { text, .. }
        | Response::Image { mime: text, .. }
        | Response::Refused { message: text } => *text = without_nul(mem::take(text)),
        Response::Executed(executed) => {
            for file in &mut executed.files {
                file.path = without_nul(mem::take(&mut file.path));
            }
        }
        Response::Hello(_)
        | Response::Opened { .. }
        | Response::Absent
        | Response::Busy
        | Response::Stored
        | Response::File { .. }
        | Response::Removed
        | Response::Closed => {}
    }
    response
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
