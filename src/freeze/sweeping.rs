//! Removing staging directories: one's own, and those that dead runs left.
//!
//! Whoever removes one holds it open. A directory for a command has the same name in each run: while one run looks at what
//! is left under it, another can have removed that, and work under that name itself. What is emptied is what was looked at,
//! whatever has the name by then.

use std::fs::File;
use std::io;

use super::staging::LOCK;
use crate::entry::Kind;
use crate::gate;
use crate::leftover::{Leftover, Standing};
use crate::naming::is_staging_name;
use crate::sys::{self, Dir, Errno};
use crate::tree;

/// What staging directories there are in `parent`. Those that dead runs left are removed, if they shall be.
///
/// # Errors
/// Only the cancellation of the run.
pub(crate) fn sweep(parent: &Dir, remove: bool) -> io::Result<Vec<Leftover>> {
    let names = gate::tolerate(parent.list())?.map(|listing| listing.names).unwrap_or_default();
    let ours = names.iter().filter(|listed| is_staging_name(&listed.name));
    let looked = ours.map(|listed| Leftover::of(&listed.name, look_at(parent, &listed.name, remove)));
    looked.filter_map(io::Result::transpose).collect()
}

fn look_at(parent: &Dir, name: &[u8], clear: bool) -> io::Result<Standing> {
    let found = parent.stat(name)?;
    if found.kind != Kind::Directory || found.uid != sys::effective_uid() {
        return Ok(Standing::Foreign);
    }
    let found = Named::open(parent, name)?;
    let lock = match found.dir.open_own(LOCK) {
        Ok(file) if found.dir.lock(&file)? => file,
        Ok(_) => return Ok(Standing::Busy),
        Err(error) if sys::errno(&error) == Some(Errno::NOENT) => return unlocked(&found, clear),
        Err(error) => return Err(error),
    };
    match found.has_its_name()? {
        // It was removed while we came to its lock, which nobody held any more, and another run has the name.
        false => Ok(Standing::Busy),
        true if !clear => Ok(Standing::Removable),
        true => found.remove(Some(lock), || ()).map(|()| Standing::Removed),
    }
}

/// One without a lock is empty: its run died just before it made that, or just after it removed it. If it is alive it
/// makes another one.
fn unlocked(found: &Named, clear: bool) -> io::Result<Standing> {
    match found.dir.list()?.names.is_empty() {
        false => Ok(Standing::Foreign),
        true if !clear => Ok(Standing::Removable),
        true => Ok(if found.leave(&mut || ())? { Standing::Removed } else { Standing::Busy }),
    }
}

/// A staging directory that is held open, and the name that it was opened by.
pub(super) struct Named {
    /// Where it is.
    pub(super) parent: Dir,
    pub(super) name: Vec<u8>,
    /// The directory itself.
    pub(super) dir: Dir,
    /// No other directory has this identity as long as it is held.
    id: (u64, u64),
}

impl Named {
    /// Opens the directory `name`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn open(parent: &Dir, name: &[u8]) -> io::Result<Self> {
        let dir = parent.open_dir(name)?;
        let id = dir.stat_self()?.id();
        Ok(Self { parent: parent.clone(), name: name.to_vec(), dir, id })
    }

    /// Whether its name still leads to it.
    ///
    /// # Errors
    /// Nothing has the name any more; those of the kernel.
    fn has_its_name(&self) -> io::Result<bool> {
        Ok(self.parent.stat(&self.name)?.id() == self.id)
    }

    /// Removes it with what is in it, never through a symbolic link. A second attempt is made where the first one fails: no
    /// link of ours shall stay behind for a passing fault. `leaving` is called right before its name goes.
    ///
    /// Its `lock`, if we hold it, is closed as soon as it has no name: NFS, and many a FUSE, keep what is unlinked while it
    /// is open under a hidden name, and a directory with such a name cannot be removed. It is empty by then, so that another
    /// run may remove it as well.
    ///
    /// # Errors
    /// Those of the kernel. That it is gone is believed when it is looked for and not found.
    pub(super) fn remove(&self, mut lock: Option<File>, mut leaving: impl FnMut()) -> io::Result<()> {
        let mut last = Ok(());
        for _ in 0..2 {
            last = empty(&self.dir.unstoppable()).and_then(|()| {
                drop(lock.take());
                self.leave(&mut leaving).map(drop)
            });
            if matches!(sys::if_there(self.has_its_name()), Ok(None | Some(false))) {
                return Ok(());
            }
        }
        last
    }

    /// Removes its name, if that is its own; says whether it was. (If it is not any more when we come to that, it can only
    /// be that of another one that is empty yet: whoever made that makes another.)
    fn leave(&self, leaving: &mut impl FnMut()) -> io::Result<bool> {
        if matches!(self.has_its_name(), Ok(false)) {
            return Ok(false);
        }
        leaving();
        self.parent.unstoppable().remove_dir(&self.name).map(|()| true)
    }
}

/// Removes everything in a staging directory.
fn empty(dir: &Dir) -> io::Result<()> {
    let (locks, rest): (Vec<_>, Vec<_>) = dir.list()?.names.into_iter().partition(|found| *found.name == *LOCK);
    let mut outcome = Ok(());
    for found in rest {
        // One name that will not go must not keep the others.
        outcome = tree::remove(dir, &found.name).and(outcome);
    }
    outcome?;
    // The lock goes last, so that what is left of an interrupted removal is still known for ours.
    locks.iter().try_for_each(|found| dir.unlink(&found.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freeze::staging::Staging;
    use crate::gate::{CancelFlag, Realm};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    const NAME: &str = ".clawsnap-stage-00000001";

    fn open(path: &Path) -> Dir {
        Dir::open(path, Realm::Source, Arc::new(CancelFlag::new())).expect("opens")
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).map(|entries| entries.filter_map(Result::ok).collect()).unwrap_or_default();
        let entries: Vec<fs::DirEntry> = entries;
        let mut names: Vec<String> = entries.iter().map(|e| e.file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    fn standings(path: &Path) -> Vec<Standing> {
        sweep(&open(path), true).expect("sweeps").iter().map(|left| left.standing).collect()
    }

    /// Has a run that works under the same name each time do so from the sweep's step `at` on: it has found that its
    /// fresh directory is swept, or has swept itself what was left.
    struct Rival {
        top: PathBuf,
        at: usize,
        steps: AtomicUsize,
        living: Mutex<Option<Arc<Staging>>>,
    }

    impl gate::Gate for Rival {
        fn pass(&self, _: &gate::Step<'_>) -> io::Result<()> {
            if self.steps.fetch_add(1, Ordering::Relaxed) == self.at {
                let _may_be_gone = fs::remove_dir_all(self.top.join(NAME));
                let living = Staging::create(&open(&self.top), 1, Some(NAME)).expect("creates");
                fs::write(self.top.join(NAME).join("tree"), b"is being read").expect("writes");
                self.living.lock().expect("is free").replace(living);
            }
            Ok(())
        }
    }

    /// The one that was looked at was reopened by its name to be removed. If `stage` had made another one since, its command
    /// saw its tree vanish, and the report called that staged.
    #[test]
    fn what_a_living_run_makes_under_a_name_that_is_being_swept_stays_whole() {
        for at in 0.. {
            let top = tempfile::tempdir().expect("a directory");
            let dead = top.path().join(NAME);
            fs::create_dir_all(dead.join("0")).expect("makes");
            for file in ["lock", "0/0"] {
                fs::write(dead.join(file), b"").expect("writes");
            }
            let (top, steps) = (top.path().to_owned(), AtomicUsize::new(0));
            let rival = Arc::new(Rival { top, at, steps, living: Mutex::default() });
            let dir = Dir::open(&rival.top, Realm::Staging, Arc::clone(&rival) as Arc<dyn gate::Gate>).expect("opens");
            sweep(&dir, true).expect("sweeps");
            if rival.living.lock().expect("is free").is_none() {
                assert!(at > 10 && !dead.exists(), "{at} steps are no sweep");
                return;
            }
            assert_eq!(names(&dead), ["lock", "tree"], "it came before step {at}");
        }
    }

    #[test]
    fn a_sweep_touches_nothing_that_is_not_surely_ours() {
        let top = tempfile::tempdir().expect("a directory");
        let outside = top.path().join("precious");
        fs::create_dir(&outside).expect("makes");
        fs::write(outside.join("file"), b"x").expect("writes");
        let parent = top.path().join("parent");
        fs::create_dir(&parent).expect("makes");
        std::os::unix::fs::symlink(&outside, parent.join(".clawsnap-20260101T000000Z-00000001")).expect("links");
        fs::create_dir_all(parent.join(".clawsnap-20260101T000000Z-00000002/0")).expect("has no lock");
        fs::create_dir(parent.join(".clawsnap-keep")).expect("not our name");
        assert_eq!(standings(&parent), [Standing::Foreign; 2]);
        assert_eq!(names(&parent).len(), 3);
        assert_eq!(names(&outside), ["file"]);
    }
}
