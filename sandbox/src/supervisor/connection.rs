//! One connection of a client: reads requests and writes responses as frames.

use std::io;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use sandbox_protocol::Frame;
use sandbox_protocol::FrameError;
use sandbox_protocol::HEADER_BYTES;
use sandbox_protocol::MAX_FRAME_BYTES;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::parse_header;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Read buffer size in bytes.
const READ_BYTES: usize = 64 << 10;

/// Maximum length of a data frame that the worker sends, in bytes.
pub const DATA_FRAME_BYTES: usize = 1 << 20;

/// A client that reads nothing for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the client has closed the connection")]
    Closed,
    #[error("the connection is broken: {0}")]
    Broken(#[from] io::Error),
    #[error("the client sent {0}")]
    Protocol(#[from] FrameError),
    #[error("the client sent an unexpected request")]
    UnexpectedRequest,
}

pub struct Connection {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
}

impl Connection {
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
            buffer: BytesMut::new(),
        }
    }

    /// Receives the next request. Cancel safe.
    pub async fn receive_request(&mut self) -> Result<Request, ConnectionError> {
        Ok(self.receive_frame().await?.read()?)
    }

    /// Receives the next data frame. Cancel safe.
    pub async fn receive_data(&mut self) -> Result<Vec<u8>, ConnectionError> {
        match self.receive_frame().await? {
            Frame::Data(data) => Ok(data),
            Frame::Message(_) => Err(FrameError::Unexpected.into()),
        }
    }

    /// Waits until the client has closed the connection. Buffers what it sends meanwhile.
    pub async fn closed(&mut self) {
        while self.buffer.len() < MAX_FRAME_BYTES {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    pub async fn send(&mut self, response: &Response) -> Result<(), ConnectionError> {
        self.write(&Frame::message(response)?).await
    }

    /// Sends one data frame, of at most [`DATA_FRAME_BYTES`].
    pub async fn send_data_frame(&mut self, data: Vec<u8>) -> Result<(), ConnectionError> {
        self.write(&Frame::Data(data)).await
    }

    /// Sends `bytes` as data frames.
    pub async fn send_data(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        for data in bytes.chunks(DATA_FRAME_BYTES) {
            self.send_data_frame(data.to_vec()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        let bytes = frame.encode()?;
        timeout(WRITE_TIMEOUT, self.writer.write_all(&bytes))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(())
    }

    async fn receive_frame(&mut self) -> Result<Frame, ConnectionError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, ConnectionError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (kind, length) = parse_header(*header)?;
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(length).to_vec();
        Ok(Some(Frame::new(kind, body)?))
    }

    async fn fill(&mut self) -> Result<(), ConnectionError> {
        self.buffer.reserve(READ_BYTES);
        match self.reader.read_buf(&mut self.buffer).await? {
            0 => Err(ConnectionError::Closed),
            _ => Ok(()),
        }
    }
}
