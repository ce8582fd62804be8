//! The user that runs the server. PostgreSQL refuses to run as root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::User;

use crate::error::PostgresError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) differs: bool,
}

impl Owner {
    /// The owner of an existing database in `folder`; for a new one, the user of this process, or
    /// `user` if that is root.
    pub(crate) fn of_cluster(folder: &Path, user: &str) -> Result<Self, PostgresError> {
        let current = Uid::effective();
        let existing = std::fs::metadata(folder).ok();
        if !current.is_root() {
            if let Some(existing) = existing
                && existing.uid() != current.as_raw()
            {
                return Err(PostgresError::NotOurs {
                    path: folder.to_owned(),
                    uid: existing.uid(),
                });
            }
            return Ok(Self {
                uid: current,
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
            Ok(Some(user)) if !user.uid.is_root() => Ok(Self {
                uid: user.uid,
                gid: user.gid,
                differs: true,
            }),
            _ => Err(PostgresError::User(user.to_owned())),
        }
    }

    /// Whether the owner may enter `folder` and all folders above it.
    pub(crate) fn can_enter(&self, folder: &Path) -> bool {
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
