//! Vector stores at work: files are indexed, and searched. Knows nothing of HTTP.

mod calibration;
mod embeddings;
mod ingest;
mod large;
mod rank;
mod rerank;
mod search;

pub use embeddings::{EmbedError, Embeddings};
pub use ingest::{Indexer, IndexerDeps};
pub use rerank::Reranker;
pub use search::{Ask, Hit, Retrieval, SearchError, rewrite};
