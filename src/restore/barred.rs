//! What keeps a restore in place from being done, as far as that is known beforehand and nothing is tried for it.

use std::path::Path;

use super::mounts::{cannot_exchange, filesystems_at, mount_below};

/// Why what is at `path` cannot be exchanged as a whole for what was archived of it; nothing where it may well be.
pub(crate) fn barred(path: &Path) -> Option<String> {
    if let Some(mount) = mount_below(path) {
        return Some(format!("{} is a mount of its own", mount.display()));
    }
    let kind = filesystems_at(path).into_iter().find(|kind| cannot_exchange(kind))?;
    Some(format!("{} lies on a filesystem that cannot exchange names ({kind})", path.display()))
}
