//! Vector stores: indexing speed, search latency and search quality.

mod calls;
mod cranfield;
mod fill;
mod ingest;
mod pdf;
mod quality;
mod random;
mod search;
mod steps;
mod vectors;
mod words;

pub(crate) use steps::measure;
pub(crate) use vectors::of_text as vector_of;
pub(crate) use vectors::write as write_vector;

use std::path::PathBuf;

/// Files that some steps need.
pub(crate) struct Assets {
    /// A folder with the Cranfield collection, if there is one.
    pub(crate) cranfield: Option<PathBuf>,
    /// A folder with the local embedding model.
    pub(crate) model: PathBuf,
}
