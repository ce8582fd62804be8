//! From the bytes of a file to chunks of text.
//!
//! | module    | does                                                                        |
//! |-----------|-----------------------------------------------------------------------------|
//! | `extract` | bytes and a file name → [`Section`]s, or an [`ExtractError`]                |
//! | `child`   | the same in a process of its own, with limits on memory, time and output     |
//! | `chunk`   | sections → chunks of so many tokens, by the documented static strategy      |
//!
//! Files come from anyone, and parsers of documents are large. So a server calls
//! [`child::Reader`] and never [`extract::extract`]: a document that makes a parser loop, crash or
//! take all memory then costs one file.

pub mod child;
pub mod chunk;
mod error;
pub mod extract;

use serde::Deserialize;
use serde::Serialize;

pub use error::ErrorCode;
pub use error::ExtractError;

/// A stretch of a document's text, and where in the document it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Never blank; lines end in `\n`; no other control characters than that and tabs.
    /// Structure, where it is known, is written as Markdown.
    pub text: String,
    /// The page of a PDF or the slide of a presentation, from 1.
    pub page: Option<u32>,
    /// The headings that it stands under, outermost first: of a Markdown, HTML or Word document
    /// its headings, of a slide its title, of a spreadsheet the name of the sheet.
    pub headings: Vec<String>,
}
