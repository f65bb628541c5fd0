//! The freeze against `cp -al` of the same tree, and the memory of a whole backup.
//!
//! In turns, so that whatever else the machine does meets both: `cp -al` of the state directory and
//! [`clawsnap::rehearse`] of it, which freezes and lets go again. What each leaves behind is removed, and the disk
//! synced, outside of the timing. The verdict is the median of the ratios of these pairs. The exit code tells only
//! whether it could be measured, never how fast it was.
//!
//!     CLAWSNAP_BENCH_FILES   sessions in a tree (100,000)
//!     CLAWSNAP_BENCH_PAIRS   pairs for each tree (7)
//!     CLAWSNAP_BENCH_DIR     where the trees are made (the directory for temporary files)
//!
//! `cargo test --benches` runs it small, as a test of itself.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::plan::{Environment, Request};
use clawsnap::report::{Consistency, Outcome, Report};
use clawsnap::{Create, Output, create, freeze, rehearse};

/// Set for the child process that makes a whole backup: its memory is its own.
const CHILD: &str = "CLAWSNAP_BENCH_STATE";

/// What a backup may take at most.
const MEMORY_LIMIT: u64 = 200_000_000;

/// A session that nobody writes any more: its last record is two hours old.
const AGE: Duration = Duration::from_secs(2 * 3_600);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let outcome = match std::env::var_os(CHILD) {
        Some(state) => back_up(Path::new(&state)),
        None => bench(&Scale::of_process()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("freeze: could not measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How much is measured, and where.
struct Scale {
    files: usize,
    pairs: usize,
    dir: PathBuf,
}

impl Scale {
    fn of_process() -> Self {
        // Cargo says `--bench` only where it is meant.
        let (files, pairs) = if std::env::args().any(|arg| arg == "--bench") { (100_000, 7) } else { (400, 1) };
        let number = |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
        Self {
            files: number("CLAWSNAP_BENCH_FILES", files).max(1),
            pairs: number("CLAWSNAP_BENCH_PAIRS", pairs).max(1),
            dir: std::env::var_os("CLAWSNAP_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
        }
    }
}

fn bench(scale: &Scale) -> Result<()> {
    let work = tempfile::Builder::new().prefix("clawsnap-bench-").tempdir_in(&scale.dir)?;
    println!("{} sessions, {} pairs, load {}", scale.files, scale.pairs, load());
    println!("{:<22}{:>11}{:>11}{:>11}", "", "median", "least", "most");
    let mut ratios = Vec::new();
    for (title, agents) in [("four directories", 4), ("one directory", 1)] {
        let state = work.path().join(format!("state-{agents}"));
        make_state(&state, agents, scale.files)?;
        let pairs = measure(work.path(), &state, scale)?;
        ratios.push(tell(title, &pairs));
    }
    verdict("freeze no longer than cp -al", ratios.iter().all(|ratio| *ratio <= 1.0));
    let peak = peak_of_backup(&work.path().join("state-4"))?;
    println!("peak memory of a backup: {:.0} MB", peak as f64 / 1e6);
    verdict("peak memory below 200 MB", peak < MEMORY_LIMIT);
    println!("load at the end: {}", load());
    Ok(())
}

fn verdict(claim: &str, held: bool) {
    println!("claim: {claim}: {}", if held { "held" } else { "MISSED" });
}

/// The load averages: what else the machine does belongs to the figures.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Times of one pair.
#[derive(Clone, Copy)]
struct Pair {
    copy: Duration,
    freeze: Duration,
}

/// The first pair only warms the caches. Who goes first alternates, as the second finds a disk that the first used.
fn measure(work: &Path, state: &Path, scale: &Scale) -> Result<Vec<Pair>> {
    let links = scale.files as u64;
    let mut pairs = Vec::new();
    for turn in 0..=scale.pairs {
        let pair = if turn % 2 == 0 {
            let copy = time_copy(work, state)?;
            Pair { copy, freeze: time_freeze(state, links)? }
        } else {
            let freeze = time_freeze(state, links)?;
            Pair { copy: time_copy(work, state)?, freeze }
        };
        pairs.push(pair);
    }
    Ok(pairs.split_off(1))
}

fn time_copy(work: &Path, state: &Path) -> Result<Duration> {
    let copy = work.join("copy");
    sync()?;
    let begun = Instant::now();
    let status = Command::new("cp").arg("-al").args([state, &copy]).status()?;
    let took = begun.elapsed();
    if !status.success() {
        return Err(format!("cp -al ended with {status}").into());
    }
    fs::remove_dir_all(&copy)?;
    sync()?;
    Ok(took)
}

/// The freeze alone, as its report tells it; letting go again is not part of it, as removing the copy is not.
fn time_freeze(state: &Path, links: u64) -> Result<Duration> {
    sync()?;
    let report = rehearse(&request(state), &freeze::Options::default(), &gate(), &());
    sync()?;
    let linked = report.captures.get("link").copied().unwrap_or(0);
    match (report.outcome, report.consistent) {
        (Outcome::Complete, Some(Consistency::Instant)) if linked == links => {
            Ok(Duration::from_micros(report.freeze_microseconds))
        }
        _ => Err(format!("{linked} of {links} sessions were linked: {}", told(&report)).into()),
    }
}

fn told(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| error.to_string())
}

fn sync() -> io::Result<()> {
    let status = Command::new("sync").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("sync ended with {status}"))) }
}

/// Prints what one tree took, and returns the median ratio.
fn tell(title: &str, pairs: &[Pair]) -> f64 {
    let column = |of: fn(&Pair) -> f64| -> Vec<f64> {
        let mut column: Vec<f64> = pairs.iter().map(of).collect();
        column.sort_by(f64::total_cmp);
        column
    };
    let row = |name: &str, sorted: &[f64], unit: &str| {
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        println!("  {name:<20}{:>9.3}{unit}{least:>9.3}{unit}{most:>9.3}{unit}", median(sorted));
    };
    println!("{title}");
    row("cp -al", &column(|pair| pair.copy.as_secs_f64()), " s");
    row("freeze", &column(|pair| pair.freeze.as_secs_f64()), " s");
    let ratios = column(|pair| pair.freeze.as_secs_f64() / pair.copy.as_secs_f64());
    row("freeze / cp -al", &ratios, "  ");
    median(&ratios)
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) }
}

/// A state directory whose sessions are dealt out to `agents` directories.
fn make_state(state: &Path, agents: usize, files: usize) -> io::Result<()> {
    let modified = SystemTime::now() - AGE;
    for agent in 0..agents {
        fs::create_dir_all(sessions(state, agent))?;
    }
    fs::write(state.join("openclaw.json"), "{}\n")?;
    // Names as random as those of real sessions: no directory index meets them in order.
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for number in 0..files {
        let id = uuid(&mut seed);
        let mut file = File::create_new(sessions(state, number % agents).join(format!("{id}.jsonl")))?;
        file.write_all(session(&id, number).as_bytes())?;
        file.set_times(FileTimes::new().set_modified(modified))?;
    }
    Ok(())
}

fn sessions(state: &Path, agent: usize) -> PathBuf {
    let agent = if agent == 0 { "main".to_owned() } else { format!("helper-{agent}") };
    state.join("agents").join(agent).join("sessions")
}

/// About 300 bytes in two records.
fn session(id: &str, number: usize) -> String {
    format!(
        "{{\"type\":\"session\",\"version\":3,\"id\":\"{id}\",\"timestamp\":\"2026-04-02T08:15:00.000Z\"}}\n\
         {{\"type\":\"message\",\"id\":\"{number:08x}\",\"parentId\":null,\"message\":{{\"role\":\"user\",\"content\":\
         [{{\"type\":\"text\",\"text\":\"What is the weather like in the place number {number} today?\"}}]}}}}\n"
    )
}

fn uuid(seed: &mut u64) -> String {
    let (a, b) = (next(seed), next(seed));
    format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 48, b & 0xffff_ffff_ffff)
}

/// xorshift64.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn request(state: &Path) -> Request {
    let environment = Environment { home: None, cwd: state.into(), ..Environment::default() };
    Request::new(environment.with("OPENCLAW_STATE_DIR", state))
}

fn gate() -> Arc<dyn Gate> {
    Arc::new(CancelFlag::new())
}

/// Makes a backup in a process of its own, and tells how much memory that process ever had.
fn peak_of_backup(state: &Path) -> Result<u64> {
    let child = Command::new(std::env::current_exe()?).env(CHILD, state).stderr(Stdio::inherit()).output()?;
    if !child.status.success() {
        return Err(format!("the backup ended with {}", child.status).into());
    }
    match String::from_utf8(child.stdout)?.trim().parse()? {
        0 => Err("the kernel does not tell the peak memory".into()),
        peak => Ok(peak),
    }
}

/// What that process does.
fn back_up(state: &Path) -> Result<()> {
    let report = create(
        Create {
            request: request(state),
            output: Output::Path(state.with_extension("tar.zst")),
            compression: None,
            freeze: freeze::Options::default(),
            verify: true,
            if_changed: false,
            wait: Duration::ZERO,
            created_at: None,
            retention: None,
        },
        &gate(),
        &(),
    );
    match (report.outcome, report.peak_memory_bytes) {
        (Outcome::Complete, Some(peak)) => {
            println!("{peak}");
            Ok(())
        }
        _ => Err(told(&report).into()),
    }
}
