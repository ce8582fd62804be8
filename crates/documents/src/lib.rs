//! Extracts the text of documents and divides it into chunks for search.
//!
//! | module    | purpose                                                                     |
//! |-----------|-----------------------------------------------------------------------------|
//! | `extract` | bytes and a file name → [`Section`]s, or an [`ExtractError`]                |
//! | `child`   | the same in a process of its own, with limits on memory, time and output    |
//! | `chunk`   | sections → chunks of a number of tokens, by the API's static strategy       |
//!
//! Files are untrusted, and parsers of documents are large. A server therefore uses
//! [`child::Reader`] and never [`extract::extract`]: a document that makes a parser loop, crash or
//! exhaust memory then costs only that file.

pub mod child;
pub mod chunk;
mod error;
pub mod extract;
mod loss;

use serde::Deserialize;
use serde::Serialize;

pub use error::ErrorCode;
pub use error::ExtractError;
pub use loss::Loss;

/// The text of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    pub sections: Vec<Section>,
    /// The pages that are missing, if they are many.
    pub loss: Option<Loss>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Not blank. Lines end in `\n`; the only other control characters are tabs. Known structure is
    /// written as Markdown.
    pub text: String,
    /// The page of a PDF or the slide of a presentation, counted from 1.
    pub page: Option<u32>,
    /// The enclosing headings, outermost first. For a slide this is its title, and for a
    /// spreadsheet the name of the sheet.
    pub headings: Vec<String>,
}
