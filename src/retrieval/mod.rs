//! Retrieval: indexes the files of vector stores, and searches them. Knows nothing of HTTP.

mod embeddings;
mod indexing;
mod rerank;
mod search;

pub use embeddings::{EmbedError, Embeddings};
pub use indexing::{Indexer, IndexerDeps};
pub use rerank::Reranker;
pub use search::{Retrieval, SearchError, SearchHit, SearchQuery, rewrite_query};
