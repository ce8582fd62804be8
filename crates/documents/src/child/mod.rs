//! Extraction in a child process, so that a hostile or damaged document affects only its own file.
//!
//! The parent calls [`Reader::read`]; the process that it starts calls [`serve`]. The parent writes
//! a [`ReadRequest`] as one line of JSON, then the file, to the child's standard input. The child
//! sets its limits, reads the file, and writes [`OutputLine`]s of JSON to its standard output: the
//! sections, then the result. Any other output is a failure of the child.

mod confine;
mod parent;
mod serve;

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::ExtractError;
use crate::Loss;
use crate::Section;

pub use parent::Reader;
pub use serve::serve;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space of the child in bytes, its program included.
    pub memory_bytes: u64,
    pub cpu_seconds: u64,
    /// Wall-clock time from the start of the child to its result.
    pub wall_seconds: u64,
    pub file_bytes: u64,
    /// Size of the extracted text, including the headings of every section.
    pub text_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1536 * MIB,
            cpu_seconds: 60,
            wall_seconds: 120,
            file_bytes: 512 * MIB,
            text_bytes: 64 * MIB,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ReadRequest {
    name: String,
    limits: Limits,
    /// The PDFium library; PDF files are refused without one.
    pdfium: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutputLine {
    Section(Section),
    Done { loss: Option<Loss> },
    Failed(ExtractError),
}
