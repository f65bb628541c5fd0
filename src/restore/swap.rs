//! Exchanges what was restored with what is there: all of it, or nothing.
//!
//! First everything that was restored is made durable, hidden beside what is there. Then a journal is written for each
//! root, the leader's last: from then on the restore happens, whoever completes it. A root is exchanged in one step
//! (`RENAME_EXCHANGE`); where it is a mount of its own, or where only a part is restored, name by name. At last what was
//! there gets a name that tells so. A run that dies on the way leaves its journals, and the next one completes them.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::{Draft, take_over, unstoppable};
use super::ground::{Ground, Spot};
use super::journal::{Extent, Journal, TREE, plan};
use super::tree;
use crate::archive::Name;
use crate::error::{Error, Result};
use crate::gate::{Gate, Realm};
use crate::naming::{is_swap_name, kept_name, swap_name};
use crate::sys::{self, Dir, Errno};

/// What is about to be exchanged with one root.
pub(super) struct Swap {
    ground: Ground,
    draft: Draft,
    dir: Dir,
    journal: Journal,
}

impl Swap {
    /// Makes room beside the root at `path`, or in it where nothing may be made beside it, after completing what dead
    /// runs left there.
    ///
    /// # Errors
    /// Those of the kernel; what a dead run left and cannot be completed.
    pub(super) fn begin(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let ground = Ground::of(path, gate)?;
        let fail = |error| Error::failed("restore into the place of", path, error);
        recover(ground.host(), ground.host_path())?;
        let (ground, draft) = make_room(ground).map_err(fail)?;
        let dir = draft.dir().map_err(fail)?;
        let journal = Journal::of(&ground, Vec::new());
        Ok(Self { ground, draft, dir, journal })
    }

    /// Where the tree is to be made, below [`TREE`].
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The root's path.
    pub(super) fn path(&self) -> &Path {
        self.ground.path()
    }

    /// Bytes that are free where the tree is made.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        self.ground.host().free_space()
    }

    /// Makes what was restored durable, and finds out what must be exchanged.
    fn prepare(&mut self, extent: Extent) -> Result<()> {
        let prepared = plan(&self.ground, &self.dir, extent).and_then(|moves| {
            self.journal.moves = moves;
            self.dir.sync_filesystem()
        });
        prepared.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::failed("restore into the place of", self.ground.path(), error)
    }

    /// The directory's path, for other runs.
    fn hidden_path(&self) -> PathBuf {
        self.ground.host_path().join(std::ffi::OsStr::from_bytes(self.draft.name()))
    }

    /// Gives what was there its name; what that is, if there was anything.
    fn finish(&self) -> io::Result<Option<PathBuf>> {
        finish(&self.ground.unstoppable(), self.draft.name(), &self.journal)
    }
}

/// Beside the root, else in it.
fn make_room(ground: Ground) -> io::Result<(Ground, Draft)> {
    let denied = |error: &io::Error| {
        sys::errno(error).is_some_and(|errno| [Errno::ACCESS, Errno::PERM, Errno::ROFS].contains(&errno))
    };
    match swap_name(sys::now()).and_then(|name| Draft::make(ground.host(), name)) {
        Err(error) if denied(&error) && !ground.is_inside() => match ground.root()? {
            Some(root) => make_room(ground.inside(root)),
            None => Err(error),
        },
        other => other.map(|draft| (ground, draft)),
    }
}

/// Exchanges all of them; for each, under which path what was there lies now.
///
/// # Errors
/// The first thing that cannot be done; everything is as it was then.
pub(super) fn exchange(mut swaps: Vec<Swap>, extent: Extent) -> Result<Vec<Option<PathBuf>>> {
    swaps.iter_mut().try_for_each(|swap| swap.prepare(extent))?;
    let done = announce(&mut swaps).and_then(|()| carry_out(&swaps));
    if let Err(error) = done {
        withdraw(&swaps)?;
        return Err(error);
    }
    // From here on it is done: what fails now is completed by the next run.
    let kept = swaps.iter().rev().map(|swap| swap.finish().unwrap_or_else(|_| Some(swap.hidden_path())));
    let mut kept: Vec<_> = kept.collect();
    kept.reverse();
    swaps.into_iter().for_each(|swap| swap.draft.let_go());
    Ok(kept)
}

/// Writes the journals, the leader's last.
fn announce(swaps: &mut [Swap]) -> Result<()> {
    let name = |path: PathBuf| Name::new(path.as_os_str().as_bytes());
    let hidden: Vec<PathBuf> = swaps.iter().map(Swap::hidden_path).collect();
    for (number, swap) in swaps.iter_mut().enumerate().rev() {
        match number {
            0 => swap.journal.followers = hidden[1..].iter().cloned().map(name).collect(),
            _ => swap.journal.leader = Some(name(hidden[0].clone())),
        }
        swap.journal.write(&swap.dir).map_err(|error| swap.failed(error))?;
    }
    Ok(())
}

fn carry_out(swaps: &[Swap]) -> Result<()> {
    for swap in swaps {
        let done = swap.journal.carry_out(&swap.ground, &swap.dir);
        done.and_then(|()| swap.ground.host().sync_filesystem()).map_err(|error| swap.failed(error))?;
    }
    Ok(())
}

/// Takes everything back, and says that it will not be: the leader's journal goes first.
fn withdraw(swaps: &[Swap]) -> Result<()> {
    for swap in swaps.iter().rev() {
        swap.journal.take_back(&swap.ground, &swap.dir).map_err(|error| {
            swap.failed(error).remedy("it is half done: run the same command again, which completes it")
        })?;
    }
    for swap in swaps {
        match Journal::remove(&unstoppable(&swap.dir)) {
            Err(error) if sys::errno(&error) != Some(Errno::NOENT) => return Err(swap.failed(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Gives what was there its name, and removes the rest of the directory `hidden`.
fn finish(ground: &Ground, hidden: &[u8], journal: &Journal) -> io::Result<Option<PathBuf>> {
    let host = ground.host();
    let label = ground.path().file_name().unwrap_or_default().as_bytes();
    let kept = free_name(host, kept_name(label, hidden))?;
    let path = ground.host_path().join(std::ffi::OsStr::from_bytes(&kept));
    if !journal.is_whole() {
        host.rename_noreplace(hidden, &kept)?;
        return host.sync().map(|()| Some(path));
    }
    let dir = host.open_dir(hidden)?;
    let was_there = Spot::new(dir.clone(), TREE).inode()?.is_some();
    if was_there {
        dir.move_to(TREE, host, &kept)?;
    }
    Journal::remove(&dir)?;
    host.remove_dir(hidden)?;
    host.sync().map(|()| was_there.then_some(path))
}

/// The name, or one like it: two restores may end within one second.
fn free_name(host: &Dir, name: Vec<u8>) -> io::Result<Vec<u8>> {
    let spot = |name: &[u8]| Spot::new(host.clone(), name).inode();
    if spot(&name)?.is_none() { Ok(name) } else { Ok([&name[..], b"-", sys::random_hex(4)?.as_bytes()].concat()) }
}

/// Completes what dead runs left in `host`, and removes what they had not begun.
///
/// # Errors
/// What cannot be completed.
pub(super) fn recover(host: &Dir, host_path: &Path) -> Result<()> {
    let host = unstoppable(host);
    let names = host.list().map(|listing| listing.names).unwrap_or_default();
    for found in names.into_iter().filter(|found| is_swap_name(&found.name)) {
        let path = host_path.join(std::ffi::OsStr::from_bytes(&found.name));
        let fail = |error| Error::failed("complete what an interrupted restore left in", &path, error);
        recover_one(&host, &found.name, &path).map_err(fail)?;
    }
    Ok(())
}

fn recover_one(host: &Dir, name: &[u8], path: &Path) -> io::Result<()> {
    let Some(_lock) = take_over(host, name) else { return Ok(()) };
    let dir = host.open_dir(name)?;
    let Some(journal) = Journal::read(&dir)? else { return tree::remove(host, name) };
    match journal.leader.as_ref().and_then(Name::bytes) {
        None => complete_all(host, name, path, &journal),
        Some(leader) => {
            let leader = Path::new(std::ffi::OsStr::from_bytes(&leader));
            match open_other(leader, host)? {
                Some((host, name, journal)) => complete_all(&host, &name, leader, &journal),
                // Nobody ever said that it should happen.
                None => tree::remove(host, name),
            }
        }
    }
}

/// The directory of another journal, if it is still there: its host, its name, and what it says.
fn open_other(path: &Path, like: &Dir) -> io::Result<Option<(Dir, Vec<u8>, Journal)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let missing = |error: &io::Error| sys::errno(error) == Some(Errno::NOENT);
    let host = match Dir::open(parent, Realm::Output, Arc::clone(like.gate())) {
        Err(error) if missing(&error) => return Ok(None),
        other => other?,
    };
    let dir = match host.open_dir(name.as_bytes()) {
        Err(error) if missing(&error) => return Ok(None),
        other => other?,
    };
    Ok(Journal::read(&dir)?.map(|journal| (host, name.as_bytes().to_vec(), journal)))
}

/// Completes a leader's exchange after those of its followers: as long as its journal is there, theirs hold.
fn complete_all(host: &Dir, name: &[u8], path: &Path, journal: &Journal) -> io::Result<()> {
    for follower in journal.followers.iter().filter_map(Name::bytes) {
        let follower = Path::new(std::ffi::OsStr::from_bytes(&follower));
        if let Some((host, name, journal)) = open_other(follower, host)? {
            complete(&host, &name, follower, &journal)?;
        }
    }
    complete(host, name, path, journal)
}

fn complete(host: &Dir, name: &[u8], path: &Path, journal: &Journal) -> io::Result<()> {
    let root = journal.root.bytes().unwrap_or_default();
    let ground = Ground::in_host(host.clone(), root, path.parent().unwrap_or(Path::new("/")));
    journal.carry_out(&ground, &host.open_dir(name)?)?;
    host.sync_filesystem()?;
    finish(&ground, name, journal).map(|_| ())
}
