//! Blobs as files in a local folder.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use object_store::local::LocalFileSystem;

use crate::files::blobs::error::BlobError;

/// Opens a folder, which is created with mode 0700 if it does not exist. Returns its canonical
/// path.
pub(super) fn open(folder: PathBuf) -> Result<(LocalFileSystem, PathBuf), BlobError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let folder = folder.canonicalize()?;
    // object_store does not sync by default, but what a client was told is stored must survive a
    // power failure.
    let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
    Ok((store, folder))
}

/// Deletes what a killed process may have left of a blob: object_store writes to `NAME#1` before it
/// renames the file.
pub(super) async fn delete_temporary(folder: &Path, name: &str) -> Result<(), BlobError> {
    match tokio::fs::remove_file(folder.join(format!("{name}#1"))).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a write failed because the disk is full or the user's disk quota is used up.
pub(super) fn is_out_of_space(error: &BlobError) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    let mut io = causes.filter_map(|it| it.downcast_ref::<std::io::Error>());
    io.any(|error| {
        matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        )
    })
}
