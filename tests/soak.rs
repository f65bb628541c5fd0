//! A long time of everything at once: a state under the heaviest churn, its databases written to, a backup every moment,
//! every third one killed at some time; and every archive is held against the truth.
//!
//! `CLAWSNAP_SOAK` is for how many seconds, 1800 for all.
#![cfg(feature = "cli")]

mod churn;
mod proof;
mod stage;
mod support;
mod tool;
mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use churn::{Books, Churn, Load, Log, Rng, Sample, audit, sample_state};
use nix::sys::signal::Signal;
use proof::{Promise, proven};
use stage::{Stage, finished, json, send, text};
use support::snapshot;
use truth::Told;

/// How long one state is churned: its log is kept in memory.
const EPISODE: Duration = Duration::from_secs(15);

/// One backup in so many is killed.
const KILLED: u64 = 3;

fn time() -> Duration {
    Duration::from_secs(std::env::var("CLAWSNAP_SOAK").map_or(45, |told| told.parse().expect("a number of seconds")))
}

/// What a time of churn has shown.
#[derive(Default)]
struct Tally {
    whole: u64,
    instants: u64,
    killed: u64,
}

/// Backups of one state, until the episode is over.
struct Episode {
    stage: Stage,
    state: PathBuf,
    dice: Rng,
    /// How long the last whole backup took.
    took: Duration,
}

impl Episode {
    fn new(seed: u64) -> Self {
        let stage = Stage::new();
        let state = stage.path("home/.openclaw");
        sample_state(&state, &Sample { agents: 2, sessions_per_agent: 60, seed, ..Sample::default() });
        Self { stage, state, dice: Rng::new(seed), took: Duration::from_millis(100) }
    }

    fn run(mut self, seed: u64, tally: &mut Tally) {
        let churn = Churn::start(&self.state, Load::heavy().scaled(0.5).seed(seed));
        let books = Books::open(&self.state).expect("opens its databases");
        let (begun, mut made) = (Instant::now(), Vec::new());
        for number in 0.. {
            if begun.elapsed() > EPISODE {
                break;
            }
            let archive = self.stage.path(&format!("out/{number}.tar"));
            if number % KILLED == KILLED - 1 {
                tally.killed += u64::from(self.killed(&archive));
            } else {
                let begun = Instant::now();
                made.push((self.back_up(&archive), archive));
                self.took = begun.elapsed();
            }
            self.pause(Duration::from_millis(200));
        }
        let log = churn.stop();
        books.stop().expect("its databases could be written");
        assert!(log.errors().is_empty(), "the mutator itself failed: {:?}", log.errors());
        self.judge(&made, &log.only(churn::is_kept));
        tally.whole += made.len() as u64;
        tally.instants += made.iter().filter(|(told, _)| told.is_instant).count() as u64;
    }

    /// Some time, less than `end`.
    fn pause(&mut self, end: Duration) {
        sleep(end.mul_f64(self.dice.below(1000) as f64 / 1000.0));
    }

    fn command(&self, archive: &Path) -> Command {
        self.stage.command(&format!("create --json -o {}", archive.display()))
    }

    fn back_up(&self, archive: &Path) -> Told {
        let output = self.command(archive).output().expect("runs");
        let code = output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, text(&output.stderr)));
        Told::by_command(code, &json(&output))
    }

    /// A backup that is killed within the time that the last one took, be the machine slow or quick; whether it was.
    fn killed(&mut self, archive: &Path) -> bool {
        let child = self.command(archive).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        self.pause(self.took);
        send(&child, Signal::SIGKILL);
        let was_killed = finished(child).code().is_none();
        if archive.exists() {
            self.assert_proven(archive);
        }
        was_killed
    }

    fn assert_proven(&self, archive: &Path) {
        let output = self.stage.run(&format!("verify {}", archive.display()));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }

    fn judge(&self, made: &[(Told, PathBuf)], log: &Log) {
        for (told, archive) in made {
            told.judge(archive, &self.state, log).unwrap_or_else(|wrong| panic!("{wrong}\n{told:#?}"));
            self.assert_proven(archive);
            let top = archive.with_extension("d");
            fs::create_dir(&top).expect("makes");
            tool::sh("tar -xf \"$ARCHIVE\"", &top, &[("ARCHIVE", archive)]);
            let audited = audit(&top).unwrap_or_else(|wrong| panic!("{}: {wrong}", archive.display()));
            assert!(audited.starts_with("2 databases"), "{audited}");
            fs::remove_dir_all(&top).expect("removes");
        }
        // The last run may have been a killed one: the next removes what it left.
        self.back_up(&self.stage.path("out/last.tar"));
        assert_eq!(self.stage.leftovers(), [] as [PathBuf; 0]);
        let looks = snapshot(&self.state);
        let linked: Vec<_> = looks.iter().filter(|(_, looks)| looks.is_file() && looks.nlink > 1).collect();
        assert!(linked.is_empty(), "second names are left: {linked:?}");
    }
}

#[test]
fn a_long_time_of_churn_and_kills_finds_every_archive_right() {
    let (begun, mut tally) = (Instant::now(), Tally::default());
    for seed in 0.. {
        if begun.elapsed() > time() {
            break;
        }
        Episode::new(seed).run(seed, &mut tally);
    }
    let Tally { whole, instants, killed } = tally;
    println!("{whole} archives, {instants} of one instant, {killed} runs killed");
    assert!(whole > 10 && instants > 0 && killed > 0, "{whole} {instants} {killed}");
    proven(&[Promise::Instant], instants, "a long soak");
    proven(&[Promise::Whole, Promise::Fate], whole, "a long soak");
    proven(&[Promise::Untouched, Promise::Name], whole + killed, "a long soak");
}
