//! Removes archives from a directory by rules that say which stay.
//!
//! Only what has a name of ours, was read to its end and is equal to its inventory can go. What is not proven stays, is
//! named, and takes nobody's place. What a guarded command stands on stays as well (`crate::way_back`).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::event::Observer;
use crate::gate::{self, Gate, is_cancelled};
use crate::keep::{Candidate, Policy, Reason, Standing, judge};
use crate::relpath::joined;
use crate::report::{Judged, PathName, Pruned};
use crate::shelf::{Manner, Shelf, Shelved, is_same};
use crate::sys::{self, Dir};
use crate::way_back::is_marked;

/// Which archives stay.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The rules.
    pub policy: Policy,
    /// Whose hours and days they count.
    pub zone: TimeZone,
    /// Whether nothing is removed, nor noted.
    pub dry_run: bool,
    /// Whether every archive is read, though it is noted on it that it was proven.
    pub again: bool,
}

/// An archive that was just made, or would be: it stays whatever its date, and only archives of its source may go.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'a> {
    /// Its name in the directory.
    pub name: &'a OsStr,
    /// When it was made: ISO 8601.
    pub created_at: &'a str,
    /// What it is a backup of.
    pub sources: &'a [String],
    /// Nothing is lost, and there is no gap.
    pub is_whole: bool,
}

/// Judges the archives in `directory`, and removes those that no rule keeps: of all sources, or of that of an archive
/// that was just made there.
pub fn prune(
    directory: &Path,
    retention: &Retention,
    fresh: Option<Fresh<'_>>,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
) -> Pruned {
    let directory_name = directory.into();
    let mut pruned = Pruned { directory: directory_name, dry_run: retention.dry_run, ..Pruned::default() };
    let manner = Manner { again: retention.again, note: !retention.dry_run };
    let outcome = Shelf::open(directory, manner, gate, observer).and_then(|mut shelf| {
        pruned.directory = shelf.path.as_path().into();
        shelf.archives.retain(|archive| is_of(archive, fresh));
        pruned.archives = judged(&shelf, retention, fresh);
        if retention.dry_run { Ok(()) } else { remove(&shelf, &mut pruned.archives) }
    });
    pruned.error = outcome.err().map(|error| error.to_string());
    pruned
}

/// Whose source nobody knows might be of any.
fn is_of(archive: &Shelved, fresh: Option<Fresh<'_>>) -> bool {
    match (&archive.known, fresh) {
        (Ok(known), Some(fresh)) => known.about.sources == fresh.sources,
        _ => true,
    }
}

fn judged(shelf: &Shelf, retention: &Retention, fresh: Option<Fresh<'_>>) -> Vec<Judged> {
    let mut candidates: Vec<_> = shelf.archives.iter().map(candidate).collect();
    // A rehearsal for an archive that is not made yet counts it as well. Its reasons are nobody's.
    candidates.extend(fresh.filter(|_| retention.dry_run).and_then(|fresh| {
        let at = fresh.created_at.parse().ok()?;
        Some(Candidate { at, source: fresh.sources, standing: standing(fresh.is_whole), is_way_back: false })
    }));
    let reasons = judge(&candidates, &retention.policy, &retention.zone);
    let judged = shelf.archives.iter().zip(reasons).map(|(archive, reasons)| {
        let is_fresh = fresh.is_some_and(|fresh| fresh.name.as_bytes() == archive.name);
        let just_made = (is_fresh && reasons.is_empty()).then(|| "just made".to_owned());
        let stays = just_made.into_iter().chain(reasons.iter().map(ToString::to_string)).collect();
        Judged { stays, ..described(shelf, archive) }
    });
    judged.collect()
}

fn candidate(archive: &Shelved) -> Candidate<&[String]> {
    match &archive.known {
        Err(_) => {
            Candidate { at: jiff::Timestamp::UNIX_EPOCH, source: &[], standing: Standing::Unproven, is_way_back: false }
        }
        Ok(known) => Candidate {
            at: known.at,
            source: &known.about.sources,
            standing: standing(known.about.losses == 0 && known.about.gaps == 0),
            is_way_back: known.is_way_back,
        },
    }
}

fn standing(is_whole: bool) -> Standing {
    if is_whole { Standing::Whole } else { Standing::Lossy }
}

fn described(shelf: &Shelf, archive: &Shelved) -> Judged {
    let path = PathName(joined(shelf.path.as_os_str().as_bytes(), &archive.name));
    let judged = Judged { path, bytes: archive.stat.size, ..Judged::default() };
    match &archive.known {
        Err(error) => Judged { error: Some(error.clone()), ..judged },
        Ok(known) => Judged {
            proven: true,
            created_at: Some(known.about.created_at.clone()),
            sources: known.about.sources.clone(),
            losses: known.about.losses,
            gaps: known.about.gaps,
            ..judged
        },
    }
}

/// Removes what no rule keeps, the oldest first, and makes that durable.
fn remove(shelf: &Shelf, archives: &mut [Judged]) -> Result<()> {
    let going = shelf.archives.iter().zip(archives).filter(|(_, judged)| judged.stays.is_empty());
    let mut removed = false;
    for (archive, judged) in going {
        match remove_one(&shelf.dir, archive) {
            Ok(None) => judged.removed = true,
            Ok(Some(reason)) => judged.stays.push(reason),
            Err(error) if is_cancelled(&error) => return Err(Error::Cancelled),
            Err(error) => judged.error = Some(format!("cannot remove it: {error}")),
        }
        removed |= judged.removed;
    }
    let synced = if removed { shelf.dir.sync() } else { Ok(()) };
    synced.map_err(|error| Error::failed("make durable what was removed from", &shelf.path, error))
}

/// Removes an archive, unless somebody needs it by now: then it says why that stays. What has the name must still be what
/// was judged.
fn remove_one(dir: &Dir, archive: &Shelved) -> io::Result<Option<String>> {
    let Some(file) = sys::if_there(dir.open_file(&archive.name))? else { return Ok(None) };
    if !is_same(&file.stat()?, &archive.stat) {
        return Err(io::Error::other("it is another file by now"));
    }
    // Held until it is gone: who wants to go back by it finds it locked, or has locked it. A guard that has ended since it
    // was judged has marked it before.
    let Some(_lock) = lock(dir, &archive.name)? else { return Ok(Some("in use".to_owned())) };
    if is_marked(&file)? {
        return Ok(Some(Reason::WayBack.to_string()));
    }
    sys::if_there(dir.unlink(&archive.name)).map(|_| None)
}

/// Locks an archive; nothing where somebody uses it. A filesystem without locks has nobody who could tell us.
fn lock(dir: &Dir, name: &[u8]) -> io::Result<Option<File>> {
    // NFS locks only for who may write.
    let file = match gate::tolerate(dir.open_own(name))? {
        Some(file) => file,
        None => dir.open_file(name)?.into_file(),
    };
    let is_locked = gate::tolerate(dir.lock(&file))?.unwrap_or(true);
    Ok(is_locked.then_some(file))
}
