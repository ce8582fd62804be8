//! A session's `/mnt/data`, from outside: files are put in, found and read, without ever leaving
//! it.

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
use crate::settings::mib;
use crate::supervisor::changed_files;
use crate::supervisor::changed_files::Mark;
use crate::supervisor::changed_files::Marks;
use crate::supervisor::changed_files::Measure;
use crate::supervisor::changed_files::open_beneath;

/// Longest name of a file or folder, in bytes.
const NAME_BYTES: usize = 255;

/// Longest path, in bytes.
const PATH_BYTES: usize = 1024;

/// Most folders in a path: a file further down would not be found again.
const FOLDERS_MAX: usize = 8;

/// Longest tag of a file, in bytes.
const TAG_BYTES: usize = 256;

/// Most files that are put at a time: all of them are listed in one frame.
const PLACED_MAX: usize = 4_000;

/// Why a file was not put or read; a sentence for the caller.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// A session's workspace.
pub struct Workspace {
    folder: Arc<OwnedFd>,
    /// Who owns what is put there, if not the worker.
    user: Option<u32>,
    /// Files as they were last told of, or put.
    known: Marks,
    /// What was put and not removed.
    placed: Vec<Placed>,
    measure: Measure,
    file_bytes: u64,
    puts: u64,
}

/// A file that was put.
struct Placed {
    tag: String,
    path: String,
    alias: Option<String>,
    /// The file as it was put.
    mark: Mark,
}

/// A file that is being put. Gone, if it is dropped before it is finished.
pub struct Put {
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
    /// The workspace in this folder.
    pub fn new(folder: OwnedFd, user: Option<u32>, settings: &Settings) -> Self {
        Self {
            folder: Arc::new(folder),
            user,
            known: Marks::new(),
            placed: Vec::new(),
            measure: Measure {
                files: settings.files as usize,
                bytes: mib(settings.files_mib),
            },
            file_bytes: mib(settings.file_mib),
            puts: 0,
        }
    }

    /// The files that were put and not removed.
    pub fn placed(&self) -> Vec<PlacedFile> {
        let files = self.placed.iter().map(|placed| PlacedFile {
            tag: placed.tag.clone(),
            path: placed.path.clone(),
        });
        files.collect()
    }

    /// Removes the files with these tags. A path whose file is not as it was put has a cell's work,
    /// and stays; the alias, which names what the client has taken away, goes with any content.
    pub fn remove(&mut self, tags: &[String]) -> Result<(), Errno> {
        let gone: Vec<Placed> = self
            .placed
            .extract_if(.., |placed| tags.contains(&placed.tag))
            .collect();
        for placed in gone {
            self.remove_if(&placed.path, |now| now == placed.mark)?;
            if let Some(alias) = &placed.alias {
                self.remove_if(alias, |now| now.is_same_file(&placed.mark))?;
            }
        }
        Ok(())
    }

    fn remove_if(&self, path: &str, wanted: impl Fn(Mark) -> bool) -> Result<(), Errno> {
        let removed = at(&self.folder, path, |folder, name| {
            match wanted(Mark::of(&fstatat(
                folder,
                name,
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?)) {
                true => unlinkat(folder, name, UnlinkatFlags::NoRemoveDir),
                false => Ok(()),
            }
        });
        match removed {
            // A cell has removed it, or has put something else in its folder's place.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins to put a file.
    pub fn put(
        &mut self,
        path: &str,
        alias: Option<&str>,
        tag: &str,
        size: u64,
    ) -> Result<Put, Refused> {
        check_path(path)?;
        alias.map_or(Ok(()), check_path)?;
        if tag.len() > TAG_BYTES || self.placed.len() >= PLACED_MAX {
            return Err(Refused(
                "the tag is too long, or there are too many files".into(),
            ));
        }
        if size > self.file_bytes {
            return Err(Refused(format!(
                "{path} has {size} bytes, and a file may have {}",
                self.file_bytes
            )));
        }
        for path in [Some(path), alias].into_iter().flatten() {
            self.make_folders(path)?;
        }
        self.puts += 1;
        // In the same folder as the file, hidden, and never a name that is taken.
        let temporary = format!(".put-{}-{}", std::process::id(), self.puts);
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
        let put = Put {
            folder: self.folder.clone(),
            file: File::from(file),
            temporary,
            path: path.to_owned(),
            alias: alias.filter(|alias| *alias != path).map(str::to_owned),
            tag: tag.to_owned(),
            size,
            written: 0,
        };
        self.give_away(&put.file)
            .map_err(|error| cannot_write(path, error))?;
        Ok(put)
    }

    /// Puts the file in its place. Its content is not told of as new.
    pub fn finish(&mut self, put: Put) -> Result<(), Refused> {
        let mark = put.finish()?;
        for name in [Some(&put.path), put.alias.as_ref()].into_iter().flatten() {
            self.known.insert(name.clone(), mark);
        }
        self.placed.retain(|placed| placed.tag != put.tag);
        self.placed.push(Placed {
            tag: put.tag.clone(),
            path: put.path.clone(),
            alias: put.alias.clone(),
            mark,
        });
        Ok(())
    }

    /// What is new or changed since this was last asked, and whether there is more than is told.
    pub async fn changes(&mut self) -> (Vec<ChangedFile>, bool) {
        let folder = self.folder.clone();
        let walked = tokio::task::spawn_blocking(move || changed_files::walk(&folder)).await;
        let Ok((now, cut)) = walked else {
            return (Vec::new(), true);
        };
        let tags = self.placed.iter().map(|placed| placed.tag.clone());
        let tags: HashSet<String> = tags.collect();
        let (changed, dropped) = changed_files::changes(&now, &self.known, &tags, self.measure);
        self.known = now;
        (changed, cut || dropped)
    }

    /// A regular file, and its size.
    pub fn read(&self, path: &str) -> Result<(File, u64), Refused> {
        check_path(path)?;
        let gone = |error: Errno| Refused(format!("{path} cannot be read: {}", error.desc()));
        let file =
            open_beneath(&self.folder, path, OFlag::O_RDONLY, Mode::empty()).map_err(gone)?;
        let found = fstat(&file).map_err(gone)?;
        if SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Err(Refused(format!("{path} is no file")));
        }
        let size = u64::try_from(found.st_size).unwrap_or(0);
        if size > self.measure.bytes {
            return Err(Refused(format!("{path} is too large to hand over")));
        }
        Ok((File::from(file), size))
    }

    fn make_folders(&self, path: &str) -> Result<(), Refused> {
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
            let made = open(parent).and_then(|parent| {
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) => open(folder).and_then(|made| self.give_away(&made)),
                    Err(Errno::EEXIST) => Ok(()),
                    Err(error) => Err(error),
                }
            });
            made.map_err(|error| cannot_write(path, error))?;
        }
        Ok(())
    }

    fn give_away(&self, made: impl AsFd) -> Result<(), Errno> {
        match self.user {
            Some(id) => fchown(made, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))),
            None => Ok(()),
        }
    }
}

impl Put {
    /// Adds to the file's content.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Refused> {
        self.written += piece.len() as u64;
        self.file
            .write_all(piece)
            .map_err(|error| cannot_write(&self.path, errno(&error)))
    }

    fn finish(&self) -> Result<Mark, Refused> {
        let failed = |error| cannot_write(&self.path, error);
        if self.written != self.size {
            return Err(Refused(format!("{} is not complete", self.path)));
        }
        if let Some(alias) = &self.alias {
            // A link cannot replace what is there, and a rename can.
            let link = format!("{}-alias", self.temporary);
            at(&self.folder, &self.temporary, |from, from_name| {
                at(&self.folder, &link, |to, to_name| {
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
        Ok(Mark::of(&fstat(&self.file).map_err(failed)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        at(&self.folder, from, |from, from_name| {
            at(&self.folder, to, |to, to_name| {
                renameat(from, from_name, to, to_name)
            })
        })
    }

    fn remove(&self, path: &str) -> Result<(), Errno> {
        at(&self.folder, path, |folder, name| {
            unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
        })
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        // Once it is finished it has this name no longer.
        let _ = self.remove(&self.temporary);
    }
}

/// Does something with a path's folder, which was reached without following any link, and its last
/// name, which the calls used here do not follow.
fn at<T>(
    workspace: &OwnedFd,
    path: &str,
    act: impl FnOnce(&OwnedFd, &str) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let folder = open_beneath(
        workspace,
        folder,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )?;
    act(&folder, name)
}

/// Reads up to the length of `piece`; fewer bytes only at the end.
pub fn read_piece(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

/// Paths are relative, and name no folder that is not below the workspace.
fn check_path(path: &str) -> Result<(), Refused> {
    let good_name =
        |name: &str| !name.is_empty() && name != "." && name != ".." && name.len() <= NAME_BYTES;
    let good = path.len() <= PATH_BYTES
        && path.split('/').count() <= FOLDERS_MAX
        && path.split('/').all(good_name)
        && !path.contains('\0');
    match good {
        true => Ok(()),
        false => Err(Refused("the path is not one below /mnt/data".into())),
    }
}

fn cannot_write(path: &str, error: Errno) -> Refused {
    let why = match error {
        Errno::ENOSPC | Errno::EDQUOT => "/mnt/data is full",
        Errno::ELOOP | Errno::EXDEV => "there is a link on the way",
        Errno::EISDIR | Errno::ENOTEMPTY => "there is a folder of that name",
        Errno::ENOTDIR => "there is a file where a folder is to be",
        other => other.desc(),
    };
    Refused(format!("{path} cannot be written: {why}"))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
