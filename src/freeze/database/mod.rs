//! Databases: pinned at the freeze, copied afterwards, each by a process of its own.
//!
//! A hard link to a live SQLite database can corrupt it, and its bytes are no database while its owner writes. So it is
//! frozen in the way that SQLite has for that: a helper process begins a read transaction, which in WAL mode takes a
//! fraction of a millisecond and makes nobody wait. The settle rule asks whether anything was committed between that pin
//! and the instant, and then to pin anew. What answers is the index of the write-ahead log, which every commit changes:
//! not the times of the log, which is written, and synced, before the commit can be seen. When the instant is found, the
//! helper copies what it has pinned, by SQLite's online backup inside that transaction.
//!
//! With a rollback journal a reader makes the owner's next commit wait: such a database is copied at once, and the lock
//! kept just until the instant is found. What nobody wrote to lately needs no helper before it is copied: it is held
//! against its stamps, (inode, size, mtime) of its file, its log and its journal, as a linked file is. And what SQLite could only read by writing beside it (it was closed, or its
//! owner was killed) is copied file by file while it rests, and recovered in the copy.
//!
//! Every copy is checked. What cannot be had as a database is archived as bytes, and flagged.

mod child;
mod helper;
mod source;
mod words;

pub use child::serve;

pub(crate) use words::Copied;
pub use words::Way;

use std::ffi::OsString;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::content::{self, Permit, Pool};
use super::settle::{Restless, Why};
use super::staging::{Staged, Staging};
use crate::entry::{Kind, Stat, Timestamp};
use crate::event::{Event, Observer};
use crate::fate::Fate;
use crate::gate;
use crate::relpath::RelPath;
use crate::sys::{self, Dir};
use helper::Helper;
use words::{Ask, Say, Task};

/// How a database file begins.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

/// The other files of a database, by the ending of their names.
pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-journal", "-shm"];
const WAL: usize = 0;
const JOURNAL: usize = 1;
const SHM: usize = 2;

/// The copy's name in its private directory; what follows are raw copies of the sidecars.
const COPY: &[u8] = b"0";

/// Helpers at one time before the freeze is over. Further databases are held against their stamps alone.
const MOST_HELPERS: u64 = 64;

/// Copies that are made at one time.
const MOST_COPIES: usize = 4;

/// For how long the databases are pinned anew before the tree is looked at all the same.
const PIN_BUDGET: Duration = Duration::from_millis(200);

/// The name of a sidecar of `name`.
pub(crate) fn sidecar(name: &[u8], number: usize) -> Vec<u8> {
    [name, SIDECARS[number].as_bytes()].concat()
}

/// The name of a raw copy of a sidecar.
fn part(number: usize) -> String {
    (number + 1).to_string()
}

/// How a copy is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// `PRAGMA quick_check`.
    #[default]
    Quick,
    /// `PRAGMA integrity_check`, which holds indexes against their tables as well.
    Full,
    /// Not at all.
    Off,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "quick" => Ok(Self::Quick),
            "full" => Ok(Self::Full),
            "off" => Ok(Self::Off),
            other => Err(format!("unknown check {other:?}; known are quick, full and off")),
        }
    }
}

/// How databases are copied.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// The program that serves one database, with its arguments: it must end in [`serve`] with its standard input,
    /// error and output, in this order. Without one databases are copied raw, and flagged.
    pub helper: Vec<OsString>,
    /// How long a lock of its owner is waited for when it is copied.
    pub timeout: Duration,
    /// How a copy is checked.
    pub check: Check,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self { helper: Vec::new(), timeout: Duration::from_secs(5), check: Check::Quick }
    }
}

/// What tells whether a database was written to: (inode, size, mtime) of its file, its log and its journal.
#[derive(Clone, Debug)]
struct Stamps {
    main: Option<Stat>,
    others: [Option<Stat>; 2],
    /// Modified so lately that the next change could leave no mark.
    young: bool,
}

impl Stamps {
    /// Looks at the files.
    ///
    /// # Errors
    /// Only the cancellation of the run: what cannot be looked at is not there.
    fn look(dir: &Dir, name: &[u8], tick: Duration) -> io::Result<Self> {
        let now = sys::coarse_now();
        let look = |name: &[u8]| match dir.stat(name) {
            Ok(stat) if stat.kind == Kind::File => Ok(Some(stat)),
            Err(error) if gate::is_cancelled(&error) => Err(error),
            _ => Ok(None),
        };
        let (main, others) = (look(name)?, [look(&sidecar(name, WAL))?, look(&sidecar(name, JOURNAL))?]);
        let mut stamps = Self { main, others, young: false };
        stamps.young = !tick.is_zero() && stamps.newest().is_some_and(|newest| newest >= now.before(tick));
        Ok(stamps)
    }

    fn newest(&self) -> Option<Timestamp> {
        self.main.iter().chain(self.others.iter().flatten()).map(|stat| stat.mtime).max()
    }
}

impl PartialEq for Stamps {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Option<Stat>, b: &Option<Stat>| match (a, b) {
            (Some(a), Some(b)) => a.same_contents(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(&self.main, &other.main) && self.others.iter().zip(&other.others).all(|(a, b)| same(a, b))
    }
}

/// What holds the state of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pin {
    /// Nothing yet.
    None,
    /// Its stamps: they must be the same when it is copied.
    Loose,
    /// A read transaction of its helper, or a copy.
    Held,
    /// It could not be pinned.
    Refused,
}

/// What became of a database.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its fate.
    pub(crate) fate: Fate,
    /// Its metadata at the freeze; length and blocks are those of the copy.
    pub(crate) stat: Stat,
    /// Where the copy is.
    pub(crate) staged: Staged,
    /// How it was copied.
    pub(crate) copied: Copied,
    /// Its other files, where they had to be copied as well: number, metadata and place.
    pub(crate) parts: Vec<(usize, Stat, Staged)>,
}

/// A database that is frozen, or about to be.
pub(crate) struct Database {
    root: u16,
    dir: Dir,
    name: Box<[u8]>,
    /// Its metadata when it was found.
    found: Stat,
    tick: Duration,
    staging: Arc<Staging>,
    /// The place of the copy, in the private directory of its helper.
    staged: Staged,
    run: Arc<Run>,
    hold: Mutex<Hold>,
    finished: Mutex<Option<Result<Arc<Finished>, String>>>,
}

/// What holds it at the moment.
struct Hold {
    pin: Pin,
    stamps: Option<Stamps>,
    helper: Option<(Helper, Permit)>,
    /// Its helper had to lock it: it takes longer, and is asked first.
    locks: bool,
}

/// What all databases of a run have in common.
struct Run {
    options: DatabaseOptions,
    hot_since: Timestamp,
    helpers: Arc<Pool>,
}

impl Database {
    /// Where the copy is, or will be.
    pub(crate) fn staged(&self) -> Staged {
        self.staged
    }

    /// Its root, and its path below that.
    fn path(&self) -> (u16, RelPath) {
        (self.root, self.dir.path().join(&self.name))
    }

    /// What became of it, once it is copied.
    ///
    /// # Errors
    /// Not even its bytes could be had.
    pub(crate) fn finished(&self) -> io::Result<Arc<Finished>> {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone();
        finished.unwrap_or_else(|| Err("it was not copied".to_owned())).map_err(io::Error::other)
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> io::Result<Stamps> {
        Stamps::look(&self.dir, &self.name, self.tick)
    }

    /// Starts its helper, if there may be another one.
    fn start(&self, hold: &mut Hold) -> io::Result<()> {
        if hold.helper.is_some() {
            return Ok(());
        }
        let permit = self.run.helpers.take(1).ok_or_else(|| io::Error::other("too many helpers are at work"))?;
        let DatabaseOptions { helper, timeout, check } = &self.run.options;
        let shard = self.staging.shard_of(self.staged)?;
        let mut started = Helper::start(helper, &self.dir, &shard, *timeout, &self.name)?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let task = Task::new(&self.name, self.found.id(), timeout_ms, *check);
        started.send(&self.dir, &self.name, &Ask::Serve(task))?;
        hold.helper = Some((started, permit));
        Ok(())
    }

    /// Asks its helper for a pin; says whether there is an answer to be waited for. What nobody wrote to lately needs
    /// none.
    fn ask_to_pin(&self) -> io::Result<bool> {
        let stamps = self.look()?;
        let mut hold = self.hold();
        let hot = stamps.newest().is_some_and(|newest| newest >= self.run.hot_since);
        hold.stamps = Some(stamps);
        hold.pin = Pin::Loose;
        if !hot {
            return Ok(false);
        }
        tolerate(self.start(&mut hold))?;
        self.send(&mut hold, &Ask::Pin)
    }

    /// Asks its helper; says whether there is one that could be asked.
    fn send(&self, hold: &mut Hold, ask: &Ask) -> io::Result<bool> {
        let Some((helper, _)) = &mut hold.helper else { return Ok(false) };
        let sent = tolerate(helper.send(&self.dir, &self.name, ask))?.is_some();
        if !sent {
            hold.helper = None;
        }
        Ok(sent)
    }

    /// Waits for its helper's answer; `None` if that is lost.
    fn receive(&self, hold: &mut Hold) -> io::Result<Option<Say>> {
        let Some((helper, _)) = &mut hold.helper else { return Ok(None) };
        let said = tolerate(helper.receive(&self.dir, &self.name))?;
        if said.is_none() {
            hold.helper = None;
        }
        Ok(said)
    }

    fn hear_of_pin(&self) -> io::Result<()> {
        let mut hold = self.hold();
        hold.pin = match self.receive(&mut hold)? {
            Some(Say::Pinned { locked }) => {
                hold.locks = locked;
                Pin::Held
            }
            Some(Say::Refused(_)) => Pin::Refused,
            _ => Pin::Loose,
        };
        Ok(())
    }

    /// Asks its helper whether anything was committed since the pin; says whether there is an answer to be waited for.
    fn ask_for_rest(&self) -> io::Result<bool> {
        let mut hold = self.hold();
        if hold.pin == Pin::Held { self.send(&mut hold, &Ask::Check) } else { Ok(false) }
    }

    /// Whether nothing was committed since it was pinned.
    fn rests(&self, asked: bool) -> io::Result<bool> {
        if asked {
            return Ok(self.receive(&mut self.hold())? == Some(Say::Rests(true)));
        }
        let now = self.look()?;
        let hold = self.hold();
        let unmoved = hold.stamps.as_ref().is_some_and(|pinned| *pinned == now && !pinned.young);
        Ok(hold.pin == Pin::Loose && unmoved)
    }

    fn restless(&self) -> Restless {
        let why = match self.hold() {
            hold if hold.pin == Pin::Refused => Why::Locked,
            hold if hold.stamps.as_ref().is_some_and(|stamps| stamps.young) => Why::Young,
            _ => Why::Contents,
        };
        let (root, path) = self.path();
        Restless { root, path, why }
    }

    fn is_young(&self) -> bool {
        self.hold().stamps.as_ref().is_some_and(|stamps| stamps.young)
    }

    fn is_refused(&self) -> bool {
        self.hold().pin == Pin::Refused
    }

    fn locks(&self) -> bool {
        self.hold().locks
    }

    /// Lets its owner commit again.
    fn release(&self) -> io::Result<()> {
        let mut hold = self.hold();
        if !hold.locks {
            return Ok(());
        }
        if self.send(&mut hold, &Ask::Release)? {
            self.receive(&mut hold)?;
        }
        Ok(())
    }

    /// Copies it. Trouble with the database is what became of it.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    fn finish(&self) -> io::Result<()> {
        let outcome = match self.copy() {
            Err(error) if gate::is_cancelled(&error) => return Err(error),
            other => other.map(Arc::new).map_err(|error| error.to_string()),
        };
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        Ok(())
    }

    fn copy(&self) -> io::Result<Finished> {
        let mut hold = self.hold();
        // A pin ends with its helper.
        let held = hold.pin == Pin::Held && hold.helper.is_some();
        let said = self.ask_for_copy(&mut hold, &Ask::Copy)?;
        let said = match said {
            Say::Failed(reason) => {
                // A fresh helper for the bytes at least: the last one may have fallen to what it read.
                hold.helper = None;
                self.ask_for_copy(&mut hold, &Ask::Raw(reason))?
            }
            other => other,
        };
        hold.helper = None;
        let now = self.look()?;
        let moved = !held && hold.stamps.as_ref() != Some(&now);
        let pinned = hold.stamps.as_ref().and_then(|stamps| stamps.main);
        let stat = if moved { now.main.or(pinned) } else { pinned.or(now.main) }.unwrap_or(self.found);
        self.conclude(said, stat, moved, &now)
    }

    /// What its helper says in the end; a helper that cannot be had or is lost has failed.
    fn ask_for_copy(&self, hold: &mut Hold, ask: &Ask) -> io::Result<Say> {
        let asked = self.start(hold).and_then(|()| match &mut hold.helper {
            Some((helper, _)) => {
                helper.send(&self.dir, &self.name, ask)?;
                helper.receive(&self.dir, &self.name)
            }
            None => Err(io::Error::other("no helper is at work")),
        });
        match asked {
            Err(error) if gate::is_cancelled(&error) => Err(error),
            Err(error) => Ok(Say::Failed(error.to_string())),
            Ok(said) => Ok(said),
        }
    }

    fn conclude(&self, said: Say, stat: Stat, moved: bool, now: &Stamps) -> io::Result<Finished> {
        let kept = if moved { Fate::Later } else { Fate::Kept };
        let (fate, copied, parts) = match said {
            Say::Copied(copied) => (kept, copied, Vec::new()),
            Say::Raw { reason, parts } => (torn(&reason), raw(), parts),
            Say::Failed(reason) => return self.raw_at_last(&reason, stat),
            other => (torn(&format!("its helper said {other:?}")), raw(), Vec::new()),
        };
        let staged = self.staged();
        let parts = parts.into_iter().filter_map(|number| self.part(number, stat, now));
        let parts = parts.collect();
        let size = self.staging.stat(staged)?.size;
        Ok(Finished { fate, stat: resized(stat, size), staged, copied, parts })
    }

    fn part(&self, number: usize, main: Stat, now: &Stamps) -> Option<(usize, Stat, Staged)> {
        let staged = self.staged().after(u32::try_from(number).ok()? + 1);
        let size = self.staging.stat(staged).ok()?.size;
        let like = now.others.get(number).copied().flatten().unwrap_or(main);
        Some((number, resized(like, size), staged))
    }

    /// The bytes, read by this process as a last resort. It never has a connection, so there is no lock that it could
    /// drop.
    fn raw_at_last(&self, reason: &str, stat: Stat) -> io::Result<Finished> {
        let reading = content::copy(&self.dir.open_file(&self.name)?, &self.staging, 0)?;
        let stat = resized(stat, reading.stat.size);
        Ok(Finished { fate: torn(reason), stat, staged: reading.contents, copied: raw(), parts: Vec::new() })
    }
}

fn torn(reason: &str) -> Fate {
    Fate::Torn(format!("raw database: {reason}").into())
}

fn raw() -> Copied {
    Copied { way: Way::Raw, check: "off".to_owned(), ..Copied::default() }
}

/// A copy has no holes, whatever the original has.
fn resized(stat: Stat, size: u64) -> Stat {
    Stat { size, blocks: size.div_ceil(512), ..stat }
}

/// Trouble with a helper is an answer; a cancelled run is not.
fn tolerate<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if gate::is_cancelled(&error) => Err(error),
        other => Ok(other.ok()),
    }
}

/// The databases of one run.
pub(crate) struct Databases {
    run: Arc<Run>,
    known: Mutex<Vec<Weak<Database>>>,
}

impl Databases {
    /// None yet.
    pub(crate) fn new(options: DatabaseOptions, hot_since: Timestamp) -> Self {
        let run = Run { options, hot_since, helpers: Pool::new(MOST_HELPERS) };
        Self { run: Arc::new(run), known: Mutex::default() }
    }

    /// Whether databases can be copied as such.
    pub(crate) fn are_served(&self) -> bool {
        !self.run.options.helper.is_empty()
    }

    /// Takes charge of a database: from now on this process does not open it. Its helper starts at once where it was
    /// written to lately, so that the first pin need not wait for that.
    ///
    /// # Errors
    /// There is no room for its copy; the cancellation of the run.
    pub(crate) fn take(
        &self,
        root: u16,
        dir: &Dir,
        name: &[u8],
        found: Stat,
        tick: Duration,
        staging: &Arc<Staging>,
    ) -> io::Result<Arc<Database>> {
        let hold = Hold { pin: Pin::None, stamps: None, helper: None, locks: false };
        let database = Arc::new(Database {
            root,
            dir: dir.clone(),
            name: name.into(),
            found,
            tick,
            staging: Arc::clone(staging),
            staged: staging.private()?,
            run: Arc::clone(&self.run),
            hold: Mutex::new(hold),
            finished: Mutex::default(),
        });
        if found.mtime >= self.run.hot_since {
            tolerate(database.start(&mut database.hold()))?;
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&database));
        Ok(database)
    }

    /// Those that are held still.
    fn alive(&self) -> Vec<Arc<Database>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|database| database.strong_count() > 0);
        known.iter().filter_map(Weak::upgrade).collect()
    }

    /// Pins all of them at one moment: returns it, and those for which that could not be confirmed.
    ///
    /// Whatever is stamped before and looked at after that moment was the same at that moment too.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(crate) fn pin(&self) -> io::Result<(Timestamp, Vec<Restless>)> {
        let all = self.alive();
        let mut restless = restless_of(&all)?;
        // Those that take long come first: the others would not rest for so long.
        let slow: Vec<_> = restless.iter().filter(|database| database.locks()).cloned().collect();
        pin_each(&slow)?;
        restless.retain(|database| !database.locks());
        let begun = Instant::now();
        loop {
            pin_each(&restless)?;
            let moment = sys::now();
            restless = restless_of(&all)?;
            let hopeless = restless.iter().all(|database| database.is_refused());
            if hopeless || begun.elapsed() > PIN_BUDGET {
                return Ok((moment, restless.iter().map(|database| database.restless()).collect()));
            }
            if restless.iter().any(|database| database.is_young()) {
                std::thread::sleep(sys::coarse_tick());
            }
        }
    }

    /// The freeze is over: no owner has to wait any more.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.alive().iter().try_for_each(|database| database.release())
    }

    /// Copies them all, a few at a time.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(crate) fn finish(&self, observer: &dyn Observer) -> io::Result<()> {
        let all = self.alive();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let told = |done: usize| observer.on(Event::Copying { done: done as u64, all: all.len() as u64 });
        let work = || -> io::Result<()> {
            while let Some(database) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                database.finish()?;
                told(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
            Ok(())
        };
        if !all.is_empty() {
            told(0);
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..MOST_COPIES.min(all.len())).map(|_| scope.spawn(work)).collect();
            let ended =
                workers.into_iter().map(|worker| worker.join().map_err(|_| io::Error::other("a copy panicked"))?);
            ended.fold(Ok(()), Result::and)
        })
    }
}

/// Asks all of them first, so that their helpers work side by side.
fn pin_each(databases: &[Arc<Database>]) -> io::Result<()> {
    let mut asked = Vec::new();
    for database in databases {
        if database.ask_to_pin()? {
            asked.push(database);
        }
    }
    asked.into_iter().try_for_each(|database| database.hear_of_pin())
}

/// Those of them to which something was committed since they were pinned.
fn restless_of(databases: &[Arc<Database>]) -> io::Result<Vec<Arc<Database>>> {
    let asked = databases.iter().map(|database| database.ask_for_rest()).collect::<io::Result<Vec<_>>>()?;
    let mut restless = Vec::new();
    for (database, asked) in databases.iter().zip(asked) {
        if !database.rests(asked)? {
            restless.push(Arc::clone(database));
        }
    }
    Ok(restless)
}
