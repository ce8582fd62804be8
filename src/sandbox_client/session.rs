//! A session on a worker, held by one connection.

use std::fmt::Display;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use sandbox_protocol::{
    Executed, MAX_FRAME_BYTES, Notice, PlacedFile, Request, Response, TextSource,
};

use crate::sandbox_client::connection::Connection;
use crate::sandbox_client::error::SandboxError;

/// Largest picture that is taken from a worker.
const IMAGE_MAX: u64 = 32 << 20;

/// A thread's session, for as long as this is kept. Dropped while a cell runs, the cell is
/// interrupted; the session itself stays on the worker.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    fresh: bool,
    files: Vec<PlacedFile>,
    notice: Option<Notice>,
}

/// Something that a running cell does.
#[derive(Debug)]
pub enum CellEvent {
    /// It wrote text.
    Text {
        /// Where the text came from.
        source: TextSource,
        /// The text.
        text: String,
    },
    /// It showed a picture.
    Image {
        /// `image/png` or `image/jpeg`.
        mime: String,
        /// The picture.
        bytes: Bytes,
    },
    /// It has ended.
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

    /// Whether it was made just now, without variables and files.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The files that were put into it and not removed.
    pub fn files(&self) -> &[PlacedFile] {
        &self.files
    }

    /// What its worker did to it since its last cell, once.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    /// Removes the files with these tags, as far as they are as they were put. `false` if that was
    /// not possible: then the session has ended.
    pub async fn remove(&mut self, tags: Vec<String>) -> Result<bool, SandboxError> {
        self.files.retain(|file| !tags.contains(&file.tag));
        self.connection.send(&Request::Remove { tags }).await?;
        match self.connection.receive().await? {
            Response::Removed => Ok(true),
            Response::Closed => Ok(false),
            other => Err(self.connection.unexpected(other)),
        }
    }

    /// Writes a file of exactly `size` bytes to a path below `/mnt/data`, and links `alias` to it.
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

    /// Starts a cell; [`Self::next`] tells what it does.
    pub async fn start(&mut self, code: &str) -> Result<(), SandboxError> {
        let code = code.to_owned();
        self.connection.send(&Request::Exec { code }).await
    }

    /// What the cell does next. After [`CellEvent::Ended`] there is nothing more.
    pub async fn next(&mut self) -> Result<CellEvent, SandboxError> {
        Ok(match self.connection.receive().await? {
            Response::Text { source, text } => CellEvent::Text { source, text },
            Response::Image { mime, size } => {
                if size > IMAGE_MAX {
                    return Err(SandboxError::Lost("a picture that is too large".into()));
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

    /// Reads a file that the last cell wrote: its size and its bytes. They must be read to their
    /// end before anything else is asked.
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
