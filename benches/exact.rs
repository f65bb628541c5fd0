//! The exact reader of an archive against a plain loop of reads over the same files.
//!
//! In turns, so that whatever else the machine does meets both: each file is opened beneath its directory and read to
//! its end into a buffer of the size that an archive reads with, and what was read is looked at but goes nowhere. The
//! files are in the page cache: what is measured is what the reader adds, not the disk. One large file, and many small
//! ones. The verdicts are the medians of the ratios of these turns. The exit code tells only whether it could be
//! measured, never how fast it was.
//!
//!     CLAWSNAP_BENCH_MEGABYTES   size of the large file, and of the small ones together (256)
//!     CLAWSNAP_BENCH_PAIRS       turns of each kind (9)
//!     CLAWSNAP_BENCH_DIR         where the files are made (the directory for temporary files)
//!
//! `cargo test --benches` runs it small, as a test of itself.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clawsnap::benching::Source;
use rustix::fs::{Mode, OFlags, openat};

use common::{Result, SEED, Scale, head, in_turns, load, next, ratios, row, seconds, verdict};

/// Bytes that an archive reads at a time.
const BUFFER: usize = 256 * 1024;

/// Bytes of a small file: a short session.
const SMALL: usize = 16 * 1024;

const MEGABYTE: usize = 1_000_000;

fn main() -> ExitCode {
    common::ended("exact", bench(&Scale::of_process("MEGABYTES", (256, 9), (2, 1))))
}

fn bench(scale: &Scale) -> Result<()> {
    let work = scale.workplace()?;
    let bytes = scale.size * MEGABYTE;
    println!("{} MB, {} turns, load {}", scale.size, scale.pairs, load());
    head("");
    for (title, files, length) in [("one large file", 1, bytes), ("small files", bytes / SMALL, SMALL)] {
        let dir = work.path().join(title);
        let names = make_files(&dir, files, length)?;
        println!("{title}: {files} of {length} bytes");
        let ratio = compare(&dir, &names, length, scale.pairs)?;
        verdict(&format!("{title}: exact at most 1.1 of plain reads"), ratio <= 1.1);
    }
    println!("load at the end: {}", load());
    Ok(())
}

/// Prints what each took, and returns the median ratio.
fn compare(dir: &Path, names: &[String], length: usize, turns: usize) -> Result<f64> {
    let (source, open) = (Source::open(dir)?, File::open(dir)?);
    let exact = || {
        timed(names, length, |name, buffer| {
            source.read(name.as_bytes(), length as u64, buffer, |bytes| {
                black_box(bytes);
            })
        })
    };
    let plain = || timed(names, length, |name, buffer| read_plainly(&open, name, buffer));
    let [exact, plain] = in_turns(turns, [&exact, &plain])?;
    seconds("exact", &exact);
    seconds("plain", &plain);
    let all = (names.len() * length) as f64;
    row("exact, bytes", exact.iter().map(|took| all / took.as_secs_f64() / 1e9), "GB/s");
    row("exact, each file", exact.iter().map(|took| took.as_secs_f64() * 1e3 / names.len() as f64), "ms");
    Ok(ratios("exact / plain", &exact, &plain))
}

fn timed(names: &[String], length: usize, read: impl Fn(&str, &mut [u8]) -> io::Result<u64>) -> Result<Duration> {
    let mut buffer = vec![0; BUFFER];
    let begun = Instant::now();
    for name in names {
        let had = read(name, &mut buffer)?;
        if had != length as u64 {
            return Err(format!("{name}: {had} of {length} bytes").into());
        }
    }
    Ok(begun.elapsed())
}

fn read_plainly(dir: &File, name: &str, buffer: &mut [u8]) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    let mut file = File::from(openat(dir, name, flags, Mode::empty())?);
    let mut total = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok(total),
            n => {
                black_box(&buffer[..n]);
                total += n as u64;
            }
        }
    }
}

/// Files of random bytes; their names.
fn make_files(dir: &Path, files: usize, length: usize) -> Result<Vec<String>> {
    fs::create_dir(dir)?;
    let mut seed = SEED;
    let block: Vec<u8> = (0..BUFFER / 8).flat_map(|_| next(&mut seed).to_le_bytes()).collect();
    let mut names = Vec::new();
    for number in 0..files {
        let name = format!("{number:08}");
        let mut file = File::create_new(dir.join(&name))?;
        let mut left = length;
        while left > 0 {
            let part = left.min(block.len());
            file.write_all(&block[..part])?;
            left -= part;
        }
        names.push(name);
    }
    common::sync()?;
    Ok(names)
}
