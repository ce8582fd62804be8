//! A session on a worker, held by one connection.

use std::fmt::Display;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use sandbox_protocol::{
    Executed, MAX_FRAME_BYTES, Notice, PlacedFile, Request, Response, TextSource,
};

use crate::sandbox_client::connection::Connection;
use crate::sandbox_client::error::SandboxError;

/// Maximum size of an image in bytes.
const IMAGE_MAX: u64 = 32 << 20;

/// Exclusive use of a thread's session. Dropping it interrupts a running cell; the session stays on
/// the worker.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    fresh: bool,
    files: Vec<PlacedFile>,
    notice: Option<Notice>,
}

#[derive(Debug)]
pub enum CellEvent {
    /// The cell wrote text.
    Text { source: TextSource, text: String },
    Image {
        /// `image/png` or `image/jpeg`.
        mime: String,
        bytes: Bytes,
    },
    /// The cell has ended; the last event.
    Ended(Executed),
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        fresh: bool,
        files: Vec<PlacedFile>,
        notice: Option<Notice>,
    ) -> Self {
        Self {
            connection,
            fresh,
            files,
            notice,
        }
    }

    /// Whether the session is new: it has no variables and no files.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub fn files(&self) -> &[PlacedFile] {
        &self.files
    }

    /// Takes the notice about what the worker did to the session since its last cell.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    /// Removes the files with these tags; see [`Request::Remove`]. Returns `false` if a file could
    /// not be removed: the worker has then ended the session.
    pub async fn remove(&mut self, tags: Vec<String>) -> Result<bool, SandboxError> {
        self.files.retain(|file| !tags.contains(&file.tag));
        self.connection.send(&Request::Remove { tags }).await?;
        match self.connection.receive().await? {
            Response::Removed => Ok(true),
            Response::Closed => Ok(false),
            other => Err(self.connection.unexpected(other)),
        }
    }

    /// Writes a file of exactly `size` bytes to a path below `/mnt/data`, with `alias` as a second
    /// name.
    pub async fn put<E: Display>(
        &mut self,
        path: &str,
        alias: Option<String>,
        tag: &str,
        size: u64,
        contents: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), SandboxError> {
        let request = Request::Put {
            path: path.to_owned(),
            alias,
            tag: tag.to_owned(),
            size,
        };
        self.connection.send(&request).await?;
        let mut contents = std::pin::pin!(contents);
        while let Some(piece) = contents.next().await {
            let piece = piece.map_err(|error| SandboxError::Input(error.to_string()))?;
            for frame in piece.chunks(MAX_FRAME_BYTES) {
                self.connection.send_data(frame).await?;
            }
        }
        match self.connection.receive().await? {
            Response::Stored => {
                self.files.push(PlacedFile {
                    tag: tag.to_owned(),
                    path: path.to_owned(),
                });
                Ok(())
            }
            other => Err(self.connection.unexpected(other)),
        }
    }

    /// Starts a cell; [`Self::next`] returns its events.
    pub async fn start(&mut self, code: &str) -> Result<(), SandboxError> {
        let code = code.to_owned();
        self.connection.send(&Request::Exec { code }).await
    }

    /// Waits for the next event of the cell. Must not be called after [`CellEvent::Ended`].
    pub async fn next(&mut self) -> Result<CellEvent, SandboxError> {
        Ok(match self.connection.receive().await? {
            Response::Text { source, text } => CellEvent::Text { source, text },
            Response::Image { mime, size } => {
                if size > IMAGE_MAX {
                    return Err(SandboxError::Lost("an image that is too large".into()));
                }
                let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
                while (bytes.len() as u64) < size {
                    bytes.extend(self.connection.receive_data().await?);
                }
                let bytes = bytes.into();
                CellEvent::Image { mime, bytes }
            }
            Response::Executed(executed) => CellEvent::Ended(executed),
            other => return Err(self.connection.unexpected(other)),
        })
    }

    /// Reads a file that the last cell wrote: its size and its content. The stream must be read to
    /// its end before the next request.
    pub async fn get(
        &mut self,
        path: &str,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, SandboxError>> + Send), SandboxError> {
        let path = path.to_owned();
        self.connection.send(&Request::Get { path }).await?;
        let size = match self.connection.receive().await? {
            Response::File { size } => size,
            other => return Err(self.connection.unexpected(other)),
        };
        let connection = &mut self.connection;
        let contents = stream::try_unfold((connection, size), |(connection, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let data = connection.receive_data().await?;
            let left = left.saturating_sub(data.len() as u64);
            Ok(Some((Bytes::from(data), (connection, left))))
        });
        Ok((size, contents))
    }
}
