//! One connection to a worker.

use std::fmt;
use std::mem;

use sandbox_protocol::{
    Frame, FrameError, HEADER_BYTES, Notice, PlacedFile, Report, Request, Response, VERSION,
    parse_header,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::domain::text::without_nul;
use crate::sandbox_client::address::Address;
use crate::sandbox_client::error::SandboxError;

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
            Frame::Message(_) => Err(self.lost(&FrameError::Unexpected)),
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
            _ => self.lost(&FrameError::Unexpected),
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
