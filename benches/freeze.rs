//! The freeze against `cp -al` of the same tree and against the bare system calls, and the memory of a whole backup.
//!
//! In turns, so that whatever else the machine does meets all: `cp -al` of the state directory; [`clawsnap::rehearse`]
//! of it, which freezes and lets go again; and a bare loop of `linkat` and `statx` over its sessions, with as many
//! threads as the freeze has, each into a directory of its own. The names of that loop are listed and sorted
//! beforehand. It runs once more into directories as small as those of the freeze, which take names faster: what is
//! left between that and the freeze is what the freeze does beside, which is to list, to look before it links, and to
//! judge. What each leaves behind is removed, and the disk synced, outside of the timing. The quiet round is the last
//! check of the freeze, which found nothing that had moved. The verdicts are the medians of the ratios of these turns.
//! The exit code tells only whether it could be measured, never how fast it was.
//!
//!     CLAWSNAP_BENCH_FILES   sessions in a tree (100,000)
//!     CLAWSNAP_BENCH_PAIRS   turns for each tree (7)
//!     CLAWSNAP_BENCH_DIR     where the trees are made (the directory for temporary files)
//!
//! `cargo test --benches` runs it small, as a test of itself.

#[path = "common/bare.rs"]
mod bare;
#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::cell::RefCell;
use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clawsnap::event::{Event, Observer};
use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::plan::{Environment, Request};
use clawsnap::report::{Consistency, Outcome, Report};
use clawsnap::{Create, Output, create, freeze, rehearse};

use common::{Result, SEED, Scale, head, in_turns, load, next, ratios, run, seconds, sync, verdict};

/// Set for the child process that makes a whole backup: its memory is its own.
const CHILD: &str = "CLAWSNAP_BENCH_STATE";

/// What a backup may take at most.
const MEMORY_LIMIT: u64 = 200_000_000;

/// A session that nobody writes any more: its last record is two hours old.
const AGE: Duration = Duration::from_secs(2 * 3_600);

fn main() -> ExitCode {
    let outcome = match std::env::var_os(CHILD) {
        Some(state) => back_up(Path::new(&state)),
        None => bench(&Scale::of_process("FILES", (100_000, 7), (400, 1))),
    };
    common::ended("freeze", outcome)
}

/// The ratios of one tree, as medians.
struct Ratios {
    to_copy: f64,
    to_bare: f64,
    quiet_to_bare: f64,
}

fn bench(scale: &Scale) -> Result<()> {
    let work = scale.workplace()?;
    println!("{} sessions, {} turns, load {}", scale.size, scale.pairs, load());
    head("");
    let mut all = Vec::new();
    for (title, agents) in [("four directories", 4), ("one directory", 1)] {
        let state = work.path().join(format!("state-{agents}"));
        make_state(&state, agents, scale.size)?;
        println!("{title}");
        all.push(measure(work.path(), &state, agents, scale)?);
    }
    let [many, one] = [&all[0], &all[1]];
    verdict("freeze of four directories at most 0.7 of cp -al", many.to_copy <= 0.7);
    verdict("freeze of one directory no longer than cp -al", one.to_copy <= 1.0);
    verdict("freeze at most 1.25 of the bare loop", all.iter().all(|ratios| ratios.to_bare <= 1.25));
    verdict("quiet round at most 0.15 of the bare loop", all.iter().all(|ratios| ratios.quiet_to_bare <= 0.15));
    let peak = peak_of_backup(&work.path().join("state-4"))?;
    println!("peak memory of a backup: {:.0} MB", peak as f64 / 1e6);
    verdict("peak memory below 200 MB", peak < MEMORY_LIMIT);
    println!("load at the end: {}", load());
    Ok(())
}

fn measure(work: &Path, state: &Path, agents: usize, scale: &Scale) -> Result<Ratios> {
    let dirs: Vec<PathBuf> = (0..agents).map(|agent| sessions(state, agent)).collect();
    let names = bare::Names::list(&dirs)?;
    let quiet = RefCell::new(Vec::new());
    let freeze = || {
        let (took, last) = time_freeze(state, scale.size as u64)?;
        quiet.borrow_mut().push(last);
        Ok(took)
    };
    let copy = || time_beside(&work.join("copy"), |copy| time_copy(state, copy));
    let bare = |links| time_beside(&work.join("links"), |staging| names.link(staging, links));
    let [copy, freeze, bare, sharded] =
        in_turns(scale.pairs, [&copy, &freeze, &|| bare(bare::ALL), &|| bare(bare::SHARD)])?;
    let quiet = quiet.into_inner().split_off(1);
    seconds("cp -al", &copy);
    seconds("freeze", &freeze);
    seconds("linkat and statx", &bare);
    seconds("  into shards", &sharded);
    seconds("quiet round", &quiet);
    ratios("freeze / into shards", &freeze, &sharded);
    Ok(Ratios {
        to_copy: ratios("freeze / cp -al", &freeze, &copy),
        to_bare: ratios("freeze / bare", &freeze, &bare),
        quiet_to_bare: ratios("quiet round / bare", &quiet, &bare),
    })
}

/// What it takes to make `at`, which is removed again.
fn time_beside(at: &Path, make: impl FnOnce(&Path) -> Result<Duration>) -> Result<Duration> {
    sync()?;
    let took = make(at)?;
    fs::remove_dir_all(at)?;
    sync()?;
    Ok(took)
}

fn time_copy(state: &Path, copy: &Path) -> Result<Duration> {
    let begun = Instant::now();
    run(Command::new("cp").arg("-al").args([state, copy]))?;
    Ok(begun.elapsed())
}

/// Microseconds of the last check, as an event tells them.
#[derive(Default)]
struct Quiet(AtomicU64);

impl Observer for Quiet {
    fn on(&self, event: Event) {
        if let Event::Settled { microseconds } = event {
            self.0.store(microseconds, Ordering::Relaxed);
        }
    }
}

/// The freeze alone, as its report tells it, and its last round; letting go again is not part of it, as removing the
/// copy is not.
fn time_freeze(state: &Path, links: u64) -> Result<(Duration, Duration)> {
    let quiet = Quiet::default();
    sync()?;
    let report = rehearse(&request(state), &freeze::Options::default(), &gate(), &quiet);
    sync()?;
    let linked = report.captures.get("link").copied().unwrap_or(0);
    match (report.outcome, report.consistent) {
        (Outcome::Complete, Some(Consistency::Instant)) if linked == links => Ok((
            Duration::from_micros(report.freeze_microseconds),
            Duration::from_micros(quiet.0.load(Ordering::Relaxed)),
        )),
        _ => Err(format!("{linked} of {links} sessions were linked: {}", told(&report)).into()),
    }
}

fn told(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| error.to_string())
}

/// A state directory whose sessions are dealt out to `agents` directories.
fn make_state(state: &Path, agents: usize, files: usize) -> io::Result<()> {
    let modified = SystemTime::now() - AGE;
    for agent in 0..agents {
        fs::create_dir_all(sessions(state, agent))?;
    }
    // Of a version whose sessions may be linked: of others, they are pinned.
    fs::write(state.join("openclaw.json"), "{\"meta\":{\"lastTouchedVersion\":\"2026.4.14\"}}\n")?;
    // Names as random as those of real sessions: no directory index meets them in order.
    let mut seed = SEED;
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
