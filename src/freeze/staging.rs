//! The private directories that hold second names, clones and copies while they are archived.
//!
//! A hard link cannot leave its mount, so each mount of the source has a staging directory of its own: beside the
//! root where that is the same mount, else inside it, under a name that the walk leaves out. It is named
//! `.clawsnap-<UTC>-<8 hex>`, or `.clawsnap-stage-<8 hex>` where a command is to find it under the same name each time, has
//! mode 0700, and holds a lock file that is locked as long as its run lives: the next run removes a staging directory
//! only if the name matches, we own it, and its lock is free, or it is empty.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sweeping::{Named, sweep};
use crate::entry::{Stamp, Stat};
use crate::gate::{self, Realm};
use crate::naming::hidden_name;
use crate::sys::{self, Dir};
use crate::tree;

pub(super) const LOCK: &[u8] = b"lock";

/// How often a staging directory is made, if other runs take it for a leftover while it has no lock.
const ATTEMPTS: u32 = 4;

/// How often each sort of change must move a directory's stamp within one tick before the filesystem's clock counts as
/// fine.
const STAMP_TRIALS: usize = 2;

/// How often each is tried for that.
const STAMP_ROUNDS: usize = 16;

/// Names in one shard. Small directories take new names fastest: on ext4, 100,000 links into shards of 128 took 0.65
/// of the time that they took into one directory.
const SHARD: u32 = 128;

/// What a copy leaves free, at least, of the filesystem that the owner lives on; a small one needs no more than itself.
const RESERVE: u64 = 64 << 20;

/// Where something is in staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Staged(u32);

impl Staged {
    /// The `number`th place after this one, in the same shard.
    pub(crate) fn after(self, number: u32) -> Self {
        Self(self.0 + number)
    }

    fn name(self) -> String {
        format!("{}/{}", self.0 / SHARD, self.0 % SHARD)
    }
}

/// A fresh place in staging, and its directory held open: a name is linked and looked at there without a path.
pub(crate) struct Berth {
    /// The place.
    pub(crate) staged: Staged,
    shard: Arc<Dir>,
    name: String,
}

impl Berth {
    /// Links `name` in `from` to this place.
    pub(crate) fn link(&self, from: &Dir, name: &[u8]) -> io::Result<()> {
        from.link(name, &self.shard, self.name.as_bytes())
    }

    /// What is at this place.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        self.shard.stat(self.name.as_bytes())
    }

    /// Opens what is at this place for reading.
    pub(crate) fn open(&self) -> io::Result<sys::Reader> {
        self.shard.open_file(self.name.as_bytes())
    }
}

/// The shard that one worker fills: two that link into one directory wait for each other.
struct Slot {
    number: u32,
    shard: Arc<Dir>,
    used: u32,
}

/// A staging directory. Dropping it removes it; [`Staging::release`] does so and tells what went wrong.
pub(crate) struct Staging {
    host: Host,
    dir: Dir,
    /// The same, for what must be done even if the run was cancelled.
    clean_up: Dir,
    slots: Vec<Mutex<Option<Slot>>>,
    next_shard: AtomicU32,
    clones: AtomicU8,
    tick: Duration,
    released: AtomicBool,
    /// Locked as long as it is open: it tells other runs that this one lives.
    lock: Mutex<Option<File>>,
}

/// The directory that a staging directory was made in, and that.
struct Host {
    own: Named,
    /// The staging directory's name, for messages.
    name: String,
    /// How the host looked before it was made, and right after.
    before: Stat,
    made: Stat,
}

impl Host {
    fn enter(dir: &Dir, name: Option<&str>) -> io::Result<Self> {
        let name = name.map_or_else(|| hidden_name(sys::now()), |name| Ok(name.to_owned()))?;
        let before = dir.stat_self()?;
        dir.make_dir(name.as_bytes())?;
        let made = dir.stat_self().and_then(|made| Ok((made, Named::open(dir, name.as_bytes())?)));
        match made {
            Ok((made, own)) => Ok(Self { own, name, before, made }),
            Err(error) => {
                let _left: io::Result<()> = dir.unstoppable().remove_dir(name.as_bytes());
                Err(error)
            }
        }
    }

    /// Removes the staging directory. If nothing else happened in its host, that shall not look as if it had: the time
    /// of its last modification is set back, where that is allowed. Whether anything did is asked as late as can be, when
    /// there is but one name to remove: what happens there after that is not seen.
    fn vacate(&self, lock: Option<File>) -> io::Result<()> {
        let dir = self.own.parent.unstoppable();
        let mut is_alone = false;
        self.own.remove(lock, || is_alone = dir.stat_self().is_ok_and(|now| now.mtime == self.made.mtime))?;
        if is_alone {
            let _kept: io::Result<()> = dir.set_mtime(self.before.mtime);
        }
        Ok(())
    }
}

const CLONES_UNKNOWN: u8 = 0;
const CLONES_REFUSED: u8 = 1;

impl Staging {
    /// Makes a staging directory in `parent`, after removing what dead runs left there; under a fresh name, if none is
    /// given.
    ///
    /// # Errors
    /// Those of the kernel; nothing is left behind then.
    pub(crate) fn create(parent: &Dir, workers: usize, name: Option<&str>) -> io::Result<Arc<Staging>> {
        let parent = parent.guarded(Realm::Staging, Arc::clone(parent.gate()));
        // Trouble is not ours to report: whatever cannot be swept now is tried again by the next run.
        let _swept = gate::tolerate(sweep(&parent, true))?;
        for _ in 1..ATTEMPTS {
            match Self::attempt(&parent, workers, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Self::attempt(&parent, workers, name)
    }

    /// Another run that takes it for a leftover before it is locked removes it: it is not found any more then.
    fn attempt(parent: &Dir, workers: usize, name: Option<&str>) -> io::Result<Arc<Staging>> {
        let host = Host::enter(parent, name)?;
        match Self::furnish(&host, workers) {
            Ok(furniture) => Ok(Arc::new(furniture(host))),
            Err(error) => {
                let _left: io::Result<()> = host.vacate(None);
                Err(error)
            }
        }
    }

    /// Fills the new directory with what it needs; what comes back makes a staging directory of its host.
    fn furnish(host: &Host, workers: usize) -> io::Result<impl FnOnce(Host) -> Staging + use<>> {
        let dir = host.own.dir.clone();
        // Where that cannot be done, only we may enter it all the same.
        gate::tolerate(tree::disinherit(&dir))?;
        let before = sys::coarse_now();
        let lock = dir.create(LOCK)?;
        // How far the clock that stamps here is from ours, at most: on a network filesystem it is another machine's.
        let (stamp, after) = (lock.stat()?.mtime, sys::coarse_now());
        let off = after.since(stamp).max(stamp.since(before));
        let file = lock.file().try_clone()?;
        if !dir.lock(&file)? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "another run took the staging directory for a leftover",
            ));
        }
        // Before the first link: without a lock, what a power cut leaves would be somebody else's.
        gate::tolerate(lock.sync_before_others())?;
        let tick = if stamps_are_fine(&dir)? { Duration::ZERO } else { sys::coarse_tick().saturating_add(off) };
        Ok(move |host| Staging {
            host,
            clean_up: dir.unstoppable(),
            dir,
            slots: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            next_shard: AtomicU32::new(0),
            clones: AtomicU8::new(CLONES_UNKNOWN),
            tick,
            released: AtomicBool::new(false),
            lock: Mutex::new(Some(file)),
        })
    }

    /// A fresh place in the shard of `worker`.
    ///
    /// # Errors
    /// Those of making a new shard.
    pub(crate) fn place(&self, worker: usize) -> io::Result<Staged> {
        self.berth(worker).map(|berth| berth.staged)
    }

    /// A fresh place in the shard of `worker`, with the shard.
    ///
    /// # Errors
    /// Those of making a new shard, and of opening it.
    pub(crate) fn berth(&self, worker: usize) -> io::Result<Berth> {
        let slot = &self.slots[worker % self.slots.len()];
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match &mut *slot {
            Some(slot) if slot.used < SHARD => slot,
            full => full.insert(self.new_slot()?),
        };
        let at = slot.used;
        slot.used += 1;
        Ok(Berth { staged: Staged(slot.number * SHARD + at), shard: Arc::clone(&slot.shard), name: at.to_string() })
    }

    fn new_slot(&self) -> io::Result<Slot> {
        let Staged(first) = self.private()?;
        Ok(Slot { number: first / SHARD, shard: Arc::new(self.shard_of(Staged(first))?), used: 0 })
    }

    /// The first place of a shard of its own, for somebody else who fills it.
    ///
    /// # Errors
    /// Those of making it.
    pub(crate) fn private(&self) -> io::Result<Staged> {
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        self.dir.make_dir(shard.to_string().as_bytes())?;
        Ok(Staged(shard * SHARD))
    }

    /// The directory of a place: the first place of a shard is `0` there.
    ///
    /// # Errors
    /// Those of opening it.
    pub(crate) fn shard_of(&self, staged: Staged) -> io::Result<Dir> {
        self.dir.open_dir((staged.0 / SHARD).to_string().as_bytes())
    }

    /// Bytes that could still be written here.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn free_space(&self) -> io::Result<u64> {
        self.dir.free_space()
    }

    /// What is at a place.
    pub(crate) fn stat(&self, staged: Staged) -> io::Result<Stat> {
        self.dir.stat(staged.name().as_bytes())
    }

    /// Opens what is at a place for reading.
    pub(crate) fn open(&self, staged: Staged) -> io::Result<sys::Reader> {
        self.dir.open_file(staged.name().as_bytes())
    }

    /// Creates a file at a place.
    pub(crate) fn create_file(&self, staged: Staged) -> io::Result<sys::Writer> {
        self.dir.create(staged.name().as_bytes())
    }

    /// Gives up a place: what is there is removed. What cannot be removed now is removed with the whole directory.
    pub(crate) fn give_up(&self, staged: Staged) {
        let _later: io::Result<()> = self.clean_up.unlink(staged.name().as_bytes());
    }

    /// Whether the filesystem can share extents, as far as is known.
    pub(crate) fn clones(&self) -> bool {
        self.clones.load(Ordering::Relaxed) != CLONES_REFUSED
    }

    /// Remembers that the filesystem cannot share extents.
    pub(crate) fn refuse_clones(&self) {
        self.clones.store(CLONES_REFUSED, Ordering::Relaxed);
    }

    /// How coarse the filesystem's clock is: zero where every change of a directory was seen to move its stamp.
    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    /// Removes the directory with all that is in it.
    ///
    /// # Errors
    /// Those of the kernel, after a second attempt; the next run will try again.
    pub(crate) fn release(&self) -> io::Result<()> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.host.vacate(lock).inspect(|()| self.released.store(true, Ordering::Relaxed))
    }

    /// How a directory looked before this one was made in it, if it was made there and nothing else happened since.
    pub(crate) fn without_it(&self, stat: Stat) -> Stat {
        let Host { before, made, .. } = &self.host;
        let is_host = stat.id() == before.id() && stat.mtime == made.mtime;
        if is_host { Stat { mtime: before.mtime, ..stat } } else { stat }
    }

    /// The directory itself, for what is laid out in it beside the shards.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The directory of a place, and its name there.
    ///
    /// # Errors
    /// Those of opening it.
    pub(crate) fn find(&self, staged: Staged) -> io::Result<(Dir, Vec<u8>)> {
        Ok((self.shard_of(staged)?, (staged.0 % SHARD).to_string().into_bytes()))
    }

    /// The name of the directory, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.host.name
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.released.load(Ordering::Relaxed) {
            // Nobody is left to tell; the next run sweeps what stays.
            let _left: io::Result<()> = self.release();
        }
    }
}

/// Room in staging that a copy under way is going to take. What is left must do for the owner, who lives on the same
/// filesystem.
pub(crate) struct Claim<'a> {
    claimed: &'a AtomicU64,
    bytes: u64,
}

impl<'a> Claim<'a> {
    /// A claim to so many bytes, beside those that are `claimed` already.
    ///
    /// # Errors
    /// There is not so much room; those of the kernel.
    pub(crate) fn of(claimed: &'a AtomicU64, staging: &Staging, bytes: u64) -> io::Result<Self> {
        let all = claimed.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let claim = Self { claimed, bytes };
        let free = staging.free_space()?;
        let needed = all.saturating_add(all / 16).saturating_add(RESERVE.min(bytes));
        if free < needed {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("there is no room for its copy beside the source: {free} bytes are free, {needed} are needed"),
            ));
        }
        Ok(claim)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claimed.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Whether every change of a directory moves its stamp here.
///
/// Kernels from 6.13 on stamp finely on the larger filesystems once somebody has looked; elsewhere a stamp is that
/// of the last clock tick, and two changes within one tick look like one. Measured, not looked up: the answer
/// depends on kernel, filesystem and what is stacked on it. It depends on the change, too: tmpfs of Linux 6.18 stamps a
/// directory finely when a name is made or renamed in it, and coarsely when one is linked, unlinked or a directory is
/// removed.
fn stamps_are_fine(dir: &Dir) -> io::Result<bool> {
    let mut moved_within_a_tick = [0; CHANGES.len()];
    let (mut begun, mut last) = (sys::coarse_now(), Stamp::of(&dir.stat_self()?));
    for _ in 0..STAMP_ROUNDS {
        let mut all_moved = true;
        for (change, count) in CHANGES.iter().zip(&mut moved_within_a_tick) {
            let tick = sys::coarse_now();
            // What cannot be done moves nothing: the clock counts as coarse then.
            gate::tolerate(change(dir))?;
            let now = Stamp::of(&dir.stat_self()?);
            all_moved &= now != last;
            // Where the clock ticked between two stamps they differ anyway. On a busy machine it often does.
            *count += usize::from(sys::coarse_now() == begun);
            (begun, last) = (tick, now);
        }
        if !all_moved {
            return Ok(false);
        }
        if moved_within_a_tick.iter().all(|count| *count >= STAMP_TRIALS) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What can happen to names in a directory. Together they leave it as it was, whichever of them can be done.
const CHANGES: [fn(&Dir) -> io::Result<()>; 9] = [
    |dir| dir.create(b"probe").map(drop),
    |dir| dir.link(b"probe", dir, b"probe-2"),
    |dir| dir.unlink(b"probe-2"),
    |dir| dir.rename_over(b"probe", b"probe-2"),
    |dir| dir.make_dir(b"probe"),
    |dir| dir.remove_dir(b"probe"),
    |dir| dir.make_symlink(b"probe", b"probe"),
    |dir| dir.rename_over(b"probe-2", b"probe"),
    |dir| dir.unlink(b"probe"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CancelFlag;
    use crate::leftover::Standing;
    use std::path::Path;

    fn open(path: &Path) -> Dir {
        Dir::open(path, Realm::Source, Arc::new(CancelFlag::new())).expect("opens")
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .expect("lists")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    }

    fn standings(path: &Path) -> Vec<Standing> {
        sweep(&open(path), true).expect("sweeps").iter().map(|left| left.standing).collect()
    }

    #[test]
    fn an_empty_leftover_goes_at_once_and_who_was_about_to_use_it_makes_another() {
        /// Has another run sweep just before a lock is made.
        struct Sweeper(std::path::PathBuf, AtomicBool);
        impl gate::Gate for Sweeper {
            fn pass(&self, step: &gate::Step<'_>) -> io::Result<()> {
                if step.name == LOCK && !self.1.swap(true, Ordering::Relaxed) {
                    assert_eq!(standings(&self.0), [Standing::Removed]);
                }
                Ok(())
            }
        }
        let top = tempfile::tempdir().expect("a directory");
        let sweeper = Arc::new(Sweeper(top.path().to_owned(), AtomicBool::new(false)));
        let dir = Dir::open(top.path(), Realm::Source, Arc::clone(&sweeper) as Arc<dyn gate::Gate>).expect("opens");
        let staging = Staging::create(&dir, 1, None).expect("creates");
        assert!(sweeper.1.load(Ordering::Relaxed));
        assert_eq!(names(top.path()), [staging.name().to_owned()]);
    }

    /// Whether a change left a mark on `dir`.
    fn left_a_mark(dir: &Dir, change: impl FnOnce()) -> bool {
        let before = Stamp::of(&dir.stat_self().expect("is there"));
        change();
        Stamp::of(&dir.stat_self().expect("is there")) != before
    }

    /// The probe made a name and removed it before it looked, and tmpfs marks the making: on tmpfs a name that was removed in
    /// the tick of its directory's last change was archived as of an instant at which it was gone. It took 5,000 backups
    /// under a heavy load to see that once.
    #[test]
    fn a_clock_is_not_fine_where_removed_names_leave_no_mark() {
        let places = [tempfile::tempdir().ok(), tempfile::tempdir_in("/dev/shm").ok()];
        for top in places.into_iter().flatten() {
            let (dir, name) = (open(top.path()), top.path().join("name"));
            let is_unmarked = |_: &usize| {
                std::fs::write(&name, "").expect("writes");
                !left_a_mark(&dir, || std::fs::remove_file(&name).expect("removes"))
            };
            let unmarked = (0..500).filter(is_unmarked).count();
            let tick = Staging::create(&dir, 1, None).expect("creates").tick();
            println!("{}: {unmarked} of 500 names left unmarked, a tick of {tick:?}", top.path().display());
            assert!(unmarked == 0 || tick >= sys::coarse_tick(), "{unmarked}, {}", top.path().display());
            assert_eq!(names(top.path()), [] as [String; 0], "the probe cleans up");
        }
    }

    /// Has the owner make a file beside a staging directory, right before its lock goes.
    struct Owner(std::path::PathBuf);

    impl gate::Gate for Owner {
        fn pass(&self, step: &gate::Step<'_>) -> io::Result<()> {
            if step.verb == gate::Verb::Unlink && step.name == LOCK {
                // So that it has another time on any clock.
                std::thread::sleep(Duration::from_millis(50));
                std::fs::write(self.0.join("theirs"), b"").expect("writes");
            }
            Ok(())
        }
    }

    /// Whether anything had happened beside it was asked before a staging directory was removed with all that was in it,
    /// which may last. What the owner made in that time was undone in the time of the directory's last change.
    #[test]
    fn the_time_of_the_directory_beside_is_set_back_only_if_nothing_else_happened_there() {
        for is_alone in [true, false] {
            let top = tempfile::tempdir().expect("a directory");
            let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
            std::fs::File::open(top.path()).and_then(|dir| dir.set_modified(hour_ago)).expect("sets the time");
            let owner = Arc::new(Owner(top.path().to_owned()));
            let gate = if is_alone { Arc::new(CancelFlag::new()) as Arc<dyn gate::Gate> } else { owner };
            let dir = Dir::open(top.path(), Realm::Source, gate).expect("opens");
            Staging::create(&dir, 1, None).and_then(|staging| staging.release()).expect("comes and goes");
            assert_eq!(names(top.path()).len(), usize::from(!is_alone));
            let time = top.path().metadata().and_then(|found| found.modified()).expect("has a time");
            assert_eq!(time == hour_ago, is_alone, "{is_alone}");
        }
    }

    #[test]
    fn a_dropped_staging_leaves_nothing_and_a_linked_file_its_one_name() {
        use std::os::unix::fs::MetadataExt;
        let top = tempfile::tempdir().expect("a directory");
        let file = top.path().join("session.jsonl");
        std::fs::write(&file, b"x").expect("writes");
        let staging = Staging::create(&open(top.path()), 2, None).expect("creates");
        let berth = staging.berth(1).expect("makes a shard");
        berth.link(&open(top.path()), b"session.jsonl").expect("links");
        assert_eq!(file.metadata().expect("stats").nlink(), 2);
        drop(staging);
        assert_eq!(names(top.path()), ["session.jsonl"]);
        assert_eq!(file.metadata().expect("stats").nlink(), 1);
    }

    #[test]
    fn the_leftovers_of_a_dead_run_are_swept_and_those_of_a_live_one_are_not() {
        let top = tempfile::tempdir().expect("a directory");
        let dead = top.path().join(".clawsnap-20260101T000000Z-00000001");
        std::fs::create_dir_all(dead.join("0")).expect("makes");
        std::fs::write(dead.join("lock"), b"").expect("writes");
        std::fs::write(dead.join("0/17"), b"").expect("writes");
        let living = Staging::create(&open(top.path()), 1, None).expect("creates");
        assert!(!dead.exists(), "creating one sweeps");
        assert_eq!(standings(top.path()), [Standing::Busy]);
        assert_eq!(names(top.path()), [living.name().to_owned()]);
    }
}
