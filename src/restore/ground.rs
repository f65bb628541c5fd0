//! Where something that is in use lies, and where there is room for what shall take its place.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::moves::Extent;
use crate::entry::{Kind, Stat};
use crate::error::{Error, Result};
use crate::gate::{Gate, Realm};
use crate::relpath::split;
use crate::sys::{self, Dir, Reader};

/// A root that may be exchanged, and the directory beside or around which that is made ready.
pub(super) struct Ground {
    host: Dir,
    host_path: PathBuf,
    /// The root's name in its host; empty where the host is the root.
    root: Vec<u8>,
    /// What is restored there, for people.
    path: PathBuf,
}

/// A name in a directory, whatever it is bound to.
pub(super) struct Spot {
    dir: Dir,
    name: Vec<u8>,
}

impl Ground {
    /// The ground of the directory at `path`, which need not exist. There is room in its parent; in itself where it is a
    /// mount of its own, or where a part of it lies on another filesystem than the parent (a subvolume).
    ///
    /// # Errors
    /// A parent that does not exist; those of the kernel.
    pub(super) fn of_directory(path: &Path, extent: Extent, gate: &Arc<dyn Gate>) -> Result<Self> {
        let ground = Self::beside(path, gate)?;
        let elsewhere = |root: &Dir| {
            let (here, there) = (ground.host.stat_self()?.dev, root.stat_self()?.dev);
            Ok::<_, io::Error>(root.mount()? != ground.host.mount()? || (extent == Extent::Part && here != there))
        };
        let inside = ground.root().and_then(|root| match root {
            Some(root) if elsewhere(&root)? => Ok(Some(root)),
            _ => Ok(None),
        });
        match inside.map_err(|error| Error::failed("look at", path, error))? {
            Some(root) => Ok(ground.inside(root)),
            None => Ok(ground),
        }
    }

    /// The ground of the file at `path`: its directory is the root, as a database takes others with it.
    ///
    /// # Errors
    /// Those of [`Ground::of_directory`].
    pub(super) fn of_file(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        Ok(Self { root: Vec::new(), ..Self::beside(path, gate)? })
    }

    fn beside(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::Usage("/ cannot be exchanged as a whole".to_owned()))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let host = Dir::open_canonical(parent, Realm::Output, Arc::clone(gate)).map_err(|error| {
            Error::failed("restore into", parent, error).remedy("make it, or say --map OLD=NEW for another place")
        })?;
        let (host_path, path) = (parent.to_owned(), path.to_owned());
        Ok(Self { host, host_path, root: name.as_bytes().to_vec(), path })
    }

    /// The ground of something that was kept, or is being made ready, in `host`.
    pub(super) fn in_host(host: Dir, host_path: &Path, root: Vec<u8>) -> Self {
        let path = if root.is_empty() { host_path.to_owned() } else { host_path.join(OsStr::from_bytes(&root)) };
        Self { host, host_path: host_path.to_owned(), root, path }
    }

    /// The same, where that is the directory of a file which is all that is restored.
    pub(super) fn around(self, file: &[u8]) -> Self {
        Self { path: self.host_path.join(OsStr::from_bytes(file)), ..self }
    }

    /// The same root, with room in itself.
    pub(super) fn inside(self, root: Dir) -> Self {
        let host = root.guarded(Realm::Output, Arc::clone(root.gate()));
        Self { host, host_path: self.path.clone(), root: Vec::new(), path: self.path }
    }

    /// The same for what must be done even if the run was cancelled.
    pub(super) fn unstoppable(&self) -> Self {
        let (host_path, root, path) = (self.host_path.clone(), self.root.clone(), self.path.clone());
        Self { host: self.host.unstoppable(), host_path, root, path }
    }

    pub(super) fn host(&self) -> &Dir {
        &self.host
    }

    pub(super) fn host_path(&self) -> &Path {
        &self.host_path
    }

    /// The root's name in its host; empty where that is the root.
    pub(super) fn root_name(&self) -> &[u8] {
        &self.root
    }

    /// What is restored there, for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its last name.
    pub(super) fn label(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default().as_bytes()
    }

    /// The name of the file that is all that is restored, if it is one: its directory is the root then.
    pub(super) fn file(&self) -> Option<&[u8]> {
        (self.is_inside() && self.path != self.host_path).then(|| self.label())
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
            return Ok(Spot::new(self.host.clone(), &self.root));
        }
        let (above, name) = split(path);
        let root = if self.is_inside() { self.host.clone() } else { self.host.open_dir(&self.root)? };
        Ok(Spot::new(root.open_dir(above)?, name))
    }
}

impl Spot {
    pub(super) fn new(dir: Dir, name: &[u8]) -> Self {
        Self { dir, name: name.to_vec() }
    }

    /// What is there; nothing is an answer.
    pub(super) fn stat(&self) -> io::Result<Option<Stat>> {
        sys::if_there(self.dir.stat(&self.name))
    }

    /// The inode that is there.
    pub(super) fn inode(&self) -> io::Result<Option<u64>> {
        Ok(self.stat()?.map(|stat| stat.ino))
    }

    /// Opens the file that is there.
    pub(super) fn open_file(&self) -> io::Result<Reader> {
        self.dir.open_file(&self.name)
    }

    /// Has two places exchange what is there, either of which may be nothing.
    pub(super) fn exchange(&self, other: &Self) -> io::Result<()> {
        let (ours, theirs) = (self.stat()?, other.stat()?);
        match (&ours, &theirs) {
            (Some(_), Some(_)) => self.dir.exchange(&self.name, &other.dir, &other.name),
            (Some(_), None) => self.move_to(other),
            (None, Some(_)) => other.move_to(self),
            (None, None) => Ok(()),
        }?;
        self.keep_time(theirs);
        other.keep_time(ours);
        Ok(())
    }

    /// Moves what is here to where nothing is.
    ///
    /// # Errors
    /// Something that is there; those of the kernel, among them a file where the filesystem knows no flags.
    pub(super) fn move_to(&self, other: &Self) -> io::Result<()> {
        match self.dir.move_to(&self.name, &other.dir, &other.name) {
            // A directory needs no flag: should another one have come there, it goes only if it holds nothing.
            Err(error) if sys::refuses_flags(&error) && self.is_directory()? => {
                self.dir.move_dir_to(&self.name, &other.dir, &other.name)
            }
            other => other,
        }
    }

    fn is_directory(&self) -> io::Result<bool> {
        Ok(self.stat()?.is_some_and(|stat| stat.kind == Kind::Directory))
    }

    /// Gives a directory that came here the time of last modification that it had: XFS stamps a directory that is
    /// exchanged with another one, as its `..` is another one then.
    fn keep_time(&self, came: Option<Stat>) {
        let Some(came) = came.filter(|came| came.kind == Kind::Directory) else { return };
        let put_back = || {
            let dir = self.dir.unstoppable().open_dir(&self.name)?;
            let now = dir.stat_self()?;
            if now.id() == came.id() && now.mtime != came.mtime { dir.set_mtime(came.mtime) } else { Ok(()) }
        };
        // Who may exchange somebody else's directory may not give it a time; and the exchange is done, whatever comes.
        let _if_ours: io::Result<()> = put_back();
    }
}
