//! Finds what `make setup` has installed: PostgreSQL, PDFium, Python with its packages, the embedding
//! model.

use std::env::consts::DLL_PREFIX;
use std::env::consts::DLL_SUFFIX;
use std::path::Path;
use std::path::PathBuf;

const FOLDER: &str = ".venv";

/// Possible paths of that folder by descending preference: beside the program, in each folder above
/// it, and in the working directory, for programs that were built elsewhere.
pub fn environments() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let working_dir = std::env::current_dir().ok();
    candidates(program.as_deref(), working_dir.as_deref())
}

/// The PDFium library, if it is installed.
pub fn pdfium() -> Option<PathBuf> {
    let library = format!("pdfium/{DLL_PREFIX}pdfium{DLL_SUFFIX}");
    environments()
        .into_iter()
        .map(|environment| environment.join(&library))
        .find(|path| path.is_file())
}

fn candidates(program: Option<&Path>, working_dir: Option<&Path>) -> Vec<PathBuf> {
    let above = program.map(|program| program.ancestors().skip(1));
    let folders = above.into_iter().flatten().chain(working_dir);
    folders.map(|folder| folder.join(FOLDER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_project_comes_before_the_working_folder() {
        let program = Path::new("/project/target/debug/assistd");
        let paths = candidates(Some(program), Some(Path::new("/here")));
        let expected = [
            "/project/target/debug/.venv",
            "/project/target/.venv",
            "/project/.venv",
            "/.venv",
            "/here/.venv",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert!(candidates(None, None).is_empty());
    }
}
