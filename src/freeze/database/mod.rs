//! Databases: pinned at the freeze, copied afterwards, each by a process of its own.
//!
//! A hard link to a live SQLite database can corrupt it, and its bytes are no database while its owner writes. So it is
//! frozen in the way that SQLite has for that: a helper process begins a read transaction, which in WAL mode takes a
//! fraction of a millisecond and makes nobody wait. The settle rule asks whether anything was committed between that pin
//! and the instant, and then to pin anew. What answers is the index of the write-ahead log, which every commit changes:
//! not the times of the log, which is written, and synced, before the commit can be seen. When the instant is found, the
//! helper copies what it has pinned, by SQLite's online backup inside that transaction.
//!
//! With a rollback journal a reader makes the owner's next commit wait: such a database is copied at once, if there is
//! room for that, and the lock kept just until the instant is found. What nobody wrote to lately, or what there is no room
//! for, needs no helper before it is copied: it is held against its stamps, (inode, size, mtime) of its file, its log and
//! its journal, as a linked file is. And what SQLite could only read by writing beside it (it was closed, or its owner was
//! killed) is copied file by file while it rests, and recovered in the copy.
//!
//! Every copy is checked. What cannot be had as a database is archived as bytes, and flagged.

mod child;
mod helper;
mod live;
mod names;
mod sessions;
mod source;
mod stamps;
mod words;

pub use child::serve;

pub(crate) use live::{Database, Spot};
pub(crate) use names::{MAGIC, SIDECARS, is_sidecar, may_be_database, sidecar, sidecar_of};
pub(crate) use words::Copied;
pub use words::Way;

use std::ffi::OsString;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::content::Pool;
use super::settle::Restless;
use super::staging::{Staged, Staging};
use crate::entry::{Stat, Timestamp};
use crate::event::{Event, Observer};
use crate::sys;
use crate::transcript::Stored;
use helper::Helper;
use live::{Asked, Run};
use names::{JOURNAL, SHM, WAL};
use words::{Ask, Say, Task};

/// The copy's name in its private directory; what follows are raw copies of the sidecars.
const COPY: &[u8] = b"0";

/// Helpers at one time before the freeze is over. Further databases are held against their stamps alone.
const MOST_HELPERS: u64 = 64;

/// Copies that are made at one time.
const MOST_COPIES: usize = 4;

/// For how long the databases are pinned anew before the tree is looked at all the same.
const PIN_BUDGET: Duration = Duration::from_millis(200);

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

/// Has a file that lies at `staged` checked as a database, by a helper that sees nothing else; SQLite's words on what is
/// wrong with it, if something is.
///
/// # Errors
/// Trouble with the helper, or of the system that it met, which say nothing about the file; the cancellation of the run.
pub(crate) fn check_copy(options: &DatabaseOptions, staging: &Staging, staged: Staged) -> io::Result<Option<String>> {
    let mut helper = serve_copy(options, staging, staged)?;
    helper.send(&Ask::Verify)?;
    match helper.receive()? {
        Say::Copied(_) => Ok(None),
        Say::Failed(words) => Ok(Some(words)),
        Say::Unable(words) => Err(io::Error::other(words)),
        other => Err(io::Error::other(format!("its helper said {other:?}"))),
    }
}

/// Tells of the sessions in a database of an agent's that lies at `staged`, as a helper reads them that sees nothing
/// else.
///
/// # Errors
/// SQLite's words on what is wrong with it, or that it is of no kind that is known; trouble with the helper; the
/// cancellation of the run.
pub(crate) fn sessions_in(
    options: &DatabaseOptions,
    staging: &Staging,
    staged: Staged,
    tell: &mut dyn FnMut(Stored),
) -> io::Result<()> {
    let mut helper = serve_copy(options, staging, staged)?;
    helper.send(&Ask::Sessions)?;
    loop {
        match helper.receive()? {
            Say::Session(stored) => tell(*stored),
            Say::NoMore => return Ok(()),
            Say::Failed(words) => return Err(io::Error::other(words)),
            other => return Err(io::Error::other(format!("its helper said {other:?}"))),
        }
    }
}

/// A helper for a file that lies at `staged`.
fn serve_copy(options: &DatabaseOptions, staging: &Staging, staged: Staged) -> io::Result<Helper> {
    let shard = staging.shard_of(staged)?;
    let stat = staging.stat(staged)?;
    let mut helper = Helper::start(&options.helper, &shard, &shard, COPY, options.timeout, stat.size)?;
    helper.send(&Ask::Serve(Task::new(COPY, stat.id(), 0, options.check)))?;
    Ok(helper)
}

/// The databases of one run.
pub(crate) struct Databases {
    run: Arc<Run>,
    known: Mutex<Vec<Weak<Database>>>,
}

impl Databases {
    /// None yet.
    pub(crate) fn new(options: DatabaseOptions, hot_since: Timestamp) -> Self {
        let run = Run { options, hot_since, helpers: Pool::new(MOST_HELPERS), claimed: AtomicU64::new(0) };
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
        spot: Spot,
        found: Stat,
        tick: Duration,
        staging: &Arc<Staging>,
    ) -> io::Result<Arc<Database>> {
        let database = Arc::new(Database::new(spot, found, tick, staging, &self.run)?);
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
        let mut all = self.alive();
        // What is not held may be written to before it is copied.
        all.sort_by_key(|database| database.is_held());
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
        thread::scope(|scope| {
            // This thread is one of them: where no other can be had, it does it all.
            let other = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..MOST_COPIES.min(all.len())).map_while(other).collect();
            let own = work();
            let ended =
                others.into_iter().map(|other| other.join().map_err(|_| io::Error::other("a copy panicked"))?);
            ended.fold(own, Result::and)
        })
    }
}

/// Asks all of them first, so that their helpers work side by side.
fn pin_each(databases: &[Arc<Database>]) -> io::Result<()> {
    let mut asked = Vec::new();
    for database in databases {
        asked.extend(database.ask_to_pin()?);
    }
    asked.into_iter().try_for_each(Asked::hear)
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
