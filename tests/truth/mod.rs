//! What a report and its archive say, held against the log of who changed the source meanwhile.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clawsnap::report::{Consistency, Fated, Report};
use serde_json::Value;

use crate::churn::{self, Log, no_torn_line};
use crate::support::Archive;

/// What a run told, as far as it can be held against the truth.
#[derive(Debug)]
pub struct Told {
    pub exit_code: i32,
    pub error: String,
    /// Whether it says that there was an instant, and which.
    pub is_instant: bool,
    instant: Option<u64>,
    freeze_us: u64,
    elapsed_ms: u64,
    /// When it was told, which is after the run.
    told_at: u64,
    losses: BTreeSet<PathBuf>,
    departed: Vec<PathBuf>,
}

impl Told {
    /// By a report of this process.
    pub fn of(report: &Report) -> Self {
        let path = |fated: &Fated| PathBuf::from(String::from_utf8_lossy(&fated.path.0).into_owned());
        Self {
            exit_code: report.exit_code().into(),
            error: format!("{:?}", report.error),
            is_instant: report.consistent == Some(Consistency::Instant),
            instant: report.instant.as_deref().map(churn::instant_ns),
            freeze_us: report.freeze_microseconds,
            elapsed_ms: report.elapsed_milliseconds.unwrap_or_default(),
            told_at: churn::now_ns(),
            losses: report.losses.iter().map(path).collect(),
            departed: report.departed.iter().map(path).collect(),
        }
    }

    /// By the report that the command printed.
    pub fn by_command(exit_code: i32, report: &Value) -> Self {
        let paths = |list: &str| {
            let all = report[list].as_array().into_iter().flatten();
            all.filter_map(|fated| fated["path"].as_str().map(PathBuf::from)).collect::<Vec<_>>()
        };
        Self {
            exit_code,
            error: report["error"].to_string(),
            is_instant: report["consistent"] == "instant",
            instant: report["instant"].as_str().map(churn::instant_ns),
            freeze_us: report["freezeMicroseconds"].as_u64().unwrap_or_default(),
            elapsed_ms: report["elapsedMilliseconds"].as_u64().unwrap_or_default(),
            told_at: churn::now_ns(),
            losses: paths("losses").into_iter().collect(),
            departed: paths("departed"),
        }
    }

    /// The freeze, in nanoseconds since the epoch. Without an instant, its end is not told: then only what stood before and
    /// after the whole run is certain. (The end was once taken for the time of judging, and what came in between was missed.)
    fn span(&self) -> (u64, u64) {
        const LATE: u64 = 10_000_000_000;
        match self.instant {
            Some(instant) => (instant.saturating_sub(self.freeze_us * 1_000), instant),
            None => (self.told_at.saturating_sub(self.elapsed_ms * 1_000_000 + LATE), self.told_at),
        }
    }

    /// Holds the archive of `state` against the truth.
    ///
    /// # Errors
    /// What the oracles have to say against it.
    pub fn judge(&self, archive: &Path, state: &Path, log: &Log) -> Result<(), String> {
        if !matches!(self.exit_code, 0 | 3) {
            return Err(format!("no archive: {}", self.error));
        }
        let archive = Archive::read(archive);
        let relative = |path: &Path| path.strip_prefix(state).ok().map(Path::to_path_buf);
        let names: BTreeSet<PathBuf> = archive.payload.keys().filter_map(|path| relative(path)).collect();
        let (from, to) = self.span();
        if self.is_instant {
            log.names_possible_at(to, to, &names)?;
        }
        for (path, _) in log.existed_throughout(from, to) {
            if !names.contains(&path) && !self.losses.contains(&state.join(&path)) {
                return Err(format!("{} was there all the time, and is not in the archive", path.display()));
            }
        }
        self.contents(&archive, state, log, &names)
    }

    fn contents(&self, archive: &Archive, state: &Path, log: &Log, names: &BTreeSet<PathBuf>) -> Result<(), String> {
        let known: BTreeSet<&Path> = log.names().collect();
        for name in names.iter().filter(|name| known.contains(name.as_path())) {
            let path = state.join(name);
            let Some(bytes) = archive.contents(&path).filter(|_| !self.losses.contains(&path)) else { continue };
            log.bytes_ok(name, bytes)?;
            if name.to_string_lossy().contains(".jsonl") {
                no_torn_line(bytes).map_err(|torn| format!("{}: {torn}", name.display()))?;
            }
        }
        match self.departed.iter().find(|path| archive.payload.contains_key(*path)) {
            Some(path) => Err(format!("{} has two fates", path.display())),
            None => Ok(()),
        }
    }
}
