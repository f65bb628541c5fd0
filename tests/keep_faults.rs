//! Pruning fails, and is cancelled, at every step that it takes. Whatever happens, the newest proven archive is there,
//! and the report says of each whether it is.
#![cfg(feature = "cli")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clawsnap::gate::{Gate, Step, cancelled};
use clawsnap::keep::{Period, Policy};
use clawsnap::prune::{Retention, prune};
use clawsnap::report::Pruned;
use jiff::tz::TimeZone;

const THEN: u64 = 1_700_000_000;
const EIO: i32 = 5;
const EACCES: i32 = 13;

/// Lets all steps pass but one; and none after that, if it is cancelled there.
struct FailsAt {
    step: usize,
    fault: Option<i32>,
    passed: AtomicUsize,
}

impl Gate for FailsAt {
    fn pass(&self, _: &Step<'_>) -> io::Result<()> {
        let number = self.passed.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Some(errno) if number == self.step => Err(io::Error::from_raw_os_error(errno)),
            None if number >= self.step => Err(cancelled()),
            _ => Ok(()),
        }
    }
}

/// Archives of four days, made by the command.
fn make_archives(top: &Path) {
    fs::create_dir_all(top.join("source")).expect("makes a directory");
    fs::write(top.join("source/a.txt"), "a").expect("writes");
    for day in 0..4 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        command.args(["create", "source", "-q", "-o", "made/"]).current_dir(top);
        let status = command.env("SOURCE_DATE_EPOCH", (THEN + day * 86_400).to_string()).status();
        assert!(status.expect("runs").success());
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("lists");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Prunes a copy of the archives, of which nothing is noted, and gives what is left and how many steps it took.
fn pruned(top: &Path, step: usize, fault: Option<i32>) -> (Pruned, Vec<String>, usize) {
    let copy = top.join("copy");
    fs::create_dir(&copy).expect("makes a directory");
    for name in names(&top.join("made")) {
        fs::copy(top.join("made").join(&name), copy.join(&name)).expect("copies");
    }
    let policy = Policy { periods: [(Period::Last, 1)].into(), within: None };
    let retention = Retention { policy, zone: TimeZone::UTC, dry_run: false, again: false };
    let gate = Arc::new(FailsAt { step, fault, passed: AtomicUsize::new(0) });
    let asked: Arc<dyn Gate> = gate.clone();
    let pruned = prune(&copy, &retention, None, &asked, &());
    let left = names(&copy);
    fs::remove_dir_all(&copy).expect("removes");
    (pruned, left, gate.passed.load(Ordering::Relaxed))
}

/// The names in a report of those that are still there.
fn told(pruned: &Pruned) -> Vec<String> {
    let there = pruned.archives.iter().filter(|judged| !judged.removed);
    let name = |path: &[u8]| String::from_utf8_lossy(path).rsplit('/').next().map(str::to_owned);
    there.filter_map(|judged| name(&judged.path.0)).collect()
}

#[test]
fn whatever_fails_the_newest_proven_archive_stays_and_the_report_is_true() {
    let top = tempfile::tempdir().expect("makes a directory");
    make_archives(top.path());
    let all = names(&top.path().join("made"));
    let (clean, left, steps) = pruned(top.path(), usize::MAX, None);
    assert_eq!((clean.exit_code(), &left[..]), (0, &all[3..]));
    assert!(steps > 30, "{steps}");
    let mut codes = [0; 5];
    for fault in [Some(EIO), Some(EACCES), None] {
        for step in 0..steps {
            let (pruned, left, _) = pruned(top.path(), step, fault);
            let code = pruned.exit_code();
            codes[usize::from(code)] += 1;
            let newest_proven = pruned.archives.iter().rev().find(|judged| judged.proven);
            assert!(left.contains(&all[3]), "{step} {fault:?}: {left:?}");
            assert!(newest_proven.is_none_or(|judged| !judged.removed), "{step} {fault:?}");
            if pruned.archives.is_empty() {
                assert_eq!((&left, code), (&all, 1), "{step} {fault:?}: what was not judged did not go");
            } else {
                assert_eq!(told(&pruned), left, "{step} {fault:?}");
            }
            // What fails while a note is written costs time alone.
            assert!(code != 0 || left.len() == 1, "{step} {fault:?}: {left:?}");
        }
    }
    assert!(codes[1] > 10 && codes[4] > 10, "{codes:?}");
}
