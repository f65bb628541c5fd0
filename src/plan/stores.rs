//! Stores of sessions and cron jobs that the config puts elsewhere, and what lies beside them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::root::canonical_prefix;
use super::warning::Warning;

/// What there is to the stores that a config names. Transcripts lie beside the store of their sessions, so that its
/// directory is taken, unless that holds one of `wide`: then it is the file alone, with a warning. A cron store's runs
/// are in a directory beside it.
pub(super) fn find(
    sessions: &[PathBuf],
    cron: Option<PathBuf>,
    wide: &[PathBuf],
    warnings: &mut Vec<Warning>,
) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for store in sessions {
        let dir = store.parent().filter(|dir| holds_sessions(dir));
        let is_wide = dir.is_some_and(|dir| wide.iter().any(|inner| inner.starts_with(canonical_prefix(dir))));
        let warning = Warning::WideStore { path: store.clone() };
        if is_wide && !warnings.contains(&warning) {
            warnings.push(warning);
        }
        found.push(dir.filter(|_| !is_wide).unwrap_or(store).to_path_buf());
    }
    if let Some(jobs) = cron {
        let beside = [jobs.with_file_name("runs"), backup_of(&jobs)];
        found.extend(beside.into_iter().filter(|path| path.exists()));
        found.push(jobs);
    }
    found.sort();
    found.dedup();
    found
}

/// Where OpenClaw keeps what a cron store was before.
fn backup_of(jobs: &Path) -> PathBuf {
    let mut path = jobs.as_os_str().to_owned();
    path.push(".bak");
    path.into()
}

fn holds_sessions(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| is_of_sessions(entry.file_name().as_bytes()))
}

fn is_of_sessions(name: &[u8]) -> bool {
    name == b"sessions.json" || name.ends_with(b".jsonl") || name.ends_with(b".sqlite")
}
