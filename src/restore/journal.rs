//! What is about to be exchanged, written down: whoever finds it later can complete it, or take it back.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use super::ground::{Ground, Spot};
use super::mounts::mount_below;
use crate::archive::Name;
use crate::entry::Kind;
use crate::relpath::{joined, shown, split};
use crate::sys::{self, Dir, Errno};

/// The name of a journal.
pub(super) const JOURNAL: &[u8] = b"journal";
/// Where what is exchanged lies beside it.
pub(super) const TREE: &[u8] = b"tree";

const DRAFT: &[u8] = b"journal.new";
const FORMAT: u32 = 1;

/// Longest journal that is read.
const LONGEST: u64 = 1 << 30;

/// The bytes at the start of every SQLite database.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// What SQLite puts beside a database. It belongs to that very file: beside another it would destroy that.
const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// What is exchanged between a root and the tree beside the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    format: u32,
    /// The root's name in the directory that the journal's lies in; empty where that is the root.
    pub(super) root: Name,
    /// The journal that says whether this exchange was begun, by the path of its directory; none: this one does.
    pub(super) leader: Option<Name>,
    /// The directories of the journals that follow this one.
    pub(super) followers: Vec<Name>,
    pub(super) moves: Vec<Move>,
}

/// One exchange.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Move {
    /// Where, below the root, and below the tree.
    path: Name,
    /// The inode that is at the root's side once it is done; none if nothing is.
    after: Option<u64>,
}

impl Journal {
    pub(super) fn of(ground: &Ground, moves: Vec<Move>) -> Self {
        let root = Name::new(ground.root_name());
        Self { format: FORMAT, root, leader: None, followers: Vec::new(), moves }
    }

    /// Whether the root itself is exchanged.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.moves[..], [only] if only.path.bytes().is_some_and(|path| path.is_empty()))
    }

    /// Makes it durable in `dir`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn write(&self, dir: &Dir) -> io::Result<()> {
        let file = dir.create(DRAFT)?;
        file.write_all_at(&serde_json::to_vec(self)?, 0)?;
        file.sync()?;
        dir.rename_over(DRAFT, JOURNAL)?;
        dir.sync()
    }

    /// The one in `dir`, if there is one.
    ///
    /// # Errors
    /// One that cannot be read, or is of a later version.
    pub(super) fn read(dir: &Dir) -> io::Result<Option<Self>> {
        let file = match dir.open_file(JOURNAL) {
            Err(error) if sys::errno(&error) == Some(Errno::NOENT) => return Ok(None),
            other => other?.into_file(),
        };
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        let journal: Self = serde_json::from_slice(&text)?;
        if journal.format != FORMAT {
            return Err(io::Error::other("a journal of another version of clawsnap"));
        }
        Ok(Some(journal))
    }

    /// Removes the one in `dir`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn remove(dir: &Dir) -> io::Result<()> {
        dir.unlink(JOURNAL)
    }

    /// Carries out what is not done yet, and takes all of it back where one thing cannot be done.
    ///
    /// # Errors
    /// The first that cannot be done.
    pub(super) fn carry_out(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        for step in &self.moves {
            if let Err(error) = step.carry_out(ground, dir) {
                self.take_back(ground, dir)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes back what is done, the last first.
    ///
    /// # Errors
    /// The first that cannot be taken back; the rest is tried all the same.
    pub(super) fn take_back(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        let (ground, dir) = (ground.unstoppable(), super::draft::unstoppable(dir));
        let back = self.moves.iter().rev().map(|step| step.take_back(&ground, &dir));
        back.fold(Ok(()), Result::and)
    }

    /// Whether nothing is left to be carried out.
    pub(super) fn is_done(&self, ground: &Ground, dir: &Dir) -> bool {
        self.moves.iter().all(|step| step.is_done(ground, dir).unwrap_or(false))
    }

    /// The same exchange the other way round, as things are now.
    pub(super) fn reversed(self, ground: &Ground, dir: &Dir) -> io::Result<Self> {
        let moves = self.moves.into_iter().rev();
        let moves: io::Result<Vec<Move>> = moves.map(|step| Move::of(step.path, dir, ground)).collect();
        Ok(Self { moves: moves?, leader: None, followers: Vec::new(), ..self })
    }
}

impl Move {
    /// The exchange of what is at `path` now.
    fn of(path: Name, dir: &Dir, ground: &Ground) -> io::Result<Self> {
        let mut step = Self { path, after: None };
        step.after = step.spots(ground, dir)?.1.inode()?;
        Ok(step)
    }

    /// The place at the root's side, and the one beside the journal.
    fn spots(&self, ground: &Ground, dir: &Dir) -> io::Result<(Spot, Spot)> {
        let path = self.path.bytes().ok_or_else(|| io::Error::other("the journal has a name that is none"))?;
        let drafted = joined(TREE, &path);
        let (above, name) = split(&drafted);
        Ok((ground.live(&path)?, Spot::new(dir.open_dir(above)?, name)))
    }

    fn is_done(&self, ground: &Ground, dir: &Dir) -> io::Result<bool> {
        Ok(self.spots(ground, dir)?.0.inode()? == self.after)
    }

    fn carry_out(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        let (live, drafted) = self.spots(ground, dir)?;
        if live.inode()? == self.after {
            return Ok(());
        }
        if drafted.inode()? != self.after {
            let name = shown(&self.path.bytes().unwrap_or_default());
            return Err(io::Error::other(format!("{name} is not what it was: something else was put there since")));
        }
        live.exchange(&drafted)
    }

    fn take_back(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        let (live, drafted) = self.spots(ground, dir)?;
        if live.inode()? == self.after { live.exchange(&drafted) } else { Ok(()) }
    }
}

/// How what was restored takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Instead of all that was there.
    Whole,
    /// Among what is there.
    Part,
}

/// What must be exchanged so that the root is what the tree in `dir` is, or has it among what it holds.
///
/// # Errors
/// Those of the kernel; a root that is another mount's.
pub(super) fn plan(ground: &Ground, dir: &Dir, extent: Extent) -> io::Result<Vec<Move>> {
    let drafted = Spot::new(dir.clone(), TREE);
    let is_dir = drafted.stat()?.is_some_and(|stat| stat.kind == Kind::Directory);
    let (live, tree) = match (ground.root()?, is_dir) {
        (Some(live), true) => (live, dir.open_dir(TREE)?),
        _ if ground.is_inside() => return Err(io::Error::other("a directory is there, and no directory was archived")),
        _ => return Ok(vec![Move::of(Name::new(b""), dir, ground)?]),
    };
    if let Some(mount) = mount_below(ground.path()).filter(|_| extent == Extent::Whole) {
        return Err(own_mount(mount.as_os_str().as_bytes()));
    }
    match extent {
        Extent::Part => merged(&live, &tree),
        Extent::Whole if ground.is_inside() => entries(&live, &tree),
        Extent::Whole => Ok(vec![Move::of(Name::new(b""), dir, ground)?]),
    }
}

/// All that two directories hold, but for what is ours, and what belongs to the filesystem itself.
fn entries(live: &Dir, tree: &Dir) -> io::Result<Vec<Move>> {
    let stays = |name: &[u8]| {
        let ours = crate::naming::is_swap_name(name) || crate::naming::name_before(name).is_some();
        ours || name == b"lost+found"
    };
    let names = [names(live)?, names(tree)?].concat();
    let names: std::collections::BTreeSet<Box<[u8]>> = names.into_iter().filter(|name| !stays(name)).collect();
    names.iter().map(|name| found(tree, name, name)).collect()
}

/// What the tree holds, name by name as far as the root has the same directories.
fn merged(live: &Dir, tree: &Dir) -> io::Result<Vec<Move>> {
    let (mut moves, mount) = (Vec::new(), live.mount()?);
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let (here, there) = (live.open_dir(&path)?, tree.open_dir(&path)?);
        if here.mount()? != mount {
            let name = shown(&path);
            return Err(io::Error::other(format!(
                "{name} is a mount of its own: restore what belongs there for itself"
            )));
        }
        for name in names(&there)? {
            let inner = joined(&path, &name);
            if is_directory(&here, &name)? && is_directory(&there, &name)? {
                open.push(inner);
                continue;
            }
            moves.extend(stale(&here, &there, &path, &name)?);
            moves.push(found(&there, &name, &inner)?);
        }
    }
    Ok(moves)
}

fn own_mount(path: &[u8]) -> io::Error {
    io::Error::other(format!("{} is a mount of its own: restore into a --target, and copy from there", shown(path)))
}

/// What SQLite left beside a file that a database will replace. It goes first: without its log an old database lacks
/// its last rows, but with a stranger's log the new one would be destroyed.
fn stale(here: &Dir, there: &Dir, path: &[u8], name: &[u8]) -> io::Result<Vec<Move>> {
    if !is_database(there, name)? {
        return Ok(Vec::new());
    }
    let mut moves = Vec::new();
    for ending in SIDECARS {
        let sidecar = [name, ending].concat();
        let (old, new) = (Spot::new(here.clone(), &sidecar), Spot::new(there.clone(), &sidecar));
        if old.inode()?.is_some() && new.inode()?.is_none() {
            moves.push(Move { path: Name::new(&joined(path, &sidecar)), after: None });
        }
    }
    Ok(moves)
}

fn is_database(dir: &Dir, name: &[u8]) -> io::Result<bool> {
    if dir.stat(name)?.kind != Kind::File {
        return Ok(false);
    }
    let mut start = [0; MAGIC.len()];
    let length = dir.open_file(name)?.fill_at(&mut start, 0)?;
    Ok(&start[..length] == MAGIC)
}

fn found(dir: &Dir, name: &[u8], path: &[u8]) -> io::Result<Move> {
    let after = Spot::new(dir.clone(), name).inode()?;
    Ok(Move { path: Name::new(path), after })
}

fn names(dir: &Dir) -> io::Result<Vec<Box<[u8]>>> {
    let listing = dir.list()?;
    match listing.trouble {
        Some(trouble) => Err(trouble),
        None => Ok(listing.names.into_iter().map(|found| found.name).collect()),
    }
}

fn is_directory(dir: &Dir, name: &[u8]) -> io::Result<bool> {
    Ok(Spot::new(dir.clone(), name).stat()?.is_some_and(|stat| stat.kind == Kind::Directory))
}
