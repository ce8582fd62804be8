//! Finds the virtual environment that sessions use, and checks its version.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// File in which `scripts/setup` records why sessions cannot run.
const UNAVAILABLE: &str = "sandbox-unavailable";

/// Folders that a session replaces with its own, so it cannot see an installation in them.
const HIDDEN: &[&str] = &["/tmp", "/mnt/data", "/dev", "/proc", "/etc", "/opt/venv"];

/// A Python virtual environment.
#[derive(Debug, Clone)]
pub struct Venv {
    pub path: PathBuf,
    /// The Python installation that it belongs to.
    pub base: PathBuf,
    /// The Python version, such as `3.11.2`.
    pub version: String,
}

/// Why no virtual environment can be used; the message is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VenvError(String);

impl Venv {
    /// The environment of the executable `python`; without one, the `.venv` beside this program's
    /// project or in the current folder.
    pub fn find(python: Option<&Path>) -> Result<Self, VenvError> {
        let path = match python {
            Some(python) => python
                .parent()
                .and_then(Path::parent)
                .map(Path::to_owned)
                .ok_or_else(|| VenvError(format!("{} is not in a .venv", python.display())))?,
            None => search().ok_or_else(|| {
                VenvError(
                    "there is no .venv: run scripts/setup, or set ASSISTD_SANDBOX_PYTHON".into(),
                )
            })?,
        };
        Self::read(&path)
    }

    /// Refuses an environment whose version is not `linked`, the version that this program is
    /// linked with: an interpreter with another version's standard library may compute wrong
    /// results.
    pub fn check_version(&self, linked: &str) -> Result<(), VenvError> {
        if self.version == linked {
            return Ok(());
        }
        Err(VenvError(format!(
            "{} is for Python {}, but assistd-sandbox was built with {linked}: run scripts/setup \
             and build it again",
            self.path.display(),
            self.version,
        )))
    }

    fn read(path: &Path) -> Result<Self, VenvError> {
        let missing = |what: &str, error: std::io::Error| {
            VenvError(format!("{what}: {error}; run scripts/setup"))
        };
        let path = fs::canonicalize(path)
            .map_err(|error| missing(&format!("{}", path.display()), error))?;
        if let Ok(reason) = fs::read_to_string(path.join(UNAVAILABLE)) {
            return Err(VenvError(reason.trim().to_owned()));
        }
        let file = path.join("pyvenv.cfg");
        let text = fs::read_to_string(&file)
            .map_err(|error| missing(&format!("{}", file.display()), error))?;
        let value = |wanted: &[&str]| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| wanted.contains(&key.trim()))
                .map(|(_, value)| value.trim())
        };
        let (Some(home), Some(version)) = (value(&["home"]), value(&["version", "version_info"]))
        else {
            return Err(VenvError(format!(
                "{} does not name a Python installation: run scripts/setup",
                file.display()
            )));
        };
        let home = fs::canonicalize(home).map_err(|error| missing(home, error))?;
        let base = home.parent().unwrap_or(&home).to_owned();
        if HIDDEN.iter().any(|hidden| base.starts_with(hidden)) {
            return Err(VenvError(format!(
                "Python is installed in {}, which sessions cannot see: install it in another folder",
                base.display()
            )));
        }
        Ok(Self {
            version: release(version),
            path,
            base,
        })
    }
}

/// The first three components of a version; some tools write more, such as `3.11.2.final.0`.
fn release(version: &str) -> String {
    version.split('.').take(3).collect::<Vec<_>>().join(".")
}

fn search() -> Option<PathBuf> {
    let mut environments = installed::environments().into_iter();
    environments.find(|venv| venv.join("pyvenv.cfg").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn venv(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("pyvenv.cfg"), config).expect("the folder is writable");
        folder
    }

    #[test]
    fn another_version_than_the_linked_one_is_refused() {
        let folder = venv("home = /usr/bin\nversion = 3.11.7\n");
        let venv = Venv::read(folder.path()).expect("the configuration is complete");
        assert_eq!(venv.base, Path::new("/usr"));
        assert!(venv.check_version("3.11.7").is_ok());
        let refused = venv
            .check_version("3.11.2")
            .expect_err("the versions differ")
            .to_string();
        assert!(
            refused.contains("3.11.7") && refused.contains("3.11.2"),
            "{refused}"
        );
    }

    #[test]
    fn what_set_up_says_is_passed_on() {
        let folder = venv("home = /usr/bin\nversion = 3.11.7\n");
        fs::write(folder.path().join(UNAVAILABLE), "install python3-dev\n")
            .expect("the folder is writable");
        let refused = Venv::read(folder.path())
            .expect_err("the file gives a reason")
            .to_string();
        assert_eq!(refused, "install python3-dev");
    }

    #[test]
    fn a_python_that_sessions_cannot_see_is_refused() {
        let folder = venv("home = /tmp\nversion = 3.11.7\n");
        // The installation is then the parent of /tmp, which is not hidden.
        assert!(Venv::read(folder.path()).is_ok());
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        let config = format!("home = {}\nversion = 3.11.7\n", bin.display());
        fs::write(folder.path().join("pyvenv.cfg"), config).expect("the folder is writable");
        assert!(Venv::read(folder.path()).is_err());
    }
}
