//! One run at a time for each source.
//!
//! The lock is a `flock(2)` on the source's own directory, opened for reading. Every run meets the others there, whoever
//! runs it and wherever its archive goes. Nothing is made for it, so nothing is left: the kernel lets go of it when the
//! process ends, however it ends. A single file is locked by the directory that holds it, since its owner may use
//! `flock` on the file. Where the kernel has no such lock (some network filesystems) the run goes on without one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::gate::{self, Gate, Realm, Verb};
use crate::plan::Plan;
use crate::relpath::shown;
use crate::sys::{self, Dir};

/// How often a lock that somebody else holds is asked for.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a lock is asked for whose holder is not seen alive. A run that is killed just when it starts a helper leaves
/// it to a child that is about to become that helper, and lets go of it then.
const GRACE: Duration = Duration::from_secs(1);

/// The sources of a run, locked until this is dropped.
pub(crate) struct Locks {
    _held: Vec<Dir>,
    /// Whether somebody else had to end first.
    pub(crate) waited: bool,
    /// Directories that cannot be locked, and why.
    pub(crate) missing: Vec<(PathBuf, io::Error)>,
}

/// Locks the directories of all roots of `plan`, waiting for all of them together no longer than until `wait` after `begun`.
///
/// # Errors
/// Somebody else holds one of them; the cancellation of the run.
pub(crate) fn lock(
    plan: &Plan,
    (begun, wait): (Instant, Duration),
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
) -> Result<Locks> {
    let mut locks = Locks { _held: Vec::new(), waited: false, missing: Vec::new() };
    // In an order that is the same for all runs: two that want the same ones never wait for each other.
    for (id, path) in directories(plan, gate)? {
        let mut holder = None;
        let mut pause = || {
            holder = sys::lock_holder(id);
            let patience = if holder.is_some() { wait } else { wait.max(GRACE) };
            let left = patience.saturating_sub(begun.elapsed());
            locks.waited |= !left.is_zero();
            observer.on(Event::Waiting { over: left.is_zero() });
            std::thread::sleep(left.min(PAUSE));
            !left.is_zero()
        };
        match take(&path, gate, &mut pause) {
            Ok(Some(dir)) => locks._held.push(dir),
            Ok(None) => return Err(held(&path, holder, wait)),
            Err(error) if gate::is_cancelled(&error) => return Err(Error::Cancelled),
            Err(error) => locks.missing.push((path, error)),
        }
    }
    if locks.waited {
        observer.on(Event::Waiting { over: true });
    }
    Ok(locks)
}

/// Asks until the lock is ours, or `pause` has no more time.
fn take(path: &Path, gate: &Arc<dyn Gate>, pause: &mut dyn FnMut() -> bool) -> io::Result<Option<Dir>> {
    loop {
        let dir = open(path, gate)?;
        if !dir.lock_self()? {
            if pause() { continue } else { return Ok(None) }
        }
        // Whoever was waited for may have been a restore in place: then another directory has the name now.
        if open(path, gate)?.stat_self()?.id() == dir.stat_self()?.id() {
            return Ok(Some(dir));
        }
    }
}

/// The directories to lock, by their identity. What cannot be looked at is for the freeze to complain of.
fn directories(plan: &Plan, gate: &Arc<dyn Gate>) -> Result<BTreeMap<(u64, u64), PathBuf>> {
    let mut found = BTreeMap::new();
    for root in &plan.roots {
        let looked = directory_of(&root.path, gate).and_then(|path| Ok((open(path, gate)?.stat_self()?, path)));
        match looked {
            Ok((stat, path)) => drop(found.insert(stat.id(), path.to_owned())),
            Err(error) if gate::is_cancelled(&error) => return Err(Error::Cancelled),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// A directory itself; of anything else, the one that holds it.
fn directory_of<'a>(path: &'a Path, gate: &Arc<dyn Gate>) -> io::Result<&'a Path> {
    let _step = gate::take_at(&**gate, Verb::Stat, Realm::Source, path)?;
    Ok(if path.is_dir() { path } else { path.parent().unwrap_or(path) })
}

fn open(path: &Path, gate: &Arc<dyn Gate>) -> io::Result<Dir> {
    Dir::open(path, Realm::Source, Arc::clone(gate))
}

fn held(path: &Path, holder: Option<u32>, waited: Duration) -> Error {
    let holder = holder.map_or_else(String::new, |process| format!(" (process {process})"));
    let waited = if waited.is_zero() { String::new() } else { format!(" after {} ms", waited.as_millis()) };
    let path = shown(path.as_os_str().as_encoded_bytes());
    let advice = "let that one end, or wait longer with --wait, as in --wait 10m";
    Error::Locked(format!("another run{holder} still backs up {path}{waited}: {advice}"))
}
