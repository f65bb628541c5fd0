//! Open files: one that is only read, one that is only ours, and what the disk has of that one.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{self as kernel, Advice, AtFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::{WANTED, stat, way_to};
use crate::entry::{Stat, Timestamp, Xattrs};
use crate::gate::{self, At, Gate, Realm, Step, Taking, Verb};
use crate::relpath::RelPath;

/// A file opened for reading.
pub(crate) struct Reader {
    file: File,
    gate: Arc<dyn Gate>,
    realm: Realm,
    path: RelPath,
}

impl Reader {
    pub(crate) fn new(file: File, gate: Arc<dyn Gate>, realm: Realm, path: RelPath) -> Self {
        Self { file, gate, realm, path }
    }

    /// The open file alone, which takes less room.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    fn pass(&self, verb: Verb) -> io::Result<Taking<'_>> {
        let step = Step { verb, realm: self.realm, dir: b"", name: self.path.as_bytes() };
        gate::take(&*self.gate, &step, At::File(self.file.as_raw_fd()))
    }

    /// Reads at most one buffer's worth from `offset`; 0 at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            let _step = self.pass(Verb::Read)?;
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Fills as much of the buffer as the file has from `offset`.
    pub(crate) fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// The open file's metadata.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        let _step = self.pass(Verb::Stat)?;
        Ok(stat(&kernel::statx(&self.file, c"", AtFlags::EMPTY_PATH, WANTED)?))
    }

    /// The extended attributes.
    pub(crate) fn xattrs(&self) -> io::Result<Xattrs> {
        let _step = self.pass(Verb::Xattr)?;
        xattrs(&self.file)
    }

    /// Makes the contents durable, whoever wrote them.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _step = self.pass(Verb::Sync)?;
        self.file.sync_all()
    }

    /// Sets an extended attribute, which needs no descriptor that may write.
    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Xattr)?;
        Ok(kernel::fsetxattr(&self.file, name, value, kernel::XattrFlags::empty())?)
    }

    /// Removes an extended attribute, which needs no descriptor that may write.
    pub(crate) fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Xattr)?;
        remove_xattr(&self.file, name)
    }

    /// Takes a lock that others may have as well, without waiting; `false` where somebody holds an exclusive one.
    pub(crate) fn lock_shared(&self) -> io::Result<bool> {
        let _step = self.pass(Verb::Lock)?;
        match kernel::flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether another process holds a lock on the byte at `offset`.
    pub(crate) fn is_locked(&self, offset: i64) -> io::Result<bool> {
        use nix::fcntl::{FcntlArg, fcntl};
        use nix::libc;
        let _step = self.pass(Verb::Lock)?;
        let kind = |kind: libc::c_int| libc::c_short::try_from(kind).unwrap_or_default();
        let (write, none) = (kind(libc::F_WRLCK), kind(libc::F_UNLCK));
        let whence = kind(libc::SEEK_SET);
        let mut lock = libc::flock { l_type: write, l_whence: whence, l_start: offset, l_len: 1, l_pid: 0 };
        fcntl(&self.file, FcntlArg::F_GETLK(&mut lock))?;
        Ok(lock.l_type != none)
    }

    /// Tells the kernel that the whole file will be read in order.
    pub(crate) fn expect_sequential(&self) {
        // Advice: nothing depends on its being taken.
        let _advised = kernel::fadvise(&self.file, 0, None, Advice::Sequential);
    }

    /// Asks the kernel to forget so many cached bytes from `offset`, all of them for 0, so that what is read next of them comes from the disk.
    pub(crate) fn forget_cache(&self, offset: u64, length: u64) {
        // Advice: where it is not taken, reading back proves the page cache, which is what any reader would see.
        let _advised = kernel::fadvise(&self.file, offset, NonZeroU64::new(length), Advice::DontNeed);
    }
}

/// Reads what a disk has of a file, whatever the page cache has: past the cache (`O_DIRECT`), for which the kernel first
/// writes out what it still has of the bytes that are asked for. Where a filesystem cannot, what is written is made
/// durable and the cache asked to forget it.
pub(crate) struct DiskReader {
    reader: Reader,
    direct: bool,
}

impl DiskReader {
    /// Tells that so many bytes from `offset`, all of them for 0, are written and will be read next.
    pub(crate) fn expect(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.direct {
            self.reader.sync()?;
        }
        // For one that is direct the kernel begins to write them out.
        self.reader.forget_cache(offset, length);
        Ok(())
    }

    /// Reads at most one buffer's worth from `offset`; 0 at the end. The buffer and the offset must lie where pages of
    /// the disk do.
    pub(crate) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.reader.read_at(buffer, offset) {
            // Some filesystems open a file like that, and then cannot read it.
            Err(error) if self.direct && super::errno(&error) == Some(Errno::INVAL) => {
                kernel::fcntl_setfl(&self.reader.file, OFlags::empty())?;
                self.direct = false;
                // To the end: what was expected before was not made durable.
                self.expect(offset, 0)?;
                self.reader.read_at(buffer, offset)
            }
            other => other,
        }
    }
}

/// What btrfs calls itself (`BTRFS_SUPER_MAGIC` in linux/magic.h).
const BTRFS: kernel::FsWord = 0x9123_683e;

/// A file that we created and write.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    gate: GateRef,
    realm: Realm,
    path: RelPath,
}

/// So that a writer can be shown without showing its gate.
struct GateRef(Arc<dyn Gate>);

impl std::fmt::Debug for GateRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gate")
    }
}

impl Writer {
    pub(crate) fn new(file: File, gate: Arc<dyn Gate>, realm: Realm, path: RelPath) -> Self {
        Self { file, gate: GateRef(gate), realm, path }
    }

    fn pass(&self, verb: Verb) -> io::Result<Taking<'_>> {
        let step = Step { verb, realm: self.realm, dir: b"", name: self.path.as_bytes() };
        gate::take(&*self.gate.0, &step, At::File(self.file.as_raw_fd()))
    }

    /// Makes the file a copy of `source` that shares its extents (`FICLONE`).
    pub(crate) fn clone_from_file(&self, source: &Reader) -> io::Result<()> {
        let _step = self.pass(Verb::Clone)?;
        Ok(kernel::ioctl_ficlone(&self.file, &source.file)?)
    }

    /// The written file, for reading it back from its start.
    pub(crate) fn reader(&self) -> io::Result<Reader> {
        Ok(self.reads(self.file.try_clone()?))
    }

    /// What reads back what the disk has of the written file.
    pub(crate) fn disk_reader(&self) -> io::Result<DiskReader> {
        Ok(match gate::tolerate(self.open_direct())? {
            Some(file) => DiskReader { reader: self.reads(file), direct: true },
            None => self.own_disk_reader()?,
        })
    }

    /// The same without another description of the file, which a lock may keep away.
    pub(crate) fn own_disk_reader(&self) -> io::Result<DiskReader> {
        Ok(DiskReader { reader: self.reader()?, direct: false })
    }

    /// The file once more: only a description of its own can be direct while this one is not.
    fn open_direct(&self) -> io::Result<File> {
        let _step = self.pass(Verb::Open)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECT;
        Ok(kernel::open(way_to(&self.file), flags, kernel::Mode::empty())?.into())
    }

    fn reads(&self, file: File) -> Reader {
        Reader::new(file, Arc::clone(&self.gate.0), self.realm, self.path.clone())
    }

    /// The open file's metadata.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        let _step = self.pass(Verb::Stat)?;
        Ok(stat(&kernel::statx(&self.file, c"", AtFlags::EMPTY_PATH, WANTED)?))
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _step = self.pass(Verb::Write)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Cuts the file, or makes it longer by a hole.
    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        let _step = self.pass(Verb::Write)?;
        self.file.set_len(length)
    }

    /// Sets the permission bits.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let _step = self.pass(Verb::Write)?;
        Ok(kernel::fchmod(&self.file, kernel::Mode::from_raw_mode(mode))?)
    }

    /// Gives the file to somebody.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let _step = self.pass(Verb::Write)?;
        Ok(kernel::fchown(&self.file, Some(kernel::Uid::from_raw(uid)), Some(kernel::Gid::from_raw(gid)))?)
    }

    /// Sets an extended attribute.
    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Xattr)?;
        Ok(kernel::fsetxattr(&self.file, name, value, kernel::XattrFlags::empty())?)
    }

    /// Sets the modification time; the access time stays.
    pub(crate) fn set_mtime(&self, to: Timestamp) -> io::Result<()> {
        let _step = self.pass(Verb::Write)?;
        Ok(kernel::futimens(&self.file, &super::modified(to))?)
    }

    /// Makes the contents durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _step = self.pass(Verb::Sync)?;
        self.file.sync_all()
    }

    /// Makes the file and its name durable where another name, made later, could otherwise be durable before it: an fsync on
    /// btrfs writes down what leads to that one file. A filesystem with a journal keeps the order in which names were made.
    pub(crate) fn sync_before_others(&self) -> io::Result<()> {
        match kernel::fstatfs(&self.file)?.f_type {
            BTRFS => self.sync(),
            _ => Ok(()),
        }
    }

    /// The open file, for locking.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _step = self.pass(Verb::Write)?;
        (&self.file).write(bytes)
    }

    /// Nothing is buffered here.
    fn flush(&mut self) -> io::Result<()> {
        self.pass(Verb::Write).map(drop)
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Removes an extended attribute, which needs no descriptor that may write.
pub(crate) fn remove_xattr(file: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(kernel::fremovexattr(file, name)?)
}

/// All extended attributes that we may read, sorted by name.
pub(super) fn xattrs(fd: impl AsFd) -> io::Result<Xattrs> {
    let fd = fd.as_fd();
    let names = match read_growing(|buffer| kernel::flistxattr(fd, buffer)) {
        Err(Errno::NOTSUP) => return Ok(Xattrs::new()),
        other => other?,
    };
    let mut found = Xattrs::new();
    for name in names.split(|&c| c == 0).filter(|name| !name.is_empty()) {
        match read_growing(|buffer| kernel::fgetxattr(fd, name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed since it was listed, or not ours to read (`security.*`, `trusted.*`).
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls with a larger buffer until the answer fits. The kernel's own limit is 64 KiB.
fn read_growing(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0_u8; 256];
    match call(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut buffer = vec![0; 64 * 1024];
    let length = call(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_outgrows_the_first_buffer_is_read_whole() {
        let answer = |size: usize| {
            read_growing(move |buffer| {
                if buffer.len() < size {
                    return Err(Errno::RANGE);
                }
                buffer[..size].fill(7);
                Ok(size)
            })
        };
        assert_eq!(answer(10).expect("fits"), vec![7; 10]);
        assert_eq!(answer(5_000).expect("fits at last"), vec![7; 5_000]);
        assert_eq!(answer(70_000).expect_err("never fits"), Errno::RANGE);
    }

    /// A filesystem that opens a file for reading past the cache and then refuses to read it is played by an offset that no
    /// disk takes.
    #[test]
    fn the_disk_gives_back_what_was_written_past_the_cache_or_not() {
        let top = tempfile::tempdir().expect("a directory");
        let gate = Arc::new(gate::CancelFlag::new());
        let dir = crate::sys::Dir::open(top.path(), Realm::Output, gate).expect("opens");
        let mut writer = dir.create(b"f").expect("creates");
        let bytes: Vec<u8> = (0..200_003_u32).map(|number| (number % 251) as u8).collect();
        writer.write_all(&bytes).expect("writes");
        let cached = || DiskReader { reader: writer.reader().expect("opens"), direct: false };
        for mut reader in [writer.disk_reader().expect("opens"), cached()] {
            let mut whole = vec![0; 1 << 18];
            let start = whole.as_ptr().align_offset(1 << 16);
            reader.expect(0, 200_003).expect("expects");
            let n = reader.read_at(&mut whole[start..][..131_072], 0).expect("reads");
            assert!(whole[start..][..n] == bytes[..131_072]);
            let n = reader.read_at(&mut whole[1..20], 7).expect("reads where no page begins");
            assert!(whole[1..][..n] == bytes[7..26]);
        }
    }
}
