//! `assistd-sandbox ping`: checks that a worker is serving. Container engines use it as a health
//! check.

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
use crate::settings::ListenSettings;

/// A worker that takes longer to answer is still starting, or hangs.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
pub enum HealthCheckError {
    #[error("no worker answers: {0}")]
    NoAnswer(#[from] io::Error),
    #[error("the peer is no worker of this version: {0}")]
    Protocol(#[from] FrameError),
    #[error("the worker refuses: {0}")]
    Refused(String),
}

/// Connects to the worker with these settings and returns its report.
pub async fn run(listen: &ListenSettings) -> Result<Report, HealthCheckError> {
    let report = async {
        match &listen.address {
            Address::Unix(path) => request_report(UnixStream::connect(path).await?, listen).await,
            Address::Tcp(address) => {
                request_report(TcpStream::connect(address).await?, listen).await
            }
        }
    };
    timeout(TIMEOUT, report)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

async fn request_report(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    listen: &ListenSettings,
) -> Result<Report, HealthCheckError> {
    let hello = Request::Hello {
        version: VERSION,
        token: listen.token.clone(),
    };
    stream.write_all(&Frame::message(&hello)?.encode()?).await?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let (kind, length) = parse_header(header)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match Frame::new(kind, body)?.read()? {
        Response::Hello(report) => Ok(report),
        Response::Refused { message } => Err(HealthCheckError::Refused(message)),
        _ => Err(FrameError::Unexpected.into()),
    }
}
