//! A guarded command where a step fails, or the run is cancelled, at every step: the command runs behind a proven archive
//! or not at all, and a failed command leaves its way back.

mod place;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawsnap::command::Errand;
use clawsnap::gate::{CancelFlag, Gate, Realm, Step, Verb, cancelled};
use clawsnap::guard::{Guard, guard};
use clawsnap::plan::Request;
use clawsnap::report::{Outcome, Report};
use clawsnap::verify::{VerifyOptions, verify};
use clawsnap::{Create, Output, freeze};
use place::support::{Script, leftovers, write_cold};
use place::{Scene, Tree, tree};

/// How one step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// With an error of the kernel's, and the next one passes.
    Io,
    /// And all that follow.
    Cancelled,
}

/// What there is to lose, a place for archives, and one for traces.
struct Bench {
    scene: Scene,
    before: Tree,
}

impl Bench {
    fn new() -> Self {
        let scene = Scene::quick();
        write_cold(&scene.path("notes/a.txt"), "alpha");
        fs::create_dir(scene.path("out")).expect("makes");
        let before = tree(&scene.path("notes"));
        Self { scene, before }
    }

    fn archive(&self) -> PathBuf {
        self.scene.path("out/a.tar")
    }

    /// The guard of a command that ruins everything, and has written down before that it ran.
    fn order(&self, rollback: bool) -> Guard {
        let request = Request { sources: vec![self.scene.path("notes")], ..Request::new(self.scene.environment()) };
        let script = "echo > \"$1/ran\"; echo ruined > \"$1/notes/a.txt\"; exit 7";
        let words = ["sh", "-c", script, "sh"].map(Into::into).into_iter().chain([self.scene.top.clone().into()]);
        Guard {
            create: Create {
                request,
                output: Output::Path(self.archive()),
                compression: None,
                freeze: freeze::Options { settle: Duration::ZERO, ..freeze::Options::default() },
                // Whatever it says here.
                verify: false,
                if_changed: false,
                wait: Duration::ZERO,
                created_at: None,
                retention: None,
            },
            errand: Errand { words: words.collect(), ..Errand::default() },
            despite_losses: false,
            rollback,
        }
    }

    /// Runs it with a fault at one step, and gives the number of steps.
    fn run(&self, at: u64, fault: Fault, rollback: bool) -> (Report, u64, bool) {
        let script = Script::new(move |step: u64, _: &Step<'_>| match fault {
            Fault::Io if step == at => Err(io::Error::from_raw_os_error(5)),
            Fault::Cancelled if step >= at => Err(cancelled()),
            _ => Ok(()),
        });
        let steps = script.counter();
        let gate: Arc<dyn Gate> = Arc::new(script);
        let announced = AtomicU64::new(0);
        let announce = |report: &Report| {
            assert!(report.verified && self.archive().exists(), "{report:?}");
            announced.fetch_add(1, Ordering::SeqCst);
        };
        let report = guard(self.order(rollback), &gate, &(), &announce, &|_| {});
        let ran = self.scene.path("ran").exists();
        assert!(!ran || announced.into_inner() == 1, "step {at}: it ran, and nobody was told");
        (report, steps.load(Ordering::SeqCst), ran)
    }

    fn proves(&self) -> bool {
        let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
        self.archive().exists() && verify(&self.archive(), &VerifyOptions::default(), &gate, &()).exit_code() == 0
    }

    /// What must hold however it went.
    fn judge(&self, report: &Report, ran: bool, what: &str) {
        let is_ruined = tree(&self.scene.path("notes")) != self.before;
        let is_hidden = !leftovers(&self.scene.top).is_empty();
        if ran {
            assert!(self.proves(), "{what}: the command ran, and there is no proven archive: {report:?}");
            assert!(report.verified, "{what}");
            let told = report.ran.as_ref().unwrap_or_else(|| panic!("{what}: it ran in secret: {report:?}"));
            assert!(told.way_back.is_some(), "{what}: {told:?}");
            let is_back = told.rollback.as_ref().is_some_and(|rollback| rollback.done);
            assert!(!(is_back && is_ruined), "{what}: {told:?}");
        } else {
            assert!(!is_ruined, "{what}");
        }
        assert_ne!(report.exit_code(), 0, "{what}: {report:?}");
        assert!(ran || report.ran.is_some() || report.outcome != Outcome::Complete, "{what}: {report:?}");
        if is_hidden && report.ran.as_ref().is_some_and(|ran| ran.rollback.is_some()) {
            // What an error of the kernel's left of a rollback, the next one removes.
            let again = self.scene.restore(&self.archive(), &[]);
            assert_eq!(again.error, None, "{what}: {report:?}");
            assert_eq!(tree(&self.scene.path("notes")), self.before, "{what}");
        }
        self.scene.assert_nothing_hidden(what);
    }

    /// As it was.
    fn renew(&mut self) {
        *self = Self::new();
    }
}

/// Where there are no extended attributes, the lock keeps the archive while the command runs, and that it is not marked after
/// that is told.
#[test]
fn where_an_archive_cannot_be_marked_it_is_locked_and_the_report_says_no_day() {
    let bench = Bench::new();
    let errand = |script: &str| {
        let words = ["sh", "-c", script, "sh"].map(Into::into).into_iter().chain([bench.archive().into()]);
        Errand { words: words.collect(), ..Errand::default() }
    };
    for (errno, is_locked) in [(None, true), (Some(Verb::Xattr), true), (Some(Verb::Lock), false)] {
        let script = Script::new(move |_, step: &Step<'_>| match errno {
            // As filesystems say that have no such thing.
            Some(verb) if verb == step.verb && step.realm == Realm::Output => Err(io::Error::from_raw_os_error(95)),
            _ => Ok(()),
        });
        let gate: Arc<dyn Gate> = Arc::new(script);
        // It ends with 3 where the lock cannot be had.
        let order = Guard { errand: errand("flock -n -E 3 \"$1\" true || exit $?; exit 4"), ..bench.order(false) };
        let report = guard(order, &gate, &(), &|_| {}, &|_| {});
        let ran = report.ran.as_ref().unwrap_or_else(|| panic!("{report:?}"));
        assert_eq!(ran.exit_code, Some(if is_locked { 3 } else { 4 }), "{errno:?}: {report:?}");
        assert_eq!(ran.way_back_kept_until.is_none(), errno == Some(Verb::Xattr), "{errno:?}: {ran:?}");
        fs::remove_file(bench.archive()).expect("removes");
    }
}

/// Started with SIGCHLD ignored, a guard heard of no command how it ended, took that for one that could not be run, and let go
/// of the way back.
#[test]
fn a_command_whose_end_nobody_knows_has_failed_and_is_brought_back_from() {
    const NAME: &str = "a_command_whose_end_nobody_knows_has_failed_and_is_brought_back_from";
    const IS_DEAF: &str = "CLAWSNAP_TEST_IS_DEAF";
    if std::env::var_os(IS_DEAF).is_none() {
        // The same test, in a process that ignores it.
        let mut again = Command::new("env");
        again.arg("--ignore-signal=CHLD").arg(std::env::current_exe().expect("has a path")).args(["--exact", NAME]);
        let output = again.env(IS_DEAF, "").output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    for rollback in [false, true] {
        let bench = Bench::new();
        let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
        let report = guard(bench.order(rollback), &gate, &(), &|_| {}, &|_| {});
        let ran = report.ran.as_ref().unwrap_or_else(|| panic!("{report:?}"));
        assert_eq!((ran.exit_code, ran.signal, report.exit_code()), (None, None, 1), "{ran:?}");
        assert!(ran.way_back.is_some() && ran.rollback.as_ref().is_some_and(|back| back.done) == rollback, "{ran:?}");
        assert_eq!(tree(&bench.scene.path("notes")) == bench.before, rollback, "{ran:?}");
    }
}

/// It ran although each file of the source had a second name, which OpenClaw's migrations refuse.
#[test]
fn no_command_runs_while_a_name_of_ours_cannot_be_removed() {
    let bench = Bench::new();
    let script = Script::new(|_, step: &Step<'_>| match step.verb {
        Verb::Unlink if step.realm == Realm::Staging => Err(io::Error::from_raw_os_error(30)),
        _ => Ok(()),
    });
    let gate: Arc<dyn Gate> = Arc::new(script);
    let report = guard(bench.order(true), &gate, &(), &|_| {}, &|_| {});
    assert!(report.ran.is_none() && !bench.scene.path("ran").exists(), "{report:?}");
    assert!(report.verified && bench.proves(), "{report:?}");
    assert_eq!((report.outcome, report.exit_code(), report.leftovers.len()), (Outcome::Failed, 1, 1), "{report:?}");
    let error = report.error.as_deref().unwrap_or_default();
    assert!(error.contains("not started") && error.contains("clawsnap sweep"), "{error}");
    assert_eq!(tree(&bench.scene.path("notes")), bench.before);
}

fn sweep(fault: Fault, rollback: bool) {
    let mut bench = Bench::new();
    let (clean, steps, ran) = bench.run(u64::MAX, fault, rollback);
    bench.judge(&clean, ran, "without a fault");
    let back = clean.ran.as_ref().and_then(|ran| ran.rollback.as_ref());
    assert!(ran && clean.exit_code() == 7 && steps > 50, "{steps} {clean:?}");
    assert_eq!(back.map(|back| back.done), rollback.then_some(true), "{back:?}");
    let (mut with, mut without) = (0, 0);
    for at in 0..steps {
        bench.renew();
        let (report, _, ran) = bench.run(at, fault, rollback);
        bench.judge(&report, ran, &format!("step {at} of {steps}, {fault:?}, rollback {rollback}"));
        *if ran { &mut with } else { &mut without } += 1;
    }
    assert!(without > 10 && (with > 10 || !rollback), "{with} {without}");
}

#[test]
fn whatever_fails_the_command_runs_behind_a_proven_archive_or_not_at_all() {
    sweep(Fault::Io, false);
}

#[test]
fn whenever_it_is_cancelled_the_command_runs_behind_a_proven_archive_or_not_at_all() {
    sweep(Fault::Cancelled, false);
}

#[test]
fn whatever_fails_in_a_rollback_too_the_report_is_true() {
    sweep(Fault::Io, true);
}

#[test]
fn whenever_it_is_cancelled_in_a_rollback_too_the_report_is_true() {
    sweep(Fault::Cancelled, true);
}
