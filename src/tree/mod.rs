//! A directory tree in the making: everything is created beneath one directory, by descriptors, and nothing that exists
//! is ever opened for writing or followed.

mod draft;
mod giver;
mod pool;

pub(crate) use draft::{Claim, Draft, claim, disinherit, is_ours};

use std::io::{self, Read};

use crate::entry::{Kind, Timestamp, Xattrs};
use crate::gate;
use crate::relpath::{joined, shown, split, walk_order};
use crate::sys::{self, Dir, Errno, Reader, Writer};

use giver::Giver;
use pool::{Job, LARGEST, Pool};

/// Bytes that are moved, or left out as a hole, at a time.
const CHUNK: usize = 64 * 1024;

/// Up to so many names are made durable one by one; beyond that, the whole filesystem is, in one go.
const FEW: usize = 64;

/// The bits that let whoever runs a file act as its owner, or its group.
const SET_ID: u32 = 0o6000;

/// What belongs to a name besides its contents.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: Xattrs,
}

/// What could not be restored as it was, though its contents were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The path below the tree.
    pub(crate) path: Vec<u8>,
    /// What is different, in words.
    pub(crate) what: String,
}

/// Something that was made, and holds what can be made durable.
enum Made {
    File(Vec<u8>),
    Directory(Vec<u8>),
}

/// A tree in the making.
pub(crate) struct Tree {
    root: Dir,
    /// The directory that the last name was put into, and its path: only one is open, however deep it lies.
    last: Option<(Vec<u8>, Dir)>,
    /// Directories get what belongs to them last: what is put into them would change it.
    directories: Vec<(Vec<u8>, Meta)>,
    /// Directories that lead to where we are in the archive, and are not wanted for themselves.
    above: Vec<(Vec<u8>, Meta)>,
    giver: Giver,
    /// Files that are being made; links to them, and what belongs to directories, wait for it.
    pool: Pool<NewFile>,
    /// What was made, as long as it is little.
    few: Option<Vec<Made>>,
    pub(crate) differences: Vec<Difference>,
}

impl Tree {
    pub(crate) fn new(root: Dir) -> Self {
        let (directories, above, differences) = (Vec::new(), Vec::new(), Vec::new());
        let few = Some(Vec::new());
        Self { root, last: None, directories, above, giver: Giver::default(), pool: Pool::new(), few, differences }
    }

    /// The directory that it is made in.
    pub(crate) fn root(&self) -> &Dir {
        &self.root
    }

    /// A directory that is not wanted; should something in it be, it is made, and gets what belongs to it.
    pub(crate) fn remember(&mut self, path: &[u8], meta: Meta) {
        self.above.retain(|(above, _)| path.strip_prefix(&above[..]).is_some_and(|rest| rest.starts_with(b"/")));
        self.above.push((path.to_vec(), meta));
    }

    /// Waits until every file so far is made.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.pool.settle()
    }

    /// The directory of `path`, made where it is missing, and the name in it.
    fn place<'a>(&mut self, path: &'a [u8]) -> io::Result<(Dir, &'a [u8])> {
        let (parent, name) = split(path);
        let dir = match self.last.take() {
            Some((last, dir)) if last == parent => dir,
            _ => self.reach(parent)?,
        };
        self.last = Some((parent.to_vec(), dir.clone()));
        Ok((dir, name))
    }

    fn reach(&mut self, path: &[u8]) -> io::Result<Dir> {
        if let Some(dir) = sys::if_there(self.root.open_dir(path))? {
            return Ok(dir);
        }
        let (mut dir, mut reached) = (self.root.clone(), Vec::new());
        for name in path.split(|&c| c == b'/') {
            let (below, is_new) = made(&dir, name)?;
            (dir, reached) = (below, joined(&reached, name));
            if is_new {
                self.note(Made::Directory(reached.clone()));
                self.adopt(&reached);
            }
        }
        Ok(dir)
    }

    fn note(&mut self, made: Made) {
        match &mut self.few {
            Some(few) if few.len() < FEW => few.push(made),
            _ => self.few = None,
        }
    }

    /// A directory that had to be made gets what belongs to it, if that is known.
    fn adopt(&mut self, path: &[u8]) {
        if let Some(found) = self.above.iter().position(|(above, _)| above == path) {
            self.directories.push(self.above.remove(found));
        }
    }

    pub(crate) fn directory(&mut self, path: &[u8], meta: Meta) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.last = Some((path.to_vec(), made(&dir, name)?.0));
        self.note(Made::Directory(path.to_vec()));
        self.directories.push((path.to_vec(), meta));
        Ok(())
    }

    /// A half-written record, beside the file that it was cut off: nothing is made to lead there.
    pub(crate) fn tail(&mut self, path: &[u8], meta: &Meta, contents: &mut dyn Read) -> io::Result<u64> {
        let (parent, _) = split(path);
        self.last = Some((parent.to_vec(), self.root.open_dir(parent)?));
        self.file(path, meta, contents)
    }

    /// A file: made by the pool if it is small, else as it is read.
    pub(crate) fn file(&mut self, path: &[u8], meta: &Meta, contents: &mut dyn Read) -> io::Result<u64> {
        let (dir, _) = self.place(path)?;
        self.note(Made::File(path.to_vec()));
        let mut start = Vec::new();
        contents.take(LARGEST as u64).read_to_end(&mut start)?;
        let (length, is_whole) = (start.len() as u64, start.len() < LARGEST);
        let file = NewFile { dir, path: path.to_vec(), meta: meta.clone(), giver: self.giver.clone(), contents: start };
        if is_whole {
            return self.pool.give(file).map(|()| length);
        }
        let (length, differences) = file.make(contents)?;
        self.differences.extend(differences);
        Ok(length)
    }

    /// Gives what is `name` in `from` its place here, as it is; `false` where that is another filesystem's, or this one knows
    /// neither flags nor second names.
    pub(crate) fn move_in(&mut self, path: &[u8], from: &Dir, name: &[u8]) -> io::Result<bool> {
        let (dir, leaf) = self.place(path)?;
        match from.move_to(name, &dir, leaf) {
            Err(error) if sys::errno(&error) == Some(Errno::XDEV) => Ok(false),
            // A second name fails as well where the name is taken.
            Err(error) if sys::refuses_flags(&error) => {
                let linked = gate::tolerate(from.link(name, &dir, leaf))?.is_some();
                if linked { from.unlink(name).map(|()| true) } else { Ok(false) }
            }
            moved => moved.map(|()| true),
        }
    }

    /// The same for a file that is ours alone, which is cut at `size` and gets what belongs to it.
    pub(crate) fn take(&mut self, path: &[u8], meta: &Meta, size: u64, from: &Dir, name: &[u8]) -> io::Result<bool> {
        if !self.move_in(path, from, name)? {
            return Ok(false);
        }
        let (dir, leaf) = self.place(path)?;
        let file = dir.reopen(leaf)?;
        if file.stat()?.size > size {
            file.set_len(size)?;
        }
        let (meta, giver) = (meta.clone(), self.giver.clone());
        let new = NewFile { dir, path: path.to_vec(), meta, giver, contents: Vec::new() };
        self.differences.extend(new.dress(&file)?);
        Ok(true)
    }

    /// The path of the file that failed, where it was not the last one.
    pub(crate) fn failed_at(&self) -> Option<&[u8]> {
        self.pool.failed_at()
    }

    pub(crate) fn symlink(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        dir.make_symlink(target, name)?;
        self.giver.gives(dir.give_symlink(name, meta.uid, meta.gid))?;
        dir.set_symlink_mtime(name, meta.mtime)
    }

    /// A second name of a file that was made before, at `first` below `from`, whose tree has settled; whether it was.
    /// `target` is its name for people.
    pub(crate) fn hard_link(
        &mut self,
        path: &[u8],
        meta: &Meta,
        from: &Dir,
        first: &[u8],
        target: &[u8],
    ) -> io::Result<bool> {
        let (parent, first_name) = split(first);
        let found = from.open_dir(parent).and_then(|dir| Ok((dir.stat(first_name)?, dir)));
        let (there, owner) = match found {
            Ok((stat, dir)) if stat.kind == Kind::File => (dir, (stat.uid, stat.gid)),
            Err(error) if !matches!(sys::errno(&error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                return Err(error);
            }
            _ => {
                self.lacks(path, target);
                return Ok(false);
            }
        };
        let (dir, name) = self.place(path)?;
        match there.link(first_name, &dir, name) {
            Err(error) if sys::errno(&error) == Some(Errno::XDEV) => {
                let mut contents = Sequential { file: there.open_file(first_name)?, offset: 0 };
                self.file(path, meta, &mut contents)?;
                self.differs(path, format!("a file of its own: {} lies on another filesystem", shown(target)));
            }
            linked => linked.map(|()| self.giver.count(owner != (meta.uid, meta.gid)))?,
        }
        Ok(true)
    }

    /// A second name of a file that is not there: `target`, for people.
    pub(crate) fn lacks(&mut self, path: &[u8], target: &[u8]) {
        let what = format!("not restored: its contents are those of {}, which must be named too", shown(target));
        self.differs(path, what);
    }

    /// Names, so far, that do not belong to those whom they belonged to.
    pub(crate) fn owners_not_kept(&self) -> u64 {
        self.giver.refused()
    }

    fn differs(&mut self, path: &[u8], what: String) {
        self.differences.push(Difference { path: path.to_vec(), what });
    }

    /// Gives the directories what belongs to them, the deepest first.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.pool.settle()?;
        let mut differences = self.pool.differences();
        differences.sort_by(|a, b| walk_order(&a.path, &b.path));
        self.differences.extend(differences);
        self.last = None;
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            let dir = self.root.open_dir(&path)?;
            self.giver.gives(dir.set_owner(meta.uid, meta.gid))?;
            for (name, value) in &meta.xattrs {
                self.differences.extend(tolerated(&path, name, dir.set_xattr(name, value))?);
            }
            dir.set_mode(meta.mode)?;
            dir.set_mtime(meta.mtime)?;
        }
        Ok(())
    }
}

impl Tree {
    /// Makes durable all that was made.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.few.as_ref().map(|few| self.sync_each(few)) {
            // What its owner may not open is synced with the rest of its filesystem.
            Some(Err(error)) if sys::errno(&error) == Some(Errno::ACCESS) => self.root.sync_filesystem(),
            Some(outcome) => outcome,
            None => self.root.sync_filesystem(),
        }
    }

    fn sync_each(&self, few: &[Made]) -> io::Result<()> {
        for made in few {
            match made {
                Made::Directory(path) => self.root.open_dir(path)?.sync()?,
                Made::File(path) => {
                    let (above, name) = split(path);
                    self.root.open_dir(above)?.open_file(name)?.sync()?;
                }
            }
        }
        self.root.sync()
    }
}

/// A file to be made.
struct NewFile {
    dir: Dir,
    path: Vec<u8>,
    meta: Meta,
    giver: Giver,
    contents: Vec<u8>,
}

impl Job for NewFile {
    fn size(&self) -> usize {
        self.contents.len()
    }

    fn path(&self) -> &[u8] {
        &self.path
    }

    fn run(&self) -> io::Result<Vec<Difference>> {
        self.make(&mut io::empty()).map(|(_, differences)| differences)
    }
}

impl NewFile {
    /// Makes it of the contents at hand, and those that follow.
    fn make(&self, rest: &mut dyn Read) -> io::Result<(u64, Vec<Difference>)> {
        let file = self.dir.create(split(&self.path).1)?;
        let mut filling = Filling::of(&file);
        filling.slice(&self.contents)?;
        filling.read(rest)?;
        let length = filling.finish()?;
        Ok((length, self.dress(&file)?))
    }

    /// Owner, attributes, mode and time, in this order: each would undo some of those after it. What is right already
    /// is not set again.
    fn dress(&self, file: &Writer) -> io::Result<Vec<Difference>> {
        let (meta, born) = (&self.meta, file.stat()?);
        let is_theirs = (born.uid, born.gid) == (meta.uid, meta.gid);
        let (mode, mut differences) =
            self.permitted(is_theirs || self.giver.gives(file.set_owner(meta.uid, meta.gid))?);
        for (name, value) in &meta.xattrs {
            differences.extend(tolerated(&self.path, name, file.set_xattr(name, value))?);
        }
        // An access control list has changed the mode.
        if mode != born.mode || !meta.xattrs.is_empty() {
            file.set_mode(mode)?;
        }
        file.set_mtime(meta.mtime)?;
        Ok(differences)
    }

    /// The mode, but for bits that would let others act as whoever has the file now, if that is not who set them.
    fn permitted(&self, is_owner_kept: bool) -> (u32, Vec<Difference>) {
        let meta = &self.meta;
        if is_owner_kept || meta.mode & SET_ID == 0 {
            return (meta.mode, Vec::new());
        }
        let what = "its set-user-ID and set-group-ID bits are left out, as its owner cannot be kept".to_owned();
        (meta.mode & !SET_ID, vec![Difference { path: self.path.clone(), what }])
    }
}

/// Whether an attribute could be set: it is no reason to restore nothing.
fn tolerated(path: &[u8], name: &[u8], outcome: io::Result<()>) -> io::Result<Option<Difference>> {
    match outcome {
        Err(error) if gate::is_cancelled(&error) => Err(error),
        Err(error) => {
            let what = format!("its attribute {} cannot be set: {error}", shown(name));
            Ok(Some(Difference { path: path.to_vec(), what }))
        }
        Ok(()) => Ok(None),
    }
}

/// The directory `name`, and whether it had to be made.
fn made(above: &Dir, name: &[u8]) -> io::Result<(Dir, bool)> {
    let is_new = match above.make_dir(name) {
        Ok(()) => true,
        Err(error) if sys::errno(&error) == Some(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    Ok((above.open_dir(name)?, is_new))
}

/// A file that was restored, read from its start.
struct Sequential {
    file: Reader,
    offset: u64,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// Contents that are being written; whole chunks of zeros become holes.
struct Filling<'a> {
    file: &'a Writer,
    length: u64,
    ends_in_hole: bool,
}

impl<'a> Filling<'a> {
    fn of(file: &'a Writer) -> Self {
        Self { file, length: 0, ends_in_hole: false }
    }

    /// What is at hand already.
    fn slice(&mut self, contents: &[u8]) -> io::Result<()> {
        contents.chunks(CHUNK).try_for_each(|chunk| self.chunk(chunk))
    }

    /// What has to be read.
    fn read(&mut self, contents: &mut dyn Read) -> io::Result<()> {
        let mut chunk = Vec::with_capacity(CHUNK);
        while contents.take(CHUNK as u64).read_to_end(&mut chunk)? > 0 {
            self.chunk(&chunk)?;
            chunk.clear();
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.ends_in_hole = chunk.iter().all(|&byte| byte == 0);
        if !self.ends_in_hole {
            self.file.write_all_at(chunk, self.length)?;
        }
        self.length += chunk.len() as u64;
        Ok(())
    }

    /// The length of it all.
    fn finish(self) -> io::Result<u64> {
        if self.ends_in_hole {
            self.file.set_len(self.length)?;
        }
        Ok(self.length)
    }
}

/// Removes `name` and all that is in it, by descriptors, following nothing. What will not go does not keep the rest.
///
/// # Errors
/// What kept the first from being removed.
pub(crate) fn remove(parent: &Dir, name: &[u8]) -> io::Result<()> {
    let mut outcome = Ok(());
    // Where the kernel does not tell, nothing is known to be mounted: what is ours must go all the same.
    let mount = parent.mount().ok();
    // Each twice: to be emptied, and then, when what is in it is gone, to be removed.
    let mut open = vec![(name.to_vec(), false)];
    while let Some((path, is_emptied)) = open.pop() {
        let step = if is_emptied { drop_directory(parent, &path) } else { empty(parent, &path, mount, &mut open) };
        outcome = outcome.and(step);
    }
    outcome
}

fn drop_directory(parent: &Dir, path: &[u8]) -> io::Result<()> {
    let (above, last) = split(path);
    parent.open_dir(above)?.remove_dir(last)
}

/// Removes what is no directory in the directory at `path`, or at `path` itself; what is one is added to `open`.
///
/// What somebody mounted there is not ours.
fn empty(parent: &Dir, path: &[u8], mount: Option<u64>, open: &mut Vec<(Vec<u8>, bool)>) -> io::Result<()> {
    let dir = match parent.open_dir(path) {
        Err(error) if matches!(sys::errno(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
            let (above, last) = split(path);
            return parent.open_dir(above)?.unlink(last);
        }
        Err(error) if sys::errno(&error) == Some(Errno::ACCESS) => opened_up(parent, path, mount)?,
        other => other?,
    };
    check_mount(&dir, path, mount)?;
    // A directory that was restored as one that nobody may write to.
    let _if_ours = dir.set_mode(0o700);
    open.push((path.to_vec(), true));
    let mut outcome = Ok(());
    for found in dir.list()?.names {
        match found.kind {
            Some(kind) if kind != Kind::Directory => outcome = outcome.and(dir.unlink(&found.name)),
            _ => open.push((joined(path, &found.name), false)),
        }
    }
    outcome
}

/// A directory that was restored as one that not even its owner may open.
///
/// # Errors
/// One that is not ours, or that somebody mounted there; those of the kernel.
fn opened_up(parent: &Dir, path: &[u8], mount: Option<u64>) -> io::Result<Dir> {
    let closed = parent.open_closed(path)?;
    check_mount(&closed, path, mount)?;
    closed.open_up()?;
    parent.open_dir(path)
}

fn check_mount(dir: &Dir, path: &[u8], mount: Option<u64>) -> io::Result<()> {
    match mount.zip(dir.mount().ok()) {
        Some((ours, here)) if ours != here => {
            Err(io::Error::other(format!("another filesystem is mounted on {}", shown(path))))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{CancelFlag, Realm};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    /// The reader lets none of this through. A tree that relied on it would be one mistake from harm.
    #[test]
    fn a_link_that_the_tree_made_leads_nothing_out_of_it() {
        let top = tempfile::tempdir().expect("a directory");
        let [inside, outside] = ["inside", "outside"].map(|name| top.path().join(name));
        fs::create_dir(&inside).expect("makes");
        fs::create_dir_all(outside.join("closet")).expect("makes");
        fs::write(outside.join("canary"), "sings").expect("writes");
        fs::set_permissions(outside.join("closet"), fs::Permissions::from_mode(0o700)).expect("sets");
        let root = Dir::open(&inside, Realm::Output, Arc::new(CancelFlag::new())).expect("opens");
        let mut tree = Tree::new(root);
        let mtime = Timestamp { seconds: 1, nanos: 0 };
        let meta = Meta { mode: 0o777, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() };
        tree.file(b"a", &meta, &mut io::empty()).expect("is new");
        let linked = |tree: &mut Tree, path: &[u8], first: &[u8]| {
            let from = tree.root().clone();
            tree.settle().and_then(|()| tree.hard_link(path, &meta, &from, first, first)).is_ok_and(|made| made)
        };
        for (name, target) in [("l", "../outside"), ("m", "../outside/canary")] {
            tree.symlink(name.as_bytes(), &meta, target.as_bytes()).expect("is new");
        }
        for path in [&b"l/x"[..], b"l/canary", b"l/closet/x", b"../outside/x", b"l", b"m"] {
            let made = tree.file(path, &meta, &mut &b"x"[..]).and_then(|_| tree.settle());
            assert!(made.is_err(), "{}", shown(path));
            let made = tree.tail(path, &meta, &mut &b"x"[..]).and_then(|_| tree.settle());
            assert!(made.is_err(), "{}", shown(path));
            assert!(tree.symlink(path, &meta, b"a").is_err(), "{}", shown(path));
            assert!(!linked(&mut tree, path, b"a"), "{}", shown(path));
        }
        for path in [&b"l"[..], b"l/closet", b"l/new", b"m", b"../outside/closet"] {
            assert!(tree.directory(path, meta.clone()).is_err(), "{}", shown(path));
        }
        for target in [&b"l/canary"[..], b"../outside/canary", b"m", b"l", b".", b"..", b"", b"a/x", b"none"] {
            assert!(!linked(&mut tree, b"h", target), "{}", shown(target));
        }
        tree.finish().expect("has nothing to do");
        let names = |dir| fs::read_dir(dir).expect("lists").count();
        assert_eq!((names(&inside), names(&outside), names(&outside.join("closet"))), (3, 2, 0));
        assert_eq!(fs::read(outside.join("canary")).expect("reads"), b"sings");
        let mode = fs::metadata(outside.join("closet")).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
