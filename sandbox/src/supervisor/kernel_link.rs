//! The socket between the supervisor and a session's kernel.
//!
//! Whatever comes out of a session may have been written by the code in its cells, so nothing is
//! allocated on its word, and what cannot be read is dropped.

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

/// Room for the largest picture, in base64.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// What the supervisor asks of a kernel.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Order<'a> {
    /// Run a cell.
    Run {
        /// Number of the cell, for the answers.
        id: u64,
        /// What to run.
        code: &'a str,
    },
    /// Run something trivial in silence, so that the first cell is quick.
    Warm,
}

/// What a kernel says.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Said {
    /// It waits for orders.
    Ready,
    /// It has done something trivial.
    Warm,
    /// A cell wrote text.
    Text {
        /// Which cell.
        id: u64,
        /// Where it came from.
        source: TextSource,
        /// The text.
        text: String,
    },
    /// A cell showed a picture.
    Image {
        /// Which cell.
        id: u64,
        /// The picture in base64.
        data: String,
    },
    /// A cell has ended.
    Done {
        /// Which cell.
        id: u64,
        /// How.
        status: DoneStatus,
    },
}

/// How a cell ended, as its kernel says.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DoneStatus {
    /// To its end.
    Ok,
    /// With an exception.
    Error,
}

/// The supervisor's end of the socket: what the kernel says, and where orders go.
pub struct KernelLink {
    /// What the kernel says.
    pub ear: Ear,
    /// Where orders go.
    pub mouth: OwnedWriteHalf,
}

/// Reads what a kernel says.
pub struct Ear {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

impl KernelLink {
    /// The link over this socket.
    pub fn new(socket: UnixStream) -> Self {
        let (socket, mouth) = socket.into_split();
        Self {
            ear: Ear {
                socket,
                buffer: BytesMut::new(),
            },
            mouth,
        }
    }

    /// Sends an order. The session may be slow to take it.
    pub async fn send(&mut self, order: &Order<'_>) -> io::Result<()> {
        self.mouth.write_all(&encode(order)?).await
    }
}

/// An order as it goes over the socket.
pub fn encode(order: &Order) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(order)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    Ok(frame)
}

impl Ear {
    /// Gives back memory that something large has taken.
    pub fn shrink(&mut self) {
        if self.buffer.capacity() > 4 * READ_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
    }

    /// The next thing that the kernel says and that can be read. `UnexpectedEof` when the other
    /// end is closed, `InvalidData` when what comes are not frames. May be cancelled and called again.
    pub async fn next(&mut self) -> io::Result<Said> {
        loop {
            while let Some(body) = take_frame(&mut self.buffer)? {
                if let Ok(said) = serde_json::from_slice(&body) {
                    return Ok(said);
                }
            }
            self.buffer.reserve(READ_BYTES);
            // Not `read_buf`: that takes a short read for an empty socket and waits for more to
            // come, but a session can cut reads short by sending descriptors along.
            self.socket.readable().await?;
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // Whatever else this task waits for has its turn, however much comes.
            tokio::task::yield_now().await;
        }
    }
}

/// Takes a whole frame off the front, if there is one.
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

    async fn hear(bytes: &[u8]) -> Vec<io::Result<Said>> {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut link = KernelLink::new(ours);
        let bytes = bytes.to_vec();
        let writing = async move {
            let mut theirs = theirs;
            // A reader that gave up is what some of the tests are about.
            let _ = theirs.write_all(&bytes).await;
        };
        let reading = async {
            let mut heard = Vec::new();
            loop {
                let said = link.ear.next().await;
                let ended = said.is_err();
                heard.push(said);
                if ended {
                    drop(link);
                    return heard;
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
    async fn what_cannot_be_read_is_dropped_and_the_rest_heard() {
        let mut bytes = frame("no JSON");
        bytes.extend(frame(r#"{"type":"unheard_of"}"#));
        bytes.extend(frame(r#"{"type":"done","id":-1,"status":"ok"}"#));
        bytes.extend(frame(r#"{"type":"done","id":7,"status":"ok","more":[{}]}"#));
        let heard = hear(&bytes).await;
        assert!(
            matches!(
                heard[0],
                Ok(Said::Done {
                    id: 7,
                    status: DoneStatus::Ok
                })
            ),
            "{heard:?}"
        );
        assert_eq!(heard.len(), 2);
    }

    #[tokio::test]
    async fn a_length_beyond_all_measure_ends_the_link_before_anything_is_allocated() {
        let heard = hear(&[0xff; 64]).await;
        let error = heard[0].as_ref().expect_err("it is too large");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_end() {
        let mut bytes = frame(r#"{"type":"ready"}"#);
        bytes.truncate(bytes.len() - 1);
        let heard = hear(&bytes).await;
        let error = heard[0].as_ref().expect_err("it is not whole");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn nesting_without_end_is_dropped() {
        let mut bytes = frame(&"[".repeat(1 << 20));
        bytes.extend(frame(r#"{"type":"ready"}"#));
        assert!(matches!(hear(&bytes).await[0], Ok(Said::Ready)));
    }
}
