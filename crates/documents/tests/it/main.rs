//! Extraction through the child process, as the server uses it.

mod formats;
mod generated;
mod hostile;
mod pdf;
mod process;

use std::path::PathBuf;

use documents::ExtractError;
use documents::Extraction;
use documents::Section;
use documents::child::Limits;
use documents::child::Reader;

fn reader() -> Reader {
    reader_of(env!("CARGO_BIN_EXE_extract-document"), &[])
}

fn reader_of(program: &str, arguments: &[&str]) -> Reader {
    Reader {
        program: program.into(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        pdfium: Some(installed::pdfium().expect("`make setup` installs PDFium")),
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn extract(name: &str, bytes: &[u8]) -> Result<Vec<Section>, ExtractError> {
    read(name, bytes).await.map(|read| read.sections)
}

async fn read(name: &str, bytes: &[u8]) -> Result<Extraction, ExtractError> {
    reader().read(name, bytes, &Limits::default()).await
}

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
