//! Settings of the data folder and of blob storage.

use std::path::PathBuf;

use clap::Args;

use super::values::Secret;

/// Where data and file contents are stored.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct FileSettings {
    /// Folder for the embedded database and the files
    #[arg(
        long,
        env = "ASSISTD_DATA_DIR",
        value_name = "DIR",
        default_value = "./data"
    )]
    pub data_dir: PathBuf,
    /// Blob storage for file contents: a folder, or s3://bucket/prefix with region and endpoint in
    /// AWS_REGION and AWS_ENDPOINT [default: blobs in the data folder]
    #[arg(long, env = "ASSISTD_BLOBS", value_name = "WHERE")]
    pub blobs: Option<String>,
    /// Access key for the bucket
    #[arg(
        long,
        env = "AWS_ACCESS_KEY_ID",
        value_name = "ID",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub aws_access_key_id: Option<Secret>,
    /// Secret of that access key
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        value_name = "SECRET",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub aws_secret_access_key: Option<Secret>,
}

impl FileSettings {
    /// A folder or an `s3://` URL; by default a folder in the data folder.
    pub fn blob_location(&self) -> String {
        match &self.blobs {
            Some(location) => location.clone(),
            None => self.data_dir.join("blobs").display().to_string(),
        }
    }
}
