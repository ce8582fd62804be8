//! `assistd-sandbox ping`: greets a running worker, for container engines that ask whether it serves.

use std::io;
use std::time::Duration;

use sandbox_protocol::Frame;
use sandbox_protocol::FrameError;
use sandbox_protocol::HEADER_BYTES;
use sandbox_protocol::Report;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::VERSION;
use sandbox_protocol::parse_header;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::settings::Address;
use crate::settings::Door;

/// A worker that takes longer is still starting, or hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// Why there was no proper answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody listens, or the connection ended.
    #[error("no worker answers: {0}")]
    Silence(#[from] io::Error),
    /// What came is not understood.
    #[error("what answers is no worker of this version: {0}")]
    Nonsense(#[from] FrameError),
    /// The worker will not have this client.
    #[error("the worker refuses: {0}")]
    Refused(String),
}

/// What the worker behind this door says of itself.
pub async fn ping(door: &Door) -> Result<Report, NoAnswer> {
    let greeted = async {
        match &door.listen {
            Address::Unix(path) => greet(UnixStream::connect(path).await?, door).await,
            Address::Tcp(address) => greet(TcpStream::connect(address).await?, door).await,
        }
    };
    let in_time = timeout(ANSWERS_WITHIN, greeted).await;
    in_time.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

async fn greet(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    door: &Door,
) -> Result<Report, NoAnswer> {
    let hello = Request::Hello {
        version: VERSION,
        token: door.token.clone(),
    };
    stream.write_all(&Frame::message(&hello)?.encode()?).await?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let (kind, length) = parse_header(header)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match Frame::new(kind, body)?.read()? {
        Response::Hello(report) => Ok(report),
        Response::Refused { message } => Err(NoAnswer::Refused(message)),
        _ => Err(FrameError::OutOfTurn.into()),
    }
}
