//! Symbolic links in a state directory behind which lie OpenClaw's own things: a disk was full and they were moved, or
//! they are kept where a person keeps such things.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::habits;
use super::root::canonical_prefix;
use super::warning::Warning;
use crate::entry::Kind;

/// Where the links in the directories that OpenClaw keeps its things in lead, as far as that is out of `state_dir`, which
/// is canonical, or in a place of it that is left out. A link to what holds one of `wide`, or to what cannot be found, is a
/// warning.
pub(super) fn find(state_dir: &Path, wide: &[PathBuf], warnings: &mut Vec<Warning>) -> Vec<PathBuf> {
    let mut targets = Vec::new();
    for link in links(state_dir) {
        match target(&link, state_dir) {
            Ok(target) if is_archived(&target, state_dir) || !has_contents(&target) => {}
            Ok(target) if wide.iter().all(|inner| !inner.starts_with(&target)) => targets.push(target),
            Ok(_) => warnings.push(Warning::LinkNotFollowed { link, cause: "that holds far more".to_owned() }),
            Err(cause) => warnings.push(Warning::LinkNotFollowed { link, cause }),
        }
    }
    targets.sort();
    targets.dedup();
    targets
}

/// The links right in the state directory, among the cron jobs, and down to the names in an agent's own directory, but
/// for those that OpenClaw can make again.
fn links(state_dir: &Path) -> Vec<PathBuf> {
    let agents = entries(&state_dir.join("agents")).into_iter().map(|agent| agent.path());
    let of_agents = agents.flat_map(|agent| [agent.join("agent"), agent]);
    let dirs = ["", "agents", "cron"].map(|name| state_dir.join(name)).into_iter().chain(of_agents);
    let found = dirs.flat_map(|dir| entries(&dir));
    let links = found.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())).map(|entry| entry.path());
    links.filter(|link| !is_regenerable(link, state_dir)).collect()
}

/// A directory that cannot be listed is told of by the freeze, which lists it as well.
fn entries(dir: &Path) -> Vec<fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten().collect()
}

fn is_archived(target: &Path, state_dir: &Path) -> bool {
    target.starts_with(state_dir) && !is_regenerable(target, state_dir)
}

fn is_regenerable(path: &Path, state_dir: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let path = path.strip_prefix(state_dir).unwrap_or(path).as_os_str().as_bytes();
    habits::of_state(path, name, Kind::Symlink).is_some()
}

/// A log that leads to `/dev/null` has nothing that could be lost.
fn has_contents(target: &Path) -> bool {
    fs::metadata(target).is_ok_and(|target| target.is_dir() || target.is_file())
}

/// Where a link leads, canonical. What is missing in the state directory is missed by OpenClaw too.
fn target(link: &Path, state_dir: &Path) -> Result<PathBuf, String> {
    let missing = match link.canonicalize() {
        Ok(target) => return Ok(target),
        Err(error) => error.to_string(),
    };
    let written = fs::read_link(link).map_err(|error| error.to_string())?;
    let target = canonical_prefix(&link.parent().unwrap_or(link).join(written));
    if target.starts_with(state_dir) { Ok(target) } else { Err(missing) }
}
