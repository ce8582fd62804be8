//! A connection to a sandbox worker, as assistd opens one per run.

use super::Cell;
use super::CellOutput;
use crate::BenchError;
use sandbox_protocol::ExecStatus;
use sandbox_protocol::Frame;
use sandbox_protocol::HEADER_BYTES;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::TextSource;
use sandbox_protocol::VERSION;
use sandbox_protocol::parse_header;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::UnixStream;

pub(super) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects and exchanges greetings.
    pub(super) async fn connect(socket: &Path) -> Result<Self, BenchError> {
        let stream = BufReader::new(UnixStream::connect(socket).await?);
        let mut connection = Self { stream };
        let hello = Request::Hello {
            version: VERSION,
            token: None,
        };
        match connection.exchange(&hello).await? {
            Response::Hello(_) => Ok(connection),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a new session.
    pub(super) async fn open_session(&mut self, session: String) -> Result<(), BenchError> {
        let open = Request::Open {
            session,
            project: "bench".to_owned(),
            create: true,
        };
        match self.exchange(&open).await? {
            Response::Opened { fresh: true, .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Executes a cell.
    pub(super) async fn run(&mut self, cell: &Cell) -> Result<CellOutput, BenchError> {
        let code = cell.code.to_owned();
        self.send(&Request::Exec { code }).await?;
        let mut shown = CellOutput::default();
        loop {
            match self.receive().await? {
                Response::Text {
                    source: TextSource::Result,
                    text,
                } => shown.result.push_str(&text),
                Response::Image { size, .. } => {
                    let mut left = size;
                    while left > 0 {
                        let Frame::Data(piece) = self.frame().await? else {
                            return Err(BenchError::Unexpected("a picture without its data"));
                        };
                        left = left.saturating_sub(piece.len() as u64);
                    }
                    shown.pictures += 1;
                }
                Response::Executed(executed) if executed.status == ExecStatus::Ok => {
                    return Ok(shown);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    pub(super) async fn close(mut self) -> Result<(), BenchError> {
        match self.exchange(&Request::Close).await? {
            Response::Closed => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn exchange(&mut self, request: &Request) -> Result<Response, BenchError> {
        self.send(request).await?;
        self.receive().await
    }

    async fn send(&mut self, request: &Request) -> Result<(), BenchError> {
        let bytes = Frame::message(request)?.encode()?;
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn receive(&mut self) -> Result<Response, BenchError> {
        Ok(self.frame().await?.read()?)
    }

    async fn frame(&mut self) -> Result<Frame, BenchError> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let (kind, length) = parse_header(header)?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Frame::new(kind, body)?)
    }
}

fn unexpected(response: &Response) -> BenchError {
    BenchError::Worker(format!("{response:?}"))
}
