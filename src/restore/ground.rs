//! Where something that is in use lies, and where there is room for what shall take its place.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::unstoppable;
use crate::entry::Kind;
use crate::error::{Error, Result};
use crate::gate::{Gate, Realm};
use crate::relpath::split;
use crate::sys::{self, Dir, Errno};

/// A root that may be exchanged, and the directory on its mount where that can be made ready.
pub(super) struct Ground {
    host: Dir,
    /// The root's name in its host; empty where the host is the root itself.
    root: Vec<u8>,
    /// The root's path, for people.
    path: PathBuf,
}

/// A name in a directory, whatever it is bound to.
pub(super) struct Spot {
    dir: Dir,
    name: Vec<u8>,
}

impl Ground {
    /// The ground of the root at `path`, which need not exist: its parent, or the root itself where that is a mount of
    /// its own.
    ///
    /// # Errors
    /// A parent that does not exist; those of the kernel.
    pub(super) fn of(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::Usage("/ cannot be exchanged as a whole".to_owned()))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let host = Dir::open(parent, Realm::Output, Arc::clone(gate)).map_err(|error| {
            Error::failed("restore into", parent, error).remedy("make it, or say --map OLD=NEW for another place")
        })?;
        let ground = Self { host, root: name.as_bytes().to_vec(), path: path.to_owned() };
        let fail = |error| Error::failed("look at", path, error);
        match ground.root().map_err(fail)? {
            Some(root) if root.mount().map_err(fail)? != ground.host.mount().map_err(fail)? => Ok(ground.inside(root)),
            _ => Ok(ground),
        }
    }

    /// The ground of something that was kept, or is being made ready, in `host`.
    pub(super) fn in_host(host: Dir, root: Vec<u8>, host_path: &Path) -> Self {
        let inside = root.is_empty();
        let path = if inside { host_path.to_owned() } else { host_path.join(OsStr::from_bytes(&root)) };
        Self { host, root, path }
    }

    /// The same root, with room in itself.
    pub(super) fn inside(self, root: Dir) -> Self {
        Self { host: root.guarded(Realm::Output, Arc::clone(root.gate())), root: Vec::new(), path: self.path }
    }

    /// The same for what must be done even if the run was cancelled.
    pub(super) fn unstoppable(&self) -> Self {
        Self { host: unstoppable(&self.host), root: self.root.clone(), path: self.path.clone() }
    }

    pub(super) fn host(&self) -> &Dir {
        &self.host
    }

    /// The host's path, for other runs.
    pub(super) fn host_path(&self) -> &Path {
        if self.is_inside() { &self.path } else { self.path.parent().unwrap_or(Path::new("/")) }
    }

    /// The root's name in its host; empty where that is the root.
    pub(super) fn root_name(&self) -> &[u8] {
        &self.root
    }

    /// The root's path, for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the room is in the root itself, so that only what it holds can be exchanged.
    pub(super) fn is_inside(&self) -> bool {
        self.root.is_empty()
    }

    /// The root, if it is a directory.
    pub(super) fn root(&self) -> io::Result<Option<Dir>> {
        if self.is_inside() {
            return Ok(Some(self.host.clone()));
        }
        match self.live(b"")?.stat()? {
            Some(stat) if stat.kind == Kind::Directory => self.host.open_dir(&self.root).map(Some),
            _ => Ok(None),
        }
    }

    /// The place of a path below the root; the root's own where the path is empty.
    pub(super) fn live(&self, path: &[u8]) -> io::Result<Spot> {
        if path.is_empty() {
            return Ok(Spot { dir: self.host.clone(), name: self.root.clone() });
        }
        let (above, name) = split(path);
        let root = if self.is_inside() { self.host.clone() } else { self.host.open_dir(&self.root)? };
        Ok(Spot { dir: root.open_dir(above)?, name: name.to_vec() })
    }
}

impl Spot {
    pub(super) fn new(dir: Dir, name: &[u8]) -> Self {
        Self { dir, name: name.to_vec() }
    }

    /// What is there; nothing is an answer.
    pub(super) fn stat(&self) -> io::Result<Option<crate::entry::Stat>> {
        match self.dir.stat(&self.name) {
            Err(error) if sys::errno(&error) == Some(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The inode that is there. Two that are exchanged exist both, so neither's number can be given to a third.
    pub(super) fn inode(&self) -> io::Result<Option<u64>> {
        Ok(self.stat()?.map(|stat| stat.ino))
    }

    /// Has two places exchange what is there, either of which may be nothing.
    pub(super) fn exchange(&self, other: &Self) -> io::Result<()> {
        match (self.stat()?, other.stat()?) {
            (Some(_), Some(_)) => self.dir.exchange(&self.name, &other.dir, &other.name),
            (Some(_), None) => self.dir.move_to(&self.name, &other.dir, &other.name),
            (None, Some(_)) => other.dir.move_to(&other.name, &self.dir, &self.name),
            (None, None) => Ok(()),
        }
    }
}
