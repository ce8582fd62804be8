//! One connection's frames, read and written.

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

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// Size of the pieces in which data is sent.
pub const PIECE_BYTES: usize = 1 << 20;

/// A client that takes nothing for this long is gone.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// The end of a conversation.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The client has closed the connection.
    #[error("the client has gone")]
    Closed,
    /// The connection is broken.
    #[error("the connection is broken: {0}")]
    Broken(#[from] io::Error),
    /// The client does not keep to the protocol.
    #[error("the client sent {0}")]
    Unheard(#[from] FrameError),
    /// A request where none may be.
    #[error("the client sent a request out of turn")]
    OutOfTurn,
}

/// One connection.
pub struct Conversation {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
}

impl Conversation {
    /// A conversation over these two directions.
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

    /// The next request. May be cancelled and called again.
    pub async fn request(&mut self) -> Result<Request, Ended> {
        Ok(self.frame().await?.read()?)
    }

    /// The next piece of a file. May be cancelled and called again.
    pub async fn data(&mut self) -> Result<Vec<u8>, Ended> {
        match self.frame().await? {
            Frame::Data(piece) => Ok(piece),
            Frame::Message(_) => Err(FrameError::OutOfTurn.into()),
        }
    }

    /// Waits until the client is gone, while nothing is expected of it.
    pub async fn closed(&mut self) {
        while self.buffer.len() < MAX_FRAME_BYTES {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Says something.
    pub async fn say(&mut self, response: &Response) -> Result<(), Ended> {
        self.write(&Frame::message(response)?).await
    }

    /// Sends a piece of at most [`PIECE_BYTES`].
    pub async fn send_piece(&mut self, piece: Vec<u8>) -> Result<(), Ended> {
        self.write(&Frame::Data(piece)).await
    }

    /// Sends all of this in pieces.
    pub async fn send_all(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.send_piece(piece.to_vec()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, frame: &Frame) -> Result<(), Ended> {
        let bytes = frame.encode()?;
        timeout(WRITE_TIME, self.writer.write_all(&bytes))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(())
    }

    async fn frame(&mut self) -> Result<Frame, Ended> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, Ended> {
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

    async fn fill(&mut self) -> Result<(), Ended> {
        self.buffer.reserve(READ_BYTES);
        match self.reader.read_buf(&mut self.buffer).await? {
            0 => Err(Ended::Closed),
            _ => Ok(()),
        }
    }
}
