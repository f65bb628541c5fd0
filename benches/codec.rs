//! Packing and unpacking against the stock tools.
//!
//! In turns, so that whatever else the machine does meets both: `zstd`, `xz` or `gzip`, and our encoder at the same level
//! on as many threads, from a file into a file; then both unpack what ours has packed. The verdict is the median of the
//! ratios of these pairs, ours to theirs, of the time that passes and of the processors' time, which others on the
//! machine disturb less. The exit code tells only whether it could be measured, never how fast it was.
//!
//!     CLAWSNAP_BENCH_MIB     MiB of session-like text (64)
//!     CLAWSNAP_BENCH_PAIRS   pairs for each codec (5)
//!     CLAWSNAP_BENCH_DIR     where the files are made (the directory for temporary files)
//!
//! `cargo test --benches` runs it small, as a test of itself.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clawsnap::archive::Compression;
use clawsnap::benching;

use common::{Result, SEED, Scale, in_turns, load, median, next, run};

/// What is measured: ours, and the stock tool with its options.
const CASES: [(&str, &str, &[&str]); 5] = [
    ("zstd", "zstd", &["-3", "--long=27"]),
    ("xz:1", "xz", &["-1"]),
    ("xz", "xz", &["-3"]),
    ("xz:6", "xz", &["-6"]),
    ("gzip", "gzip", &["-6"]),
];

/// Words of the text, the frequent ones first.
const WORDS: [&str; 40] = [
    "the",
    "to",
    "a",
    "of",
    "and",
    "is",
    "in",
    "file",
    "it",
    "that",
    "for",
    "this",
    "with",
    "error",
    "on",
    "line",
    "not",
    "run",
    "was",
    "test",
    "path",
    "value",
    "returned",
    "function",
    "session",
    "message",
    "expected",
    "weather",
    "directory",
    "archive",
    "command",
    "timeout",
    "because",
    "configuration",
    "gateway",
    "calendar",
    "reminder",
    "connection",
    "tomorrow",
    "unexpectedly",
];

fn main() -> ExitCode {
    common::ended("codec", bench(&Scale::of_process("MIB", (64, 5), (1, 1))))
}

/// The files that all of it works on.
struct Files {
    plain: PathBuf,
    ours: PathBuf,
    theirs: PathBuf,
    unpacked: PathBuf,
}

fn bench(scale: &Scale) -> Result<()> {
    let work = scale.workplace()?;
    let at = |name: &str| work.path().join(name);
    let files = Files { plain: at("plain"), ours: at("ours"), theirs: at("theirs"), unpacked: at("unpacked") };
    make_text(&files.plain, scale.size << 20)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    println!("{} MiB, {} pairs, {threads} threads, load {}", scale.size, scale.pairs, load());
    println!("{:<22}{:>11}{:>11}{:>9}{:>9}{:>9}", "", "ours", "theirs", "time", "CPU", "size");
    for (ours, tool, options) in CASES {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("{ours}: skipped: no stock {tool} here");
            continue;
        }
        let case = Case { compression: ours.parse()?, tool, options, threads, files: &files };
        let measured = case.measure(scale.pairs)?;
        tell(&format!("{ours} packs"), &measured.packed, Some(measured.size));
        tell(&format!("{ours} unpacks"), &measured.unpacked, None);
    }
    println!("load at the end: {}", load());
    Ok(())
}

/// What something took, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    /// User and system time of all threads.
    cpu: f64,
}

/// What ours took each time, and what theirs.
type Costs = (Vec<Cost>, Vec<Cost>);

struct Measured {
    packed: Costs,
    unpacked: Costs,
    /// Bytes packed, ours to theirs.
    size: f64,
}

struct Case<'a> {
    compression: Compression,
    tool: &'a str,
    options: &'a [&'a str],
    threads: u32,
    files: &'a Files,
}

impl Case<'_> {
    fn measure(&self, pairs: usize) -> Result<Measured> {
        let Files { plain, ours, theirs, unpacked } = self.files;
        let [pack, their_pack, unpack, their_unpack] = in_turns(
            pairs,
            [
                &|| cost_of(|| self.pack()),
                &|| cost_of(|| self.stock(&self.packing(), plain, theirs)),
                &|| cost_of(|| self.unpack()),
                &|| cost_of(|| self.stock(&self.unpacking(), ours, unpacked)),
            ],
        )?;
        let length = fs::metadata(plain)?.len();
        if fs::metadata(unpacked)?.len() != length {
            return Err("what was unpacked is not what was packed".into());
        }
        let size = fs::metadata(ours)?.len() as f64 / fs::metadata(theirs)?.len() as f64;
        Ok(Measured { packed: (pack, their_pack), unpacked: (unpack, their_unpack), size })
    }

    fn pack(&self) -> Result<()> {
        benching::encode(File::open(&self.files.plain)?, sink(&self.files.ours)?, self.compression, self.threads)?;
        Ok(())
    }

    fn unpack(&self) -> Result<()> {
        benching::decode(File::open(&self.files.ours)?, sink(&self.files.unpacked)?)?;
        Ok(())
    }

    /// With as many threads as it has for that: stock zstd has one.
    fn unpacking(&self) -> Vec<String> {
        let long = self.options.iter().filter(|option| option.starts_with("--long")).map(|&option| option.to_owned());
        let threads = (self.tool == "xz").then(|| format!("-T{}", self.threads));
        ["-d".to_owned()].into_iter().chain(long).chain(threads).collect()
    }

    fn packing(&self) -> Vec<String> {
        let threads = (self.tool != "gzip").then(|| format!("-T{}", self.threads));
        self.options.iter().map(|&option| option.to_owned()).chain(threads).collect()
    }

    /// Runs the stock tool from one file into another.
    fn stock(&self, options: &[String], from: &Path, to: &Path) -> Result<()> {
        run(Command::new(self.tool).args(options).arg("-c").stdin(File::open(from)?).stdout(File::create(to)?))
    }
}

fn sink(path: &Path) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(128 << 10, File::create(path)?))
}

fn cost_of(work: impl Fn() -> Result<()>) -> Result<Cost> {
    let (before, begun) = (cpu_time()?, Instant::now());
    work()?;
    Ok(Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu_time()? - before })
}

/// Processors' time of this process and of the children that have ended, in seconds; it is told in hundredths.
fn cpu_time() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold spaces.
    let (_, fields) = text.rsplit_once(") ").ok_or("the kernel does not tell the processors' time")?;
    let ticks: std::result::Result<Vec<u64>, _> = fields.split(' ').skip(11).take(4).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / 100.0)
}

/// Prints the medians of what was measured.
fn tell(title: &str, (ours, theirs): &Costs, size: Option<f64>) {
    let seconds = |costs: &[Cost]| median(costs.iter().map(|cost| cost.wall));
    let ratio = |of: fn(&Cost) -> f64| median(ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)));
    let (wall, cpu) = (ratio(|cost| cost.wall), ratio(|cost| cost.cpu.max(0.01)));
    let (ours, theirs) = (seconds(ours), seconds(theirs));
    let size = size.map_or_else(String::new, |size| format!("{size:.3}"));
    println!("{title:<22}{ours:>9.3} s{theirs:>9.3} s{wall:>9.2}{cpu:>9.2}{size:>9}");
}

/// Records as a gateway writes them, at least `length` bytes: numbers that no codec can guess, in frames and words that
/// repeat.
fn make_text(path: &Path, length: usize) -> io::Result<()> {
    let mut seed = SEED;
    let mut file = BufWriter::new(File::create_new(path)?);
    let mut written = 0;
    while written < length {
        let record = record(&mut seed);
        file.write_all(record.as_bytes())?;
        written += record.len();
    }
    file.into_inner()?.sync_all()
}

fn record(seed: &mut u64) -> String {
    let (id, parent, tokens) = (next(seed) as u32, next(seed) as u32, next(seed) % 40_000);
    let role = ["user", "assistant", "toolResult"][(next(seed) % 3) as usize];
    let count = 5 + next(seed) % 120;
    let words: Vec<&str> = std::iter::repeat_with(|| word(seed)).take(count as usize).collect();
    format!(
        "{{\"type\":\"message\",\"id\":\"{id:08x}\",\"parentId\":\"{parent:08x}\",\"message\":{{\"role\":\"{role}\",\
         \"content\":[{{\"type\":\"text\",\"text\":\"{}\"}}],\"usage\":{{\"totalTokens\":{tokens}}}}}}}\n",
        words.join(" ")
    )
}

/// Of two draws the more frequent one, as languages like it.
fn word(seed: &mut u64) -> &'static str {
    let draw = next(seed);
    let (one, other) = (draw as u32 as usize % WORDS.len(), (draw >> 32) as usize % WORDS.len());
    WORDS[one.min(other)]
}
