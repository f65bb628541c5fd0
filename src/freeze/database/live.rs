//! One database of the source: what holds it, and what became of it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::helper::Helper;
use super::stamps::Stamps;
use super::words::{Ask, Copied, Say, Task, Way};
use super::{DatabaseOptions, tolerate};
use crate::entry::{Stat, Timestamp};
use crate::fate::Fate;
use crate::freeze::content::{self, Permit, Pool};
use crate::freeze::settle::{Restless, Why};
use crate::freeze::staging::{Staged, Staging};
use crate::gate;
use crate::relpath::RelPath;
use crate::sys::Dir;

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
pub(super) struct Run {
    pub(super) options: DatabaseOptions,
    /// What was modified at or after this moment is pinned by a helper.
    pub(super) hot_since: Timestamp,
    /// Helpers that there may still be.
    pub(super) helpers: Arc<Pool>,
}

impl Database {
    /// Takes charge of it. Its helper starts at once where it was written to lately, so that the first pin need not wait
    /// for that.
    ///
    /// # Errors
    /// There is no room for its copy; the cancellation of the run.
    pub(super) fn new(
        root: u16,
        dir: &Dir,
        name: &[u8],
        found: Stat,
        tick: Duration,
        staging: &Arc<Staging>,
        run: &Arc<Run>,
    ) -> io::Result<Self> {
        let database = Self {
            root,
            dir: dir.clone(),
            name: name.into(),
            found,
            tick,
            staging: Arc::clone(staging),
            staged: staging.private()?,
            run: Arc::clone(run),
            hold: Mutex::new(Hold { pin: Pin::None, stamps: None, helper: None, locks: false }),
            finished: Mutex::default(),
        };
        if found.mtime >= run.hot_since {
            tolerate(database.start(&mut database.hold()))?;
        }
        Ok(database)
    }

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
    pub(super) fn ask_to_pin(&self) -> io::Result<bool> {
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

    pub(super) fn hear_of_pin(&self) -> io::Result<()> {
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
    pub(super) fn ask_for_rest(&self) -> io::Result<bool> {
        let mut hold = self.hold();
        if hold.pin == Pin::Held { self.send(&mut hold, &Ask::Check) } else { Ok(false) }
    }

    /// Whether nothing was committed since it was pinned.
    pub(super) fn rests(&self, asked: bool) -> io::Result<bool> {
        if asked {
            return Ok(self.receive(&mut self.hold())? == Some(Say::Rests(true)));
        }
        let now = self.look()?;
        let hold = self.hold();
        let unmoved = hold.stamps.as_ref().is_some_and(|pinned| *pinned == now && !pinned.young);
        Ok(hold.pin == Pin::Loose && unmoved)
    }

    pub(super) fn restless(&self) -> Restless {
        let why = match self.hold() {
            hold if hold.pin == Pin::Refused => Why::Locked,
            hold if hold.stamps.as_ref().is_some_and(|stamps| stamps.young) => Why::Young,
            _ => Why::Contents,
        };
        let (root, path) = self.path();
        Restless { root, path, why }
    }

    pub(super) fn is_young(&self) -> bool {
        self.hold().stamps.as_ref().is_some_and(|stamps| stamps.young)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.hold().pin == Pin::Refused
    }

    pub(super) fn locks(&self) -> bool {
        self.hold().locks
    }

    /// Lets its owner commit again.
    pub(super) fn release(&self) -> io::Result<()> {
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
    pub(super) fn finish(&self) -> io::Result<()> {
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
