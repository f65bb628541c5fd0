//! What the benches share: how much is measured and where, what else the machine does, and medians.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How much is measured, and where.
pub(crate) struct Scale {
    /// Files, lines or megabytes, as the bench says.
    pub(crate) size: usize,
    /// Measurements of each kind; at least one.
    pub(crate) pairs: usize,
    /// Where everything is made.
    pub(crate) dir: PathBuf,
}

impl Scale {
    /// What the environment says: `CLAWSNAP_BENCH_<unit>`, `CLAWSNAP_BENCH_PAIRS`, `CLAWSNAP_BENCH_DIR`. Where it says
    /// nothing, size and pairs are those of `earnest`, or of `trial` where the bench only tests itself.
    pub(crate) fn of_process(unit: &str, earnest: (usize, usize), trial: (usize, usize)) -> Self {
        Self {
            size: number(unit, earnest.0, trial.0),
            pairs: number("PAIRS", earnest.1, trial.1),
            dir: std::env::var_os("CLAWSNAP_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
        }
    }

    /// An empty directory for one bench; it goes when dropped.
    pub(crate) fn workplace(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("clawsnap-bench-").tempdir_in(&self.dir)
    }
}

/// `CLAWSNAP_BENCH_<what>`, at least one; `earnest` if it is not set, or `trial` where the bench only tests itself.
pub(crate) fn number(what: &str, earnest: usize, trial: usize) -> usize {
    // Cargo says `--bench` only where it is meant.
    let usual = if std::env::args().any(|arg| arg == "--bench") { earnest } else { trial };
    let told = std::env::var(format!("CLAWSNAP_BENCH_{what}")).ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(usual).max(1)
}

/// The exit code tells only whether it could be measured.
pub(crate) fn ended(bench: &str, outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{bench}: could not measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The load averages: what else the machine does belongs to the figures.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Says whether a claim held.
pub(crate) fn verdict(claim: &str, held: bool) {
    println!("claim: {claim}: {}", if held { "held" } else { "MISSED" });
}

/// Waits until everything is on disk, so that nobody pays for what another one wrote.
pub(crate) fn sync() -> Result<()> {
    run(&mut Command::new("sync"))
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// Something that is measured: what one run of it took.
pub(crate) type Timed<'a, T = Duration> = &'a dyn Fn() -> Result<T>;

/// Runs all of `rivals` in turns, so that whatever else the machine does meets each, and gives what each took. The
/// first turn only warms the caches. Who goes first alternates, as the next finds a machine that another one used.
pub(crate) fn in_turns<T, const N: usize>(turns: usize, rivals: [Timed<'_, T>; N]) -> Result<[Vec<T>; N]> {
    let mut times = [const { Vec::new() }; N];
    for turn in 0..=turns {
        for step in 0..N {
            let at = if turn % 2 == 0 { step } else { N - 1 - step };
            let took = rivals[at]()?;
            if turn > 0 {
                times[at].push(took);
            }
        }
    }
    Ok(times)
}

/// The head of the table that [`row`] prints.
pub(crate) fn head(title: &str) {
    println!("{title:<24}{:>10}{:>15}{:>15}", "median", "least", "most");
}

/// Prints the median, the least and the most, and returns the median.
pub(crate) fn row(name: &str, values: impl IntoIterator<Item = f64>, unit: &str) -> f64 {
    let sorted = sorted(values);
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    println!("  {name:<22}{:>10.3} {unit:<4}{least:>10.3} {unit:<4}{most:>10.3} {unit}", middle(&sorted));
    middle(&sorted)
}

/// As [`row`], of times in seconds.
pub(crate) fn seconds(name: &str, times: &[Duration]) -> f64 {
    row(name, times.iter().map(Duration::as_secs_f64), "s")
}

/// As [`row`], of the ratios of times that were measured in the same turn.
pub(crate) fn ratios(name: &str, times: &[Duration], to: &[Duration]) -> f64 {
    row(name, times.iter().zip(to).map(|(time, to)| time.as_secs_f64() / to.as_secs_f64()), "")
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    middle(&sorted(values))
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) }
}

/// xorshift64: the next number, never zero if `seed` is not.
pub(crate) fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Where [`next`] begins.
pub(crate) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
