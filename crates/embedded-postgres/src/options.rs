use std::path::PathBuf;

pub(crate) const NAME: &str = "assistd";

#[derive(Debug, Clone)]
pub struct Options {
    /// Parent of the database's folder; created if it does not exist.
    pub data_dir: PathBuf,
    /// Folder of `initdb` and `postgres`; `None` searches for it.
    pub bin_dir: Option<PathBuf>,
    /// User that runs a new database if this process runs as root, which PostgreSQL refuses.
    pub user: String,
    pub connections: u32,
}
