//! A staged tree whose making, or whose removal, fails or is cancelled at every step.
//!
//! Each time the source is byte-identical with its link counts, nothing of ours is left, and the command either saw a tree
//! in which every name is as it was, or has a fate that the report names, or it was not started.

mod support;
mod tool;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clawsnap::command::Errand;
use clawsnap::event::{Event, Observer};
use clawsnap::freeze::{Mode, Options};
use clawsnap::gate::{CancelFlag, Gate, Step, cancelled};
use clawsnap::plan::{Environment, Request};
use clawsnap::report::{Fated, Outcome, Report};
use clawsnap::stage::{Stage, stage};
use support::{Script, differences, leftovers, snapshot, write, write_cold};
use tool::view;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EXDEV: i32 = 18;

/// A small tree with something for every way in which a file is held.
fn make_source(top: &Path) -> PathBuf {
    let source = top.join("source");
    write_cold(&source.join("below/cold.jsonl"), "{\"cold\":1}\n");
    write(&source.join("below/hot.jsonl"), "{\"hot\":1}\n{\"half");
    write_cold(&source.join("large"), "{\"large\":1}\n".repeat(150_000));
    write_cold(&source.join("one"), "linked");
    fs::hard_link(source.join("one"), source.join("two")).expect("links");
    write_cold(&source.join("AGENTS.md"), "# Agents\n");
    write_cold(&source.join("some.sqlite"), [b"SQLite format 3\0".to_vec(), vec![0; 496]].concat());
    symlink("one", source.join("link")).expect("links");
    source
}

fn staged(source: &Path, seen: &Path, gate: Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    let environment = Environment { home: None, cwd: "/".into(), ..Environment::default() };
    let request = Request { sources: vec![source.to_owned()], ..Request::new(environment) };
    // As where no extents can be shared, which every filesystem can do.
    let freeze = Options { mode: Mode::Link, settle: Duration::from_millis(200), ..Options::default() };
    let words = ["cp", "-a", "."].map(Into::into).into_iter().chain([seen.into()]).collect();
    let order = Stage { request, freeze, wait: Duration::ZERO, errand: Errand { words, ..Errand::default() } };
    stage(order, &gate, observer)
}

fn fated(list: &[Fated], path: &Path) -> bool {
    list.iter().any(|fated| path.as_os_str().as_encoded_bytes().starts_with(&fated.path.0))
}

/// What the command saw is what was there, but for what the report names.
fn judge_tree(report: &Report, source: &Path, seen: &Path, what: &str) {
    let (there, shown) = (view(source), view(seen));
    for (name, was) in &there {
        let path = source.join(name);
        let told = fated(&report.losses, &path) || report.ran.iter().any(|ran| fated(&ran.differences, &path));
        let excused = told || fated(&report.moved, &path);
        match shown.get(name) {
            None => assert!(told, "{what}: {name:?} has no fate: {report:#?}"),
            Some(_) if excused => {}
            // A half-written record is cut off.
            Some(is) if name.ends_with("hot.jsonl") => assert_eq!(is.contents, b"{\"hot\":1}\n", "{what}"),
            Some(is) => assert_eq!((is.mode, &is.contents), (was.mode, &was.contents), "{what}: {name:?}"),
        }
    }
    let new: Vec<_> = shown.keys().filter(|name| !there.contains_key(*name)).collect();
    assert!(new.is_empty(), "{what}: {new:?}");
}

#[test]
fn every_step_may_fail_or_be_cancelled() {
    let top = tempfile::tempdir().expect("a directory");
    let source = make_source(top.path());
    let (before, seen) = (snapshot(&source), top.path().join("seen"));
    let counting = Script::new(|_, _: &Step<'_>| Ok(()));
    let steps = counting.counter();
    let report = staged(&source, &seen, Arc::new(counting), &());
    assert_eq!(report.ran.as_ref().map(|ran| ran.code()), Some(0), "{report:#?}");
    judge_tree(&report, &source, &seen, "without a fault");
    fs::remove_dir_all(&seen).expect("removes");
    let steps = steps.load(Ordering::SeqCst);
    assert!(steps > 100, "{steps}");
    let mut ran = 0;
    for fault in [Some(EIO), Some(ENOSPC), Some(EXDEV), None] {
        for at in 0..steps {
            let play = move |number, _: &Step<'_>| match number == at {
                true => Err(fault.map_or_else(cancelled, io::Error::from_raw_os_error)),
                false => Ok(()),
            };
            let what = format!("{fault:?} at step {at}");
            let report = staged(&source, &seen, Arc::new(Script::new(play)), &());
            let changes = differences(&before, &snapshot(&source));
            assert!(changes.is_empty(), "{what}: the source changed: {changes:#?}");
            assert_eq!(leftovers(top.path()), [] as [PathBuf; 0], "{what}: staging is left");
            match &report.ran {
                Some(done) if done.code() == 0 => {
                    ran += 1;
                    judge_tree(&report, &source, &seen, &what);
                    fs::remove_dir_all(&seen).expect("removes");
                }
                // It was asked to end when it had just begun.
                Some(_) => drop(fs::remove_dir_all(&seen)),
                None => {
                    assert!(matches!(report.outcome, Outcome::Failed | Outcome::Cancelled), "{what}: {report:#?}");
                    assert!(!seen.exists(), "{what}: the command was started: {report:#?}");
                }
            }
        }
    }
    assert!(ran > steps / 4 && ran < 4 * steps, "{ran} of {steps}");
}

/// Rewrites a file in place as soon as all is frozen.
struct Rewriter(PathBuf);

impl Observer for Rewriter {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) {
            fs::write(&self.0, "{\"new\":1}\n").expect("writes");
        }
    }
}

#[test]
fn what_is_rewritten_after_the_freeze_is_laid_out_whole_and_told_of() {
    let top = tempfile::tempdir().expect("a directory");
    let (source, seen) = (make_source(top.path()), top.path().join("seen"));
    let rewriter = Rewriter(source.join("below/cold.jsonl"));
    let report = staged(&source, &seen, Arc::new(CancelFlag::new()), &rewriter);
    let moved: Vec<_> = report.moved.iter().map(|fated| (fated.path.0.ends_with(b"/cold.jsonl"), fated.fate)).collect();
    assert_eq!((moved, report.exit_code()), (vec![(true, "later")], 3), "the raw database is a loss: {report:#?}");
    assert_eq!(fs::read(seen.join("below/cold.jsonl")).expect("is there"), b"{\"new\":1}\n");
}

/// Appends to a log and rotates it as soon as all is frozen.
struct Rotator(PathBuf);

impl Observer for Rotator {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) {
            let more = [fs::read(&self.0).expect("reads"), b"{\"more\":1}\n".to_vec()].concat();
            fs::write(&self.0, more).expect("appends");
            fs::rename(&self.0, self.0.with_extension("1")).expect("rotates");
            fs::write(&self.0, "").expect("begins another");
        }
    }
}

/// Both names of a log that was rotated after the freeze were laid out as the empty file that had one of them by then.
#[test]
fn what_is_rotated_after_the_freeze_is_laid_out_from_the_file_that_was_frozen() {
    let top = tempfile::tempdir().expect("a directory");
    let (source, seen) = (make_source(top.path()), top.path().join("seen"));
    let log = source.join("below/cold.jsonl");
    fs::hard_link(&log, source.join("other.jsonl")).expect("links");
    staged(&source, &seen, Arc::new(CancelFlag::new()), &Rotator(log));
    for name in ["below/cold.jsonl", "other.jsonl"] {
        assert_eq!(fs::read(seen.join(name)).expect("is there"), b"{\"cold\":1}\n{\"more\":1}\n", "{name}");
    }
}

/// Of two names of a file that was rewritten only the first was told of.
#[test]
fn each_name_of_what_is_rewritten_after_the_freeze_is_told_of() {
    let top = tempfile::tempdir().expect("a directory");
    let (source, seen) = (make_source(top.path()), top.path().join("seen"));
    let report = staged(&source, &seen, Arc::new(CancelFlag::new()), &Rewriter(source.join("one")));
    let moved: Vec<_> = report.moved.iter().map(|fated| (fated.path.as_path(), fated.fate)).collect();
    assert_eq!(moved, [(&*source.join("one"), "later"), (&*source.join("two"), "later")]);
}
