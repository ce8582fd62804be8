//! The supervisor's access to a session's `/mnt/data`: writes, lists and reads files, and never
//! leaves the folder.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::renameat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstat;
use nix::sys::stat::fstatat;
use nix::sys::stat::mkdirat;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::UnlinkatFlags;
use nix::unistd::fchown;
use nix::unistd::linkat;
use nix::unistd::unlinkat;
use sandbox_protocol::ChangedFile;
use sandbox_protocol::PlacedFile;

use crate::settings::Settings;
use crate::settings::mib_to_bytes;
use crate::supervisor::changed_files;
use crate::supervisor::changed_files::FileVersion;
use crate::supervisor::changed_files::ReportLimits;
use crate::supervisor::changed_files::Snapshot;
use crate::supervisor::changed_files::open_beneath;

/// Maximum length of a file or folder name in bytes.
const NAME_BYTES: usize = 255;

/// Maximum length of a path in bytes.
const PATH_BYTES: usize = 1024;

/// Maximum number of path components: deeper files would not be found by the search for changes.
const COMPONENTS_MAX: usize = 8;

/// Maximum length of a tag in bytes.
const TAG_BYTES: usize = 256;

/// Maximum number of put files: all of them are listed in one frame.
const PLACED_MAX: usize = 4_000;

/// Why a file cannot be written or read; the message is for the client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorkspaceError(String);

pub struct Workspace {
    folder: Arc<OwnedFd>,
    /// Owner of the uploaded files; `None` for the worker's own user.
    user: Option<u32>,
    /// Files as they were last reported or put.
    known: Snapshot,
    /// Files that were put and not removed.
    placed: Vec<Placed>,
    report_limits: ReportLimits,
    /// Maximum size of a file in bytes.
    file_bytes: u64,
    /// Number of files created so far, for temporary names.
    created: u64,
}

/// A file that was put.
struct Placed {
    tag: String,
    path: String,
    alias: Option<String>,
    version: FileVersion,
}

/// A file that is being written under a temporary name. Dropping it removes the file unless it was
/// finished.
pub struct PendingFile {
    folder: Arc<OwnedFd>,
    file: File,
    temporary: String,
    path: String,
    alias: Option<String>,
    tag: String,
    size: u64,
    written: u64,
}

impl Workspace {
    pub fn new(folder: OwnedFd, user: Option<u32>, settings: &Settings) -> Self {
        Self {
            folder: Arc::new(folder),
            user,
            known: Snapshot::new(),
            placed: Vec::new(),
            report_limits: ReportLimits {
                files: settings.files as usize,
                bytes: mib_to_bytes(settings.files_mib),
            },
            file_bytes: mib_to_bytes(settings.file_mib),
            created: 0,
        }
    }

    /// The files that were put and not removed.
    pub fn placed_files(&self) -> Vec<PlacedFile> {
        let files = self.placed.iter().map(|placed| PlacedFile {
            tag: placed.tag.clone(),
            path: placed.path.clone(),
        });
        files.collect()
    }

    /// Removes the files with these tags. A file that a cell has changed keeps its path, since it
    /// is the cell's work by now; its alias, which is the client's name for it, is always removed.
    pub fn remove(&mut self, tags: &[String]) -> Result<(), Errno> {
        let removed: Vec<Placed> = self
            .placed
            .extract_if(.., |placed| tags.contains(&placed.tag))
            .collect();
        for placed in removed {
            self.remove_if(&placed.path, |current| current == placed.version)?;
            if let Some(alias) = &placed.alias {
                self.remove_if(alias, |current| current.is_same_file(&placed.version))?;
            }
        }
        Ok(())
    }

    fn remove_if(&self, path: &str, condition: impl Fn(FileVersion) -> bool) -> Result<(), Errno> {
        let removed = with_parent(&self.folder, path, |folder, name| {
            let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if condition(FileVersion::of(&stat)) {
                unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
            } else {
                Ok(())
            }
        });
        match removed {
            // A cell has removed the file, or has replaced its folder.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates a file under a temporary name.
    pub fn create(
        &mut self,
        path: &str,
        alias: Option<&str>,
        tag: &str,
        size: u64,
    ) -> Result<PendingFile, WorkspaceError> {
        check_path(path)?;
        alias.map_or(Ok(()), check_path)?;
        if tag.len() > TAG_BYTES || self.placed.len() >= PLACED_MAX {
            return Err(WorkspaceError(
                "the tag is too long, or there are too many files".into(),
            ));
        }
        if size > self.file_bytes {
            return Err(WorkspaceError(format!(
                "{path} has {size} bytes, and a file may have {}",
                self.file_bytes
            )));
        }
        for path in [Some(path), alias].into_iter().flatten() {
            self.create_folders(path)?;
        }
        self.created += 1;
        // In the folder of the file, so that a rename moves it to its name.
        let temporary = format!(".put-{}-{}", std::process::id(), self.created);
        let temporary = match path.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/{temporary}"),
            None => temporary,
        };
        let file = open_beneath(
            &self.folder,
            &temporary,
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL,
            Mode::from_bits_truncate(0o644),
        )
        .map_err(|error| cannot_write(path, error))?;
        let pending = PendingFile {
            folder: self.folder.clone(),
            file: File::from(file),
            temporary,
            path: path.to_owned(),
            alias: alias.filter(|alias| *alias != path).map(str::to_owned),
            tag: tag.to_owned(),
            size,
            written: 0,
        };
        self.set_owner(&pending.file)
            .map_err(|error| cannot_write(path, error))?;
        Ok(pending)
    }

    /// Moves the file to its path and alias. It will not be reported as changed.
    pub fn finish(&mut self, file: PendingFile) -> Result<(), WorkspaceError> {
        let version = file.publish()?;
        for name in [Some(&file.path), file.alias.as_ref()]
            .into_iter()
            .flatten()
        {
            self.known.insert(name.clone(), version);
        }
        self.placed.retain(|placed| placed.tag != file.tag);
        self.placed.push(Placed {
            tag: file.tag.clone(),
            path: file.path.clone(),
            alias: file.alias.clone(),
            version,
        });
        Ok(())
    }

    /// Files that are new or changed since the last call or put. The flag tells whether some were
    /// left out.
    pub async fn changes(&mut self) -> (Vec<ChangedFile>, bool) {
        let folder = self.folder.clone();
        let snapshot =
            tokio::task::spawn_blocking(move || changed_files::take_snapshot(&folder)).await;
        let Ok((now, incomplete)) = snapshot else {
            return (Vec::new(), true);
        };
        let tags = self.placed.iter().map(|placed| placed.tag.clone());
        let tags: HashSet<String> = tags.collect();
        let (changed, dropped) =
            changed_files::changed_files(&now, &self.known, &tags, self.report_limits);
        self.known = now;
        (changed, incomplete || dropped)
    }

    /// Opens a regular file and returns its size in bytes.
    pub fn open(&self, path: &str) -> Result<(File, u64), WorkspaceError> {
        check_path(path)?;
        let failed =
            |error: Errno| WorkspaceError(format!("{path} cannot be read: {}", error.desc()));
        let file =
            open_beneath(&self.folder, path, OFlag::O_RDONLY, Mode::empty()).map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Err(WorkspaceError(format!("{path} is not a regular file")));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size > self.report_limits.bytes {
            return Err(WorkspaceError(format!("{path} is too large to send")));
        }
        Ok((File::from(file), size))
    }

    fn create_folders(&self, path: &str) -> Result<(), WorkspaceError> {
        let ends = path.match_indices('/').map(|(end, _)| end);
        for folder in ends.map(|end| &path[..end]) {
            let (parent, name) = folder.rsplit_once('/').unwrap_or((".", folder));
            let open = |path| {
                open_beneath(
                    &self.folder,
                    path,
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY,
                    Mode::empty(),
                )
            };
            let created = open(parent).and_then(|parent| {
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) => open(folder).and_then(|created| self.set_owner(&created)),
                    Err(Errno::EEXIST) => Ok(()),
                    Err(error) => Err(error),
                }
            });
            created.map_err(|error| cannot_write(path, error))?;
        }
        Ok(())
    }

    fn set_owner(&self, file: impl AsFd) -> Result<(), Errno> {
        match self.user {
            Some(id) => fchown(file, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))),
            None => Ok(()),
        }
    }
}

impl PendingFile {
    /// Appends data to the file.
    pub fn write(&mut self, data: &[u8]) -> Result<(), WorkspaceError> {
        self.written += data.len() as u64;
        self.file
            .write_all(data)
            .map_err(|error| cannot_write(&self.path, errno(&error)))
    }

    /// Renames the complete file to its path, and links its alias.
    fn publish(&self) -> Result<FileVersion, WorkspaceError> {
        let failed = |error| cannot_write(&self.path, error);
        if self.written != self.size {
            return Err(WorkspaceError(format!("{} is incomplete", self.path)));
        }
        if let Some(alias) = &self.alias {
            // Only a rename can replace an existing file, so the link is created under another
            // name.
            let link = format!("{}-alias", self.temporary);
            with_parent(&self.folder, &self.temporary, |from, from_name| {
                with_parent(&self.folder, &link, |to, to_name| {
                    linkat(from, from_name, to, to_name, AtFlags::empty())
                })
            })
            .map_err(failed)?;
            self.rename(&link, alias).map_err(|error| {
                let _ = self.remove(&link);
                failed(error)
            })?;
        }
        self.rename(&self.temporary, &self.path).map_err(failed)?;
        Ok(FileVersion::of(&fstat(&self.file).map_err(failed)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        with_parent(&self.folder, from, |from, from_name| {
            with_parent(&self.folder, to, |to, to_name| {
                renameat(from, from_name, to, to_name)
            })
        })
    }

    fn remove(&self, path: &str) -> Result<(), Errno> {
        with_parent(&self.folder, path, |folder, name| {
            unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
        })
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        // Fails if the file was finished, since it no longer has this name.
        let _ = self.remove(&self.temporary);
    }
}

/// Calls `operation` with the parent folder of `path`, opened without following links, and with the
/// last component, which the system calls used here do not follow either.
fn with_parent<T>(
    workspace: &OwnedFd,
    path: &str,
    operation: impl FnOnce(&OwnedFd, &str) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let folder = open_beneath(
        workspace,
        folder,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )?;
    operation(&folder, name)
}

/// Fills `buffer`; reads fewer bytes only at the end of the file.
pub fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

/// Checks that a path is relative and stays below the workspace.
fn check_path(path: &str) -> Result<(), WorkspaceError> {
    let is_valid_name =
        |name: &str| !name.is_empty() && name != "." && name != ".." && name.len() <= NAME_BYTES;
    let is_valid = path.len() <= PATH_BYTES
        && path.split('/').count() <= COMPONENTS_MAX
        && path.split('/').all(is_valid_name)
        && !path.contains('\0');
    if is_valid {
        Ok(())
    } else {
        Err(WorkspaceError("the path is not below /mnt/data".into()))
    }
}

fn cannot_write(path: &str, error: Errno) -> WorkspaceError {
    let reason = match error {
        Errno::ENOSPC | Errno::EDQUOT => "/mnt/data is full",
        Errno::ELOOP | Errno::EXDEV => "the path contains a symbolic link",
        Errno::EISDIR | Errno::ENOTEMPTY => "a folder has that name",
        Errno::ENOTDIR => "a component of the path is not a folder",
        other => other.desc(),
    };
    WorkspaceError(format!("{path} cannot be written: {reason}"))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
