//! Reading ahead of the compressor: threads make ready what comes next in the walk, and its order stays.
//!
//! A file that was read whole needs its second name no more: that goes at once, so a session is exposed for as long as
//! it waits to be read and not a moment longer. One that is only opened keeps it until it is in the archive.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};

use super::contents::{Body, Contents, Place, Reading, SMALL};
use crate::freeze::{Found, Held};

/// Threads that read. They wait for the disk more than for a core.
const READERS: usize = 4;

/// What a thread makes ready at a stretch: so many names, of so many bytes together. One that is larger is the last, and
/// only opened: so few descriptors are needed, whatever is read.
const BATCH_NAMES: usize = 64;
const BATCH_BYTES: u64 = SMALL;

/// Batches that are ready or being made so, for each thread.
const AHEAD: usize = 2;

/// A file that was made ready.
pub(super) struct Ready<'a> {
    /// What was promised of it, or why it cannot be had.
    pub(super) contents: io::Result<Contents<'a>>,
    /// BLAKE3 of contents that are in memory.
    pub(super) blake3: Option<blake3::Hash>,
}

impl<'a> Ready<'a> {
    /// Makes a file ready, and lets go of what held it where all of it is in memory.
    pub(super) fn of(place: Place<'a>, reading: &Reading) -> Self {
        let contents = reading.contents(place).and_then(Contents::in_memory);
        let blake3 = match contents.as_ref().map(|contents| &contents.body) {
            Ok(Body::Bytes(bytes)) => {
                place.let_go();
                Some(blake3::hash(bytes))
            }
            _ => None,
        };
        Self { contents, blake3 }
    }
}

/// Names that stand together in the walk, before they are made ready and after.
type Batch<'a> = Vec<Found<'a>>;
type Made<'a> = Vec<(Found<'a>, Option<Ready<'a>>)>;

/// A thread that reads: what it is given comes back in that order.
struct Lane<'a> {
    to: Sender<Batch<'a>>,
    from: Receiver<Made<'a>>,
}

impl<'a> Lane<'a> {
    fn open<'s>(scope: &'s Scope<'s, '_>, reading: &'s Reading) -> io::Result<Self>
    where
        'a: 's,
    {
        let (to, batches) = channel::<Batch<'a>>();
        let (made, from) = channel();
        let work = move || {
            // Whoever took them has gone when nobody takes any more.
            while let Ok(batch) = batches.recv()
                && made.send(batch.into_iter().map(|found| (found, ahead(found, reading))).collect()).is_ok()
            {
            }
        };
        thread::Builder::new().name("reader".to_owned()).spawn_scoped(scope, work)?;
        Ok(Self { to, from })
    }
}

/// A file is read before its turn, unless it may turn out to be another name of one that was archived.
fn ahead<'a>(found: Found<'a>, reading: &Reading) -> Option<Ready<'a>> {
    let Found { base, node, entry } = found;
    let entry = entry.filter(|entry| reads(&entry.held) && !entry.may_have_other_names())?;
    Some(Ready::of(Place { base, node, entry }, reading))
}

fn reads(held: &Held) -> bool {
    !matches!(held, Held::Directory(_) | Held::Symlink(_))
}

/// Tells `take` of everything in the walk, in its order, with what was made ready of it.
///
/// # Errors
/// Those of `take`, which end it; a thread that cannot be started.
pub(super) fn each<'a>(
    walk: impl Iterator<Item = Found<'a>>,
    reading: &Reading,
    mut take: impl FnMut(Found<'a>, Option<Ready<'a>>) -> io::Result<()>,
) -> io::Result<()> {
    thread::scope(|scope| {
        let lanes = (0..READERS).map(|_| Lane::open(scope, reading)).collect::<io::Result<Vec<_>>>()?;
        let mut batches = Batches(walk).zip(lanes.iter().cycle());
        let mut waiting = VecDeque::new();
        loop {
            for (batch, lane) in batches.by_ref().take(READERS * AHEAD - waiting.len()) {
                lane.to.send(batch).map_err(gone)?;
                waiting.push_back(lane);
            }
            let Some(lane) = waiting.pop_front() else { return Ok(()) };
            let made = lane.from.recv().map_err(gone)?;
            made.into_iter().try_for_each(|(found, ready)| take(found, ready))?;
        }
    })
}

/// A thread ends before its time only by a panic, which the scope passes on.
fn gone<E>(_: E) -> io::Error {
    io::Error::other("a thread that reads has ended")
}

/// A walk in batches.
struct Batches<W>(W);

impl<'a, W: Iterator<Item = Found<'a>>> Iterator for Batches<W> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_NAMES && bytes < BATCH_BYTES {
            let Some(found) = self.0.next() else { break };
            bytes += found.entry.map_or(0, |entry| entry.stat.size);
            batch.push(found);
        }
        (!batch.is_empty()).then_some(batch)
    }
}
