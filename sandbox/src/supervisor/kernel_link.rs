//! The socket between the supervisor and the kernel of a session.
//!
//! Code in the cells can write to this socket, so nothing is allocated for a length that it claims,
//! and messages that cannot be parsed are dropped.

use std::io;

use bytes::Buf;
use bytes::BytesMut;
use sandbox_protocol::TextSource;
use serde::Deserialize;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;

/// Maximum length of a message in bytes: room for the largest image in base64.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Read buffer size in bytes.
const READ_BYTES: usize = 64 << 10;

/// A request of the supervisor to a kernel.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum KernelRequest<'a> {
    /// Run a cell.
    Run {
        /// Number of the cell, which the messages about it repeat.
        id: u64,
        code: &'a str,
    },
    /// Run a trivial cell without output, so that the first real cell is fast.
    Warm,
}

/// A message of a kernel.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum KernelMessage {
    /// The kernel accepts requests.
    Ready,
    /// The trivial cell has ended.
    Warm,
    /// A cell wrote text.
    Text {
        /// Number of the cell.
        id: u64,
        source: TextSource,
        text: String,
    },
    /// A cell displayed an image.
    Image {
        /// Number of the cell.
        id: u64,
        /// The image in base64.
        data: String,
    },
    /// A cell has ended.
    Done {
        /// Number of the cell.
        id: u64,
        status: DoneStatus,
    },
}

/// How a cell ended, as reported by its kernel.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DoneStatus {
    /// It completed.
    Ok,
    /// It raised an exception.
    Error,
}

/// The supervisor's end of the socket.
pub struct KernelLink {
    pub messages: MessageReader,
    /// Where requests are written.
    pub requests: OwnedWriteHalf,
}

/// Reads the messages of a kernel.
pub struct MessageReader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

impl KernelLink {
    pub fn new(socket: UnixStream) -> Self {
        let (socket, requests) = socket.into_split();
        Self {
            messages: MessageReader {
                socket,
                buffer: BytesMut::new(),
            },
            requests,
        }
    }

    /// Sends a request; waits while the kernel does not read.
    pub async fn send(&mut self, request: &KernelRequest<'_>) -> io::Result<()> {
        self.requests.write_all(&encode(request)?).await
    }
}

/// A request as a frame: its length as a big-endian `u32`, then JSON.
pub fn encode(request: &KernelRequest) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(request)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    Ok(frame)
}

impl MessageReader {
    /// Frees the memory of a large message.
    pub fn shrink(&mut self) {
        if self.buffer.capacity() > 4 * READ_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
    }

    /// Returns the next message that can be parsed. The error is `UnexpectedEof` if the kernel has
    /// closed the socket, and `InvalidData` for a frame that is too long. Cancel safe.
    pub async fn next(&mut self) -> io::Result<KernelMessage> {
        loop {
            while let Some(body) = take_frame(&mut self.buffer)? {
                if let Ok(message) = serde_json::from_slice(&body) {
                    return Ok(message);
                }
            }
            self.buffer.reserve(READ_BYTES);
            // `read_buf` would take a short read for an empty socket and wait for the next event.
            // A session can cause short reads by sending descriptors along.
            self.socket.readable().await?;
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // A session that floods the socket must not starve the other branches of this task.
            tokio::task::yield_now().await;
        }
    }
}

/// Removes the first frame from the buffer if it is complete.
fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(header) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive_all(bytes: &[u8]) -> Vec<io::Result<KernelMessage>> {
        let (own_end, kernel_end) = UnixStream::pair().expect("a socket pair");
        let mut link = KernelLink::new(own_end);
        let bytes = bytes.to_vec();
        let writing = async move {
            let mut kernel_end = kernel_end;
            // Writing fails if the reader gives up, as it does in some of the tests.
            let _ = kernel_end.write_all(&bytes).await;
        };
        let reading = async {
            let mut received = Vec::new();
            loop {
                let message = link.messages.next().await;
                let ended = message.is_err();
                received.push(message);
                if ended {
                    drop(link);
                    return received;
                }
            }
        };
        tokio::join!(reading, writing).0
    }

    fn frame(body: &str) -> Vec<u8> {
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend(body.as_bytes());
        bytes
    }

    #[tokio::test]
    async fn messages_that_cannot_be_parsed_are_dropped_and_the_rest_received() {
        let mut bytes = frame("no JSON");
        bytes.extend(frame(r#"{"type":"unheard_of"}"#));
        bytes.extend(frame(r#"{"type":"done","id":-1,"status":"ok"}"#));
        bytes.extend(frame(r#"{"type":"done","id":7,"status":"ok","more":[{}]}"#));
        let received = receive_all(&bytes).await;
        assert!(
            matches!(
                received[0],
                Ok(KernelMessage::Done {
                    id: 7,
                    status: DoneStatus::Ok
                })
            ),
            "{received:?}"
        );
        assert_eq!(received.len(), 2);
    }

    #[tokio::test]
    async fn a_length_beyond_all_measure_ends_the_link_before_anything_is_allocated() {
        let received = receive_all(&[0xff; 64]).await;
        let error = received[0].as_ref().expect_err("the length is too large");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_end() {
        let mut bytes = frame(r#"{"type":"ready"}"#);
        bytes.truncate(bytes.len() - 1);
        let received = receive_all(&bytes).await;
        let error = received[0].as_ref().expect_err("the frame is incomplete");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn nesting_without_end_is_dropped() {
        let mut bytes = frame(&"[".repeat(1 << 20));
        bytes.extend(frame(r#"{"type":"ready"}"#));
        assert!(matches!(
            receive_all(&bytes).await[0],
            Ok(KernelMessage::Ready)
        ));
    }
}
