//! The fault sweep: a run fails, and is cancelled, at every step that it takes, in every way that a kernel has.
//!
//! Each time every name has one fate, nothing is published unless it holds what it says, no staging is left, and the
//! source is byte-identical with its link counts.

mod proof;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clawsnap::gate::{Realm, Step, Verb, cancelled};
use clawsnap::report::{Outcome, Report};
use proof::{Promise, proven};
use support::{Archive, Backup, Looks, Script, cool, differences, leftovers, snapshot, write, write_cold};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const EXDEV: i32 = 18;
const ENOSPC: i32 = 28;
const EMLINK: i32 = 31;

/// In what way a step fails; `None` is a cancellation.
const FAULTS: [Option<i32>; 8] =
    [Some(EIO), Some(ENOENT), Some(ENOSPC), Some(EACCES), Some(EPERM), Some(EXDEV), Some(EMLINK), None];

fn fail(fault: Option<i32>) -> io::Result<()> {
    Err(fault.map_or_else(cancelled, io::Error::from_raw_os_error))
}

/// A small state with something for every capture but clones.
fn make_source(top: &Path) -> PathBuf {
    let source = top.join("source");
    let sessions = source.join("agents/main/sessions");
    write_cold(&sessions.join("cold.jsonl"), "{\"cold\":1}\n");
    write(&sessions.join("hot.jsonl"), "{\"hot\":1}\n{\"hot\":2}\n{\"half");
    write_cold(&sessions.join("large.jsonl"), "{\"large\":1}\n".repeat(150_000));
    write_cold(&sessions.join("one.jsonl"), "{\"linked\":1}\n");
    fs::hard_link(sessions.join("one.jsonl"), sessions.join("two.jsonl")).expect("links");
    write_cold(&source.join("workspace/AGENTS.md"), "# Agents\n");
    write_cold(&source.join("openclaw.json"), support::LINKED);
    write_cold(&source.join("tasks/runs.sqlite"), [b"SQLite format 3\0".to_vec(), vec![0; 496]].concat());
    symlink("AGENTS.md", source.join("workspace/link")).expect("links");
    source
}

/// The source's names, below the source itself.
fn names(before: &BTreeMap<PathBuf, Looks>, source: &Path) -> Vec<PathBuf> {
    before.keys().filter(|path| *path != source).cloned().collect()
}

/// Databases that somebody left in order: one was just written to, the other a day ago, with a log.
fn add_databases(source: &Path) {
    for (name, journal) in [("jobs.sqlite", "delete"), ("memory.sqlite", "wal")] {
        let database = rusqlite::Connection::open(source.join("tasks").join(name)).expect("opens");
        database.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).expect("has a journal");
        database.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1), (2), (3)").expect("has rows");
        database.close().expect("closes");
    }
    cool(&source.join("tasks/memory.sqlite"));
}

/// Whether an archived copy of one of them is sound, and has all rows.
fn is_sound(copy: &[u8]) -> bool {
    let file = tempfile::NamedTempFile::new().expect("makes a file");
    fs::write(&file, copy).expect("writes");
    let database = rusqlite::Connection::open(&file).expect("opens");
    let check = database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    let rows = database.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    (check.as_deref(), rows) == (Ok("ok"), Ok(3))
}

struct Bench {
    top: tempfile::TempDir,
    source: PathBuf,
    out: PathBuf,
    before: BTreeMap<PathBuf, Looks>,
    /// Databases have helpers.
    served: bool,
}

impl Bench {
    fn new() -> Self {
        Self::of(false)
    }

    fn of(served: bool) -> Self {
        let top = tempfile::tempdir().expect("a directory");
        let source = make_source(top.path());
        if served {
            add_databases(&source);
        }
        let out = top.path().join("out");
        fs::create_dir(&out).expect("makes");
        let before = snapshot(&source);
        Self { top, source, out, before, served }
    }

    fn run(&self, play: impl Fn(u64, &Step<'_>) -> io::Result<()> + Send + Sync + 'static) -> (Report, u64) {
        let script = Script::new(play);
        let count = script.counter();
        let backup = Backup::of(&self.source).settle(Duration::from_millis(200)).gate(script);
        let backup = if self.served { backup.serving_databases() } else { backup };
        let report = backup.to(&self.out.join("a.tar"));
        (report, count.load(Ordering::SeqCst))
    }

    /// What must hold however a run ends.
    fn judge(&self, report: &Report, what: &str) {
        let changes = differences(&self.before, &snapshot(&self.source));
        assert!(changes.is_empty(), "{what}: the source changed: {changes:#?}");
        assert_eq!(leftovers(self.top.path()), [] as [PathBuf; 0], "{what}: staging is left");
        assert_eq!(leftovers(&self.source), [] as [PathBuf; 0], "{what}: staging is left in the source");
        let path = self.out.join("a.tar");
        let made = matches!(report.outcome, Outcome::Complete | Outcome::Lossy);
        assert_eq!(path.exists(), made, "{what}: {:?} {:?}", report.outcome, report.error);
        let others: Vec<_> = fs::read_dir(&self.out).expect("lists").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(others.len(), usize::from(made), "{what}: {others:?}");
        if made {
            self.judge_archive(report, &Archive::read(&path), what);
            fs::remove_file(&path).expect("removes");
        }
    }

    fn judge_archive(&self, report: &Report, archive: &Archive, what: &str) {
        let fated = |list: &[clawsnap::report::Fated], path: &Path| {
            list.iter().filter(|fated| fated.path.0 == path.as_os_str().as_encoded_bytes()).count()
        };
        for path in names(&self.before, &self.source) {
            let archived = archive.payload.contains_key(&path);
            let lost = fated(&report.losses, &path);
            let gone = fated(&report.excluded, &path) + fated(&report.departed, &path);
            let below_hollow = path.ancestors().skip(1).any(|parent| fated(&report.losses, parent) == 1);
            assert!(
                archived || lost + gone == 1 || below_hollow,
                "{what}: {} has no fate\n{report:#?}",
                path.display()
            );
            assert!(gone + lost <= 1 && !(archived && gone > 0), "{what}: {} has two fates", path.display());
            assert_eq!(fated(&report.departed, &path), 0, "{what}: {} never left", path.display());
            if archived && lost == 0 {
                self.judge_contents(archive, &path, what);
            }
        }
    }

    fn judge_contents(&self, archive: &Archive, path: &Path, what: &str) {
        if self.before[path].is_file() {
            let archived = archive.contents(path).expect("has contents");
            let tail = archive.tails.get(path).map_or(&[][..], Vec::as_slice);
            let same = || [archived, tail].concat() == fs::read(path).expect("is readable");
            let whole = if path.ends_with("jobs.sqlite") { is_sound(archived) } else { same() };
            assert!(whole, "{what}: {} is not what it was", path.display());
        }
    }
}

fn sweep(bench: &Bench, faults: &[Option<i32>], stride: u64) {
    let (clean, steps) = bench.run(|_, _| Ok(()));
    bench.judge(&clean, "without a fault");
    assert_eq!(clean.counts.losses(), 1, "the raw database alone: {:?}", clean.losses);
    assert!(steps > 150, "only {steps} steps were seen: the gate is not asked");
    let mut trials = 0;
    for &fault in faults {
        for at in (0..steps + 10).step_by(usize::try_from(stride).expect("small")) {
            let (report, _) = bench.run(move |step, _| if step == at { fail(fault) } else { Ok(()) });
            bench.judge(&report, &format!("step {at} of {steps} fails with {fault:?}"));
            trials += 1;
        }
    }
    held(trials, "a fault at every step");
}

fn held(trials: u64, by: &str) {
    proven(&[Promise::Fate, Promise::Untouched, Promise::Name], trials, by);
}

#[test]
fn a_run_that_fails_once_at_any_step_keeps_every_promise() {
    sweep(&Bench::new(), &FAULTS[..4], 1);
}

#[test]
fn a_run_that_is_refused_or_cancelled_at_any_step_keeps_every_promise() {
    sweep(&Bench::new(), &FAULTS[4..], 1);
}

#[test]
fn a_run_with_databases_that_fails_or_is_cancelled_at_any_step_keeps_every_promise() {
    sweep(&Bench::of(true), &[Some(EIO), Some(ENOENT), None], 1);
}

const VERBS: [Verb; 19] = [
    Verb::OpenDir,
    Verb::List,
    Verb::Stat,
    Verb::Open,
    Verb::Read,
    Verb::ReadLink,
    Verb::Xattr,
    Verb::Link,
    Verb::Clone,
    Verb::MakeDir,
    Verb::Create,
    Verb::Write,
    Verb::Lock,
    Verb::Sync,
    Verb::Rename,
    Verb::Unlink,
    Verb::RemoveDir,
    Verb::Spawn,
    Verb::Ask,
];

/// A fault that does not pass: every step of a kind fails in one realm, from the start or from the middle on.
/// Removing what we made is spared: nobody can remove what the kernel refuses to remove.
#[test]
fn a_run_under_a_fault_that_stays_keeps_every_promise() {
    let bench = Bench::of(true);
    let (_, steps) = bench.run(|_, _| Ok(()));
    fs::remove_file(bench.out.join("a.tar")).expect("removes");
    let mut trials = 0;
    for realm in [Realm::Source, Realm::Staging, Realm::Output] {
        let verbs = VERBS.iter().filter(|verb| !cleans_up(realm, **verb));
        for &verb in verbs {
            for fault in FAULTS {
                for from in [0, steps / 2] {
                    let (report, _) = bench.run(move |at, step| {
                        if at >= from && step.verb == verb && step.realm == realm { fail(fault) } else { Ok(()) }
                    });
                    bench.judge(
                        &report,
                        &format!("every {verb:?} in {realm:?} from step {from} on fails with {fault:?}"),
                    );
                    trials += 1;
                }
            }
        }
    }
    held(trials, "a fault that stays");
}

/// What the clean-up itself needs.
fn cleans_up(realm: Realm, verb: Verb) -> bool {
    let needed = [Verb::OpenDir, Verb::List, Verb::Unlink, Verb::RemoveDir];
    realm != Realm::Source && needed.contains(&verb)
}

/// What could not be removed is told, and the next run removes it.
#[test]
fn staging_that_the_kernel_will_not_let_go_is_told_and_swept_by_the_next_run() {
    let bench = Bench::new();
    let (report, _) = bench.run(|_, step| if step.verb == Verb::RemoveDir { fail(Some(EIO)) } else { Ok(()) });
    assert_eq!(report.outcome, Outcome::Lossy, "the archive is not to blame: {:?}", report.error);
    assert!(report.warnings.iter().any(|warning| warning.contains(".clawsnap-")), "{:?}", report.warnings);
    assert_eq!(leftovers(bench.top.path()).len(), 1);
    fs::remove_file(bench.out.join("a.tar")).expect("removes");
    let (next, _) = bench.run(|_, _| Ok(()));
    bench.judge(&next, "the next run");
}
