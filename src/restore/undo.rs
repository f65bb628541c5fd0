//! The way back from a restore in place: what was kept and what took its place are exchanged once more.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ground::{Ground, Spot};
use super::journal::Journal;
use super::mark::{Mark, is_mark};
use super::sidecars::arrange;
use super::swap::{Watch, finish, is_by_name, recover};
use crate::error::{Error, Result};
use crate::gate::{self, Gate, Realm, Verb};
use crate::naming::{is_swap_name, name_before};
use crate::sys::Dir;
use crate::tree::{Claim, claim, is_ours};

/// Something that a restore in place has kept.
pub(super) struct WayBack {
    ground: Ground,
    /// Its name, beside the root or in it.
    name: Vec<u8>,
    /// The path as it was given.
    path: PathBuf,
    /// What is exchanged name by name; none where the root itself was exchanged.
    journal: Option<(Journal, Dir)>,
}

impl WayBack {
    /// Finds out what belongs where.
    ///
    /// # Errors
    /// Something that no restore has kept, or not for us; those of the kernel.
    pub(super) fn find(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let fail = |error| Error::failed("look at what was kept as", path, error);
        let stranger = || Error::Usage(format!("{} is nothing that a restore in place has kept", path.display()));
        let absolute = std::path::absolute(path).map_err(fail)?;
        let name = absolute.file_name().ok_or_else(stranger)?.as_bytes().to_vec();
        let parent = real(absolute.parent().unwrap_or(Path::new("/")), gate).map_err(fail)?;
        let host = Dir::open_canonical(&parent, Realm::Output, Arc::clone(gate)).map_err(fail)?;
        Spot::new(host.clone(), &name).stat().map_err(fail)?.ok_or_else(stranger)?;
        let label = name_before(&name).filter(|_| !is_mark(&name));
        if !is_by_name(&name) {
            let root = label.ok_or_else(stranger)?.to_vec();
            return Ok(Self {
                ground: Ground::in_host(host, &parent, root),
                name,
                path: path.to_owned(),
                journal: None,
            });
        }
        let dir = host.open_dir(&name).map_err(fail)?;
        // A journal is believed by whoever wrote it: somebody else's could lead anywhere.
        if !is_ours(&dir).map_err(fail)? {
            return Err(fail(io::Error::other("it is not yours, or others may write there")));
        }
        let journal = Journal::read(&dir).map_err(fail)?.ok_or_else(stranger)?;
        let ground = journal.ground(host, &parent).map_err(fail)?;
        if !ground.is_inside() && label.is_some_and(|label| label != ground.root_name()) {
            return Err(fail(io::Error::other("its journal is that of something else")));
        }
        Ok(Self { ground, name, path: path.to_owned(), journal: Some((journal, dir)) })
    }

    /// Where it belongs.
    pub(super) fn root(&self) -> &Path {
        self.ground.path()
    }

    /// Exchanges it; the path under which that is kept now which was there until now. Called again after it was
    /// interrupted, or has failed, it completes that; called again after it was done, it takes itself back.
    ///
    /// # Errors
    /// Those of the kernel; everything is as it was then, or back but not known to be durable.
    pub(super) fn take(self, watch: &mut dyn Watch) -> Result<PathBuf> {
        let Self { ground, name, path, journal } = self;
        recover(ground.host(), ground.host_path(), watch)?;
        let done = match journal {
            Some((journal, dir)) => by_name(&ground, &dir, journal),
            None => as_a_whole(&ground, &name),
        };
        done.map_err(|error| Error::failed("bring back what was kept as", &path, error)).map(|()| path)
    }

    /// The same by its last name, which it gets here if it has none: under a hidden one the next restore would deal with
    /// it, and would not know what was about to be brought back. For all before the first is taken.
    ///
    /// # Errors
    /// Nothing that was there before; a run that is at work there; those of the kernel.
    pub(super) fn named(self, watch: &mut dyn Watch) -> Result<Self> {
        if !is_swap_name(&self.name) {
            return Ok(self);
        }
        let Self { ground, name, path, .. } = self;
        let fail = |error| Error::failed("bring back what was kept as", &path, error);
        let nothing = || Error::Usage(format!("nothing that was there before is in {}", path.display()));
        // Held until it has its name.
        let Claim::Dead(dir, _lock) = claim(ground.host(), &name).map_err(fail)? else {
            return Err(fail(io::Error::other("another restore is at work there")));
        };
        let journal =
            Journal::read(&dir).map_err(fail)?.filter(|journal| journal.is_begun(&dir)).ok_or_else(nothing)?;
        let kept = finish(&ground.unstoppable(), &name, &journal).map_err(fail)?.ok_or_else(nothing)?;
        watch.warn(format!("{} has its name now: {}", path.display(), kept.display()));
        Self::find(&kept, ground.host().gate())
    }
}

/// A directory's path without symbolic links.
fn real(directory: &Path, gate: &Arc<dyn Gate>) -> io::Result<PathBuf> {
    let _step = gate::take_at(&**gate, Verb::Stat, Realm::Output, directory)?;
    directory.canonicalize()
}

/// Exchanges the root itself and what was kept of it. A mark tells whoever comes after a kill which of the two shall be at
/// the root's side: without it, what was back was put away again.
fn as_a_whole(ground: &Ground, kept: &[u8]) -> io::Result<()> {
    let (live, kept, mark) = (ground.live(b"")?, Spot::new(ground.host().clone(), kept), Mark::of(ground, kept));
    let goal = mark.read()?;
    if goal.is_none() || live.inode()? != goal {
        mark.set(kept.inode()?)?;
        live.exchange(&kept).inspect_err(|_| {
            // One that stays tells the truth: the inode that shall be there is not there.
            let _stays: io::Result<()> = mark.clear();
        })?;
    }
    ground.unstoppable().host().sync_filesystem()?;
    mark.clear()
}

/// Exchanges what the journal names, and says in it that this is done.
fn by_name(ground: &Ground, dir: &Dir, journal: Journal) -> io::Result<()> {
    let mut journal = match journal.is_interrupted_way_back() {
        true => journal,
        false => journal.reversed(dir)?,
    };
    arrange(&mut journal.moves, ground, dir)?;
    journal.write(dir)?;
    journal.carry_out(ground, dir)?;
    ground.unstoppable().host().sync_filesystem()?;
    journal.conclude(dir)
}
