//! Whether somebody of OpenClaw's is at work on a state directory, by the locks that it leaves there.
//!
//! Read in the code of two versions and measured. 2026.9 keeps them in the state directory, 2026.4 in the directory for
//! temporary files that the gateway sees. A lock outlives a gateway that was killed, so each is held against the process
//! that it names.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::environment::Environment;
use crate::entry::Kind;
use crate::gate::{CancelFlag, Realm};
use crate::sys::{self, Dir};

/// Longest lock that is read.
const LONGEST: u64 = 64 * 1024;

/// A process of OpenClaw's that has the state directory `state` in its hands, in words.
pub fn gateway_at(state: &Path, environment: &Environment) -> Option<String> {
    let temporary = environment.variable("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let places = [state.join("tmp"), temporary];
    let owner = fs::metadata(state).map(|state| state.uid()).ok();
    places.iter().flat_map(|place| locks_in(place)).find_map(|lock| {
        let said: Value = serde_json::from_slice(&read(&lock, owner).ok()??).ok()?;
        let inside = lock.starts_with(state) || is_config_of(&said, state);
        (inside && is_alive(&said)).then(|| words(&said, &lock))
    })
}

/// What a lock says; nothing if it is none that OpenClaw would have left: anybody can put anything where it may lie.
fn read(lock: &Path, owner: Option<u32>) -> io::Result<Option<Vec<u8>>> {
    let (Some(dir), Some(name)) = (lock.parent(), lock.file_name()) else { return Ok(None) };
    let file = Dir::open(dir, Realm::Source, Arc::new(CancelFlag::new()))?.open_file(name.as_bytes())?;
    let stat = file.stat()?;
    let is_believed = [Some(sys::effective_uid()), Some(0), owner].contains(&Some(stat.uid));
    if stat.kind != Kind::File || stat.size > LONGEST || !is_believed {
        return Ok(None);
    }
    let mut said = Vec::new();
    file.into_file().take(LONGEST).read_to_end(&mut said)?;
    Ok(Some(said))
}

fn words(said: &Value, lock: &Path) -> String {
    let role = said["role"].as_str().unwrap_or("gateway");
    format!("OpenClaw's {role} is running there, as process {} (by {})", said["pid"], lock.display())
}

/// `openclaw-<uid>/gateway.*.lock` in a directory.
fn locks_in(place: &Path) -> Vec<PathBuf> {
    let starting = |dir: &Path, start: &[u8]| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().as_bytes().starts_with(start)).map(|entry| entry.path()).collect()
    };
    let locks = starting(place, b"openclaw-").into_iter().flat_map(|dir| starting(&dir, b"gateway."));
    locks.filter(|path| path.extension().is_some_and(|ending| ending == "lock")).collect()
}

fn is_config_of(said: &Value, state: &Path) -> bool {
    let config = said["configPath"].as_str().map(PathBuf::from);
    config.is_some_and(|config| config.canonicalize().unwrap_or(config).starts_with(state))
}

/// Whether the process that a lock names runs, and is not another with its number.
fn is_alive(said: &Value) -> bool {
    let Some(process) = said["pid"].as_u64() else { return false };
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The command, which may hold anything, ends with the last parenthesis; the start is field 22.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let is_zombie = fields.next() == Some("Z");
    let started = fields.nth(18).and_then(|field| field.parse::<u64>().ok());
    !is_zombie && said["startTime"].as_u64().is_none_or(|told| Some(told) == started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own_start() -> u64 {
        let stat = fs::read_to_string("/proc/self/stat").expect("is there");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[19].parse().expect("is a number")
    }

    fn lock(dir: &Path, name: &str, said: &Value) {
        let dir = dir.join("openclaw-1000");
        fs::create_dir_all(&dir).expect("makes");
        fs::write(dir.join(name), format!("{said:#}   \n\n")).expect("writes");
    }

    #[test]
    fn a_lock_tells_of_a_gateway_as_long_as_its_process_runs() {
        let top = tempfile::tempdir().expect("a directory");
        let (state, temporary) = (top.path().join("state"), top.path().join("tmp"));
        let environment = Environment::default().with("TMPDIR", &temporary);
        let found = || gateway_at(&state, &environment);
        assert_eq!(found(), None);
        let (pid, start) = (std::process::id(), own_start());
        lock(&state.join("tmp"), "gateway.state.lock", &json!({ "pid": pid, "startTime": start + 1 }));
        assert_eq!(found(), None, "another process has its number");
        lock(&state.join("tmp"), "gateway.state.lock", &json!({ "pid": pid, "startTime": start }));
        assert!(found().is_some_and(|words| words.contains("gateway is running there")));
    }

    #[test]
    fn a_lock_outside_of_the_state_tells_of_the_state_that_its_config_lies_in() {
        let top = tempfile::tempdir().expect("a directory");
        let (state, temporary) = (top.path().join("state"), top.path().join("tmp"));
        let environment = Environment::default().with("TMPDIR", &temporary);
        let said = |config: &Path| json!({ "pid": std::process::id(), "configPath": config, "startTime": own_start() });
        lock(&temporary, "gateway.04198db8.lock", &said(&top.path().join("other/openclaw.json")));
        assert_eq!(gateway_at(&state, &environment), None);
        lock(&temporary, "gateway.12345678.lock", &said(&state.join("openclaw.json")));
        assert!(gateway_at(&state, &environment).is_some());
    }

    #[test]
    fn what_anybody_may_have_put_there_neither_hangs_nor_convinces() {
        let top = tempfile::tempdir().expect("a directory");
        let (state, temporary) = (top.path().join("state"), top.path().join("tmp"));
        let dir = temporary.join("openclaw-1000");
        fs::create_dir_all(&dir).expect("makes");
        let fifo = std::process::Command::new("mkfifo").arg(dir.join("gateway.1.lock")).status().expect("runs");
        assert!(fifo.success());
        std::os::unix::fs::symlink("/dev/zero", dir.join("gateway.2.lock")).expect("links");
        fs::write(dir.join("gateway.3.lock"), vec![b' '; 100_000]).expect("writes");
        let environment = Environment::default().with("TMPDIR", &temporary);
        assert_eq!(gateway_at(&state, &environment), None);
    }
}
