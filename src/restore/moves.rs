//! What must be exchanged so that a root becomes what was restored, or has it among what it holds.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::ground::{Ground, Spot};
use super::journal::{Move, TREE};
use super::mounts::mount_below;
use super::sidecars::arrange;
use crate::archive::Name;
use crate::entry::Kind;
use crate::list::Wanted;
use crate::naming::{is_staging_name, is_swap_name, name_before};
use crate::relpath::{joined, shown};
use crate::sys::Dir;

/// How what was restored takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Instead of all that was there.
    Whole,
    /// Among what is there.
    Part,
}

/// What of a root was asked for.
pub(super) struct Asked {
    /// The root's path in the archive.
    root: Vec<u8>,
    wanted: Wanted,
}

impl Asked {
    pub(super) fn of(root: &[u8], wanted: &Wanted) -> Self {
        Self { root: root.to_vec(), wanted: wanted.clone() }
    }

    /// Whether a path below the root was, and not only something that lies in it.
    fn has(&self, path: &[u8]) -> bool {
        let root = self.root.strip_suffix(b"/").unwrap_or(&self.root);
        self.wanted.fits(&[root, b"/", path].concat())
    }
}

/// What must be exchanged between the root and the tree in `dir`: nothing where nothing was made.
///
/// # Errors
/// Those of the kernel; a root that holds another mount; a link that leads to what shall be restored.
pub(super) fn plan(ground: &Ground, dir: &Dir, extent: Extent, asked: &Asked) -> io::Result<Vec<Move>> {
    let whole = || Ok(vec![Move::of(Name::new(b""), None, dir)?]);
    let Some(made) = kind(dir, TREE)? else { return Ok(Vec::new()) };
    let (live, tree) = match (ground.root()?, made) {
        (Some(live), Kind::Directory) => (live, dir.open_dir(TREE)?),
        _ if ground.is_inside() => return Err(io::Error::other("a directory is there, and no directory was archived")),
        _ => return whole(),
    };
    if let Some(mount) = mount_below(ground.path()).filter(|_| extent == Extent::Whole) {
        return Err(own_mount(mount.as_os_str().as_bytes()));
    }
    let mut moves = match extent {
        Extent::Part => merged(&live, &tree, dir, asked)?,
        Extent::Whole if ground.is_inside() => entries(&live, &tree, dir)?,
        Extent::Whole => return whole(),
    };
    arrange(&mut moves, ground, dir).map(|_| moves)
}

/// All that two directories hold, but for what is ours, and what belongs to the filesystem itself.
fn entries(live: &Dir, tree: &Dir, dir: &Dir) -> io::Result<Vec<Move>> {
    let ours = |name: &[u8]| is_swap_name(name) || is_staging_name(name) || name_before(name).is_some();
    let mut all: BTreeSet<Box<[u8]>> = names(live)?.into_iter().filter(|name| !ours(name)).collect();
    all.extend(names(tree)?);
    all.remove(&b"lost+found"[..]);
    all.iter().map(|name| Move::of(Name::new(name), None, dir)).collect()
}

/// What the tree holds, name by name as far as the root has the same directories.
fn merged(live: &Dir, tree: &Dir, dir: &Dir, asked: &Asked) -> io::Result<Vec<Move>> {
    let place = |dir: &Dir| Ok::<_, io::Error>((dir.mount()?, dir.stat_self()?.dev));
    let (mut moves, mount) = (Vec::new(), place(live)?);
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let (here, there) = (live.open_dir(&path)?, tree.open_dir(&path)?);
        if place(&here)? != mount {
            return Err(own_mount(&path));
        }
        for name in names(&there)? {
            let inner = joined(&path, &name);
            match (kind(&here, &name)?, is_directory(&there, &name)?) {
                (Some(Kind::Directory), true) => open.push(inner),
                // In the link's place the directory would hold what was asked for, and nothing of what is behind it.
                (Some(Kind::Symlink), true) if !asked.has(&inner) => return Err(link_on_the_way(&inner)),
                _ => moves.push(Move::of(Name::new(&inner), None, dir)?),
            }
        }
    }
    Ok(moves)
}

fn own_mount(path: &[u8]) -> io::Error {
    io::Error::other(format!("{} is a mount of its own: restore into a --target, and copy from there", shown(path)))
}

fn link_on_the_way(path: &[u8]) -> io::Error {
    io::Error::other(format!("{} is a symbolic link: restore into a --target, and copy from there", shown(path)))
}

fn names(dir: &Dir) -> io::Result<Vec<Box<[u8]>>> {
    Ok(dir.list()?.whole()?.iter().map(|found| Box::from(&*found.name)).collect())
}

fn is_directory(dir: &Dir, name: &[u8]) -> io::Result<bool> {
    Ok(kind(dir, name)? == Some(Kind::Directory))
}

/// What is there; nothing is an answer.
fn kind(dir: &Dir, name: &[u8]) -> io::Result<Option<Kind>> {
    Ok(Spot::new(dir.clone(), name).stat()?.map(|stat| stat.kind))
}
