//! What the FUSE filesystems of the tests say of a file or a directory.

#![allow(unreachable_pub, reason = "a part of a test")]

use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};

/// Of a file of so many bytes, or of a directory; only root may use it.
pub fn attributes(ino: INodeNo, file: Option<u64>, then: SystemTime) -> FileAttr {
    let (kind, perm, nlink) =
        if file.is_some() { (FileType::RegularFile, 0o600, 1) } else { (FileType::Directory, 0o700, 2) };
    let size = file.unwrap_or_default();
    FileAttr {
        ino,
        size,
        blocks: size.div_ceil(512),
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// What a read of `size` bytes from `offset` on gives.
pub fn part(bytes: &[u8], offset: u64, size: u32) -> &[u8] {
    let begin = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
    &bytes[begin..bytes.len().min(begin + size as usize)]
}
