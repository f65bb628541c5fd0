//! What OpenClaw adds to its environment when it starts: its `.env` files, and what the config sets.
//!
//! Read in the code of 2026.4.14 and 2026.9.6: a file adds what is not set at all, the config what is not set or blank,
//! and of two files the first one wins.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::environment::Environment;
use super::root::canonical_prefix;

/// OpenClaw's own limit, in bytes.
const LONGEST: u64 = 1 << 20;

/// What says where these files are is not theirs to say.
const ABOVE: [&str; 2] = ["OPENCLAW_STATE_DIR", "OPENCLAW_HOME"];

/// The environment with what the state directory's `.env` adds, and then the gateway's own file.
pub(super) fn of_files(environment: &Environment, state_dir: &Path) -> Environment {
    let mut added = environment.clone();
    for path in files(environment, state_dir) {
        let text = read(&path).unwrap_or_default();
        // In one file, the last of a name wins.
        for (name, value) in text.lines().rev().filter_map(assignment).filter(|(name, _)| may_be_added(name)) {
            if !added.is_set(name) {
                added = added.with(name, value);
            }
        }
    }
    added
}

/// The environment with what the config's `env` adds; what stands there by itself goes before `env.vars`.
pub(super) fn of_config(environment: &Environment, config: &Value) -> Environment {
    let env = config["env"].as_object();
    let vars = env.and_then(|env| env.get("vars")?.as_object());
    let mut added = environment.clone();
    for (name, value) in texts(env).chain(texts(vars)) {
        if may_be_added(name) && !value.trim().is_empty() && !value.contains("${") && added.variable(name).is_none() {
            added = added.with(name, value);
        }
    }
    added
}

fn texts(fields: Option<&Map<String, Value>>) -> impl Iterator<Item = (&str, &str)> {
    fields.into_iter().flatten().filter_map(|(name, value)| Some((name.trim(), value.as_str()?)))
}

/// A gateway that has its state elsewhere than usual does not read the file that belongs to the usual one.
fn files(environment: &Environment, state_dir: &Path) -> Vec<PathBuf> {
    let home = environment.effective_home();
    let is_usual = canonical_prefix(state_dir) == canonical_prefix(&home.join(".openclaw"));
    let of_gateway = environment.variable("OPENCLAW_STATE_DIR").is_none() || is_usual;
    let gateway = of_gateway.then(|| home.join(".config/openclaw/gateway.env"));
    [state_dir.join(".env")].into_iter().chain(gateway).collect()
}

fn read(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    // A FIFO would make the read wait for ever.
    if !metadata.is_file() || metadata.len() > LONGEST {
        return None;
    }
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

fn may_be_added(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(allowed) && name.starts_with(|c: char| !c.is_ascii_digit()) && !ABOVE.contains(&name)
}

/// `[export] NAME=VALUE`, the value perhaps in quotes, a comment perhaps behind it.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let quoted = ['"', '\'', '`'].iter().find_map(|&quote| {
        let (inside, after) = value.strip_prefix(quote)?.split_once(quote)?;
        let after = after.trim_start();
        (after.is_empty() || after.starts_with('#')).then_some(inside)
    });
    let bare = value.split('#').next().unwrap_or(value).trim_end();
    Some((name.trim(), quoted.unwrap_or(bare)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_a_file_are_read_as_openclaw_reads_them() {
        for (line, expected) in [
            ("A=b", Some(("A", "b"))),
            ("  export A = b c  # note", Some(("A", "b c"))),
            ("A=b#c", Some(("A", "b"))),
            ("A=\"b # c\" # note", Some(("A", "b # c"))),
            ("A='b'", Some(("A", "b"))),
            ("A='b' c", Some(("A", "'b' c"))),
            ("A=", Some(("A", ""))),
            ("A", None),
        ] {
            assert_eq!(assignment(line), expected, "{line}");
        }
    }

    #[test]
    fn the_process_goes_before_the_files_and_these_before_the_config() {
        let home = tempfile::tempdir().expect("temporary directory");
        let state = home.path().join(".openclaw");
        fs::create_dir_all(home.path().join(".config/openclaw")).expect("directory");
        fs::create_dir(&state).expect("directory");
        let all = "P=file\nBLANK=file\nF=first\nF=file\n#C=file\nOPENCLAW_STATE_DIR=/x\nOPENCLAW_HOME=/x\n";
        fs::write(state.join(".env"), all).expect("written");
        fs::write(home.path().join(".config/openclaw/gateway.env"), "F=gateway\nG=gateway\n").expect("written");
        let process = Environment { home: Some(home.path().into()), ..Environment::default() };
        let process = process.with("P", "process").with("BLANK", "");
        let config = json!({"env": {"vars": {"F": "config", "C": "vars", "D": "vars", "R": "${P}"}, "C": "direct",
            "BLANK": "config", "N": 1}});
        let of_files = of_files(&process, &state);
        let all = of_config(&of_files, &config);
        let said = |environment: &Environment, name: &str| environment.variable(name).map(|said| said.into_string());
        for (name, value) in [("P", "process"), ("F", "file"), ("G", "gateway")] {
            assert_eq!(said(&of_files, name), Some(Ok(value.to_owned())), "{name}");
        }
        for (name, value) in [("F", "file"), ("C", "direct"), ("D", "vars"), ("BLANK", "config")] {
            assert_eq!(said(&all, name), Some(Ok(value.to_owned())), "{name}");
        }
        for name in ["BLANK", "C", "OPENCLAW_STATE_DIR", "OPENCLAW_HOME"] {
            assert_eq!(said(&of_files, name), None, "{name}");
        }
        assert_eq!((said(&all, "R"), said(&all, "N"), said(&all, "OPENCLAW_HOME")), (None, None, None));
        let elsewhere = super::of_files(&process.with("OPENCLAW_STATE_DIR", "/elsewhere"), Path::new("/elsewhere"));
        assert_eq!(said(&elsewhere, "G"), None, "the gateway's file belongs to the usual state directory");
    }

    #[test]
    fn a_file_that_is_none_does_not_make_anybody_wait() {
        let state = tempfile::tempdir().expect("temporary directory");
        let fifo = std::process::Command::new("mkfifo").arg(state.path().join(".env")).status().expect("runs");
        assert!(fifo.success());
        assert!(of_files(&Environment::default(), state.path()).variables.is_empty());
    }
}
