//! One database of the source: what holds it, and what became of it.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::helper::Helper;
use super::stamps::Stamps;
use super::words::{Ask, Copied, Say, Task, Way};
use super::{DatabaseOptions, SIDECARS, sidecar};
use crate::entry::{Stat, Timestamp};
use crate::fate::Fate;
use crate::freeze::content::{self, Permit, Pool};
use crate::freeze::settle::{Restless, Why};
use crate::freeze::staging::{Claim, Staged, Staging};
use crate::gate;
use crate::relpath::RelPath;
use crate::sys::Dir;

/// Copying a database under its owner's eyes for longer than this is not done twice.
const COSTLY: Duration = Duration::from_millis(500);

/// What holds the state of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pin {
    /// Nothing yet.
    None,
    /// Its stamps: they must be the same when it is copied.
    Loose,
    /// A read transaction of its helper, or a copy.
    Held,
    /// A copy that was made under its lock, of a state that has passed: its owner shall not wait for another one.
    Past,
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

/// Where a database is: its directory is opened anew whenever it is needed, as there may be more databases than
/// descriptors.
pub(crate) struct Spot {
    /// The number of its root.
    pub(crate) root: u16,
    /// The root's directory.
    pub(crate) base: Dir,
    /// Its directory below that.
    pub(crate) dir: RelPath,
    /// Its name there.
    pub(crate) name: Box<[u8]>,
}

impl Spot {
    fn open(&self) -> io::Result<Dir> {
        self.base.open_dir(self.dir.as_bytes())
    }
}

/// A database that is frozen, or about to be.
pub(crate) struct Database {
    /// First of all, so that a helper is gone before the staging directory is, in which it writes.
    hold: Mutex<Hold>,
    spot: Spot,
    /// Its metadata when it was found.
    found: Stat,
    tick: Duration,
    staging: Arc<Staging>,
    /// The place of the copy, in the private directory of its helper.
    staged: Staged,
    run: Arc<Run>,
    finished: Mutex<Option<Result<Arc<Finished>, String>>>,
}

/// A database whose helper is going to say whether it is pinned.
pub(super) struct Asked<'a> {
    database: &'a Database,
    /// The room for what is copied at once.
    _room: Option<Claim<'a>>,
}

impl Asked<'_> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(super) fn hear(self) -> io::Result<()> {
        self.database.hear_of_pin()
    }
}

/// What holds it at the moment.
struct Hold {
    pin: Pin,
    stamps: Option<Stamps>,
    /// Its helper; during the freeze there may be so many at most.
    helper: Option<(Helper, Option<Permit>)>,
    /// Its helper had to lock it: it takes longer, and is asked first.
    locks: bool,
    /// Copying it under that lock took so long that it is not done again.
    costly: bool,
    asked: Instant,
}

impl Hold {
    /// Whether a state is held, with the stamps that it had. That ends with its helper.
    fn is_held(&self) -> bool {
        matches!(self.pin, Pin::Held | Pin::Past) && self.helper.is_some()
    }
}

/// What all databases of a run have in common.
pub(super) struct Run {
    pub(super) options: DatabaseOptions,
    /// What was modified at or after this moment is pinned by a helper.
    pub(super) hot_since: Timestamp,
    /// Helpers that there may still be before the freeze is over.
    pub(super) helpers: Arc<Pool>,
    /// Bytes that are going to be written by copies under way.
    pub(super) claimed: AtomicU64,
}

impl Database {
    /// Takes charge of it. Its helper starts at once where it was written to lately, so that the first pin need not wait
    /// for that.
    ///
    /// # Errors
    /// There is no room for its copy; the cancellation of the run.
    pub(super) fn new(
        spot: Spot,
        found: Stat,
        tick: Duration,
        staging: &Arc<Staging>,
        run: &Arc<Run>,
    ) -> io::Result<Self> {
        let asked = Instant::now();
        let hold = Hold { pin: Pin::None, stamps: None, helper: None, locks: false, costly: false, asked };
        let database = Self {
            hold: Mutex::new(hold),
            spot,
            found,
            tick,
            staging: Arc::clone(staging),
            staged: staging.private()?,
            run: Arc::clone(run),
            finished: Mutex::default(),
        };
        if found.mtime >= run.hot_since {
            database.start_if_allowed(&mut database.hold())?;
        }
        Ok(database)
    }

    /// Where the copy is, or will be.
    pub(crate) fn staged(&self) -> Staged {
        self.staged
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
        match self.spot.open() {
            Err(error) if gate::is_cancelled(&error) => Err(error),
            Err(_) => Ok(Stamps::default()),
            Ok(dir) => Stamps::look(&dir, &self.spot.name, self.tick),
        }
    }

    /// Starts its helper, if there may be another one.
    fn start_if_allowed(&self, hold: &mut Hold) -> io::Result<()> {
        if hold.helper.is_none()
            && let Some(permit) = self.run.helpers.take(1)
        {
            gate::tolerate(self.start(hold, Some(permit)))?;
        }
        Ok(())
    }

    fn start(&self, hold: &mut Hold, permit: Option<Permit>) -> io::Result<()> {
        let DatabaseOptions { helper, timeout, check } = &self.run.options;
        let (dir, shard) = (self.spot.open()?, self.staging.shard_of(self.staged)?);
        let size = hold.stamps.as_ref().map_or(self.found.size, Stamps::size);
        let mut started = Helper::start(helper, &dir, &shard, &self.spot.name, *timeout, size)?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        started.send(&Ask::Serve(Task::new(&self.spot.name, self.found.id(), timeout_ms, *check)))?;
        hold.helper = Some((started, permit));
        Ok(())
    }

    /// Asks its helper for a pin; returns what waits for the answer. What nobody wrote to lately needs none.
    pub(super) fn ask_to_pin(&self) -> io::Result<Option<Asked<'_>>> {
        let stamps = self.look()?;
        let mut hold = self.hold();
        if hold.costly {
            hold.pin = Pin::Past;
            return Ok(None);
        }
        let hot = stamps.newest().is_some_and(|newest| newest >= self.run.hot_since);
        let (size, has_log) = (stamps.size(), stamps.has_log());
        hold.stamps = Some(stamps);
        hold.pin = Pin::Loose;
        if hot {
            self.start_if_allowed(&mut hold)?;
        }
        if hold.helper.is_none() {
            return Ok(None);
        }
        // With a log it is copied later.
        let room = if has_log { None } else { gate::tolerate(self.claim(size))? };
        hold.asked = Instant::now();
        let sent = self.send(&mut hold, &Ask::Pin { room: room.is_some() })?;
        Ok(sent.then_some(Asked { database: self, _room: room }))
    }

    /// A claim to the room for its copy, but for what a copy that will be written anew has already.
    fn claim(&self, size: u64) -> io::Result<Claim<'_>> {
        let there = gate::tolerate(self.staging.stat(self.staged))?.map_or(0, |copy| copy.size);
        Claim::of(&self.run.claimed, &self.staging, size.saturating_sub(there))
    }

    /// Asks its helper; says whether there is one that could be asked.
    fn send(&self, hold: &mut Hold, ask: &Ask) -> io::Result<bool> {
        let Some((helper, _)) = &mut hold.helper else { return Ok(false) };
        let sent = gate::tolerate(helper.send(ask))?.is_some();
        if !sent {
            hold.helper = None;
        }
        Ok(sent)
    }

    /// Waits for its helper's answer; `None` if that is lost.
    fn receive(&self, hold: &mut Hold) -> io::Result<Option<Say>> {
        let Some((helper, _)) = &mut hold.helper else { return Ok(None) };
        let said = gate::tolerate(helper.receive())?;
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
                hold.costly = locked && hold.asked.elapsed() > COSTLY;
                Pin::Held
            }
            Some(Say::Refused(_)) => Pin::Refused,
            _ => Pin::Loose,
        };
        Ok(())
    }

    /// Asks its helper whether anything was committed since the pin; says whether there is an answer to be waited for.
    pub(super) fn ask_for_rest(&self) -> io::Result<bool> {
        let mut hold = self.hold();
        if hold.pin == Pin::Held { self.send(&mut hold, &Ask::Check) } else { Ok(false) }
    }

    /// Whether nothing was committed since it was pinned.
    pub(super) fn rests(&self, asked: bool) -> io::Result<bool> {
        if asked {
            let said = self.receive(&mut self.hold())?;
            // The lock may be gone by now. But a commit with a rollback journal begins with the first page of the file.
            let past_the_lock = said == Some(Say::Rests(false)) && self.locks();
            return if past_the_lock { self.main_rests() } else { Ok(said == Some(Say::Rests(true))) };
        }
        let now = self.look()?;
        let hold = self.hold();
        let unmoved = hold.stamps.as_ref().is_some_and(|pinned| *pinned == now && !pinned.young);
        Ok(hold.pin == Pin::Loose && unmoved)
    }

    fn main_rests(&self) -> io::Result<bool> {
        let now = self.look()?;
        Ok(self.hold().stamps.as_ref().is_some_and(|pinned| pinned.same_main(&now) && !pinned.young))
    }

    /// Why it would not rest.
    fn why(&self) -> Why {
        match self.hold() {
            hold if hold.pin == Pin::Refused => Why::Locked,
            hold if hold.pin == Pin::Loose && hold.stamps.as_ref().is_some_and(|stamps| stamps.young) => Why::Young,
            _ => Why::Contents,
        }
    }

    pub(super) fn restless(&self) -> Restless {
        Restless { root: self.spot.root, path: self.spot.dir.join(&self.spot.name), why: self.why() }
    }

    pub(super) fn is_young(&self) -> bool {
        self.why() == Why::Young
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.hold().pin, Pin::Refused | Pin::Past)
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold().is_held()
    }

    pub(super) fn locks(&self) -> bool {
        self.hold().locks
    }

    /// Lets its owner commit again.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut hold = self.hold();
        if hold.locks && self.send(&mut hold, &Ask::Release)? {
            self.receive(&mut hold)?;
        }
        Ok(())
    }

    /// Copies it. Trouble with the database is what became of it.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(super) fn finish(&self) -> io::Result<()> {
        let copied = self.copy();
        // However that ended: a helper that is not asked any more would hold its transaction for the rest of the run.
        self.hold().helper = None;
        let outcome = match copied {
            Err(error) if gate::is_cancelled(&error) => return Err(error),
            other => other.map(Arc::new).map_err(|error| error.to_string()),
        };
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        Ok(())
    }

    fn copy(&self) -> io::Result<Finished> {
        let mut hold = self.hold();
        let held = hold.is_held();
        // What was locked was copied then.
        let is_made = held && hold.locks;
        let _claim = if is_made { None } else { Some(self.claim(self.look()?.size())?) };
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
        let started = if hold.helper.is_some() { Ok(()) } else { self.start(hold, None) };
        let asked = started.and_then(|()| match &mut hold.helper {
            Some((helper, _)) => helper.send(ask).and_then(|()| helper.receive()),
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
        let parts = parts.into_iter().filter_map(|number| self.part(number, stat, now)).collect();
        let size = self.staging.stat(self.staged)?.size;
        Ok(Finished { fate, stat: resized(stat, size), staged: self.staged, copied, parts })
    }

    fn part(&self, number: usize, main: Stat, now: &Stamps) -> Option<(usize, Stat, Staged)> {
        let staged = self.staged.after(u32::try_from(number).ok()? + 1);
        let size = self.staging.stat(staged).ok()?.size;
        let like = now.others.get(number).copied().flatten().unwrap_or(main);
        Some((number, resized(like, size), staged))
    }

    /// The bytes, read by this process as a last resort. It never has a connection, so there is no lock that it could
    /// drop.
    fn raw_at_last(&self, reason: &str, stat: Stat) -> io::Result<Finished> {
        let dir = self.spot.open()?;
        let copy = |name: &[u8]| content::copy(&dir.open_file(name)?, &self.staging, 0);
        let main = copy(&self.spot.name)?;
        let mut parts = Vec::new();
        for number in 0..SIDECARS.len() {
            let part = gate::tolerate(copy(&sidecar(&self.spot.name, number)))?;
            parts.extend(part.map(|part| (number, part.stat, part.contents)));
        }
        let stat = resized(stat, main.stat.size);
        Ok(Finished { fate: torn(reason), stat, staged: main.contents, copied: raw(), parts })
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
