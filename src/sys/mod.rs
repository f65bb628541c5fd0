//! The only module that calls the kernel. Every call that touches the outside passes the [`Gate`](crate::gate::Gate).

mod dir;
mod file;
mod host;
mod process;

pub(crate) use dir::{Dir, Listed, Listing};
pub(crate) use file::{DiskReader, Reader, Writer, remove_xattr};
#[cfg(feature = "cli")]
pub(crate) use host::{be_nice, given_descriptor_limit, set_descriptor_limit};
pub(crate) use host::{
    coarse_now, coarse_tick, effective_gid, effective_uid, forgo_ownership, lock_holder, now, peak_memory,
    raise_descriptor_limit, random_hex, utc_stamp,
};
pub(crate) use process::{Letterbox, Process};
#[cfg(feature = "cli")]
pub(crate) use process::{close_streams, end_with_parent, is_zombie};
pub(crate) use rustix::io::Errno;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Statx, StatxFlags, StatxTimestamp};

use crate::entry::{Kind, Stat, Timestamp};

/// What we ask `statx` for: everything in [`Stat`].
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

/// A modification time to be set; the access time stays.
fn modified(at: Timestamp) -> rustix::fs::Timestamps {
    use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: at.seconds, tv_nsec: at.nanos.into() },
    }
}

fn timestamp(t: StatxTimestamp) -> Timestamp {
    Timestamp { seconds: t.tv_sec, nanos: t.tv_nsec }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::BlockDevice | FileType::CharacterDevice => Kind::Device,
        FileType::RegularFile | FileType::Unknown => Kind::File,
    }
}

fn stat(x: &Statx) -> Stat {
    let mode = u32::from(x.stx_mode);
    Stat {
        kind: kind(FileType::from_raw_mode(mode)),
        mode: mode & 0o7777,
        uid: x.stx_uid,
        gid: x.stx_gid,
        nlink: x.stx_nlink,
        size: x.stx_size,
        blocks: x.stx_blocks,
        ino: x.stx_ino,
        dev: rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor),
        mtime: timestamp(x.stx_mtime),
        ctime: timestamp(x.stx_ctime),
    }
}

/// Nothing is there: that is an answer, and no error.
///
/// # Errors
/// All others.
pub(crate) fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a rename with a flag, or a link, failed as it does where the filesystem knows none: NFS, sshfs, 9p, ZFS before
/// 2.2.
pub(crate) fn refuses_flags(error: &io::Error) -> bool {
    errno(error).is_some_and(|errno| [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].contains(&errno))
}

/// A path that leads to what is open, as long as it is, in this process and in those that it starts, even where it has no
/// name.
fn way_to(open: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", open.as_fd().as_raw_fd()).into()
}

/// The errno of an error that came from the kernel, or from a gate that spoke for it.
pub(crate) fn errno(error: &io::Error) -> Option<rustix::io::Errno> {
    error.raw_os_error().map(rustix::io::Errno::from_raw_os_error)
}
