//! Framing: one kind byte, the length of the body as a big-endian `u32`, then the body.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of a frame header in bytes.
pub const HEADER_BYTES: usize = 5;

/// Maximum length of a frame body in bytes.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

const MESSAGE: u8 = b'M';
const DATA: u8 = b'D';

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A request or a response as JSON.
    Message(Vec<u8>),
    /// Part of the content of a file or an image.
    Data(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The first byte is no known kind.
    #[error("a frame of unknown kind {0:#04x}")]
    Kind(u8),
    /// It would be larger than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    /// The JSON does not match the expected type.
    #[error("a message that cannot be parsed: {0}")]
    Message(#[from] serde_json::Error),
    /// Data where a message was expected, or the reverse.
    #[error("an unexpected frame")]
    Unexpected,
}

/// Parses the kind and the body length, before a buffer is allocated for the body.
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
    /// Makes a frame of a kind that [`parse_header`] returned.
    pub fn new(kind: u8, body: Vec<u8>) -> Result<Self, FrameError> {
        match kind {
            MESSAGE => Ok(Self::Message(body)),
            DATA => Ok(Self::Data(body)),
            other => Err(FrameError::Kind(other)),
        }
    }

    pub fn message(message: &impl Serialize) -> Result<Self, FrameError> {
        Ok(Self::Message(serde_json::to_vec(message)?))
    }

    /// Parses the JSON of a message frame.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        match self {
            Self::Message(body) => Ok(serde_json::from_slice(body)?),
            Self::Data(_) => Err(FrameError::Unexpected),
        }
    }

    /// Header and body as bytes.
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
            .expect("the frame is below the maximum");
        let header = bytes[..HEADER_BYTES]
            .try_into()
            .expect("the header has five bytes");
        let (kind, length) = parse_header(header).expect("the header was just encoded");
        assert_eq!(length, bytes.len() - HEADER_BYTES);
        let frame = Frame::new(kind, bytes[HEADER_BYTES..].to_vec()).expect("the kind is known");
        assert_eq!(
            frame.read::<Request>().expect("the JSON was just encoded"),
            request
        );
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
