//! A disk that keeps a record of what is written to it, so that the power can be cut at any write.
//!
//! The disk is a file of a FUSE filesystem of ours, below a loop device: the kernel's writes come to us one by one, and its
//! flushes as calls of fsync. What was written before a flush is on the disk; of what was written since, a cut may leave
//! any part.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

#[path = "../inode/mod.rs"]
mod inode;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, Filesystem, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request, WriteFlags,
};

const IMAGE: &str = "image";
const IMAGE_INODE: INodeNo = INodeNo(2);

/// What a disk does not tear.
pub const SECTOR: usize = 512;

/// One thing that happened to the disk.
#[derive(Clone, Debug)]
pub enum Deed {
    Written {
        at: usize,
        bytes: Vec<u8>,
    },
    Flushed,
    /// Nothing happened to it: somebody said something.
    Said(usize),
}

#[derive(Default)]
struct Platter {
    bytes: Vec<u8>,
    deeds: Vec<Deed>,
}

/// A disk that is mounted.
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    at: Mounted,
    /// Ends after what is mounted from it.
    _session: BackgroundSession,
}

impl Disk {
    /// One with these contents, mounted below `top`.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn mount(contents: Vec<u8>, top: &Path) -> Result<Self, String> {
        let (fuse, at) = (top.join("fuse"), top.join("disk"));
        for dir in [&fuse, &at] {
            fs::create_dir(dir).map_err(|error| error.to_string())?;
        }
        let platter = Arc::new(Mutex::new(Platter { bytes: contents, deeds: Vec::new() }));
        let session = fuser::spawn_mount(Files(Arc::clone(&platter)), &fuse, &Config::default());
        let session = session.map_err(|error| format!("FUSE: {error}"))?;
        let at = Mounted::image(&fuse.join(IMAGE), at)?;
        Ok(Self { platter, at, _session: session })
    }

    pub fn path(&self) -> &Path {
        &self.at.0
    }

    /// Notes that this was said when all that happened before had happened.
    pub fn say(&self, what: usize) {
        self.platter().deeds.push(Deed::Said(what));
    }

    /// All that happened until now.
    pub fn deeds(&self) -> Vec<Deed> {
        self.platter().deeds.clone()
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().expect("nobody failed with it")
    }
}

/// A directory where an image is mounted, until this is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// # Errors
    /// Why it cannot be mounted.
    pub fn image(image: &Path, at: PathBuf) -> Result<Self, String> {
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(image).arg(&at)).map(|()| Self(at))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0)).expect("nobody is there");
    }
}

/// Runs a command.
///
/// # Errors
/// What it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(said)
}

/// The filesystem with the one file.
struct Files(Arc<Mutex<Platter>>);

impl Files {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("nobody failed with it")
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let file = (inode == IMAGE_INODE).then(|| self.platter().bytes.len() as u64);
        inode::attributes(inode, file, UNIX_EPOCH)
    }
}

const FOR_LONG: Duration = Duration::from_secs(3600);

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == IMAGE {
            true => reply.entry(&FOR_LONG, &self.attributes(IMAGE_INODE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_LONG, &self.attributes(inode));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(inode::part(&self.platter().bytes, offset, size));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut platter = self.platter();
        let at = usize::try_from(offset).expect("is small");
        let Some(place) = platter.bytes.get_mut(at..at + data.len()) else { return reply.error(Errno::ENOSPC) };
        place.copy_from_slice(data);
        platter.deeds.push(Deed::Written { at, bytes: data.to_vec() });
        reply.written(u32::try_from(data.len()).expect("is small"));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.platter().deeds.push(Deed::Flushed);
        reply.ok();
    }
}

/// A filesystem with a journal.
///
/// # Errors
/// Why none can be made here.
pub fn formatted(bytes: u64, top: &Path) -> Result<Vec<u8>, String> {
    let fail = |error: io::Error| error.to_string();
    let image = top.join("fresh");
    fs::File::create(&image).and_then(|file| file.set_len(bytes)).map_err(fail)?;
    let options = ["-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    run(Command::new("mkfs.ext4").args(options).arg(&image))?;
    fs::read(&image).map_err(fail)
}
