//! What a backup costs the owner of live databases: how long its commits take, with and without one.
//!
//! The owner is a process of its own, as SQLite's locks demand. It commits a counter to each of three databases every
//! 5 ms, a thread for each, and appends to a session as often. In turns, so that whatever else the machine does meets
//! both: a quiet period, and one in which backups run one after the other. The verdict is the median of the ratios of
//! the 99th percentiles of these pairs. A commit that was due while another one waited is not made up for: long waits
//! are in the maximum. `owner locked out` is what the reports tell: of each database in each backup, all locks together.
//! The exit code tells only whether it could be measured, never how long anybody waited.
//!
//!     CLAWSNAP_BENCH_MEGABYTES   size of each database (10)
//!     CLAWSNAP_BENCH_PAIRS       pairs for each kind of journal (7)
//!     CLAWSNAP_BENCH_SECONDS     least length of a period (5)
//!     CLAWSNAP_BENCH_DIR         where the databases are made (the directory for temporary files)
//!
//! `cargo test --benches` runs it small, as a test of itself.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clawsnap::freeze::{DatabaseOptions, Options};
use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::plan::{Environment, Request};
use clawsnap::report::{Consistency, Outcome, Report};
use clawsnap::{Create, Output, create};
use rusqlite::Connection;

use common::{Result, Scale, load, number};

/// Set for the child process that owns the databases.
const OWNER: &str = "CLAWSNAP_BENCH_OWNER";

const DATABASES: usize = 3;

/// Between two commits to the same database.
const PACE: Duration = Duration::from_millis(5);

/// How long the owner waits for a lock before it gives up, and with it the bench.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a commit took, or nothing for another write; or why it failed.
type Written = std::result::Result<String, String>;

fn main() -> ExitCode {
    let outcome = match std::env::var_os(OWNER) {
        Some(state) => own(Path::new(&state)),
        None => bench(&Scale::of_process("MEGABYTES", (10, 7), (1, 1))),
    };
    common::ended("sqlite", outcome)
}

fn bench(scale: &Scale) -> Result<()> {
    let work = scale.workplace()?;
    let Scale { size: megabytes, pairs, .. } = scale;
    let period = Duration::from_secs(number("SECONDS", 5, 1) as u64);
    println!("{DATABASES} databases of {megabytes} MB, {pairs} pairs of {period:?} each, load {}", load());
    println!("{:<24}{:>12}{:>12}{:>12}", "commits of the owner", "median", "p99", "max");
    for mode in ["WAL", "DELETE"] {
        let state = work.path().join(mode);
        make_state(&state, mode, *megabytes)?;
        let mut owner = Owner::start(&state)?;
        let measured = measure(&state, &mut owner, *pairs, period)?;
        owner.stop()?;
        tell(mode, &measured);
    }
    println!("load at the end: {}", load());
    Ok(())
}

/// What was measured with one kind of journal: how long commits took, in milliseconds, and what backups reported.
#[derive(Default)]
struct Measured {
    quiet: Vec<f64>,
    busy: Vec<f64>,
    ratios: Vec<f64>,
    reports: Vec<Report>,
}

/// The first pair only warms the caches. Who goes first alternates, as each finds a disk that the other used.
fn measure(state: &Path, owner: &mut Owner, pairs: usize, period: Duration) -> Result<Measured> {
    let mut measured = Measured::default();
    for turn in 0..=pairs {
        let quiet_first = if turn % 2 == 0 { Some(quiet_period(owner, period)?) } else { None };
        let (busy, reports) = busy_period(state, owner, period)?;
        let quiet = quiet_first.map_or_else(|| quiet_period(owner, period), Ok)?;
        if turn > 0 {
            measured.ratios.push(percentile(&busy, 0.99) / percentile(&quiet, 0.99));
            measured.quiet.extend(quiet);
            measured.busy.extend(busy);
            measured.reports.extend(reports);
        }
    }
    Ok(measured)
}

fn quiet_period(owner: &mut Owner, length: Duration) -> Result<Vec<f64>> {
    owner.commits()?;
    thread::sleep(length);
    owner.commits()
}

fn busy_period(state: &Path, owner: &mut Owner, length: Duration) -> Result<(Vec<f64>, Vec<Report>)> {
    let archive = state.with_extension("tar.zst");
    let mut reports = Vec::new();
    owner.commits()?;
    let begun = Instant::now();
    while begun.elapsed() < length {
        reports.push(back_up(state, &archive)?);
        fs::remove_file(&archive)?;
    }
    Ok((owner.commits()?, reports))
}

fn back_up(state: &Path, archive: &Path) -> Result<Report> {
    let environment = Environment { home: None, cwd: state.into(), ..Environment::default() };
    let helper = vec![env!("CARGO_BIN_EXE_clawsnap").into(), "__database".into()];
    let databases = DatabaseOptions { helper, ..DatabaseOptions::default() };
    let backup = Create {
        request: Request::new(environment.with("OPENCLAW_STATE_DIR", state)),
        output: Output::Path(archive.to_owned()),
        compression: None,
        freeze: Options { databases, ..Options::default() },
        verify: true,
        if_changed: false,
        wait: Duration::ZERO,
        created_at: None,
        retention: None,
    };
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    let report = create(backup, &gate, &());
    let made = matches!(report.outcome, Outcome::Complete | Outcome::Lossy);
    if made && report.databases.len() == DATABASES { Ok(report) } else { Err(serde_json::to_string(&report)?.into()) }
}

fn tell(mode: &str, Measured { quiet, busy, ratios, reports }: &Measured) {
    let row = |name: &str, times: &[f64]| {
        let [median, high, most] = [0.5, 0.99, 1.0].map(|share| percentile(times, share));
        println!("  {name:<22}{median:>9.3} ms{high:>9.3} ms{most:>9.3} ms");
    };
    println!("{mode}");
    row("quiet", quiet);
    row("during backups", busy);
    let [least, ratio, most] = [0.0, 0.5, 1.0].map(|share| percentile(ratios, share));
    println!("  p99 during backups / quiet: {ratio:.2} (median of the pairs; least {least:.2}, most {most:.2})");
    let databases = || reports.iter().flat_map(|report| &report.databases);
    let locked: Vec<f64> = databases().map(|database| database.locked_microseconds as f64 / 1e3).collect();
    let frozen: Vec<f64> = reports.iter().map(|report| report.freeze_microseconds as f64 / 1e3).collect();
    row("owner locked out", &locked);
    row("freeze", &frozen);
    let count = |test: fn(&Report) -> bool| reports.iter().filter(|report| test(report)).count();
    let instant = count(|report| report.consistent == Some(Consistency::Instant));
    let complete = count(|report| report.outcome == Outcome::Complete);
    let ways: BTreeSet<&str> = databases().map(|database| database.way).collect();
    println!("  of {} backups {instant} instant, {complete} complete; databases were copied {ways:?}", reports.len());
}

/// The least value that this share of all does not exceed.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// The process that owns the databases, as the bench sees it.
struct Owner {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Owner {
    fn start(state: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.env(OWNER, state).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the owner has no pipes".into());
        };
        Ok(Self { child, ask, answers: BufReader::new(answers) })
    }

    /// How long each commit took since this was asked last, in milliseconds.
    fn commits(&mut self) -> Result<Vec<f64>> {
        self.ask.write_all(b"\n")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the owner has ended".into());
        }
        Ok(line.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
    }

    fn stop(self) -> Result<()> {
        let Self { mut child, ask, .. } = self;
        drop(ask);
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the owner ended with {status}").into()) }
    }
}

/// What that process does: it writes until nobody asks any more.
fn own(state: &Path) -> Result<()> {
    let (sender, commits) = mpsc::channel();
    for number in 0..DATABASES {
        let (database, sender) = (Connection::open(database(state, number))?, sender.clone());
        database.busy_timeout(PATIENCE)?;
        database.execute_batch("PRAGMA synchronous=NORMAL")?;
        thread::spawn(move || at_pace(&sender, |count| commit(&database, count)));
    }
    let mut session = OpenOptions::new().append(true).open(session(state))?;
    thread::spawn(move || at_pace(&sender, |count| writeln!(session, "{{\"count\":{count}}}").map(|()| String::new())));
    for ask in io::stdin().lines() {
        ask?;
        println!("{}", commits.try_iter().collect::<std::result::Result<Vec<_>, _>>()?.join(" "));
    }
    Ok(())
}

fn commit(database: &Connection, count: u64) -> rusqlite::Result<String> {
    let mut insert = database.prepare("INSERT INTO counter(count) VALUES (?1)")?;
    let begun = Instant::now();
    insert.execute([i64::try_from(count).unwrap_or(i64::MAX)])?;
    Ok(format!("{:.3}", begun.elapsed().as_secs_f64() * 1e3))
}

/// Writes at each beat; one that passed while the last write waited is left out.
fn at_pace<E: ToString>(sender: &Sender<Written>, mut write: impl FnMut(u64) -> std::result::Result<String, E>) {
    for count in 0.. {
        let next = Instant::now() + PACE;
        if sender.send(write(count).map_err(|error| error.to_string())).is_err() {
            return;
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn make_state(state: &Path, mode: &str, megabytes: usize) -> Result<()> {
    fs::create_dir_all(state.join("memory"))?;
    fs::create_dir_all(session(state).parent().unwrap_or(state))?;
    fs::write(state.join("openclaw.json"), "{}\n")?;
    File::create_new(session(state))?;
    for number in 0..DATABASES {
        let database = Connection::open(database(state, number))?;
        database.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(()))?;
        database.execute_batch(&format!(
            "CREATE TABLE counter(count INTEGER); CREATE TABLE memory(text BLOB);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {megabytes} * 1000)
             INSERT INTO memory SELECT randomblob(950) FROM n"
        ))?;
        database.close().map_err(|(_, error)| error)?;
    }
    Ok(())
}

fn database(state: &Path, number: usize) -> PathBuf {
    state.join("memory").join(format!("agent-{number}.sqlite"))
}

fn session(state: &Path) -> PathBuf {
    state.join("agents/main/sessions/0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f.jsonl")
}
