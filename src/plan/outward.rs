//! Symbolic links in a state directory behind which lie OpenClaw's own things: a disk was full, and they were moved.

use std::fs;
use std::path::{Path, PathBuf};

use super::root::canonical_prefix;
use super::warning::Warning;

/// What OpenClaw keeps in its state directory that nothing can make again. Its config, the credentials, workspaces and
/// skills are followed where they are looked up.
const OWN: [&str; 7] = ["agents", "cron", "cron/runs", "delivery-queue", "memory", "state", "tasks"];

/// Where links among OpenClaw's own places lead, as far as that is out of `state_dir`, which is canonical. A link to what
/// holds one of `wide`, or to what cannot be found, is a warning.
pub(super) fn find(state_dir: &Path, wide: &[PathBuf], warnings: &mut Vec<Warning>) -> Vec<PathBuf> {
    let mut targets = Vec::new();
    for link in places(state_dir).into_iter().filter(|place| place.is_symlink()) {
        match target(&link, state_dir) {
            Ok(target) if target.starts_with(state_dir) => {}
            Ok(target) if wide.iter().all(|inner| !inner.starts_with(&target)) => targets.push(target),
            Ok(_) => warnings.push(Warning::LinkNotFollowed { link, cause: "that holds far more".to_owned() }),
            Err(cause) => warnings.push(Warning::LinkNotFollowed { link, cause }),
        }
    }
    targets.sort();
    targets.dedup();
    targets
}

fn places(state_dir: &Path) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = OWN.iter().map(|name| state_dir.join(name)).collect();
    // A directory that cannot be listed is told of by the freeze, which lists it as well.
    let agents = fs::read_dir(state_dir.join("agents")).into_iter().flatten().flatten();
    for agent in agents.map(|agent| agent.path()) {
        places.extend(["agent", "sessions"].map(|name| agent.join(name)));
        places.push(agent);
    }
    places
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
