//! What SQLite keeps beside a database: its log, the log's index, its journal. They belong to that very file: beside
//! another one they would destroy it.

use std::collections::BTreeSet;
use std::io;

use super::ground::{Ground, Spot};
use super::journal::Move;
use crate::entry::Kind;
use crate::freeze::{DATABASE_MAGIC, SIDECARS};
use crate::sys::{self, Dir, Errno};

/// Has them go with their databases, by what is at the root's side now. What lies there beside a database that comes or
/// goes is exchanged for nothing first, and what belongs to one that comes follows it. Whoever is killed in between
/// leaves a database that lacks the last rows of its log; under a stranger's log it would be destroyed.
///
/// Whether anything is exchanged now that was not before.
///
/// # Errors
/// Those of the kernel; the moves stay what they were.
pub(super) fn arrange(moves: &mut Vec<Move>, ground: &Ground, dir: &Dir) -> io::Result<bool> {
    let looked: io::Result<Vec<Looked>> = moves.iter().map(|step| Looked::at(step, ground, dir)).collect();
    let mut looked = looked?;
    let of = |looked: &[Looked], fits: &dyn Fn(&Looked) -> bool| -> BTreeSet<Vec<u8>> {
        looked.iter().filter(|look| fits(look)).map(|look| look.path.clone()).collect()
    };
    let come = of(&looked, &|look| !look.is_pending);
    looked.retain(|look| !look.is_void() && !look.is_overtaken(&come));
    let leaving = of(&looked, &|look| look.is_pending && look.step.after.is_none());
    let mut first = Vec::new();
    for look in looked.iter().filter(|look| look.is_pending && !look.path.is_empty()) {
        if look.is_of_database(ground, dir)? {
            for sidecar in SIDECARS.map(|ending| [&look.path, ending.as_bytes()].concat()) {
                if !leaving.contains(&sidecar) && is_there(ground, &sidecar)? {
                    first.push(Move::away(&sidecar, dir)?);
                }
            }
        }
    }
    let are_more = !first.is_empty();
    // After those that left earlier: of two, the way back brings the later one.
    *moves = looked.into_iter().map(|look| look.step).chain(first).collect();
    moves.sort_by_key(|step| match (step.path().is_ok_and(|path| database_of(&path).is_some()), step.after) {
        (true, None) => 0,
        (false, _) => 1,
        (true, Some(_)) => 2,
    });
    Ok(are_more)
}

/// A move, and how things are.
struct Looked {
    step: Move,
    path: Vec<u8>,
    is_pending: bool,
    /// Whether anything is at the root's side.
    is_there: bool,
}

impl Looked {
    fn at(step: &Move, ground: &Ground, dir: &Dir) -> io::Result<Self> {
        let path = step.path()?;
        // What cannot be looked at will not be carried out either.
        let is_pending = step.is_pending(dir).unwrap_or(false);
        Ok(Self { is_pending, is_there: is_there(ground, &path)?, step: step.clone(), path })
    }

    /// Nothing would be exchanged for nothing. Left in the journal, it would take away later what another move brought.
    fn is_void(&self) -> bool {
        self.is_pending && self.step.after.is_none() && !self.is_there
    }

    /// What belongs to a database that has come, where that has a new one by now: somebody works with it already.
    fn is_overtaken(&self, come: &BTreeSet<Vec<u8>>) -> bool {
        let has_come = || database_of(&self.path).is_some_and(|database| come.contains(database));
        self.is_pending && self.step.after.is_some() && self.is_there && has_come()
    }

    /// Whether a database comes, or one goes.
    fn is_of_database(&self, ground: &Ground, dir: &Dir) -> io::Result<bool> {
        Ok(is_database(&self.step.drafted(dir)?)? || (self.is_there && is_database(&ground.live(&self.path)?)?))
    }
}

/// The database that a sidecar of this name would belong to.
fn database_of(path: &[u8]) -> Option<&[u8]> {
    SIDECARS.iter().find_map(|ending| path.strip_suffix(ending.as_bytes()))
}

/// Whether anything is at the root's side: nothing is where its directory is gone, or another thing now.
fn is_there(ground: &Ground, path: &[u8]) -> io::Result<bool> {
    match ground.live(path).and_then(|live| live.inode()) {
        Err(error) if matches!(sys::errno(&error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(false),
        other => Ok(other?.is_some()),
    }
}

/// Whether a database is there. What we may not read could be one.
fn is_database(spot: &Spot) -> io::Result<bool> {
    if spot.stat()?.is_none_or(|stat| stat.kind != Kind::File) {
        return Ok(false);
    }
    let mut start = [0; DATABASE_MAGIC.len()];
    match spot.open_file().and_then(|file| file.fill_at(&mut start, 0)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        length => Ok(&start[..length?] == DATABASE_MAGIC),
    }
}
