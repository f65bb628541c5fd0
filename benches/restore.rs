//! Restoring against `tar --zstd -x` of the same archive.
//!
//! In turns, so that whatever else the machine does meets both: tar, and `clawsnap restore`, which proves the archive
//! as well. Each time into a new directory, which is removed, and the disk synced, outside of the timing. The verdict is
//! the median of the ratios of these pairs. `restore` gives a directory its name only when it is on disk, and tar leaves
//! that to the kernel: so each is measured as it is, both with nothing to wait for, and both on disk. The exit code tells
//! only whether it could be measured, never how fast it was.
//!
//!     CLAWSNAP_BENCH_FILES   sessions (100,000 of 2 to 40 KB, more than 1 GiB)
//!     CLAWSNAP_BENCH_PAIRS   pairs of each sort (5)
//!     CLAWSNAP_BENCH_DIR     where everything is made (the directory for temporary files)
//!
//! `cargo test --benches` runs it small, as a test of itself.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use common::{Result, SEED, Scale, Timed, head, in_turns, load, next, ratios, run, seconds};

/// The program that is measured.
const CLAWSNAP: &str = env!("CARGO_BIN_EXE_clawsnap");

/// Sessions that nobody writes any more.
const AGE: Duration = Duration::from_secs(2 * 3_600);

fn main() -> ExitCode {
    common::ended("restore", bench(&Scale::of_process("FILES", (100_000, 5), (400, 1))))
}

/// An archive, and one session in it.
struct Scene {
    work: tempfile::TempDir,
    id: String,
    member: String,
}

impl Scene {
    fn archive(&self) -> PathBuf {
        self.work.path().join("a.tar.zst")
    }

    fn target(&self) -> PathBuf {
        self.work.path().join("back")
    }

    /// What `tar` is told, and whether it waits for the disk.
    fn tar(&self, members: &[&str], on_disk: bool) -> Result<Duration> {
        self.timed(members, |target| {
            fs::create_dir(target)?;
            let mut tar = Command::new("tar");
            run(tar.args(["--zstd", "-xf"]).arg(self.archive()).arg("-C").arg(target).args(members))?;
            if on_disk { run(Command::new("sync").arg("-f").arg(target)) } else { Ok(()) }
        })
    }

    fn restore(&self, patterns: &[&str], on_disk: bool) -> Result<Duration> {
        self.timed(patterns, |target| {
            let mut restore = Command::new(CLAWSNAP);
            restore.args(["restore", "-q"]).arg(self.archive()).args(patterns).arg("--target").arg(target);
            run(if on_disk { &mut restore } else { restore.arg("--no-sync") })
        })
    }

    fn timed(&self, wanted: &[&str], make: impl FnOnce(&Path) -> Result<()>) -> Result<Duration> {
        let target = self.target();
        run(&mut Command::new("sync"))?;
        let begun = Instant::now();
        make(&target)?;
        let took = begun.elapsed();
        if !wanted.is_empty() && files_below(&target)? != 1 {
            return Err(format!("{wanted:?} is not the one session").into());
        }
        fs::remove_dir_all(&target)?;
        Ok(took)
    }
}

fn bench(scale: &Scale) -> Result<()> {
    let scene = prepared(scale)?;
    let size = fs::metadata(scene.archive())?.len();
    println!("{} sessions, {} pairs, load {}", scale.size, scale.pairs, load());
    println!("an archive of {:.0} MB", size as f64 / 1e6);
    head("");
    for (title, members, patterns) in
        [("everything", vec![], vec![]), ("one session", vec![scene.member.as_str()], vec![scene.id[..8].to_owned()])]
    {
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let mut held = Vec::new();
        for (how, tar_waits, restore_waits) in
            [("neither waits for the disk", false, false), ("both wait", true, true), ("restore waits", false, true)]
        {
            let tar = || scene.tar(&members, tar_waits);
            let restore = || scene.restore(&patterns, restore_waits);
            let ratio = compare(&format!("{title}, {how}"), scale.pairs, &tar, &restore)?;
            held.push(format!("{how}: {}", if ratio <= 1.0 { "held" } else { "MISSED" }));
        }
        println!("claim: {title} no slower than tar: {}", held.join(", "));
    }
    println!("load at the end: {}", load());
    Ok(())
}

/// Prints what it took, and returns the median ratio.
fn compare(title: &str, pairs: usize, tar: Timed<'_>, restore: Timed<'_>) -> Result<f64> {
    let [tar, restore] = in_turns(pairs, [tar, restore])?;
    println!("{title}");
    seconds("tar --zstd -x", &tar);
    seconds("clawsnap restore", &restore);
    Ok(ratios("restore / tar", &restore, &tar))
}

fn files_below(top: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { files_below(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// A state directory, and an archive of it.
fn prepared(scale: &Scale) -> Result<Scene> {
    let work = scale.workplace()?;
    let state = work.path().join("state");
    let id = make_state(&state, scale.size)?;
    let mut scene = Scene { work, id, member: String::new() };
    run(Command::new(CLAWSNAP).args(["create", "-q"]).arg(&state).arg("--output").arg(scene.archive()))?;
    fs::remove_dir_all(&state)?;
    let listed = Command::new("tar").args(["--zstd", "-tf"]).arg(scene.archive()).output()?;
    let names = String::from_utf8(listed.stdout)?;
    scene.member = names.lines().find(|name| name.contains(&scene.id)).ok_or("the session is not there")?.to_owned();
    Ok(scene)
}

/// Sessions in four directories; the identifier of one in the middle.
fn make_state(state: &Path, files: usize) -> io::Result<String> {
    let modified = SystemTime::now() - AGE;
    let sessions = |number: usize| state.join(format!("agents/agent-{}/sessions", number % 4));
    (0..4).try_for_each(|number| fs::create_dir_all(sessions(number)))?;
    let mut seed = SEED;
    let mut chosen = String::new();
    for number in 0..files {
        // Names as random as those of real sessions: no directory index meets them in order.
        let id = format!("{:016x}", next(&mut seed));
        let mut file = File::create_new(sessions(number).join(format!("{id}.jsonl")))?;
        file.write_all(session(&id, &mut seed).as_bytes())?;
        file.set_times(FileTimes::new().set_modified(modified))?;
        if number == files / 2 {
            chosen = id;
        }
    }
    Ok(chosen)
}

/// Records of words, 2 to 40 KB of them, the shorter ones more often: about 13 KB, and four times less when compressed.
fn session(id: &str, seed: &mut u64) -> String {
    const WORDS: [&str; 16] = [
        "the", "weather", "session", "restore", "archive", "tomorrow", "message", "please", "look", "into", "error",
        "deploy", "branch", "of", "and", "why",
    ];
    let size = 2_000.0 * 20_f64.powf((next(seed) >> 11) as f64 / (1_u64 << 53) as f64);
    let mut text = format!("{{\"type\":\"session\",\"version\":3,\"id\":\"{id}\"}}\n");
    while text.len() < size as usize {
        text.push_str(&format!("{{\"type\":\"message\",\"id\":\"{:016x}\",\"content\":\"", next(seed)));
        for _ in 0..6 {
            let mut bits = next(seed);
            for _ in 0..10 {
                text.push_str(WORDS[(bits & 15) as usize]);
                text.push(' ');
                bits >>= 4;
            }
        }
        text.push_str("\"}\n");
    }
    text
}
