//! The inventory of an archive: writing its lines, and reading them back.
//!
//! In turns, so that whatever else the machine does meets all: writing the lines as JSON and nothing else; writing them
//! as an inventory, hashed and compressed; unpacking that; parsing the JSON and nothing else; and parsing it with the
//! digest that is held against each entry of an archive. All in memory, by one thread. The ratios are medians of these
//! turns. The exit code tells only whether it could be measured, never how fast it was.
//!
//!     CLAWSNAP_BENCH_LINES   lines (200,000)
//!     CLAWSNAP_BENCH_PAIRS   turns (9)
//!
//! `cargo test --benches` runs it small, as a test of itself.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clawsnap::benching::{Lines, digest, parse};

use common::{Result, SEED, Scale, head, in_turns, load, next, ratios, row};

fn main() -> ExitCode {
    common::ended("inventory", bench(&Scale::of_process("LINES", (200_000, 9), (1_000, 1))))
}

fn bench(scale: &Scale) -> Result<()> {
    let count = scale.size as u64;
    let lines = Lines::of_sessions(sessions(scale.size));
    let unpack = lines.pack()?;
    let text = unpack()?;
    if [parse(&text)?, digest(&text)?] != [count; 2] || lines.write()? != text.len() as u64 {
        return Err("what was read back is not what was written".into());
    }
    println!("{count} lines, {:.0} MB, {} turns, load {}", text.len() as f64 / 1e6, scale.pairs, load());
    let [json, packed, unpacked, parsed, digested] = in_turns(
        scale.pairs,
        [
            &|| timed(|| Ok(lines.write()?)),
            &|| timed(|| Ok(lines.pack()?)),
            &|| timed(|| Ok(unpack()?)),
            &|| timed(|| Ok(parse(&text)?)),
            &|| timed(|| Ok(digest(&text)?)),
        ],
    )?;
    head("");
    for (name, times) in [
        ("write: JSON alone", &json),
        ("write: the inventory", &packed),
        ("read: unpack", &unpacked),
        ("read: JSON alone", &parsed),
        ("read: with digests", &digested),
    ] {
        tell(name, times, count, text.len());
    }
    println!("ratios");
    ratios("write / JSON alone", &packed, &json);
    ratios("read / JSON alone", &digested, &parsed);
    println!("load at the end: {}", load());
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    black_box(work()?);
    Ok(begun.elapsed())
}

/// Prints what a line took, how many lines a second that makes, and how many bytes.
fn tell(name: &str, times: &[Duration], lines: u64, bytes: usize) {
    let seconds = || times.iter().map(Duration::as_secs_f64);
    println!("{name}");
    row("a line", seconds().map(|took| took * 1e9 / lines as f64), "ns");
    row("lines a second", seconds().map(|took| lines as f64 / took / 1e6), "M");
    row("bytes a second", seconds().map(|took| bytes as f64 / took / 1e6), "MB");
}

/// Paths and sizes of sessions in four directories.
fn sessions(count: usize) -> impl Iterator<Item = (String, u64)> {
    let mut seed = SEED;
    (0..count).map(move |number| {
        let (high, low) = (next(&mut seed), next(&mut seed));
        let path = format!(
            "payload/posix/home/user/.openclaw/agents/agent-{}/sessions/{high:016x}-{low:016x}.jsonl",
            number % 4
        );
        (path, high % 40_000)
    })
}
