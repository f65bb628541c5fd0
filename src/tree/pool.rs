//! Files made by several threads at once: whoever reads the archive hands them over whole.
//!
//! Batches wait in a bounded queue, so what is in memory is bounded: at most
//! `(WAITING + MOST_WORKERS + 1) * (BATCH + LARGEST)` bytes, and as many directories held open as there are jobs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::Difference;

/// Contents that are handed over are shorter; what is not is written as it is read. A multiple of what is written at once.
pub(super) const LARGEST: usize = 256 * 1024;

/// Bytes of a batch after which it is sent off.
const BATCH: usize = 512 * 1024;

/// Jobs of a batch after which it is sent off.
const JOBS: usize = 32;

/// Batches that may wait.
const WAITING: usize = 4;

/// More threads than that only wait for each other: names in one directory are made one after the other.
const MOST_WORKERS: usize = 4;

/// One thing to be done.
pub(super) trait Job: Send + 'static {
    /// Bytes that it holds.
    fn size(&self) -> usize;

    /// The path that a failure is told of.
    fn path(&self) -> &[u8];

    /// Does it, and tells what is different.
    fn run(&self) -> io::Result<Vec<Difference>>;
}

/// What became of a batch.
type Outcome = Result<Vec<Difference>, Failure>;

struct Failure {
    path: Vec<u8>,
    error: io::Error,
}

/// Threads that do jobs. Dropping it drops what nobody has begun, and waits for the rest.
pub(super) struct Pool<J> {
    batch: Vec<J>,
    bytes: usize,
    /// Nothing while a batch was never sent off: who restores a few names starts no thread.
    workers: Option<Workers<J>>,
    /// Batches that are not back.
    out: usize,
    differences: Vec<Difference>,
    failed_at: Option<Vec<u8>>,
}

struct Workers<J> {
    queue: SyncSender<Vec<J>>,
    outcomes: Receiver<Outcome>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Job> Pool<J> {
    pub(super) fn new() -> Self {
        Self { batch: Vec::new(), bytes: 0, workers: None, out: 0, differences: Vec::new(), failed_at: None }
    }

    /// Has a job done, now or later.
    ///
    /// # Errors
    /// That of any job so far; [`Pool::failed_at`] tells its path.
    pub(super) fn give(&mut self, job: J) -> io::Result<()> {
        self.bytes += job.size();
        self.batch.push(job);
        if self.bytes < BATCH && self.batch.len() < JOBS {
            return Ok(());
        }
        self.send_off()
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// As with [`Pool::give`].
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.workers.is_none() {
            let batch = std::mem::take(&mut self.batch);
            return self.note(work_off(&batch, &AtomicBool::new(false)));
        }
        self.send_off()?;
        while self.out > 0 {
            let Some(outcome) = self.workers.as_ref().and_then(|workers| workers.outcomes.recv().ok()) else {
                return Err(io::Error::other("the threads that make files are gone"));
            };
            self.out -= 1;
            self.note(outcome)?;
        }
        Ok(())
    }

    /// What is different so far.
    pub(super) fn differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

    /// The path of the job that failed, if one did.
    pub(super) fn failed_at(&self) -> Option<&[u8]> {
        self.failed_at.as_deref()
    }

    fn send_off(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if self.workers.is_none() {
            self.workers = Workers::start();
        }
        let Some(workers) = &self.workers else {
            return self.note(work_off(&batch, &AtomicBool::new(false)));
        };
        if workers.queue.send(batch).is_err() {
            return Err(io::Error::other("the threads that make files are gone"));
        }
        self.out += 1;
        let back: Vec<Outcome> = workers.outcomes.try_iter().collect();
        self.out -= back.len();
        back.into_iter().try_for_each(|outcome| self.note(outcome))
    }

    fn note(&mut self, outcome: Outcome) -> io::Result<()> {
        match outcome {
            Ok(differences) => {
                self.differences.extend(differences);
                Ok(())
            }
            Err(Failure { path, error }) => {
                self.failed_at = Some(path);
                Err(error)
            }
        }
    }
}

impl<J: Job> Workers<J> {
    /// `None` where no thread can be started.
    fn start() -> Option<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
        let (queue, batches) = sync_channel(WAITING);
        let batches = Arc::new(Mutex::new(batches));
        let (told, outcomes) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number| {
            let (batches, told, stop) = (Arc::clone(&batches), told.clone(), Arc::clone(&stop));
            let builder = thread::Builder::new().name(format!("files-{number}"));
            builder.spawn(move || work(&batches, &told, &stop)).ok()
        };
        let threads: Vec<_> = (0..count).map_while(start).collect();
        (!threads.is_empty()).then_some(Self { queue, outcomes, stop, threads })
    }
}

impl<J> Drop for Pool<J> {
    fn drop(&mut self) {
        let Some(Workers { queue, stop, threads, .. }) = self.workers.take() else { return };
        stop.store(true, Ordering::Relaxed);
        drop(queue);
        for thread in threads {
            // It has caught its own panics.
            let _ended = thread.join();
        }
    }
}

fn work<J: Job>(batches: &Mutex<Receiver<Vec<J>>>, told: &Sender<Outcome>, stop: &AtomicBool) {
    loop {
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        let outcome = work_off(&batch, stop);
        if outcome.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop(batch);
        if told.send(outcome).is_err() {
            return;
        }
    }
}

fn work_off<J: Job>(batch: &[J], stop: &AtomicBool) -> Outcome {
    let mut differences = Vec::new();
    for job in batch {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let panicked = |_| Err(io::Error::other("the thread that made it has panicked"));
        let done = catch_unwind(AssertUnwindSafe(|| job.run())).unwrap_or_else(panicked);
        differences.extend(done.map_err(|error| Failure { path: job.path().to_vec(), error })?);
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// Counts what is held and what was done.
    #[derive(Default)]
    struct Tally {
        held: AtomicUsize,
        most: AtomicUsize,
        done: AtomicUsize,
    }

    struct Counted {
        tally: Arc<Tally>,
        number: usize,
        path: Vec<u8>,
        run: Run,
    }

    /// What is done, by the number of the job.
    type Run = fn(usize) -> io::Result<Vec<Difference>>;

    impl Counted {
        fn new(tally: &Arc<Tally>, number: usize, run: Run) -> Self {
            let held = tally.held.fetch_add(LARGEST, Ordering::SeqCst) + LARGEST;
            tally.most.fetch_max(held, Ordering::SeqCst);
            Self { tally: Arc::clone(tally), number, path: number.to_string().into_bytes(), run }
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.tally.held.fetch_sub(LARGEST, Ordering::SeqCst);
        }
    }

    impl Job for Counted {
        fn size(&self) -> usize {
            LARGEST
        }

        fn path(&self) -> &[u8] {
            &self.path
        }

        fn run(&self) -> io::Result<Vec<Difference>> {
            let outcome = (self.run)(self.number);
            self.tally.done.fetch_add(1, Ordering::SeqCst);
            outcome
        }
    }

    #[test]
    fn everything_is_done_when_it_settles_and_little_is_held_meanwhile() {
        let tally = Arc::new(Tally::default());
        let mut pool = Pool::new();
        for count in [1, 500, 3] {
            let before = tally.done.load(Ordering::SeqCst);
            for number in 0..count {
                let slow = |_| {
                    thread::sleep(Duration::from_micros(200));
                    Ok(Vec::new())
                };
                pool.give(Counted::new(&tally, number, slow)).expect("is taken");
            }
            pool.settle().expect("settles");
            assert_eq!(tally.done.load(Ordering::SeqCst) - before, count);
            assert_eq!(tally.held.load(Ordering::SeqCst), 0);
        }
        let most = tally.most.load(Ordering::SeqCst);
        assert!(most <= (WAITING + MOST_WORKERS + 1) * (BATCH + LARGEST), "{most}");
    }

    #[test]
    fn a_failure_and_a_panic_are_told_with_their_path_and_end_the_rest() {
        let fails = |number| if number == 7 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(Vec::new()) };
        let panics = |number| if number == 7 { panic!("as the test wants") } else { Ok(Vec::new()) };
        let all: [Run; 2] = [fails, panics];
        for (run, count) in all.into_iter().flat_map(|run| [(run, 8), (run, 100_000)]) {
            let tally = Arc::new(Tally::default());
            let mut pool = Pool::new();
            let outcome = (0..count).try_for_each(|number| pool.give(Counted::new(&tally, number, run)));
            outcome.and_then(|()| pool.settle()).expect_err("fails");
            assert_eq!(pool.failed_at(), Some(&b"7"[..]));
            drop(pool);
            assert_eq!(tally.held.load(Ordering::SeqCst), 0);
            assert!(tally.done.load(Ordering::SeqCst) < 1000);
        }
    }
}
