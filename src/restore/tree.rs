//! A directory tree in the making: everything is created beneath one directory, by descriptors, and nothing that exists
//! is ever opened for writing or followed.

use std::io::{self, Read};

use crate::entry::{Stat, Timestamp, Xattrs};
use crate::gate;
use crate::relpath::{joined, shown, split};
use crate::sys::{self, Dir, Errno, Writer};

/// Bytes that are moved, or left out as a hole, at a time.
const CHUNK: usize = 64 * 1024;

/// What belongs to a name besides its contents.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: Xattrs,
}

/// What could not be restored as it was, though its contents were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The path below the tree.
    pub(super) path: Vec<u8>,
    /// What is different, in words.
    pub(super) what: String,
}

/// A tree in the making.
pub(super) struct Tree {
    root: Dir,
    /// The directories that lead to where the last name was put.
    open: Vec<(Vec<u8>, Dir)>,
    /// Directories get what belongs to them last: what is put into them would change it.
    directories: Vec<(Vec<u8>, Meta)>,
    /// Whether files may be given to others.
    is_root: bool,
    pub(super) differences: Vec<Difference>,
}

impl Tree {
    pub(super) fn new(root: Dir) -> Self {
        let is_root = sys::effective_uid() == 0;
        Self { root, open: Vec::new(), directories: Vec::new(), is_root, differences: Vec::new() }
    }

    /// The directory of `path`, made where it is missing, and the name in it.
    fn place<'a>(&mut self, path: &'a [u8]) -> io::Result<(Dir, &'a [u8])> {
        let mut parts: Vec<&[u8]> = path.split(|&c| c == b'/').collect();
        let name = parts.pop().unwrap_or_default();
        let common = self.open.iter().zip(&parts).take_while(|((open, _), part)| open == *part).count();
        self.open.truncate(common);
        for part in &parts[common..] {
            let above = self.open.last().map_or(&self.root, |(_, dir)| dir);
            let dir = made(above, part)?;
            self.open.push((part.to_vec(), dir));
        }
        Ok((self.open.last().map_or(&self.root, |(_, dir)| dir).clone(), name))
    }

    pub(super) fn directory(&mut self, path: &[u8], meta: Meta) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        made(&dir, name)?;
        self.directories.push((path.to_vec(), meta));
        Ok(())
    }

    pub(super) fn file(&mut self, path: &[u8], meta: &Meta, contents: &mut dyn Read) -> io::Result<u64> {
        let (dir, name) = self.place(path)?;
        let file = dir.create(name)?;
        let length = fill(&file, contents)?;
        self.dress(path, &file, meta)?;
        Ok(length)
    }

    /// Owner, attributes, mode and time, in this order: each would undo some of those after it.
    fn dress(&mut self, path: &[u8], file: &Writer, meta: &Meta) -> io::Result<()> {
        if self.is_root {
            file.set_owner(meta.uid, meta.gid)?;
        }
        for (name, value) in &meta.xattrs {
            let outcome = file.set_xattr(name, value);
            self.tolerate(path, name, outcome)?;
        }
        file.set_mode(meta.mode)?;
        file.set_mtime(meta.mtime)
    }

    fn tolerate(&mut self, path: &[u8], name: &[u8], outcome: io::Result<()>) -> io::Result<()> {
        match outcome {
            Err(error) if gate::is_cancelled(&error) => Err(error),
            Err(error) => {
                let what = format!("its attribute {} cannot be set: {error}", shown(name));
                self.differences.push(Difference { path: path.to_vec(), what });
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn symlink(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        dir.make_symlink(target, name)?;
        let owner = self.is_root.then_some((meta.uid, meta.gid));
        dir.dress_symlink(name, owner, meta.mtime)
    }

    /// A second name of a file that was made before; whether it was.
    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> io::Result<bool> {
        let (parent, target_name) = split(target);
        let (dir, name) = self.place(path)?;
        match self.root.open_dir(parent).and_then(|parent| parent.link(target_name, &dir, name)) {
            Err(error) if sys::errno(&error) == Some(Errno::NOENT) => {
                let what =
                    format!("not restored: its contents are those of /{}, which must be named too", shown(target));
                self.differences.push(Difference { path: path.to_vec(), what });
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Gives the directories what belongs to them, the deepest first.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.open.clear();
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            let dir = self.root.open_dir(&path)?;
            if self.is_root {
                dir.set_owner(meta.uid, meta.gid)?;
            }
            for (name, value) in &meta.xattrs {
                let outcome = dir.set_xattr(name, value);
                self.tolerate(&path, name, outcome)?;
            }
            dir.set_mode(meta.mode)?;
            dir.set_mtime(meta.mtime)?;
        }
        Ok(())
    }
}

/// The directory `name`, made if it is not there.
fn made(above: &Dir, name: &[u8]) -> io::Result<Dir> {
    match above.make_dir(name) {
        Err(error) if sys::errno(&error) != Some(Errno::EXIST) => return Err(error),
        _ => {}
    }
    above.open_dir(name)
}

/// Writes contents; whole chunks of zeros become holes.
fn fill(file: &Writer, contents: &mut dyn Read) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match contents.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        let chunk = &buffer[..filled];
        if !chunk.iter().all(|&byte| byte == 0) {
            file.write_all_at(chunk, length)?;
        }
        length += filled as u64;
        if filled < CHUNK {
            file.set_len(length)?;
            return Ok(length);
        }
    }
}

/// Removes the directory `name` and all that is in it, by descriptors, following nothing.
pub(super) fn remove(parent: &Dir, name: &[u8]) -> io::Result<()> {
    let mut open = vec![name.to_vec()];
    while let Some(path) = open.pop() {
        let dir = parent.open_dir(&path)?;
        // A directory that was restored as one that nobody may write to.
        let _if_ours = dir.set_mode(0o700);
        let (below, rest): (Vec<_>, Vec<_>) =
            dir.list()?.names.into_iter().partition(|found| is_directory(&dir, found.kind, &found.name));
        for found in rest {
            dir.unlink(&found.name)?;
        }
        if below.is_empty() {
            let (above, last) = split(&path);
            parent.open_dir(above)?.remove_dir(last)?;
            continue;
        }
        open.push(path.clone());
        open.extend(below.into_iter().map(|found| joined(&path, &found.name)));
    }
    Ok(())
}

fn is_directory(dir: &Dir, kind: Option<crate::entry::Kind>, name: &[u8]) -> bool {
    let kind = kind.or_else(|| dir.stat(name).ok().map(|stat: Stat| stat.kind));
    kind == Some(crate::entry::Kind::Directory)
}
