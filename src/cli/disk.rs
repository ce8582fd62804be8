//! Monitors the free space of the folders that the server writes to. PostgreSQL may stop on a full
//! disk without logging the reason.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::config::Config;

/// Free bytes below which the database may stop at any time.
pub(super) const CRITICAL: u64 = 200 << 20;

/// Free bytes below which the operator should act.
pub(super) const LOW: u64 = 2 << 30;

const PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Sufficient,
    Low,
    Critical,
}

impl Level {
    fn of(free: u64) -> Self {
        match free {
            0..CRITICAL => Self::Critical,
            CRITICAL..LOW => Self::Low,
            LOW.. => Self::Sufficient,
        }
    }
}

/// Free bytes on the disk of a folder, which need not exist yet. `None` if the file system has no
/// limit.
pub(super) fn free(folder: &Path) -> io::Result<Option<u64>> {
    let existing = folder.ancestors().find(|folder| folder.exists());
    let disk = statvfs(existing.unwrap_or(Path::new("/")))?;
    // tmpfs without a size limit reports no blocks.
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    Ok((disk.blocks() > 0).then_some(free))
}

pub(super) fn folders(config: &Config) -> Vec<PathBuf> {
    let is_in_use = config.database.database_url.is_none() || config.files.blobs.is_none();
    let data_dir = is_in_use.then(|| config.files.data_dir.clone());
    let blobs = config
        .files
        .blobs
        .iter()
        .filter(|blobs| !blobs.contains("://"));
    data_dir
        .into_iter()
        .chain(blobs.map(PathBuf::from))
        .collect()
}

/// Exports the free space as a metric, and logs when its level changes. Never returns.
pub(super) async fn monitor(folders: Vec<PathBuf>) {
    let mut levels = vec![Level::Sufficient; folders.len()];
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        for (folder, last_level) in folders.iter().zip(&mut levels) {
            if let Ok(Some(free)) = free(folder) {
                let label = folder.display().to_string();
                metrics::gauge!("assistd_disk_free_bytes", "folder" => label).set(free as f64);
                let level = Level::of(free);
                if level != *last_level {
                    report(folder, free, level);
                }
                *last_level = level;
            }
        }
    }
}

fn report(folder: &Path, free: u64, level: Level) {
    let (folder, megabytes) = (folder.display(), free / 1_000_000);
    match level {
        Level::Sufficient => tracing::info!(
            disk.free_mb = megabytes,
            "the disk of {folder} has {megabytes} MB free again"
        ),
        Level::Low => tracing::warn!(
            disk.free_mb = megabytes,
            "the disk of {folder} has only {megabytes} MB free"
        ),
        Level::Critical => tracing::error!(
            disk.free_mb = megabytes,
            "the disk of {folder} is full or nearly so ({megabytes} MB free): free some space, or \
             requests fail and the database stops"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_space_is_distinguished_from_critical() {
        for (free, level) in [
            (0, Level::Critical),
            (CRITICAL - 1, Level::Critical),
            (CRITICAL, Level::Low),
            (LOW, Level::Sufficient),
            (u64::MAX, Level::Sufficient),
        ] {
            assert_eq!(Level::of(free), level, "{free}");
        }
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_has_the_space_of_its_disk() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let missing = folder.path().join("not/yet");
        assert!(free(&missing).expect("its parent exists") > Some(0));
    }
}
