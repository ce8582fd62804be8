//! Vector stores: how fast files are indexed, how fast and how well they are found.

mod calls;
mod cloud;
mod cranfield;
mod fill;
mod ingest;
mod pdf;
mod quality;
mod random;
mod search;
mod steps;
mod words;

pub(crate) use cloud::of_text as vector_of;
pub(crate) use cloud::write as write_vector;
pub(crate) use steps::sit;

use std::path::PathBuf;

/// What is measured with, besides the server.
pub(crate) struct Assets {
    /// A folder with the Cranfield collection, if there is one.
    pub(crate) cranfield: Option<PathBuf>,
    /// A folder with the local embedding model.
    pub(crate) model: PathBuf,
}
