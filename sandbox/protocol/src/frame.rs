//! Frames: a kind byte, the body's length in four bytes, most significant first, and the body.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 5;

/// Largest body of a frame.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

const MESSAGE: u8 = b'M';
const DATA: u8 = b'D';

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A request or response, as JSON.
    Message(Vec<u8>),
    /// A piece of a file's or picture's content.
    Data(Vec<u8>),
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The first byte is neither kind.
    #[error("a frame of unknown kind {0:#04x}")]
    Kind(u8),
    /// It would be larger than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    /// A message does not read as what was expected.
    #[error("a message that cannot be read: {0}")]
    Message(#[from] serde_json::Error),
    /// Data where a message was expected, or the other way round.
    #[error("a frame out of turn")]
    OutOfTurn,
}

/// A frame's kind and the length of its body, before anything is allocated for it.
pub fn parse_header(header: [u8; HEADER_BYTES]) -> Result<(u8, usize), FrameError> {
    let [kind, a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if kind != MESSAGE && kind != DATA {
        return Err(FrameError::Kind(kind));
    }
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    Ok((kind, length))
}

impl Frame {
    /// The frame of a kind that [`parse_header`] gave, and its body.
    pub fn new(kind: u8, body: Vec<u8>) -> Result<Self, FrameError> {
        match kind {
            MESSAGE => Ok(Self::Message(body)),
            DATA => Ok(Self::Data(body)),
            other => Err(FrameError::Kind(other)),
        }
    }

    /// A frame that says `message`.
    pub fn message(message: &impl Serialize) -> Result<Self, FrameError> {
        Ok(Self::Message(serde_json::to_vec(message)?))
    }

    /// What the frame says.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        match self {
            Self::Message(body) => Ok(serde_json::from_slice(body)?),
            Self::Data(_) => Err(FrameError::OutOfTurn),
        }
    }

    /// The frame's bytes, header first.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let (kind, body) = match self {
            Self::Message(body) => (MESSAGE, body),
            Self::Data(body) => (DATA, body),
        };
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= MAX_FRAME_BYTES)
            .ok_or(FrameError::TooLarge(body.len()))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    #[test]
    fn frames_survive_the_way() {
        let request = Request::Exec {
            code: "print('ä')".into(),
        };
        let bytes = Frame::message(&request)
            .and_then(|frame| frame.encode())
            .expect("it is small");
        let header = bytes[..HEADER_BYTES].try_into().expect("five bytes");
        let (kind, length) = parse_header(header).expect("it was just made");
        assert_eq!(length, bytes.len() - HEADER_BYTES);
        let frame = Frame::new(kind, bytes[HEADER_BYTES..].to_vec()).expect("a known kind");
        assert_eq!(frame.read::<Request>().expect("what was written"), request);
    }

    #[test]
    fn hostile_headers_are_refused_before_allocation() {
        assert!(matches!(
            parse_header([b'M', 0xff, 0xff, 0xff, 0xff]),
            Err(FrameError::TooLarge(_))
        ));
        assert!(matches!(
            parse_header([b'?', 0, 0, 0, 0]),
            Err(FrameError::Kind(b'?'))
        ));
    }
}
