//! A directory held by descriptor: what happens below it is addressed by single names, or by paths that the kernel
//! resolves beneath it without following a symbolic link.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as kernel, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::file::{Reader, Writer};
use super::{WANTED, kind, stat, way_to};
use crate::entry::{Kind, Stat, Timestamp, Xattrs};
use crate::gate::{self, At, Gate, Realm, Step, Taking, Unstoppable, Verb};
use crate::relpath::{Leaf, Leaves, RelPath, sort_by_name_once};

/// What an open directory tells the kernel. `NONBLOCK` keeps us from hanging where a fifo took the name.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const CLOSED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const CREATE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The longest path that one call may resolve; the kernel's own limit is 4,096 with the terminating zero.
const LONGEST_PATH: usize = 4_000;

/// Bytes asked of `getdents64` at a time.
const LISTING_BUFFER: usize = 128 * 1024;

/// A directory held by descriptor.
#[derive(Clone)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    gate: Arc<dyn Gate>,
    realm: Realm,
    path: RelPath,
}

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Leaf,
    pub(crate) ino: u64,
    /// `None` where the filesystem does not tell.
    pub(crate) kind: Option<Kind>,
}

/// The names of a directory, sorted; complete if there was no trouble.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) names: Vec<Listed>,
    pub(crate) trouble: Option<io::Error>,
}

impl Listing {
    /// Whether `name` is among the names.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|listed| (*listed.name).cmp(name)).is_ok()
    }

    /// The names, if these are all of them.
    ///
    /// # Errors
    /// What kept the rest from being listed.
    pub(crate) fn whole(self) -> io::Result<Vec<Listed>> {
        self.trouble.map_or(Ok(self.names), Err)
    }
}

impl Dir {
    /// Opens the directory at `path`, which must not be a symbolic link itself.
    pub(crate) fn open(path: &Path, realm: Realm, gate: Arc<dyn Gate>) -> io::Result<Dir> {
        let fd = {
            let _step = gate::take_at(&*gate, Verb::OpenDir, realm, path)?;
            kernel::openat(kernel::CWD, path, DIRECTORY, Mode::empty())?
        };
        Ok(Dir { fd: Arc::new(fd), gate, realm, path: RelPath::root() })
    }

    /// Opens the directory at an absolute path that holds no symbolic link, and follows none that somebody puts there.
    pub(crate) fn open_canonical(path: &Path, realm: Realm, gate: Arc<dyn Gate>) -> io::Result<Dir> {
        let bytes = path.as_os_str().as_bytes();
        let top = Self::open(Path::new("/"), realm, Arc::clone(&gate))?;
        let dir = top.open_dir(bytes.strip_prefix(b"/").unwrap_or(bytes))?;
        Ok(dir.guarded(realm, gate))
    }

    /// The directory that an inherited descriptor stands for.
    pub(crate) fn adopt(fd: OwnedFd, realm: Realm, gate: Arc<dyn Gate>) -> Dir {
        Dir { fd: Arc::new(fd), gate, realm, path: RelPath::root() }
    }

    /// A descriptor of the directory, for a child process.
    pub(crate) fn hand_over(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// The path that the kernel knows it by now.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub(crate) fn real_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(self.way_in())
    }

    /// A path that leads to this very directory as long as it is held, in this process and in those that it starts.
    pub(crate) fn way_in(&self) -> PathBuf {
        way_to(&*self.fd)
    }

    /// Makes it the working directory of this process.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let _step = self.pass(Verb::OpenDir, b"")?;
        Ok(rustix::process::fchdir(&*self.fd)?)
    }

    /// Confines this thread, and those that it starts from now on, to write beneath this directory alone, as far as the
    /// kernel can (Landlock, from 5.13 on); says whether it could.
    pub(crate) fn confine_writes(&self) -> bool {
        use landlock::{ABI, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus};
        let write = AccessFs::from_write(ABI::V3);
        let confined = || {
            let rules = Ruleset::default().handle_access(write)?.create()?;
            rules.add_rule(PathBeneath::new(&*self.fd, write))?.restrict_self()
        };
        let outcome: Result<_, landlock::RulesetError> = confined();
        outcome.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
    }

    /// The directory's path below the root that it was opened from.
    pub(crate) fn path(&self) -> &RelPath {
        &self.path
    }

    /// The same directory behind another gate, and for another realm.
    pub(crate) fn guarded(&self, realm: Realm, gate: Arc<dyn Gate>) -> Dir {
        Dir { fd: Arc::clone(&self.fd), gate, realm, path: RelPath::root() }
    }

    /// The same directory for what must be done even if the run was cancelled.
    pub(crate) fn unstoppable(&self) -> Dir {
        self.guarded(self.realm, Arc::new(Unstoppable(Arc::clone(&self.gate))))
    }

    /// The gate that this directory's steps pass.
    pub(crate) fn gate(&self) -> &Arc<dyn Gate> {
        &self.gate
    }

    fn pass(&self, verb: Verb, name: &[u8]) -> io::Result<Taking<'_>> {
        let step = Step { verb, realm: self.realm, dir: self.path.as_bytes(), name };
        gate::take(&*self.gate, &step, At::Dir(self.fd.as_raw_fd()))
    }

    /// Opens a directory anywhere beneath this one. No symbolic link is followed and no `..` obeyed, however the tree
    /// is rearranged meanwhile.
    pub(crate) fn open_dir(&self, below: &[u8]) -> io::Result<Dir> {
        let _step = self.pass(Verb::OpenDir, below)?;
        let fd =
            if below.is_empty() { Arc::clone(&self.fd) } else { Arc::new(open_beneath(&self.fd, below, DIRECTORY)?) };
        Ok(Dir { fd, gate: Arc::clone(&self.gate), realm: self.realm, path: self.path.join(below) })
    }

    /// The parent directory, for staging beside a root.
    pub(crate) fn open_parent(&self) -> io::Result<Dir> {
        let _step = self.pass(Verb::OpenDir, b"..")?;
        let fd = kernel::openat(&*self.fd, c"..", DIRECTORY, Mode::empty())?;
        Ok(Dir { fd: Arc::new(fd), gate: Arc::clone(&self.gate), realm: self.realm, path: RelPath::root() })
    }

    /// Opens a directory as [`Dir::open_dir`] does, though we may not read it. What it holds cannot be listed then, but it
    /// can be asked what it is, and be opened up by [`Dir::open_up`].
    pub(crate) fn open_closed(&self, below: &[u8]) -> io::Result<Dir> {
        let _step = self.pass(Verb::OpenDir, below)?;
        let fd = Arc::new(open_beneath(&self.fd, below, CLOSED)?);
        Ok(Dir { fd, gate: Arc::clone(&self.gate), realm: self.realm, path: self.path.join(below) })
    }

    /// Lets its owner, and nobody else, do everything in a directory that was opened by [`Dir::open_closed`].
    ///
    /// # Errors
    /// A directory of somebody else; there is no `/proc`.
    pub(crate) fn open_up(&self) -> io::Result<()> {
        let _step = self.pass(Verb::Write, b"")?;
        // `fchmod` takes no descriptor that was opened for its path alone.
        Ok(kernel::chmodat(kernel::CWD, self.way_in(), Mode::RWXU, AtFlags::empty())?)
    }

    /// Reads all names but `.` and `..`, from the start.
    pub(crate) fn list(&self) -> io::Result<Listing> {
        let _step = self.pass(Verb::List, b"")?;
        kernel::seek(&*self.fd, kernel::SeekFrom::Start(0))?;
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BUFFER];
        let mut raw = kernel::RawDir::new(&*self.fd, &mut buffer);
        let mut listing = Listing::default();
        let mut block = Block::default();
        while let Some(entry) = raw.next() {
            match entry {
                Ok(entry) => block.push(entry.file_name(), entry.ino(), entry.file_type()),
                Err(error) => {
                    listing.trouble = Some(error.into());
                    break;
                }
            }
            if block.names.is_full() {
                listing.names.extend(block.take());
            }
        }
        listing.names.extend(block.take());
        // A name that went and came back between two answers of the kernel can be in both.
        sort_by_name_once(&mut listing.names, |listed| &listed.name);
        Ok(listing)
    }

    /// The directory's own metadata.
    pub(crate) fn stat_self(&self) -> io::Result<Stat> {
        let _step = self.pass(Verb::Stat, b"")?;
        Ok(stat(&kernel::statx(&*self.fd, c"", AtFlags::EMPTY_PATH, WANTED)?))
    }

    /// The number of the mount that the directory is seen through; bind mounts of one filesystem differ in it.
    pub(crate) fn mount(&self) -> io::Result<u64> {
        let _step = self.pass(Verb::Stat, b"")?;
        Ok(kernel::statx(&*self.fd, c"", AtFlags::EMPTY_PATH, WANTED)?.stx_mnt_id)
    }

    /// The metadata of what `name` is bound to, not following it.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        let _step = self.pass(Verb::Stat, name)?;
        Ok(stat(&kernel::statx(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW, WANTED)?))
    }

    /// Opens a file for reading, without following it, and without touching its access time where that is allowed.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<Reader> {
        let _step = self.pass(Verb::Open, name)?;
        let opened = match kernel::openat(&*self.fd, name, READ | OFlags::NOATIME, Mode::empty()) {
            // Only the owner may ask for that.
            Err(Errno::PERM) => kernel::openat(&*self.fd, name, READ, Mode::empty())?,
            other => other?,
        };
        Ok(Reader::new(File::from(opened), Arc::clone(&self.gate), self.realm, self.path.join(name)))
    }

    /// A reader of a file that was opened by [`Dir::open_file`] before.
    pub(crate) fn reader(&self, file: &File, name: &[u8]) -> io::Result<Reader> {
        Ok(Reader::new(file.try_clone()?, Arc::clone(&self.gate), self.realm, self.path.join(name)))
    }

    /// Whether we may read the file `name`, as far as its permissions tell.
    pub(crate) fn may_read(&self, name: &[u8]) -> bool {
        let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
        kernel::accessat(&*self.fd, name, kernel::Access::READ_OK, flags).is_ok()
    }

    /// The target of a symbolic link.
    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let _step = self.pass(Verb::ReadLink, name)?;
        Ok(kernel::readlinkat(&*self.fd, name, Vec::new())?.into_bytes())
    }

    /// The extended attributes of the directory itself.
    pub(crate) fn xattrs(&self) -> io::Result<Xattrs> {
        let _step = self.pass(Verb::Xattr, b"")?;
        super::file::xattrs(&*self.fd)
    }

    /// Gives the file `name` a second name in `to`. What is linked is the name as it is: a symbolic link is linked
    /// itself.
    pub(crate) fn link(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Link, name)?;
        Ok(kernel::linkat(&*self.fd, name, &*to.fd, to_name, AtFlags::empty())?)
    }

    /// Creates a file that must not exist, readable and writable by us alone.
    pub(crate) fn create(&self, name: &[u8]) -> io::Result<Writer> {
        let _step = self.pass(Verb::Create, name)?;
        let fd = kernel::openat(&*self.fd, name, CREATE, Mode::RUSR | Mode::WUSR)?;
        Ok(Writer::new(File::from(fd), Arc::clone(&self.gate), self.realm, self.path.join(name)))
    }

    /// Creates a file without a name; it is gone with its descriptor unless [`Dir::name_unnamed`] names it.
    pub(crate) fn create_unnamed(&self) -> io::Result<Writer> {
        let _step = self.pass(Verb::Create, b"")?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = kernel::openat(&*self.fd, c".", flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Writer::new(File::from(fd), Arc::clone(&self.gate), self.realm, self.path.clone()))
    }

    /// Names a file made by [`Dir::create_unnamed`]; fails with `EEXIST` where the name is taken.
    pub(crate) fn name_unnamed(&self, file: &impl AsFd, name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Link, name)?;
        // `AT_EMPTY_PATH` would need a capability; the way over /proc is open to everybody.
        Ok(kernel::linkat(kernel::CWD, way_to(file), &*self.fd, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Opens an existing file of ours for writing.
    pub(crate) fn reopen(&self, name: &[u8]) -> io::Result<Writer> {
        let _step = self.pass(Verb::Open, name)?;
        let fd = kernel::openat(&*self.fd, name, READ | OFlags::RDWR, Mode::empty())?;
        Ok(Writer::new(File::from(fd), Arc::clone(&self.gate), self.realm, self.path.join(name)))
    }

    /// Opens an existing file of ours for locking, which NFS only does for who may write: flock(2).
    pub(crate) fn open_own(&self, name: &[u8]) -> io::Result<File> {
        let _step = self.pass(Verb::Open, name)?;
        let fd = kernel::openat(&*self.fd, name, READ | OFlags::RDWR, Mode::empty())?;
        Ok(File::from(fd))
    }

    /// Takes an exclusive lock without waiting; `false` where somebody else holds it.
    pub(crate) fn lock(&self, file: &File) -> io::Result<bool> {
        let _step = self.pass(Verb::Lock, b"")?;
        flock(file)
    }

    /// Takes an exclusive lock on the directory itself, without waiting; `false` where somebody else holds it.
    pub(crate) fn lock_self(&self) -> io::Result<bool> {
        let _step = self.pass(Verb::Lock, b"")?;
        flock(&self.fd)
    }

    /// Makes a directory that only we may enter.
    pub(crate) fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::MakeDir, name)?;
        Ok(kernel::mkdirat(&*self.fd, name, Mode::RWXU)?)
    }

    /// Removes a file's name.
    pub(crate) fn unlink(&self, name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Unlink, name)?;
        Ok(kernel::unlinkat(&*self.fd, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::RemoveDir, name)?;
        Ok(kernel::unlinkat(&*self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Renames within this directory, over whatever has the new name.
    pub(crate) fn rename_over(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Rename, to)?;
        Ok(kernel::renameat(&*self.fd, from, &*self.fd, to)?)
    }

    /// Moves `name` into another directory, where its new name must be free (`EEXIST`).
    pub(crate) fn move_to(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Rename, name)?;
        Ok(kernel::renameat_with(&*self.fd, name, &*to.fd, to_name, RenameFlags::NOREPLACE)?)
    }

    /// Moves a directory to where nothing is, or an empty one, which goes: the kernel refuses all else, as `name/` a file.
    pub(crate) fn move_dir_to(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Rename, name)?;
        Ok(kernel::renameat(&*self.fd, [name, b"/"].concat(), &*to.fd, to_name)?)
    }

    /// Exchanges what two names are bound to, whatever that is, in one step.
    pub(crate) fn exchange(&self, name: &[u8], other: &Dir, other_name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Rename, name)?;
        Ok(kernel::renameat_with(&*self.fd, name, &*other.fd, other_name, RenameFlags::EXCHANGE)?)
    }

    /// Sets the directory's modification time; its access time stays.
    pub(crate) fn set_mtime(&self, to: Timestamp) -> io::Result<()> {
        let _step = self.pass(Verb::Write, b"")?;
        Ok(kernel::futimens(&*self.fd, &super::modified(to))?)
    }

    /// Makes a symbolic link.
    pub(crate) fn make_symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Create, name)?;
        Ok(kernel::symlinkat(target, &*self.fd, name)?)
    }

    /// Gives a symbolic link itself to somebody.
    pub(crate) fn give_symlink(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let _step = self.pass(Verb::Write, name)?;
        let owner = (Some(kernel::Uid::from_raw(uid)), Some(kernel::Gid::from_raw(gid)));
        Ok(kernel::chownat(&*self.fd, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the modification time of a symbolic link itself.
    pub(crate) fn set_symlink_mtime(&self, name: &[u8], mtime: Timestamp) -> io::Result<()> {
        let _step = self.pass(Verb::Write, name)?;
        Ok(kernel::utimensat(&*self.fd, name, &super::modified(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the directory's permission bits.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let _step = self.pass(Verb::Write, b"")?;
        Ok(kernel::fchmod(&*self.fd, Mode::from_raw_mode(mode))?)
    }

    /// Gives the directory to somebody.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let _step = self.pass(Verb::Write, b"")?;
        Ok(kernel::fchown(&*self.fd, Some(kernel::Uid::from_raw(uid)), Some(kernel::Gid::from_raw(gid)))?)
    }

    /// Sets an extended attribute of the directory.
    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Xattr, b"")?;
        Ok(kernel::fsetxattr(&*self.fd, name, value, kernel::XattrFlags::empty())?)
    }

    /// Removes an extended attribute of the directory.
    pub(crate) fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        let _step = self.pass(Verb::Xattr, b"")?;
        super::file::remove_xattr(&*self.fd, name)
    }

    /// Makes everything durable that was written to the directory's filesystem.
    pub(crate) fn sync_filesystem(&self) -> io::Result<()> {
        let _step = self.pass(Verb::Sync, b"")?;
        Ok(kernel::syncfs(&*self.fd)?)
    }

    /// Makes the directory's names durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _step = self.pass(Verb::Sync, b"")?;
        Ok(kernel::fsync(&*self.fd)?)
    }

    /// Bytes that we could still write here.
    pub(crate) fn free_space(&self) -> io::Result<u64> {
        let _step = self.pass(Verb::Stat, b"")?;
        let space = kernel::fstatvfs(&*self.fd)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Whether the filesystem is mounted read-only.
    pub(crate) fn is_read_only(&self) -> io::Result<bool> {
        let _step = self.pass(Verb::Stat, b"")?;
        Ok(kernel::fstatvfs(&*self.fd)?.f_flag.contains(kernel::StatVfsMountFlags::RDONLY))
    }
}

fn flock(fd: impl AsFd) -> io::Result<bool> {
    match kernel::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Some names of a listing, whose bytes are going to lie together.
#[derive(Default)]
struct Block {
    names: Leaves,
    others: Vec<(u64, Option<Kind>)>,
}

impl Block {
    fn push(&mut self, name: &CStr, ino: u64, file_type: FileType) {
        let name = name.to_bytes();
        if name != b"." && name != b".." {
            self.names.push(name);
            self.others.push((ino, (file_type != FileType::Unknown).then(|| kind(file_type))));
        }
    }

    fn take(&mut self) -> impl Iterator<Item = Listed> {
        self.names.take().zip(self.others.drain(..)).map(|(name, (ino, kind))| Listed { name, ino, kind })
    }
}

/// `openat2` beneath a directory, in steps where the path is longer than the kernel takes.
fn open_beneath(from: &OwnedFd, below: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut rest = below;
    loop {
        let (head, tail) = split_path(rest);
        let opened = open_confined(held.as_ref().unwrap_or(from), head, flags)?;
        if tail.is_empty() {
            return Ok(opened);
        }
        held = Some(opened);
        rest = tail;
    }
}

/// The longest leading part of `path` that one call can resolve, and the rest.
fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= LONGEST_PATH {
        return (path, b"");
    }
    match path[..LONGEST_PATH].iter().rposition(|&c| c == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (path, b""),
    }
}

fn open_confined(from: &OwnedFd, below: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match kernel::openat2(from, below, flags, Mode::empty(), resolve) {
        // A kernel before 5.6, or a container whose seccomp profile does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_by_component(from, below, flags),
        // The kernel's word for "something moved while I looked".
        Err(Errno::AGAIN) => open_by_component(from, below, flags),
        other => Ok(other?),
    }
}

/// The same by hand: one name after the other, none of them a symbolic link.
fn open_by_component(from: &OwnedFd, below: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    for name in below.split(|&c| c == b'/') {
        if name == b".." {
            return Err(Errno::XDEV.into());
        }
        held = Some(kernel::openat(held.as_ref().unwrap_or(from), name, flags, Mode::empty())?);
    }
    held.ok_or_else(|| Errno::NOENT.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CancelFlag;
    use std::os::unix::fs::symlink;

    fn open(path: &Path) -> Dir {
        Dir::open(path, Realm::Source, Arc::new(CancelFlag::new())).expect("opens")
    }

    #[test]
    fn no_symlink_and_no_parent_is_followed_beneath_a_directory() {
        let top = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(top.path().join("root/real/deep")).expect("makes");
        symlink("../outside", top.path().join("root/out")).expect("links");
        symlink("real", top.path().join("root/in")).expect("links");
        let root = open(&top.path().join("root"));
        assert!(root.open_dir(b"real/deep").is_ok());
        for refused in [&b"out"[..], b"in", b"in/deep", b"..", b"real/../.."] {
            assert!(root.open_dir(refused).is_err(), "{}", crate::relpath::shown(refused));
            assert!(open_by_component(&root.fd, refused, DIRECTORY).is_err());
        }
    }

    #[test]
    fn a_confined_thread_writes_beneath_its_directory_alone() {
        let top = tempfile::tempdir().expect("a directory");
        for name in ["ours", "theirs"] {
            std::fs::create_dir(top.path().join(name)).expect("makes");
        }
        std::fs::write(top.path().join("theirs/there"), b"before").expect("writes");
        let path = top.path().to_owned();
        let confined = std::thread::spawn(move || {
            if !open(&path.join("ours")).confine_writes() {
                return None;
            }
            let theirs = ["there", "new"].map(|name| std::fs::write(path.join("theirs").join(name), b"after").is_err());
            std::fs::write(path.join("ours/new"), b"new").expect("is ours");
            Some((theirs, std::fs::read(path.join("theirs/there")).expect("may still be read")))
        });
        match confined.join().expect("ends") {
            Some(seen) => assert_eq!(seen, ([true, true], b"before".to_vec())),
            None => eprintln!("skipped: this kernel has no Landlock"),
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_opened_in_steps() {
        let top = tempfile::tempdir().expect("a directory");
        let name = [b'n'; 200];
        let mut held = open(top.path());
        let root = held.clone();
        let mut path = Vec::new();
        for _ in 0..30 {
            held.make_dir(&name).expect("makes");
            held = held.open_dir(&name).expect("opens");
            path = crate::relpath::joined(&path, &name);
        }
        assert!(path.len() > 4096);
        let deep = root.open_dir(&path).expect("opens");
        assert_eq!(deep.stat_self().expect("stats").id(), held.stat_self().expect("stats").id());
    }

    #[test]
    fn a_listing_is_sorted_complete_and_repeatable() {
        let top = tempfile::tempdir().expect("a directory");
        for n in 0..3_000 {
            std::fs::write(top.path().join(format!("f{n:05}")), b"").expect("writes");
        }
        let dir = open(top.path());
        for _ in 0..2 {
            let listing = dir.list().expect("lists");
            assert_eq!(listing.names.len(), 3_000);
            assert!(listing.names.is_sorted_by(|a, b| a.name < b.name));
        }
    }
}
