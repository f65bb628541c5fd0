//! A watcher that looks at files, over and over, while a backup runs.
//!
//! The gate makes the backup wait at each of its steps until the watcher has seen everything once more: a link that
//! exists between any two steps is seen.

#![allow(unreachable_pub, reason = "a part of a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clawsnap::event::{Event, Observer};
use clawsnap::gate::{Gate, Step};

/// What a run is doing, as far as its events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Before,
    Freeze,
    Archive,
    ReadBack,
    After,
}

pub const PHASES: [Phase; 5] = [Phase::Before, Phase::Freeze, Phase::Archive, Phase::ReadBack, Phase::After];

/// What a guard looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub nlink: u64,
    pub ctime: (i64, i64),
}

impl Look {
    fn at(path: &Path) -> Self {
        let found = path.symlink_metadata().expect("nobody removes what is watched");
        Self { nlink: found.nlink(), ctime: (found.ctime(), found.ctime_nsec()) }
    }
}

/// All that was ever seen of one file.
#[derive(Clone, Debug)]
pub struct Seen {
    pub first: Look,
    pub last: Look,
    pub most_links: u64,
    /// When it had more links than at first.
    pub linked_in: BTreeSet<Phase>,
    pub ctime_moved: bool,
}

impl Seen {
    fn new(look: Look) -> Self {
        Self { first: look, last: look, most_links: look.nlink, linked_in: BTreeSet::new(), ctime_moved: false }
    }

    fn add(&mut self, look: Look, phase: Phase) {
        self.last = look;
        self.most_links = self.most_links.max(look.nlink);
        self.ctime_moved |= look.ctime != self.first.ctime;
        if look.nlink > self.first.nlink {
            self.linked_in.insert(phase);
        }
    }

    fn was_left_alone(&self) -> bool {
        self.first.nlink == 1 && self.most_links == 1 && self.last.nlink == 1 && !self.ctime_moved
    }
}

/// What the watcher and the run tell each other.
#[derive(Default)]
pub struct Shared {
    /// The index of the phase.
    phase: AtomicU64,
    begun: AtomicU64,
    done: Mutex<u64>,
    finished: Condvar,
    stop: AtomicBool,
}

impl Shared {
    pub fn phase(&self) -> Phase {
        PHASES[usize::try_from(self.phase.load(Ordering::SeqCst)).expect("is small")]
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u64, Ordering::SeqCst);
    }

    /// Waits for a round of looks that begins after this call.
    pub fn looked(&self) -> io::Result<()> {
        let before = self.begun.load(Ordering::SeqCst);
        let done = self.done.lock().expect("nobody failed with it");
        let waited = self.finished.wait_timeout_while(done, Duration::from_secs(20), |done| *done <= before);
        match waited.expect("nobody failed with it").1.timed_out() {
            true => Err(io::Error::other("the watcher looks no more")),
            false => Ok(()),
        }
    }

    fn done(&self, round: u64) {
        *self.done.lock().expect("nobody failed with it") = round;
        self.finished.notify_all();
    }
}

/// Looks at files, over and over, until it is told to end.
pub struct Watcher {
    pub shared: Arc<Shared>,
    thread: JoinHandle<Watched>,
}

/// What a watcher saw.
pub struct Watched {
    pub files: BTreeMap<PathBuf, Seen>,
    /// Rounds of looks that lie within one phase.
    pub rounds: BTreeMap<Phase, u64>,
}

impl Watcher {
    pub fn of(files: Vec<PathBuf>) -> Self {
        // Where stamps are as coarse as the clock, what happens within the tick of the last change does not move them.
        thread::sleep(Duration::from_millis(20));
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        let thread = thread::spawn(move || watch(files, &watching));
        shared.looked().expect("looks before anything happens");
        Self { shared, thread }
    }

    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(Patient(Arc::clone(&self.shared)))
    }

    pub fn observer(&self) -> impl Observer + 'static {
        Phases(Arc::clone(&self.shared))
    }

    pub fn end(self) -> Watched {
        self.shared.looked().expect("looks once more");
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watcher did not fail")
    }
}

fn watch(files: Vec<PathBuf>, shared: &Shared) -> Watched {
    let mut watched = Watched { files: BTreeMap::new(), rounds: BTreeMap::new() };
    while !shared.stop.load(Ordering::SeqCst) {
        let round = shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let phase = shared.phase();
        for path in &files {
            let look = Look::at(path);
            match watched.files.get_mut(path) {
                Some(seen) => seen.add(look, phase),
                None => drop(watched.files.insert(path.clone(), Seen::new(look))),
            }
        }
        if phase == shared.phase() {
            *watched.rounds.entry(phase).or_default() += 1;
        }
        shared.done(round);
    }
    watched
}

/// Lets each step wait until the watcher has looked.
struct Patient(Arc<Shared>);

impl Gate for Patient {
    fn pass(&self, _: &Step<'_>) -> io::Result<()> {
        self.0.enter(Phase::Freeze);
        self.0.looked()
    }
}

struct Phases(Arc<Shared>);

impl Observer for Phases {
    fn on(&self, event: Event) {
        match event {
            Event::Frozen { .. } => self.0.enter(Phase::Archive),
            Event::Sealed { .. } => self.0.enter(Phase::ReadBack),
            Event::Published => self.0.enter(Phase::After),
            _ => {}
        }
    }
}

impl Watched {
    /// The files that were not left alone, a line each.
    pub fn touched(&self, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
        let touched = self.files.iter().filter(|(path, seen)| wanted(path) && !seen.was_left_alone());
        touched.map(|(path, seen)| format!("{}: {seen:?}", path.display())).collect()
    }

    pub fn seen(&self, path: &Path) -> &Seen {
        &self.files[path]
    }

    /// The watcher looked while the run did each of its parts, not only before and after it.
    pub fn assert_looked_from_within(&self) {
        for phase in PHASES {
            let rounds = self.rounds.get(&phase).copied().unwrap_or(0);
            let least = if matches!(phase, Phase::Before | Phase::After) { 1 } else { 5 };
            assert!(rounds >= least, "{rounds} rounds of looks in {phase:?}: {:?}", self.rounds);
        }
    }
}
