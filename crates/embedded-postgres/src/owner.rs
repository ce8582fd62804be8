//! Who runs the database server. PostgreSQL refuses to be run by root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::User;

use crate::PostgresError;

/// The user whom the server and its files belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Whether this process must change to that user.
    pub(super) differs: bool,
}

impl Owner {
    /// The owner of the database in `folder`, if there is one; for a new one, the user of this
    /// process or, for root, `user`.
    pub(super) fn of_cluster(folder: &Path, user: &str) -> Result<Self, PostgresError> {
        let me = Uid::effective();
        let existing = std::fs::metadata(folder).ok();
        if !me.is_root() {
            if let Some(existing) = existing
                && existing.uid() != me.as_raw()
            {
                return Err(PostgresError::NotOurs {
                    path: folder.to_owned(),
                    uid: existing.uid(),
                });
            }
            return Ok(Self {
                uid: me,
                gid: Gid::effective(),
                differs: false,
            });
        }
        if let Some(existing) = existing.filter(|existing| existing.uid() != 0) {
            return Ok(Self {
                uid: Uid::from_raw(existing.uid()),
                gid: Gid::from_raw(existing.gid()),
                differs: true,
            });
        }
        match User::from_name(user) {
            Ok(Some(found)) if !found.uid.is_root() => Ok(Self {
                uid: found.uid,
                gid: found.gid,
                differs: true,
            }),
            _ => Err(PostgresError::User(user.to_owned())),
        }
    }

    /// Whether the owner can get to `folder`: may enter it and all folders above it.
    pub(super) fn can_enter(&self, folder: &Path) -> bool {
        folder.ancestors().all(|folder| {
            let Ok(metadata) = std::fs::metadata(folder) else {
                return false;
            };
            let needed = if metadata.uid() == self.uid.as_raw() {
                0o100
            } else if metadata.gid() == self.gid.as_raw() {
                0o010
            } else {
                0o001
            };
            metadata.mode() & needed != 0
        })
    }
}
