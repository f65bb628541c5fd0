//! Stores of sessions and cron jobs that the config puts elsewhere, and what lies beside them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::root::canonical_prefix;
use super::roster::is_there;
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

/// What the agent's name stands for in the path of a store.
const AGENT: &str = "{agentId}";

/// The store of one agent.
pub(super) fn of_agent(template: &Path, id: &str) -> PathBuf {
    // What a config gives is text, and so is a path that was made of it.
    template.to_string_lossy().replace(AGENT, id).into()
}

/// The stores that there are of agents whose name `is_agent`, by the names in the directory where their paths part.
pub(super) fn on_disk(
    template: &Path,
    is_agent: impl Fn(&str) -> bool,
    wide: &[PathBuf],
    warnings: &mut Vec<Warning>,
) -> Vec<PathBuf> {
    let parts: Vec<_> = template.components().filter_map(|part| part.as_os_str().to_str()).collect();
    let Some(at) = parts.iter().position(|part| part.contains(AGENT)) else { return Vec::new() };
    let dir: PathBuf = parts[..at].iter().collect();
    let names = names_in(&dir).unwrap_or_else(|cause| {
        warnings.push(Warning::UnlistedStores { dir: dir.clone(), cause: cause.to_string() });
        Vec::new()
    });
    // In a directory of people's own, a file that might be a session tells nothing.
    let is_wide = wide.iter().any(|inner| inner.starts_with(canonical_prefix(&dir)));
    let holds = |store: &PathBuf| is_there(store) || !is_wide && store.parent().is_some_and(holds_sessions);
    let ids = names.iter().filter_map(|name| agent_in(name.to_str()?, parts[at])).filter(|id| is_agent(id));
    ids.map(|id| of_agent(template, id)).filter(holds).collect()
}

/// The agent in a name that fits `pattern`.
fn agent_in<'a>(name: &'a str, pattern: &str) -> Option<&'a str> {
    let (before, after) = pattern.split_once(AGENT)?;
    name.strip_prefix(before)?.strip_suffix(after)
}

/// The names in a directory; none if there is no directory.
fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
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
