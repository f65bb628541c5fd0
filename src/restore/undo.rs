//! The way back from a restore in place: what was kept and what took its place are exchanged once more.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::unstoppable;
use super::ground::{Ground, Spot};
use super::journal::Journal;
use super::swap::recover;
use crate::error::{Error, Result};
use crate::gate::{Gate, Realm};
use crate::naming::name_before;
use crate::sys::Dir;

/// Something that a restore in place has kept.
pub(super) struct Kept {
    ground: Ground,
    name: Vec<u8>,
    /// The path as it was given.
    path: PathBuf,
    /// What is exchanged name by name; none where the root itself was exchanged.
    journal: Option<(Journal, Dir)>,
}

impl Kept {
    /// Finds out what belongs where.
    ///
    /// # Errors
    /// Something that no restore has kept; those of the kernel.
    pub(super) fn open(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let fail = |error| Error::failed("look at what was kept as", path, error);
        let absolute = std::path::absolute(path).map_err(fail)?;
        let stranger = || Error::Usage(format!("{} is nothing that a restore in place has kept", path.display()));
        let name = absolute.file_name().ok_or_else(stranger)?.as_bytes().to_vec();
        let root = name_before(&name).ok_or_else(stranger)?.to_vec();
        let parent = absolute.parent().unwrap_or(Path::new("/")).canonicalize().map_err(fail)?;
        let host = Dir::open(&parent, Realm::Output, Arc::clone(gate)).map_err(fail)?;
        let is_dir = Spot::new(host.clone(), &name).stat().map_err(fail)?.ok_or_else(stranger)?;
        let journal = match is_dir.kind {
            crate::entry::Kind::Directory => {
                let dir = host.open_dir(&name).map_err(fail)?;
                own_journal(&dir).map_err(fail)?.map(|journal| (journal, dir))
            }
            _ => None,
        };
        let root = journal.as_ref().map_or(Some(root), |(journal, _)| journal.root.bytes()).ok_or_else(stranger)?;
        Ok(Self { ground: Ground::in_host(host, root, &parent), name, path: path.to_owned(), journal })
    }

    /// What will be brought back.
    pub(super) fn root(&self) -> &Path {
        self.ground.path()
    }

    /// Exchanges it. Called again after it was interrupted, it completes that; called again after it was done, it takes
    /// itself back.
    ///
    /// # Errors
    /// Those of the kernel; everything is as it was then.
    pub(super) fn bring_back(self) -> Result<()> {
        let Self { ground, name, path, journal } = self;
        recover(ground.host(), ground.host_path())?;
        let done = match journal {
            Some((journal, dir)) => by_name(&ground, &dir, journal),
            None => ground.live(b"").and_then(|live| live.exchange(&Spot::new(ground.host().clone(), &name))),
        };
        let done = done.and_then(|()| unstoppable(ground.host()).sync_filesystem());
        done.map_err(|error| Error::failed("bring back what was kept as", path, error))
    }
}

/// The journal of something that was exchanged name by name. A root that was exchanged as a whole may hold a file of
/// that name, which is its own affair.
fn own_journal(dir: &Dir) -> io::Result<Option<Journal>> {
    match Journal::read(dir) {
        Err(error) if crate::gate::is_cancelled(&error) => Err(error),
        other => Ok(other.ok().flatten()),
    }
}

fn by_name(ground: &Ground, dir: &Dir, journal: Journal) -> io::Result<()> {
    let journal = match journal.is_done(ground, dir) {
        true => journal.reversed(ground, dir)?,
        false => journal,
    };
    journal.write(dir)?;
    journal.carry_out(ground, dir)
}
