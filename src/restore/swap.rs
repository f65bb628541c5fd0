//! Exchanges what was restored with what is there: all of it, or nothing.
//!
//! First everything that was restored is made durable, hidden beside what is there. Then a journal is written for each
//! root. A root is exchanged in one step (`RENAME_EXCHANGE`); where it is a mount of its own, or where only a part is
//! restored, name by name. At last what was there gets a name that tells so. A run that dies on the way leaves its
//! journals: the next one removes what had not begun, and completes what had. Nothing that was at a root's side is ever
//! removed here.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ground::{Ground, Spot};
use super::journal::{Journal, TREE};
use super::moves::{Asked, Extent, plan};
use super::sidecars::arrange;
use crate::error::{Error, Result};
use crate::leftover::{Leftover, Standing};
use crate::naming::{is_swap_name, kept_name, swap_name};
use crate::sys::{self, Dir, Errno, Listing};
use crate::tree::{self, Claim, Draft, claim};

/// What ends the name of something that was exchanged name by name, and holds the journal that says which.
const PARTS: &[u8] = b".parts";

/// Longest name that the kernel takes.
const LONGEST_NAME: usize = 255;

/// What a name gets at most when it is kept: the time, `-xxxxxxxx` where two are of one time, and [`PARTS`].
const LONGEST_ENDING: usize = 16 + 9 + PARTS.len();

/// What can be done about a directory that may not be moved.
const WRITE_PROTECTED: &str =
    "only root can move a directory that is write-protected: `chmod u+w` it if it is there, or restore into a --target";

/// Told of what an earlier run left; asked whether a root may be touched.
pub(super) trait Watch {
    /// # Errors
    /// Why it may not.
    fn check_free(&self, root: &Path) -> Result<()>;

    /// Something that people should know.
    fn warn(&mut self, text: String);
}

/// What is about to be exchanged with one root.
pub(super) struct Swap {
    ground: Ground,
    draft: Draft,
    journal: Journal,
    asked: Asked,
}

/// Where what was there lies now.
pub(super) struct Keep {
    /// What was restored.
    pub(super) place: PathBuf,
    /// None if nothing was there, or nothing had to be exchanged.
    pub(super) path: Option<PathBuf>,
    /// Why it has no better name.
    pub(super) trouble: Option<io::Error>,
}

impl Swap {
    /// Deals with what dead runs left where room is to be made. For all roots before the first [`begin`](Self::begin): what
    /// lies hidden there after that is ours.
    ///
    /// # Errors
    /// Those of the kernel; a run that is at work there; a name too long to be kept under another.
    pub(super) fn clear(ground: &Ground, watch: &mut dyn Watch) -> Result<()> {
        let path = ground.path();
        if kept_name(ground.label(), b"").len() + LONGEST_ENDING > LONGEST_NAME {
            return Err(Error::Usage(format!("the name of {} is too long to be kept under another", path.display())));
        }
        recover(ground.host(), ground.host_path(), watch)?;
        let root = ground.root().map_err(|error| Error::failed("restore into the place of", path, error))?;
        match root.filter(|_| !ground.is_inside()) {
            Some(root) => recover(&root, path, watch),
            None => Ok(()),
        }
    }

    /// Makes room beside the root, or in it where nothing may be made beside it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn begin(ground: Ground, asked: Asked) -> Result<Self> {
        let path = ground.path().to_owned();
        let made = make_room(ground).map_err(|error| Error::failed("restore into the place of", &path, error));
        let (ground, draft) = made?;
        let journal = Journal::of(&ground, Vec::new());
        Ok(Self { ground, draft, journal, asked })
    }

    /// Where the tree is to be made, below [`TREE`].
    pub(super) fn dir(&self) -> &Dir {
        self.draft.dir()
    }

    /// What is restored there.
    pub(super) fn path(&self) -> &Path {
        self.ground.path()
    }

    /// Bytes that are free where the tree is made, and on which filesystem that is.
    pub(super) fn free_space(&self) -> io::Result<(u64, u64)> {
        Ok((self.ground.host().free_space()?, self.ground.host().stat_self()?.dev))
    }

    /// What is different about the root itself, where that stays.
    pub(super) fn difference(&self) -> io::Result<Option<String>> {
        let tree = Spot::new(self.dir().clone(), TREE).stat()?;
        let root = self.ground.host().stat_self()?;
        let differs = tree.filter(|tree| (tree.mode, tree.uid, tree.gid) != (root.mode, root.uid, root.gid));
        Ok(differs.filter(|_| self.ground.is_inside()).map(|tree| {
            let told = |mode, uid, gid| format!("mode {mode:o}, owner {uid}:{gid}");
            let (is, was) = (told(root.mode, root.uid, root.gid), told(tree.mode, tree.uid, tree.gid));
            format!("it stays what it is, {is}, and was {was}: only what it holds was exchanged")
        }))
    }

    /// Whether anything was made that could take the root's place, or that of what it holds.
    pub(super) fn is_made(&self) -> Result<bool> {
        Ok(Spot::new(self.dir().clone(), TREE).inode().map_err(|error| self.failed(error))?.is_some())
    }

    /// Makes what was restored durable, and finds out what must be exchanged.
    fn prepare(&mut self, extent: Extent) -> Result<()> {
        let moves = plan(&self.ground, self.draft.dir(), extent, &self.asked);
        let prepared = moves.and_then(|moves| {
            self.journal.moves = moves;
            self.draft.dir().sync_filesystem()
        });
        prepared.map_err(|error| self.failed(error))
    }

    /// From here on what is hidden stays, whatever happens, until it is known to hold nothing of the root's.
    fn announce(&mut self) -> Result<()> {
        self.draft.let_go();
        self.journal.write(self.draft.dir()).map_err(|error| self.failed(error))
    }

    fn carry_out(&self) -> Result<()> {
        let done = self.journal.carry_out(&self.ground, self.draft.dir());
        done.and_then(|()| self.ground.host().sync_filesystem()).map_err(|error| {
            let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
            let failed = self.failed(error);
            // A directory is written to when it comes into another one: its `..` is another one then.
            if is_denied { failed.remedy(WRITE_PROTECTED) } else { failed }
        })
    }

    /// Says that all is done, for whoever exchanges what was kept again.
    fn conclude(&mut self) {
        if !self.journal.is_whole() {
            // Where that cannot be said, the inodes tell.
            let _unsaid: io::Result<()> = self.journal.conclude(self.draft.dir());
        }
    }

    /// Takes everything back; whether that left nothing of the root's in what is hidden, which then is removed.
    fn withdraw(&mut self) -> bool {
        self.journal.take_back(&self.ground, self.draft.dir());
        let dir = self.draft.dir().unstoppable();
        let is_clean = !self.journal.is_begun(&dir) && self.ground.host().unstoppable().sync_filesystem().is_ok();
        if is_clean {
            self.draft.take_back();
        }
        is_clean
    }

    /// Gives what was there its name.
    fn finish(&self) -> Keep {
        let ground = self.ground.unstoppable();
        let hidden = || ground.host_path().join(OsStr::from_bytes(self.draft.name()));
        let place = self.path().to_owned();
        match finish(&ground, self.draft.name(), &self.journal) {
            Ok(path) => Keep { place, path, trouble: None },
            Err(error) => Keep { place, path: Some(hidden()), trouble: Some(error) },
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        let is_unable = error.kind() == io::ErrorKind::CrossesDevices || sys::refuses_flags(&error);
        let failed = Error::failed("restore into the place of", self.ground.path(), error);
        match is_unable {
            true => failed.remedy("this filesystem cannot exchange the two: restore into a --target"),
            false => failed,
        }
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

/// Exchanges all of them; for each, where what was there lies now. `check` is asked right before.
///
/// # Errors
/// The first thing that cannot be done; everything is as it was then, but for what the error names.
pub(super) fn exchange(mut swaps: Vec<(Swap, Extent)>, check: &dyn Fn(&Path) -> Result<()>) -> Result<Vec<Keep>> {
    swaps.iter_mut().try_for_each(|(swap, extent)| swap.prepare(*extent))?;
    // What is there already, as directories that hold nothing, needs no exchange.
    let (mut swaps, idle): (Vec<Swap>, Vec<Swap>) =
        swaps.into_iter().map(|(swap, _)| swap).partition(|swap| !swap.journal.moves.is_empty());
    swaps.iter().try_for_each(|swap| check(swap.path()))?;
    let announced = swaps.iter_mut().try_for_each(Swap::announce);
    match announced.and_then(|()| swaps.iter().try_for_each(Swap::carry_out)) {
        Ok(()) => {
            swaps.iter_mut().for_each(Swap::conclude);
            let idle = idle.iter().map(|swap| Keep { place: swap.path().to_owned(), path: None, trouble: None });
            Ok(swaps.iter().map(Swap::finish).chain(idle).collect())
        }
        Err(error) => Err(withdrawn(&mut swaps, error)),
    }
}

/// Takes everything back, each root for itself; the error, with what could not be taken back.
fn withdrawn(swaps: &mut [Swap], error: Error) -> Error {
    let stuck: Vec<&Swap> = swaps.iter_mut().rev().filter_map(|swap| (!swap.withdraw()).then_some(&*swap)).collect();
    if stuck.is_empty() {
        return error;
    }
    let kept = stuck.iter().filter_map(|swap| swap.finish().path);
    let kept: Vec<String> = kept.map(|path| path.display().to_string()).collect();
    let cause = io::Error::other(format!("{error}; somebody else changed things there meanwhile"));
    let failed = Error::failed("take back what was done to", stuck[0].path(), cause);
    failed.remedy(format!("what was there before and could not be put back is kept in {}", kept.join(", ")))
}

/// Gives what was there its name, and removes the rest of the directory `hidden`; none if nothing was there.
///
/// # Errors
/// Those of the kernel.
pub(super) fn finish(ground: &Ground, hidden: &[u8], journal: &Journal) -> io::Result<Option<PathBuf>> {
    let host = ground.host();
    let at = |kept: &[u8]| Some(ground.host_path().join(OsStr::from_bytes(kept)));
    let name = free_name(host, kept_name(ground.label(), hidden))?;
    if !journal.is_whole() {
        let name = [name, PARTS.to_vec()].concat();
        Spot::new(host.clone(), hidden).move_to(&Spot::new(host.clone(), &name))?;
        // It has its name; should that not survive a power cut, the hidden one is found, and this done again.
        let _later: io::Result<()> = host.sync();
        return Ok(at(&name));
    }
    let dir = host.open_dir(hidden)?;
    let tree = Spot::new(dir.clone(), TREE);
    let was_there = tree.inode()?.is_some();
    if was_there {
        tree.move_to(&Spot::new(host.clone(), &name))?;
    }
    // The journal goes when the name survives a power cut; a later run removes what stays.
    let _later: io::Result<()> =
        host.sync().and_then(|()| Journal::remove(&dir)).and_then(|()| host.remove_dir(hidden));
    Ok(at(&name).filter(|_| was_there))
}

/// The name, or one like it: two restores may end within one second.
fn free_name(host: &Dir, name: Vec<u8>) -> io::Result<Vec<u8>> {
    let taken = |name: &[u8]| Ok::<_, io::Error>(Spot::new(host.clone(), name).inode()?.is_some());
    if taken(&name)? || taken(&[&name[..], PARTS].concat())? {
        return Ok([&name[..], b"-", sys::random_hex(4)?.as_bytes()].concat());
    }
    Ok(name)
}

/// Whether a name says that what has it was exchanged name by name.
pub(super) fn is_by_name(name: &[u8]) -> bool {
    name.ends_with(PARTS) || is_swap_name(name)
}

/// Completes what dead runs had begun in `host`, and removes what they had not.
///
/// # Errors
/// What another run is at work on; what cannot be looked at; a root where somebody works.
pub(super) fn recover(host: &Dir, host_path: &Path, watch: &mut dyn Watch) -> Result<()> {
    let fail = |path: &Path, error| Error::failed("look at what an interrupted restore left in", path, error);
    let names = host.list().and_then(Listing::whole).map_err(|error| fail(host_path, error))?;
    for found in names.into_iter().filter(|found| is_swap_name(&found.name)) {
        let path = host_path.join(OsStr::from_bytes(&found.name));
        match claim(host, &found.name).map_err(|error| fail(&path, error))? {
            Claim::Gone => {}
            Claim::Foreign => watch.warn(format!("{} is left alone: it is not yours", path.display())),
            Claim::Alive => {
                let cause = io::Error::other("another restore is at work there");
                return Err(Error::failed("restore beside", path, cause).remedy("wait until it has ended"));
            }
            Claim::Dead(dir, _lock) => recover_one(host, host_path, &dir, &found.name, watch)?,
        }
    }
    Ok(())
}

/// What there is in `host` that restores in place exchange, or have not exchanged to the end.
///
/// # Errors
/// Only the cancellation of the run.
pub(crate) fn look_at(host: &Dir) -> io::Result<Vec<Leftover>> {
    let names = host.list().map(|listing| listing.names).unwrap_or_default();
    let swaps = names.iter().filter(|found| is_swap_name(&found.name));
    let looked = swaps.map(|found| {
        let standing = claim(host, &found.name).and_then(Claim::standing);
        let unfinished = |standing| if standing == Standing::Removable { Standing::Unfinished } else { standing };
        Leftover::of(&found.name, standing.map(unfinished))
    });
    looked.filter_map(io::Result::transpose).collect()
}

fn recover_one(host: &Dir, host_path: &Path, dir: &Dir, name: &[u8], watch: &mut dyn Watch) -> Result<()> {
    // Once begun, it is dealt with to the end: what got its last name is never looked at again.
    let (host, dir) = (&host.unstoppable(), &dir.unstoppable());
    let path = host_path.join(OsStr::from_bytes(name));
    let fail = |error| Error::failed("complete the interrupted restore in", &path, error);
    let mut journal = match Journal::read(dir).map_err(fail)? {
        Some(journal) if journal.is_begun(dir) => journal,
        // Nothing was touched yet, and what cannot be removed is in nobody's way.
        _ => {
            if let Err(error) = tree::remove(host, name) {
                let path = path.display();
                watch.warn(format!("{path}, which an interrupted restore left, cannot be removed: {error}"));
            }
            return Ok(());
        }
    };
    let ground = journal.ground(host.clone(), host_path).map_err(fail)?;
    if journal.is_pending(&ground, dir) {
        watch.check_free(ground.path())?;
    }
    let completed = complete(&mut journal, &ground, dir);
    if completed.is_ok() && !journal.is_whole() {
        let _unsaid: io::Result<()> = journal.conclude(dir);
    }
    let kept = finish(&ground, name, &journal).map_err(fail)?;
    let what = ground.path().display();
    let kept = kept.map(|kept| format!("; what was there is kept as {}", kept.display())).unwrap_or_default();
    watch.warn(match completed {
        Ok(()) => format!("an interrupted restore of {what} was completed{kept}"),
        Err(error) => format!("an interrupted restore of {what} could not be completed: {error}{kept}"),
    });
    Ok(())
}

/// Carries out what is left, as far as that can be done, and makes it durable. Somebody may have gone on with what is at
/// the root's side.
fn complete(journal: &mut Journal, ground: &Ground, dir: &Dir) -> io::Result<()> {
    if !journal.is_done() && arrange(&mut journal.moves, ground, dir)? {
        journal.write(dir)?;
    }
    journal.complete(ground, dir)?;
    ground.host().sync_filesystem()
}
