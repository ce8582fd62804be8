//! Settings of indexing and search.

use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Settings of indexing and search.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub struct RetrievalSettings {
    /// Embedding model: a folder with all-MiniLM-L6-v2, the name of a model of an upstream, or off;
    /// absent: the model that `make setup` installs
    #[arg(
        long,
        env = "ASSISTD_EMBEDDING_MODEL",
        value_name = "MODEL",
        default_value = "installed"
    )]
    pub embedding_model: EmbeddingModel,
    /// PDFium library for parsing PDF files; absent: the one that `make setup` installs
    #[arg(
        long,
        env = "ASSISTD_PDFIUM",
        value_name = "FILE",
        help_heading = "Storage"
    )]
    pub pdfium: Option<PathBuf>,
    /// Reranking model of an upstream (`/rerank`) for search results; absent: none
    #[arg(long, env = "ASSISTD_RERANK_MODEL", value_name = "MODEL")]
    pub rerank_model: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingModel {
    /// None: search is lexical only.
    Off,
    /// The local model that `make setup` installs; none if it is absent.
    Installed,
    Folder(PathBuf),
    /// A model of an upstream, routed by its name like chat models.
    Upstream(String),
}

impl FromStr for EmbeddingModel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "" => return Err("expected installed, off, a folder, or the name of a model"),
            "off" => Self::Off,
            "installed" => Self::Installed,
            folder if Path::new(folder).is_dir() => Self::Folder(folder.into()),
            name => Self::Upstream(name.to_owned()),
        })
    }
}
