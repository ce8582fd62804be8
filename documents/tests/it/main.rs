//! Extraction as a server does it: through the child process.

mod formats;
mod hostile;
mod made;
mod process;

use std::path::Path;
use std::path::PathBuf;

use documents::ExtractError;
use documents::Section;
use documents::child;
use documents::child::Limits;

/// The program that is the child.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_extract-document"))
}

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn extract(name: &str, bytes: &[u8]) -> Result<Vec<Section>, ExtractError> {
    child::run(program(), &[], name, bytes, &Limits::default()).await
}

/// The sections of a fixture that has to have some.
async fn sections(name: &str) -> Vec<Section> {
    extract(name, &fixture(name))
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn texts(sections: &[Section]) -> Vec<&str> {
    sections
        .iter()
        .map(|section| section.text.as_str())
        .collect()
}

fn headings(sections: &[Section]) -> Vec<Vec<&str>> {
    sections
        .iter()
        .map(|section| section.headings.iter().map(String::as_str).collect())
        .collect()
}

fn pages(sections: &[Section]) -> Vec<Option<u32>> {
    sections.iter().map(|section| section.page).collect()
}
