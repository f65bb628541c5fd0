//! A live OpenClaw state directory, and the truth about it.
//!
//! [`sample_state`] makes a state directory. [`Churn`] changes its sessions as OpenClaw does, from several threads,
//! and writes down every change with the clock before and after it. [`Log`] then answers what a backup that ran
//! meanwhile may look like:
//!
//! - [`Log::names_possible_at`], [`Log::bindings_possible_at`]: was this set of names ever there, all together?
//! - [`Log::existed_throughout`]: which names must be in it?
//! - [`Log::bytes_ok`], [`Log::bytes_ok_between`]: did the name ever hold these bytes?
//! - [`no_torn_line`]: is every line of it a record?

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test uses its own part")]

mod books;
mod contents;
mod load;
mod log;
mod names;
mod rng;
mod sample;
mod scribe;
mod worker;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub use books::{Books, audit};
pub use contents::no_torn_line;
pub use load::{Kind, Load};
pub use log::{Change, Incarnation, Life, Log, NameOp, Notes, Span, Version, now_ns};
pub use rng::Rng;
pub use sample::{Sample, empty_database, sample_state, try_sample_state};
pub use scribe::Scribe;
use worker::Worker;

/// Threads that change the sessions below a state directory until they are stopped.
#[derive(Debug)]
pub struct Churn {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Notes>>,
    started_ns: u64,
}

impl Churn {
    /// Begins to change `state`, or panics with the reason why it cannot.
    pub fn start(state: &Path, load: Load) -> Churn {
        Churn::try_start(state, load).unwrap_or_else(|error| panic!("no churn: {error}"))
    }

    /// Begins to change `state`. Its log knows every file that lies directly in an `agents/*/sessions` directory.
    pub fn try_start(state: &Path, load: Load) -> io::Result<Churn> {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = prepare(state, &load, &stop)?;
        let started_ns = now_ns();
        let workers = workers.into_iter().map(|worker| thread::spawn(|| worker.run())).collect();
        Ok(Churn { stop, workers, started_ns })
    }

    /// Lets every operation that has begun come to its end, and returns the truth.
    pub fn stop(mut self) -> Log {
        let notes = self.halt().into_iter().map(|ended| ended.expect("a churn thread panicked"));
        let notes = notes.collect();
        Log::new(self.started_ns, now_ns(), notes)
    }

    fn halt(&mut self) -> Vec<thread::Result<Notes>> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        self.workers.drain(..).map(JoinHandle::join).collect()
    }
}

/// A test that fails leaves no thread behind that still writes.
impl Drop for Churn {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Deals the files that are there, and the tokens, out to the workers.
fn prepare(state: &Path, load: &Load, stop: &Arc<AtomicBool>) -> io::Result<Vec<Worker>> {
    let threads = load.threads.max(1);
    let load = Load { threads, ..load.clone() };
    let homes = homes(state, load.moves())?;
    let hand = |number| Worker::new(state.to_owned(), homes.clone(), load.clone(), number, Arc::clone(stop));
    let mut workers: Vec<Worker> = (0..threads as u64).map(hand).collect();
    for (number, path) in files(state, &homes)?.into_iter().enumerate() {
        workers[number % threads].adopt(path)?;
    }
    if load.moves() {
        for token in 0..load.tokens {
            let (home, other) = (token % homes.len(), (token + 1) % homes.len());
            workers[token % threads].mint(&homes[home], &homes[other])?;
        }
    }
    Ok(workers)
}

/// Whether no rule leaves a name out: such names no listing ever archives.
pub fn is_kept(path: &Path) -> bool {
    let name = path.to_string_lossy();
    !(name.ends_with(".lock") || name.ends_with(".tmp") || name.contains(".truncate-tmp"))
}

/// The instant of a report, in nanoseconds since the epoch.
pub fn instant_ns(instant: &str) -> u64 {
    let (seconds, nanos) = instant.split_once('.').expect("a fraction");
    seconds.parse::<u64>().expect("seconds") * 1_000_000_000 + nanos.parse::<u64>().expect("nanoseconds")
}

/// The session directories, relative to the state; moving needs two of them.
fn homes(state: &Path, moves: bool) -> io::Result<Vec<PathBuf>> {
    let mut homes = Vec::new();
    for agent in names(&state.join("agents"))? {
        let sessions = Path::new("agents").join(agent).join("sessions");
        if state.join(&sessions).is_dir() {
            homes.push(sessions);
        }
    }
    for spare in ["agents/main/sessions", "agents/spare/sessions"] {
        if homes.len() < if moves { 2 } else { 1 } && !state.join(spare).is_dir() {
            fs::create_dir_all(state.join(spare))?;
            homes.push(PathBuf::from(spare));
        }
    }
    Ok(homes)
}

fn files(state: &Path, homes: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for home in homes {
        let inside = names(&state.join(home))?.into_iter().map(|name| home.join(name));
        files.extend(inside.filter(|path| is_plain_file(&state.join(path))));
    }
    Ok(files)
}

fn is_plain_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// The names in a directory, sorted; none where it does not exist.
fn names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
