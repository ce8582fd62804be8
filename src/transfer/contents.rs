//! Content of files that were imported without it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgConnection;
use tokio_util::io::ReaderStream;

use crate::domain::ids::{FileId, ProjectId};
use crate::domain::vector_store::IndexError;
use crate::files;
use crate::files::FileError;
use crate::files::blobs::BlobError;
use crate::store;
use crate::store::imports::FileSummary;
use crate::transfer::{Import, Progress, Stage, TransferError};

const PAGE: i64 = 500;

/// Concurrent lookups in blob storage.
const LOOKUPS: usize = 16;

/// Size in bytes of the chunks in which an original is read.
const CHUNK: usize = 128 << 10;

/// The numbers of imported files that had their content already (`present`) and of files of the
/// project that got it now (`new`), and the files that still have none.
#[derive(Debug, Default)]
pub struct Attached {
    pub present: u64,
    pub new: u64,
    pub missing: Vec<Missing>,
}

#[derive(Debug)]
pub struct Missing {
    file: FileSummary,
    reason: MissingReason,
}

#[derive(Debug)]
enum MissingReason {
    NotFound,
    Several(Vec<PathBuf>),
    /// The original named by its id has another size.
    OtherSize(PathBuf, u64),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileSummary {
            id,
            filename,
            bytes,
        } = &self.file;
        write!(f, "{id}: {filename:?}, {bytes} bytes")?;
        match &self.reason {
            MissingReason::NotFound => Ok(()),
            MissingReason::Several(paths) => {
                write!(
                    f,
                    "; several originals could be it, name the right one {id}:"
                )?;
                paths
                    .iter()
                    .try_for_each(|path| write!(f, " {}", path.display()))
            }
            MissingReason::OtherSize(path, size) => {
                write!(f, "; {} has {size} bytes", path.display())
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct FilesToAttach {
    /// Files of the source. Other files of the project matter only if they lack content.
    pub(super) imported: HashSet<FileId>,
    pub(super) originals: Originals,
}

#[derive(Debug, Default)]
pub(super) struct Originals {
    by_id: HashMap<FileId, (PathBuf, u64)>,
    by_name: HashMap<(String, u64), Vec<PathBuf>>,
}

impl Originals {
    pub(super) fn index(folders: &[&Path]) -> Result<Self, TransferError> {
        let mut originals = Self::default();
        for folder in folders {
            originals.add(folder)?;
        }
        Ok(originals)
    }

    fn add(&mut self, folder: &Path) -> Result<(), TransferError> {
        let entries = std::fs::read_dir(folder).map_err(TransferError::file(folder))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(TransferError::file(folder))?);
        }
        paths.sort_by_key(std::fs::DirEntry::file_name);
        for entry in paths {
            let path = entry.path();
            // Links to folders are not followed, since they may form a cycle.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&path)?;
                continue;
            }
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let size = metadata.len();
            if let Some(id) = id_in(&path) {
                self.by_id.entry(id).or_insert((path.clone(), size));
            }
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                let namesakes = self.by_name.entry((name.to_owned(), size)).or_default();
                namesakes.push(path);
            }
        }
        Ok(())
    }

    /// The original that is named by the file's id, or else has its name and size.
    fn find(&self, file: &FileSummary) -> Result<&Path, MissingReason> {
        let bytes = u64::try_from(file.bytes).unwrap_or(0);
        match self.by_id.get(&file.id) {
            Some((path, size)) if *size == bytes => return Ok(path),
            Some((path, size)) => return Err(MissingReason::OtherSize(path.clone(), *size)),
            None => {}
        }
        // Some clients send names with directories.
        let name = file.filename.rsplit(['/', '\\']).next();
        let name = name.unwrap_or_default().to_owned();
        match self.by_name.get(&(name, bytes)).map(Vec::as_slice) {
            None | Some([]) => Err(MissingReason::NotFound),
            Some([only]) => Ok(only),
            Some(several) => Err(MissingReason::Several(several.to_vec())),
        }
    }
}

/// The file id in a path: as the file name, with or without an extension, or as the name of its
/// folder.
fn id_in(path: &Path) -> Option<FileId> {
    let folder = path.parent().and_then(Path::file_name);
    let names = [path.file_name(), path.file_stem(), folder];
    let ids = names.into_iter().flatten();
    ids.filter_map(|name| name.to_str()?.parse().ok()).next()
}

/// Attaches content to files of the project that lack it, and indexes those that waited for it.
pub(super) async fn attach(
    import: &Import<'_>,
    conn: &mut PgConnection,
    project: &ProjectId,
    known: &FilesToAttach,
    progress: Progress<'_>,
) -> Result<Attached, TransferError> {
    let mut attached = Attached::default();
    let waiting = IndexError::without_contents();
    let waiting =
        store::vector_store_files::list_failed_with(&mut *conn, project, &waiting).await?;
    let waiting: HashSet<FileId> = waiting.into_iter().collect();
    let mut after = String::new();
    let mut checked = 0;
    loop {
        let files = store::imports::files_after(&mut *conn, project, &after, PAGE).await?;
        let Some(last) = files.last() else {
            return Ok(attached);
        };
        after = last.id.to_string();
        let sizes = stream::iter(&files).map(|file| async {
            let size = import.blobs.size(file.id.as_str()).await;
            size.map_err(TransferError::blob(&file.id))
        });
        let sizes: Vec<Option<u64>> = sizes.buffered(LOOKUPS).try_collect().await?;
        for (file, size) in std::iter::zip(files, sizes) {
            if size.and_then(|size| i64::try_from(size).ok()) == Some(file.bytes) {
                attached.present += u64::from(known.imported.contains(&file.id));
                if !import.dry_run {
                    let is_waiting = waiting.contains(&file.id);
                    let claimed =
                        files::claim_blob(import.pool, project, &file.id, is_waiting).await;
                    claimed.map_err(|error| TransferError::contents(&file.id, error))?;
                }
            } else {
                match known.originals.find(&file) {
                    Ok(path) if import.dry_run || put(import, project, &file, path).await? => {
                        attached.new += 1;
                    }
                    // The file was deleted in the meantime.
                    Ok(_) => {}
                    Err(reason) => attached.missing.push(Missing { file, reason }),
                }
            }
            checked += 1;
            progress(Stage::Contents, checked, None);
        }
    }
}

/// Stores an original as the content of a file. Returns whether the file still exists.
async fn put(
    import: &Import<'_>,
    project: &ProjectId,
    file: &FileSummary,
    path: &Path,
) -> Result<bool, TransferError> {
    let original = tokio::fs::File::open(path).await;
    let original = original.map_err(TransferError::file(path))?;
    let content = ReaderStream::with_capacity(original, CHUNK).map_err(BlobError::from);
    let limit = u64::try_from(file.bytes).unwrap_or(0);
    let attached =
        files::attach(import.pool, import.blobs, project, &file.id, content, limit).await;
    match attached {
        Ok(()) => Ok(true),
        Err(FileError::Gone(_)) => Ok(false),
        Err(error) => Err(TransferError::contents(&file.id, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(id: &str, filename: &str, bytes: i64) -> FileSummary {
        FileSummary {
            id: id.parse().expect("an id"),
            filename: filename.to_owned(),
            bytes,
        }
    }

    #[test]
    fn originals_are_found_by_id_and_else_by_name_and_size() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("every path here is in the folder"))
                .expect("temporary folders are writable");
            std::fs::write(&path, text).expect("temporary folders are writable");
            path
        };
        let plain = write("a/file-1", "12345");
        let with_extension = write("a/file-2.pdf", "12345");
        let in_folder = write("file-3/report.txt", "12345");
        let named = write("b/manual.txt", "1234");
        write("b/twice.txt", "12");
        write("c/twice.txt", "34");
        let originals = Originals::index(&[folder.path()]).expect("temporary folders are readable");
        let find = |id: &str, name: &str, bytes| {
            let original = originals.find(&described(id, name, bytes));
            original.map(Path::to_owned).map_err(|reason| {
                let file = described(id, name, bytes);
                Missing { file, reason }.to_string()
            })
        };
        assert_eq!(find("file-1", "x", 5), Ok(plain));
        assert_eq!(find("file-2", "x", 5), Ok(with_extension));
        assert_eq!(find("file-3", "x", 5), Ok(in_folder));
        assert_eq!(find("file-4", "manual.txt", 4), Ok(named.clone()));
        assert_eq!(find("assistant-5", r"C:\docs\manual.txt", 4), Ok(named));
        let missing = find("file-4", "manual.txt", 5).expect_err("it is longer");
        assert_eq!(missing, "file-4: \"manual.txt\", 5 bytes");
        let other = find("file-1", "manual.txt", 4).expect_err("the id counts");
        assert!(other.ends_with("a/file-1 has 5 bytes"), "{other}");
        let several = find("file-4", "twice.txt", 2).expect_err("there are two");
        assert!(several.contains("several originals"), "{several}");
    }
}
