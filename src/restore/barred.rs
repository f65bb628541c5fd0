//! What keeps a restore in place from being done, as far as that is known beforehand and nothing is tried for it.

use std::path::Path;

use super::mounts::{filesystems_at, mount_below};

/// Filesystems that cannot exchange two names, whatever the kernel: their rename takes no flags.
const CANNOT_EXCHANGE: [&str; 6] = ["9p", "ceph", "cifs", "nfs", "nfs4", "smb3"];

/// Why what is at `path` cannot be exchanged as a whole for what was archived of it; nothing where it may well be.
pub(crate) fn barred(path: &Path) -> Option<String> {
    if let Some(mount) = mount_below(path) {
        return Some(format!("{} is a mount of its own", mount.display()));
    }
    let kind = filesystems_at(path).into_iter().find(|kind| CANNOT_EXCHANGE.contains(&kind.as_str()))?;
    Some(format!("{} lies on a filesystem that cannot exchange names ({kind})", path.display()))
}
