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

/// What says where the config is, is not for the config to say.
const ABOVE: [&str; 2] = ["OPENCLAW_STATE_DIR", "OPENCLAW_HOME"];

/// The environment with what the text of a file adds.
pub(super) fn of_text(mut environment: Environment, text: &str) -> Environment {
    // In one file, the last of a name wins.
    for (name, value) in text.lines().rev().filter_map(assignment).filter(|(name, _)| is_name(name)) {
        if !environment.is_set(name) {
            environment = environment.with(name, value);
        }
    }
    environment
}

/// The environment with what the config's `env` adds; what stands there by itself goes before `env.vars`.
pub(super) fn of_config(environment: &Environment, config: &Value) -> Environment {
    let env = config["env"].as_object();
    let vars = env.and_then(|env| env.get("vars")?.as_object());
    let mut added = environment.clone();
    for (name, value) in texts(env).chain(texts(vars)) {
        let may_be_added = is_name(name) && !ABOVE.contains(&name);
        if may_be_added && !value.trim().is_empty() && !value.contains("${") && added.variable(name).is_none() {
            added = added.with(name, value);
        }
    }
    added
}

fn texts(fields: Option<&Map<String, Value>>) -> impl Iterator<Item = (&str, &str)> {
    fields.into_iter().flatten().filter_map(|(name, value)| Some((name.trim(), value.as_str()?)))
}

/// The files that OpenClaw reads with its state at `state_dir`: the `.env` there, the one beside the config where only the
/// config is named, and the gateway's own. A gateway that has its state elsewhere than usual does not read the file that
/// belongs to the usual one.
pub(super) fn files(environment: &Environment, state_dir: &Path) -> Vec<PathBuf> {
    let home = environment.effective_home();
    let is_named = environment.variable("OPENCLAW_STATE_DIR").is_some();
    let config = environment.variable("OPENCLAW_CONFIG_PATH").filter(|_| !is_named);
    let beside_config = config.map(|config| environment.user_path(&config).with_file_name(".env"));
    let is_usual = canonical_prefix(state_dir) == canonical_prefix(&home.join(".openclaw"));
    let gateway = (!is_named || is_usual).then(|| home.join(".config/openclaw/gateway.env"));
    [state_dir.join(".env")].into_iter().chain(beside_config).chain(gateway).collect()
}

/// The text of a file, if there is one that OpenClaw would read.
pub(super) fn read(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    // A FIFO would make the read wait for ever.
    if !metadata.is_file() || metadata.len() > LONGEST {
        return None;
    }
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(allowed) && name.starts_with(|c: char| !c.is_ascii_digit())
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
    use crate::plan::state_dir::StateDir;

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
        let all = "P=file\nBLANK=file\nF=first\nF=file\n#C=file\n";
        fs::write(state.join(".env"), all).expect("written");
        fs::write(home.path().join(".config/openclaw/gateway.env"), "F=gateway\nG=gateway\n").expect("written");
        let process = Environment { home: Some(home.path().into()), ..Environment::default() };
        let process = process.with("P", "process").with("BLANK", "");
        let config = json!({"env": {"vars": {"F": "config", "C": "vars", "D": "vars", "R": "${P}"}, "C": "direct",
            "BLANK": "config", "N": 1, "OPENCLAW_STATE_DIR": "/x", "OPENCLAW_HOME": "/x"}});
        let of_files = StateDir::of(&process).environment;
        let all = of_config(&of_files, &config);
        let said = |environment: &Environment, name: &str| environment.variable(name).map(|said| said.into_string());
        for (name, value) in [("P", "process"), ("F", "file"), ("G", "gateway")] {
            assert_eq!(said(&of_files, name), Some(Ok(value.to_owned())), "{name}");
        }
        for (name, value) in [("F", "file"), ("C", "direct"), ("D", "vars"), ("BLANK", "config")] {
            assert_eq!(said(&all, name), Some(Ok(value.to_owned())), "{name}");
        }
        assert_eq!((said(&of_files, "BLANK"), said(&of_files, "C")), (None, None));
        for name in ["R", "N", "OPENCLAW_STATE_DIR", "OPENCLAW_HOME"] {
            assert_eq!(said(&all, name), None, "{name}");
        }
        let elsewhere = StateDir::of(&process.with("OPENCLAW_STATE_DIR", "/elsewhere")).environment;
        assert_eq!(said(&elsewhere, "G"), None, "the gateway's file belongs to the usual state directory");
    }

    #[test]
    fn a_file_that_is_none_does_not_make_anybody_wait() {
        let state = tempfile::tempdir().expect("temporary directory");
        let fifo = std::process::Command::new("mkfifo").arg(state.path().join(".env")).status().expect("runs");
        assert!(fifo.success());
        assert_eq!(read(&state.path().join(".env")), None);
    }
}
