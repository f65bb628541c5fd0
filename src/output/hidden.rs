//! The hidden name of an archive in the making, where the filesystem has no nameless files.

use std::io;

use crate::entry::{Kind, Stat};
use crate::gate;
use crate::leftover::{Leftover, Standing};
use crate::naming::{is_partial_name, partial_name};
use crate::sys::{self, Dir, Errno, Writer};

/// How many drafts are made until one is not swept by another run before it is locked.
const ATTEMPTS: u32 = 8;

/// The name of a draft that could not be nameless; removed when dropped.
pub(super) struct Hidden {
    dir: Dir,
    name: Vec<u8>,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Either it was published, or the next run sweeps what stays.
        let _gone: io::Result<()> = self.dir.unlink(&self.name);
    }
}

impl Hidden {
    /// Makes a draft in `dir`.
    ///
    /// # Errors
    /// Those of the kernel; other runs that sweep each draft that is made; the cancellation of the run.
    pub(super) fn create(dir: &Dir) -> io::Result<(Writer, Self)> {
        for _ in 0..ATTEMPTS {
            let name = partial_name(sys::now())?.into_bytes();
            let file = dir.create(&name)?;
            let hidden = Self { dir: dir.unstoppable(), name };
            if hidden.is_kept(dir, &file)? {
                return Ok((file, hidden));
            }
        }
        Err(io::Error::other("other runs there remove what is being made as soon as it has a name: try again later"))
    }

    /// Locks the draft, which tells other runs that this one lives; `false` where one of them took it for a dead run's
    /// before. It has locked it then, and is about to remove it, or has done so.
    fn is_kept(&self, dir: &Dir, file: &Writer) -> io::Result<bool> {
        // A filesystem without locks has nobody to tell, and nobody sweeps there.
        let locked = gate::tolerate(dir.lock(file.file()))?.unwrap_or(true);
        // Look after you hold: a sweep removes while it holds the lock, so what is there now stays.
        Ok(locked && sys::if_there(dir.stat(&self.name))?.is_some())
    }

    /// Gives the archive its name: renames without replacing; where the filesystem cannot, by a second name; where it has
    /// none, over a place-holder that could only be made because the name was free. (Only then the name exists, empty, for
    /// an instant.)
    ///
    /// # Errors
    /// A name that is taken; those of the kernel.
    pub(super) fn publish(&self, dir: &Dir, name: &[u8]) -> io::Result<()> {
        let able = |outcome: &io::Result<()>| {
            let refused = [Errno::PERM, Errno::MLINK, Errno::ACCESS];
            let is_refused = |error| sys::errno(error).is_some_and(|errno| refused.contains(&errno));
            !outcome.as_ref().is_err_and(|error| sys::refuses_flags(error) || is_refused(error))
        };
        let renamed = dir.move_to(&self.name, dir, name);
        if able(&renamed) {
            return renamed;
        }
        let linked = dir.link(&self.name, dir, name);
        if able(&linked) {
            return linked;
        }
        drop(dir.create(name)?);
        dir.rename_over(&self.name, name).inspect_err(|_| {
            // Nor may it stay where the run was cancelled in between: it has the name of an archive.
            let _place_holder: io::Result<()> = dir.unstoppable().unlink(name);
        })
    }
}

/// What hidden drafts of archives there are in `dir`. Those that dead runs left are removed, if they shall be.
///
/// # Errors
/// Only the cancellation of the run.
pub(crate) fn sweep(dir: &Dir, remove: bool) -> io::Result<Vec<Leftover>> {
    let names = match dir.list() {
        Err(error) if gate::is_cancelled(&error) => return Err(error),
        other => other.map(|listing| listing.names).unwrap_or_default(),
    };
    let drafts = names.iter().filter(|found| is_partial_name(&found.name));
    let looked = drafts.map(|found| match dir.stat(&found.name) {
        // A tree in the making: that is the restore's.
        Ok(stat) if stat.kind == Kind::Directory => Ok(None),
        stat => Leftover::of(&found.name, stat.and_then(|stat| look_at(dir, &found.name, &stat, remove))),
    });
    looked.filter_map(io::Result::transpose).collect()
}

fn look_at(dir: &Dir, name: &[u8], stat: &Stat, remove: bool) -> io::Result<Standing> {
    if stat.kind != Kind::File || stat.uid != sys::effective_uid() {
        return Ok(Standing::Foreign);
    }
    let file = dir.open_own(name)?;
    match dir.lock(&file)? {
        false => Ok(Standing::Busy),
        true if !remove => Ok(Standing::Removable),
        true => dir.unlink(name).map(|()| Standing::Removed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::gate::{CancelFlag, Gate, Realm, Step, Verb};

    /// Plays another run in the same directory just before each of the first drafts there is locked.
    struct Beside<F> {
        play: F,
        other: Dir,
        drafts: AtomicUsize,
    }

    impl<F: Fn(&Dir) -> io::Result<()> + Send + Sync> Gate for Beside<F> {
        fn pass(&self, step: &Step<'_>) -> io::Result<()> {
            let counted = |left: usize| left.checked_sub(1);
            let plays = step.verb == Verb::Lock && self.drafts.fetch_update(SeqCst, SeqCst, counted).is_ok();
            if plays { (self.play)(&self.other) } else { Ok(()) }
        }
    }

    /// A draft that another run has locked.
    struct Locked {
        name: Vec<u8>,
        _lock: File,
    }

    /// A draft that is made while `play` comes before the first `drafts` locks.
    fn made<F: Fn(&Dir) -> io::Result<()> + Send + Sync + 'static>(
        top: &Path,
        drafts: usize,
        play: F,
    ) -> (Dir, io::Result<(Writer, Hidden)>) {
        let open = |gate| Dir::open(top, Realm::Output, gate).expect("opens");
        let other = open(Arc::new(CancelFlag::new()));
        let dir = open(Arc::new(Beside { play, other, drafts: drafts.into() }));
        let made = Hidden::create(&dir);
        (dir, made)
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("lists");
        entries.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Another run could sweep a draft before it was locked: all was written into a file without a name then, and the run
    /// failed when it published it.
    #[test]
    fn a_draft_that_another_run_sweeps_before_it_is_locked_is_made_again() {
        let top = tempfile::tempdir().expect("a directory");
        let (dir, made) = made(top.path(), 3, |other| sweep(other, true).map(drop));
        let (_file, hidden) = made.expect("is made");
        hidden.publish(&dir, b"a.tar").expect("publishes");
        drop(hidden);
        assert_eq!(names(top.path()), ["a.tar"]);
    }

    /// The same, where the other run has locked the draft, and has yet to remove it.
    #[test]
    fn a_draft_that_another_run_has_locked_is_left_to_it() {
        let top = tempfile::tempdir().expect("a directory");
        let held: Arc<Mutex<Vec<Locked>>> = Arc::default();
        let holding = Arc::clone(&held);
        let (dir, made) = made(top.path(), 3, move |other| {
            for found in other.list()?.names {
                let file = other.open_own(&found.name)?;
                assert!(other.lock(&file)?);
                holding.lock().expect("is free").push(Locked { name: found.name.to_vec(), _lock: file });
            }
            Ok(())
        });
        let (_file, hidden) = made.expect("is made");
        for locked in held.lock().expect("is free").iter() {
            let _if_there = dir.unlink(&locked.name);
        }
        hidden.publish(&dir, b"a.tar").expect("publishes");
        drop(hidden);
        assert_eq!((names(top.path()), held.lock().expect("is free").len()), (vec!["a.tar".to_owned()], 3));
    }

    #[test]
    fn a_draft_that_is_swept_each_time_ends_the_run_before_anything_is_written() {
        let top = tempfile::tempdir().expect("a directory");
        let (_dir, made) = made(top.path(), usize::MAX, |other| sweep(other, true).map(drop));
        let error = made.map(drop).expect_err("is swept each time");
        assert!(error.to_string().contains("other runs"), "{error}");
        assert!(names(top.path()).is_empty());
    }
}
