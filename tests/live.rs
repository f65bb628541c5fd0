//! A live mutator with a ground-truth log, against backups that run meanwhile.
//!
//! Every file that existed through the whole freeze is in the archive, with bytes that it had; no JSONL line is torn;
//! no archive that says `instant` is wrong. And the tests can fail: with the settle rule, or the exact reader, left
//! out, the same oracles object.

mod churn;
mod proof;
mod support;
mod truth;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use churn::{Churn, Kind, Load, Sample, sample_state};
use clawsnap::event::{Event, Observer};
use clawsnap::freeze::{Ablation, Mode};
use clawsnap::report::{Consistency, Report};
use proof::{Promise, proven};
use support::{Backup, leftovers};
use truth::Told;

/// Backups under churn, on each of two filesystems.
fn runs() -> u64 {
    std::env::var("CLAWSNAP_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(100)
}

/// Gives the mutator time to work between the freeze and the archive, where a reader that trusts is caught.
#[derive(Default)]
struct Pause(AtomicBool);

impl Observer for Pause {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) && !self.0.swap(true, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(40));
        }
    }
}

/// One backup under churn; what the oracles have to say against it.
fn backup_under(load: Load, top: &Path, seed: u64, tune: impl Fn(Backup) -> Backup) -> (Report, Result<(), String>) {
    let state = top.join(format!("state-{seed}"));
    let sample = Sample { agents: 2, sessions_per_agent: 30, databases: false, seed, ..Sample::default() };
    sample_state(&state, &sample);
    let churn = Churn::start(&state, load.seed(seed));
    std::thread::sleep(Duration::from_millis(20));
    let archive = top.join(format!("{seed}.tar"));
    let report = tune(Backup::of(&state)).observer(Pause::default()).to(&archive);
    let log = churn.stop();
    assert!(log.errors().is_empty(), "the mutator itself failed: {:?}", log.errors());
    assert!(leftovers(top).is_empty(), "staging is left behind");
    let log = log.only(churn::is_kept);
    let verdict = Told::of(&report).judge(&archive, &state, &log);
    fs::remove_dir_all(&state).expect("removes");
    let _whether_made = fs::remove_file(&archive);
    (report, verdict)
}

/// Where the runs are made: on the filesystem of the temporary directory, and on tmpfs.
fn places() -> Vec<(&'static str, tempfile::TempDir)> {
    let mut places = vec![("the temporary directory", tempfile::tempdir().expect("a directory"))];
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => places.push(("tmpfs", dir)),
        Err(error) => eprintln!("skipped: no runs on tmpfs, /dev/shm is not to be had: {error}"),
    }
    places
}

fn tuned(seed: u64, backup: Backup) -> Backup {
    match seed % 5 {
        // Everything counts as cold: what moved is captured again.
        0 => backup.hot_window(Duration::ZERO),
        // Hot files are linked, with a fingerprint.
        1 => backup.holding_nothing(),
        2 => backup.mode(Mode::Copy),
        _ => backup,
    }
}

/// What counts as cold is archived as it is, and so would be a record whose second half is still to be written: the oracle
/// objected once in some thousands of runs. Users can set no window that is shorter than such a pause.
fn tamed(seed: u64, load: Load) -> Load {
    if seed.is_multiple_of(5) { load.rate(Kind::Split, 0.0) } else { load }
}

fn no_backup_contradicts_the_truth(load: fn() -> Load) {
    for (place, top) in places() {
        let (mut instants, mut losses) = (0, 0);
        for seed in 0..runs() / 2 {
            let (report, verdict) = backup_under(tamed(seed, load()), top.path(), seed, |backup| tuned(seed, backup));
            verdict.unwrap_or_else(|wrong| panic!("run {seed} on {place}: {wrong}\n{report:#?}"));
            instants += u64::from(report.consistent == Some(Consistency::Instant));
            losses += report.counts.losses();
        }
        println!("{place}: {} runs, {instants} of one instant, {losses} files flagged", runs() / 2);
        assert!(instants > 0, "on {place} not one run came to rest: the oracle of the instant was never asked");
        proven(&[Promise::Instant], instants, "churn");
        proven(&[Promise::Whole, Promise::Fate], runs() / 2, "churn");
    }
}

#[test]
fn under_a_light_load_every_archive_tells_the_truth() {
    no_backup_contradicts_the_truth(Load::light);
}

#[test]
fn under_a_heavy_load_every_archive_tells_the_truth() {
    no_backup_contradicts_the_truth(|| Load::heavy().scaled(0.5));
}

#[test]
fn files_that_move_between_directories_are_in_the_archive_exactly_once() {
    no_backup_contradicts_the_truth(|| Load::moves_only().rate(Kind::Move, 60.0));
}

/// How many of some runs the oracles object to.
fn objections(load: fn() -> Load, tune: impl Fn(Backup) -> Backup) -> usize {
    let top = tempfile::tempdir().expect("a directory");
    let verdicts = (0..30).map(|seed| backup_under(load(), top.path(), seed, &tune).1);
    verdicts.filter(Result::is_err).count()
}

#[test]
fn without_the_settle_rule_the_oracles_object() {
    let wrong = objections(|| Load::moves_only().rate(Kind::Move, 2_000.0), |b| b.without(Some(Ablation::Settle)));
    assert!(wrong > 0, "a single pass was never caught: these tests prove nothing");
}

#[test]
fn without_the_exact_reader_the_oracles_object() {
    let tune = |backup: Backup| backup.without(Some(Ablation::Exact)).hot_window(Duration::ZERO);
    let wrong = objections(|| Load::heavy().scaled(0.5), tune);
    assert!(wrong > 0, "a trusting reader was never caught: these tests prove nothing");
}
