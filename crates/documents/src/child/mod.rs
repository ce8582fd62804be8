//! Extraction in a process of its own, so that a hostile or broken document costs one file.
//!
//! The parent calls [`Reader::read`]; the process that it starts calls [`serve`]. The parent writes one
//! line of JSON, then the file, to the child's standard input. The child limits itself, reads the
//! file, and writes lines of JSON to its standard output: the sections, then one line that says
//! how it ended. Whatever else comes, or nothing, is the child's failure.

mod confine;
mod parent;
mod serve;

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::ExtractError;
use crate::Section;

pub use parent::Reader;
pub use serve::serve;

const MIB: u64 = 1024 * 1024;

/// What one file may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The child's address space, its program included.
    pub memory_bytes: u64,
    /// Time on the processor.
    pub cpu_seconds: u64,
    /// Time on the clock, from the start of the child to its end.
    pub wall_seconds: u64,
    /// The file.
    pub file_bytes: u64,
    /// Its text, with the headings of every section.
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

/// The first line that the child reads. The file follows, to the end of its input.
#[derive(Serialize, Deserialize)]
struct Order {
    name: String,
    limits: Limits,
    pdfium: Option<PathBuf>,
}

/// A line that the child writes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Section(Section),
    /// The last line, if all went well.
    Done,
    /// The last line, if not.
    Failed(ExtractError),
}
