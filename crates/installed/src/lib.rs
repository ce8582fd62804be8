//! Where set-up has installed what programs need when they run: PostgreSQL, Python with its
//! packages, the embedding model. One rule for all of them.

use std::path::Path;
use std::path::PathBuf;

/// The name of the folder that set-up installs into.
const FOLDER: &str = ".venv";

/// Where that folder may be, the best first: beside the program and in each folder above it, then in
/// the working folder, for programs that were built elsewhere.
pub fn environments() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    candidates(program.as_deref(), here.as_deref())
}

fn candidates(program: Option<&Path>, here: Option<&Path>) -> Vec<PathBuf> {
    let above = program.map(|program| program.ancestors().skip(1));
    let folders = above.into_iter().flatten().chain(here);
    folders.map(|folder| folder.join(FOLDER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_project_comes_before_the_working_folder() {
        let program = Path::new("/project/target/debug/assistd");
        let found = candidates(Some(program), Some(Path::new("/here")));
        let expected = [
            "/project/target/debug/.venv",
            "/project/target/.venv",
            "/project/.venv",
            "/.venv",
            "/here/.venv",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(candidates(None, None).is_empty());
    }
}
