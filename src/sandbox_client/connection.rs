//! A connection to a worker: the protocol's requests and responses.

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

pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    peer: String,
}

#[derive(Debug)]
pub(super) enum OpenOutcome {
    Opened {
        fresh: bool,
        /// Files that were put and not removed.
        files: Vec<PlacedFile>,
        notice: Option<Notice>,
    },
    /// The session does not exist and was not to be created.
    Absent,
    /// The worker's session limit is reached, and all sessions are in use.
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
    pub(super) async fn connect(address: &Address) -> Result<Self, SandboxError> {
        let peer = address.to_string();
        let failed = |error: std::io::Error| {
            SandboxError::Unreachable(format!("cannot connect to {peer}: {error}"))
        };
        let stream: Box<dyn Stream> = match address {
            // `Address::workers` replaces folders; connecting to one fails.
            Address::Unix(path) | Address::Folder(path) => {
                Box::new(UnixStream::connect(path).await.map_err(failed)?)
            }
            Address::Tcp(endpoint) => {
                let stream = TcpStream::connect(endpoint).await.map_err(failed)?;
                // Small requests must not wait for more data.
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
    ) -> Result<OpenOutcome, SandboxError> {
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
            } => Ok(OpenOutcome::Opened {
                fresh,
                files,
                notice,
            }),
            Response::Absent => Ok(OpenOutcome::Absent),
            Response::Busy => Ok(OpenOutcome::Busy),
            other => Err(self.unexpected(other)),
        }
    }

    pub(super) async fn send(&mut self, request: &Request) -> Result<(), SandboxError> {
        let frame = Frame::message(request);
        self.write(frame).await
    }

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
        let frame = self.receive_frame().await?;
        let response = frame.read().map_err(|error| self.lost(&error))?;
        Ok(without_nul_characters(response))
    }

    pub(super) async fn receive_data(&mut self) -> Result<Vec<u8>, SandboxError> {
        match self.receive_frame().await? {
            Frame::Data(data) => Ok(data),
            Frame::Message(_) => Err(self.lost(&FrameError::Unexpected)),
        }
    }

    async fn receive_frame(&mut self) -> Result<Frame, SandboxError> {
        let mut header = [0; HEADER_BYTES];
        let read = self.stream.read_exact(&mut header).await;
        read.map_err(|error| self.lost(&error))?;
        let (kind, length) = parse_header(header).map_err(|error| self.lost(&error))?;
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body).await;
        read.map_err(|error| self.lost(&error))?;
        Frame::new(kind, body).map_err(|error| self.lost(&error))
    }

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

/// Replaces U+0000 in a response, since code may print it and PostgreSQL cannot store it.
fn without_nul_characters(mut response: Response) -> Response {
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
