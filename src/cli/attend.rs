//! Work that is waited for no longer than its calls may take: a filesystem that hangs never answers, and the thread that
//! asked it cannot be ended. So the work has a thread of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::bars::Bars;
use super::when;
use crate::gate::{At, CancelFlag, Gate, UnderWay, Verb, Watched};
use crate::relpath::shown;

/// How often what is under way is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long the other threads of a run that is given up have to remove what they made.
const CLEANING: Duration = Duration::from_secs(10);

/// As much as the main thread has, which the work would have otherwise.
const STACK: usize = 8 << 20;

/// Work that is under way.
pub(super) struct Work<T>(Receiver<T>);

/// Begins it.
///
/// # Errors
/// No thread can be had.
pub(super) fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Work<T>> {
    let (done, outcome) = channel();
    let thread = thread::Builder::new().name("work".to_owned()).stack_size(STACK);
    // Who hangs has nobody to tell it to when that is over.
    thread.spawn(move || done.send(work()).ok())?;
    Ok(Work(outcome))
}

impl<T> Work<T> {
    /// What came of it; nothing if that takes longer than `patience`, or if it broke off.
    pub(super) fn within(&self, patience: Duration) -> Option<T> {
        self.0.recv_timeout(patience).ok()
    }

    /// What came of it; and if a step of it took longer than `patience`, which one, told in words. The run is cancelled
    /// then, and there may be no outcome.
    pub(super) fn attended(
        self,
        patience: Duration,
        watched: &Watched,
        cancel: &CancelFlag,
    ) -> (Option<T>, Option<String>) {
        let look = LOOK.min(patience);
        loop {
            match self.0.recv_timeout(look) {
                Ok(outcome) => return (Some(outcome), None),
                Err(RecvTimeoutError::Disconnected) => return (None, None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(step) = watched.longest(is_prompt).filter(|step| look.saturating_mul(step.seen) >= patience) {
                let words = told(&step, look);
                cancel.cancel();
                return (self.within(CLEANING), Some(words));
            }
        }
    }
}

/// What work that may hang is done behind: whoever cancels it, and whoever sees it hang.
pub(super) struct Lookout {
    pub(super) cancel: CancelFlag,
    watched: Watched,
}

impl Lookout {
    pub(super) fn new() -> Self {
        let cancel = CancelFlag::new();
        Self { watched: Watched::new(Arc::new(cancel.clone())), cancel }
    }

    /// The same of work that a line on the terminal shows, which is gone when that is over.
    pub(super) fn shown<T: Send + 'static>(
        &self,
        patience: Duration,
        bars: Option<Bars>,
        work: impl FnOnce(&Arc<dyn Gate>, &Option<Bars>) -> T + Send + 'static,
    ) -> (Option<T>, Option<String>) {
        let shown = bars.clone();
        let ended = self.over(patience, move |gate| work(gate, &shown));
        bars.iter().for_each(Bars::end);
        ended
    }

    /// What came of the work; and why it was given up, where a step of it took longer than `patience`.
    pub(super) fn over<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Arc<dyn Gate>) -> T + Send + 'static,
    ) -> (Option<T>, Option<String>) {
        let gate: Arc<dyn Gate> = Arc::new(self.watched.clone());
        match begin(move || work(&gate)).map(|work| work.attended(patience, &self.watched, &self.cancel)) {
            Ok((None, None)) => (None, Some("it broke off".to_owned())),
            Ok(ended) => ended,
            Err(error) => (None, Some(format!("cannot start a thread: {error}"))),
        }
    }
}

/// Whether a step takes little time wherever it is taken. What was written may take long to reach a slow disk.
fn is_prompt(verb: Verb) -> bool {
    verb != Verb::Sync
}

/// Which step, looked at every so often, hangs, and what to do.
fn told(step: &UnderWay, look: Duration) -> String {
    let path = path(step);
    let path = if path.as_os_str().is_empty() { "the source".to_owned() } else { shown(path.as_os_str().as_bytes()) };
    hangs(deed(step.verb), &path, look.saturating_mul(step.seen))
}

/// That something hangs, and what to do.
pub(super) fn hangs(deed: &str, path: &str, lasts: Duration) -> String {
    let lasts = when::span(u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX));
    format!(
        "{deed} {path} has not come back for {lasts}: its filesystem hangs; see to that (umount -f lets go of it), or allow \
         it more time by --patience"
    )
}

/// Where a step is taken. The kernel knows the paths of what is open, and asks no filesystem for that.
fn path(step: &UnderWay) -> PathBuf {
    let name = Path::new(OsStr::from_bytes(&step.name));
    let open = |fd| std::fs::read_link(format!("/proc/self/fd/{fd}"));
    match step.at {
        At::Nowhere => name.to_owned(),
        At::File(fd) => open(fd).unwrap_or_else(|_| name.to_owned()),
        // A name that is empty would end the path in a slash.
        At::Dir(fd) if step.name.is_empty() => open(fd).unwrap_or_default(),
        At::Dir(fd) => open(fd).unwrap_or_default().join(name),
    }
}

/// What is being done, as the beginning of a sentence.
fn deed(verb: Verb) -> &'static str {
    match verb {
        Verb::OpenDir | Verb::Open => "opening",
        Verb::List => "listing",
        Verb::Stat => "looking at",
        Verb::Read | Verb::ReadLink => "reading",
        Verb::Xattr => "the extended attributes of",
        Verb::Link => "linking",
        Verb::Clone => "cloning",
        Verb::MakeDir | Verb::Create => "making",
        Verb::Write => "writing to",
        Verb::Lock => "locking",
        Verb::Sync => "syncing",
        Verb::Rename => "renaming",
        Verb::Unlink | Verb::RemoveDir => "removing",
        Verb::Spawn | Verb::Ask => "asking the helper of",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Realm, Step};
    use std::os::fd::AsRawFd;

    const READ: Step<'_> = Step { verb: Verb::Read, realm: Realm::Source, dir: b"", name: b"b\n" };

    #[test]
    fn a_step_that_does_not_come_back_is_named_and_the_run_cancelled() {
        let top = tempfile::tempdir().expect("a directory");
        let file = std::fs::File::open(top.path()).expect("opens");
        let fd = file.as_raw_fd();
        for at in [At::Dir(fd), At::File(fd)] {
            let cancel = CancelFlag::new();
            let watched = Watched::new(Arc::new(cancel.clone()));
            let (seen, flag) = (watched.clone(), cancel.clone());
            let work = begin(move || {
                seen.begun(&READ, at);
                while !flag.is_cancelled() {
                    thread::sleep(Duration::from_millis(1));
                }
                seen.ended();
                "cleaned up"
            });
            let (outcome, words) = work.expect("begins").attended(Duration::from_millis(20), &watched, &cancel);
            assert_eq!(outcome, Some("cleaned up"));
            let words = words.expect("hangs");
            let path = top.path().display();
            let expected =
                if at == At::Dir(fd) { format!("reading {path}/b\\n has") } else { format!("reading {path} has") };
            assert!(words.starts_with(&expected), "{words}");
        }
    }

    #[test]
    fn work_in_many_short_steps_is_left_alone() {
        let cancel = CancelFlag::new();
        let watched = Watched::new(Arc::new(cancel.clone()));
        let seen = watched.clone();
        let work = begin(move || {
            for _ in 0..40 {
                seen.begun(&READ, At::Nowhere);
                thread::sleep(Duration::from_millis(5));
                seen.ended();
            }
        });
        let ended = work.expect("begins").attended(Duration::from_millis(100), &watched, &cancel);
        assert_eq!(ended, (Some(()), None));
    }
}
