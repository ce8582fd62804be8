//! Watches the free space of the folders that the server writes to. A database whose disk is full
//! may stop without having said why.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::config::Config;

/// Below this many free bytes the database may stop at any time.
pub(super) const TOO_LITTLE: u64 = 200 << 20;

/// Below this many it is time to free some.
pub(super) const LITTLE: u64 = 2 << 30;

/// How often the folders are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// How much space there is, in steps that are worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Enough,
    Little,
    TooLittle,
}

impl Level {
    fn of(free: u64) -> Self {
        match free {
            0..TOO_LITTLE => Self::TooLittle,
            TOO_LITTLE..LITTLE => Self::Little,
            LITTLE.. => Self::Enough,
        }
    }
}

/// Bytes that can still be written to the disk of a folder; `None` if it does not say. The folder need
/// not be there yet.
pub(super) fn free(folder: &Path) -> io::Result<Option<u64>> {
    let existing = folder.ancestors().find(|folder| folder.exists());
    let disk = statvfs(existing.unwrap_or(Path::new("/")))?;
    // A memory file system without a limit has no blocks.
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    Ok((disk.blocks() > 0).then_some(free))
}

/// The folders that the server of these settings writes to.
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

/// Logs when the space of a folder becomes little or is enough again, and counts it. Never ends.
pub(super) async fn watch(folders: Vec<PathBuf>) {
    let mut levels = vec![Level::Enough; folders.len()];
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        for (folder, before) in folders.iter().zip(&mut levels) {
            if let Ok(Some(free)) = free(folder) {
                let shown = folder.display().to_string();
                metrics::gauge!("assistd_disk_free_bytes", "folder" => shown).set(free as f64);
                let level = Level::of(free);
                if level != *before {
                    report(folder, free, level);
                }
                *before = level;
            }
        }
    }
}

fn report(folder: &Path, free: u64, level: Level) {
    let (folder, megabytes) = (folder.display(), free / 1_000_000);
    match level {
        Level::Enough => tracing::info!("the disk of {folder} has {megabytes} MB free again"),
        Level::Little => tracing::warn!("the disk of {folder} has only {megabytes} MB free"),
        Level::TooLittle => tracing::error!(
            "the disk of {folder} is full or nearly so ({megabytes} MB free): free some space, or \
             requests fail and the database stops"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_space_is_told_from_too_little() {
        for (free, level) in [
            (0, Level::TooLittle),
            (TOO_LITTLE - 1, Level::TooLittle),
            (TOO_LITTLE, Level::Little),
            (LITTLE, Level::Enough),
            (u64::MAX, Level::Enough),
        ] {
            assert_eq!(Level::of(free), level, "{free}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_space_of_its_disk() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let later = folder.path().join("not/yet");
        assert!(free(&later).expect("its disk is there") > Some(0));
    }
}
