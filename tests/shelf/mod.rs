//! A directory of archives over time, and what is backed up into it. Ages are made by `SOURCE_DATE_EPOCH`, which dates an
//! archive by name and report.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use serde_json::Value;

pub const CLAWSNAP: &str = env!("CARGO_BIN_EXE_clawsnap");

/// A Tuesday: 2023-11-14 22:13:20 UTC.
pub const THEN: u64 = 1_700_000_000;
pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 24 * HOUR;

/// Nobody in particular, who owns nothing.
pub const NOBODY: u32 = 65_534;

/// A home, two sources, and a directory for archives.
pub struct Stage {
    pub dir: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().expect("makes a directory") };
        for name in ["home", "source", "other", "out"] {
            fs::create_dir_all(stage.path(name)).expect("makes a directory");
            fs::write(stage.path(name).join("a.txt"), name).expect("writes");
        }
        fs::remove_file(stage.path("out/a.txt")).expect("removes");
        stage
    }

    /// With archives of `source` that were made at these times.
    pub fn with(self, times: &[u64]) -> Self {
        times.iter().for_each(|time| drop(self.create("source", *time)));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(CLAWSNAP);
        command.args(line.split_whitespace()).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path("home")).env("TZ", "UTC0").env("PATH", env!("PATH"));
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("runs")
    }

    /// Backs up `source` as if it were `time`, and gives the archive's name.
    pub fn create(&self, source: &str, time: u64) -> String {
        let mut command = self.command(&format!("create {source} --output out/ --json"));
        let output = command.env("SOURCE_DATE_EPOCH", time.to_string()).output().expect("runs");
        let path = PathBuf::from(json(&output)["archivePath"].as_str().expect("is text"));
        path.file_name().expect("has a name").to_string_lossy().into_owned()
    }

    /// What is in `out`, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).expect("lists");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub fn cut(&self, name: &str) {
        let file = File::options().write(true).open(self.path("out").join(name)).expect("opens");
        let length = file.metadata().expect("stats").len();
        file.set_len(length / 2).expect("cuts");
    }
}

/// The name of an archive that was made at `time`.
pub fn named(time: u64) -> String {
    let time = jiff::Timestamp::from_second(time.cast_signed()).expect("is in range");
    format!("clawsnap-{}.tar.zst", time.strftime("%Y%m%dT%H%M%SZ"))
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("is later").as_secs()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}
