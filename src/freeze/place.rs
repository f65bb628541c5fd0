//! Which staging directory serves which mount.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::staging::{LOCK, Staging};
use super::sweeping;
use crate::gate::{self, Gate, Realm};
use crate::sys::Dir;

/// Whether a staging directory may have something of its own under a name: its lock, or a shard.
pub(crate) fn is_of_staging(name: &[u8]) -> bool {
    name == LOCK || name.iter().all(u8::is_ascii_digit)
}

/// Where the captures of a directory go.
#[derive(Clone, Default)]
pub(crate) struct Place {
    /// The staging directory, if any could be made.
    pub(crate) staging: Option<Arc<Staging>>,
    /// Whether it is on the directory's mount: only then can files be linked into it.
    pub(crate) same_mount: bool,
}

/// Where staging directories are made, but for the mounts of the source.
pub(crate) struct Quarters<'a> {
    /// A directory for copies from a mount that can have none.
    pub(crate) spool: &'a Path,
    /// Their name, where that shall not be a fresh one.
    pub(crate) name: Option<&'a str>,
}

impl<'a> Quarters<'a> {
    /// Under fresh names.
    pub(crate) fn fresh(spool: &'a Path) -> Self {
        Self { spool, name: None }
    }
}

/// All staging directories of a run.
pub(crate) struct Places {
    workers: usize,
    spool: PathBuf,
    name: Option<String>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    by_mount: HashMap<u64, Option<Arc<Staging>>>,
    spool: Option<Option<Arc<Staging>>>,
}

impl Places {
    /// No staging directory yet.
    pub(crate) fn new(workers: usize, quarters: &Quarters<'_>) -> Self {
        let Quarters { spool, name } = quarters;
        Self { workers, spool: spool.to_path_buf(), name: name.map(str::to_owned), made: Mutex::default() }
    }

    /// Removes what dead runs left where one with these roots can have made a staging directory, whichever of them it met
    /// first: beside each root, in it, and in the directory for copies. The tops of the mounts below them are swept when
    /// they are met.
    ///
    /// # Errors
    /// Only the cancellation of the run: whatever cannot be swept now is tried again by the next one.
    pub(crate) fn sweep<'a>(&self, roots: impl Iterator<Item = &'a Dir>, gate: &Arc<dyn Gate>) -> io::Result<()> {
        let around = roots.flat_map(|root| {
            let root = root.guarded(Realm::Staging, Arc::clone(gate));
            [root.open_parent(), Ok(root)]
        });
        let mut swept = BTreeSet::new();
        for dir in around.chain([self.open_spool(gate)]) {
            gate::tolerate(dir.and_then(|dir| sweep_once(&dir, &mut swept)))?;
        }
        Ok(())
    }

    /// The place for what is seen through `mount`, of which `dir` is the topmost directory that we met.
    ///
    /// # Errors
    /// Only the cancellation of the run: where nothing can be staged, files are captured without it.
    pub(crate) fn of_mount(&self, mount: u64, dir: &Dir) -> io::Result<Place> {
        let mut made = self.lock();
        let found = match made.by_mount.get(&mount) {
            Some(known) => known.clone(),
            None => {
                let staging = gate::tolerate(self.create(mount, dir))?;
                made.by_mount.insert(mount, staging.clone());
                staging
            }
        };
        match found {
            Some(staging) => Ok(Place { staging: Some(staging), same_mount: true }),
            None => Ok(Place { staging: self.spool(&mut made, dir)?, same_mount: false }),
        }
    }

    /// Beside the directory where its parent is on the same mount, else inside it.
    fn create(&self, mount: u64, dir: &Dir) -> io::Result<Arc<Staging>> {
        let parent = dir.open_parent().and_then(|parent| Ok((parent.mount()? == mount).then_some(parent)));
        let beside = match parent {
            Ok(Some(parent)) => self.create_in(&parent),
            Ok(None) => Err(io::Error::other("the parent is on another mount")),
            Err(error) => Err(error),
        };
        match beside {
            Err(error) if !gate::is_cancelled(&error) => self.create_in(dir),
            other => other,
        }
    }

    fn create_in(&self, parent: &Dir) -> io::Result<Arc<Staging>> {
        Staging::create(parent, self.workers, self.name.as_deref())
    }

    fn spool(&self, made: &mut Made, like: &Dir) -> io::Result<Option<Arc<Staging>>> {
        if made.spool.is_none() {
            let dir = self.open_spool(like.gate());
            made.spool = Some(gate::tolerate(dir.and_then(|dir| self.create_in(&dir)))?);
        }
        Ok(made.spool.clone().flatten())
    }

    fn open_spool(&self, gate: &Arc<dyn Gate>) -> io::Result<Dir> {
        Dir::open(&self.spool, Realm::Staging, Arc::clone(gate))
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all staging directories.
    ///
    /// # Errors
    /// The first one that could not be removed, with its name.
    pub(crate) fn release(&self) -> Result<(), (String, io::Error)> {
        let made = self.lock();
        let all = made.by_mount.values().flatten().chain(made.spool.iter().flatten());
        all.map(|staging| staging.release().map_err(|error| (staging.name().to_owned(), error)))
            .fold(Ok(()), Result::and)
    }
}

fn sweep_once(dir: &Dir, swept: &mut BTreeSet<(u64, u64)>) -> io::Result<()> {
    let is_new = swept.insert(dir.stat_self()?.id());
    if is_new { sweeping::sweep(dir, true).map(drop) } else { Ok(()) }
}
