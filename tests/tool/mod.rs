//! Programs that a test needs, and trees as they see them.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Whether a program is there. One that is not is told of, and fails the test where everything was said to be there.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    assert!(found || std::env::var_os("CLAWSNAP_REQUIRE_TOOLS").is_none(), "{program} is not installed");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Runs a shell script, which must succeed.
pub fn sh(script: &str, at: &Path, variables: &[(&str, &Path)]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(at).envs(variables.iter().copied()).stdin(Stdio::null());
    let output = shell.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {} {said}", output.status);
    output
}

/// A name in a tree: what it is, and what a backup keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub mtime: (i64, i64),
    pub contents: Vec<u8>,
    /// The first path, in order, that has the same inode.
    pub same_as: PathBuf,
}

impl Seen {
    fn is(&self, kind: u32) -> bool {
        self.mode & 0o170_000 == kind
    }

    pub fn is_symlink(&self) -> bool {
        self.is(0o120_000)
    }

    pub fn is_file(&self) -> bool {
        self.is(0o100_000)
    }
}

/// Everything below `top`, by the path below it.
pub fn view(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut names, mut open) = (Vec::new(), vec![top.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.symlink_metadata().expect("is there").is_dir() {
                open.push(path.clone());
            }
            names.push(path);
        }
    }
    names.sort();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let seen = |path: PathBuf| {
        let meta = path.symlink_metadata().expect("is there");
        let below = path.strip_prefix(top).expect("is below").to_owned();
        let same_as = first.entry(meta.ino()).or_insert_with(|| below.clone()).clone();
        let contents = match meta.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).expect("a target").into_os_string().into_encoded_bytes(),
            kind if kind.is_file() => fs::read(&path).expect("is readable"),
            _ => Vec::new(),
        };
        (below, Seen { mode: meta.mode(), mtime: (meta.mtime(), meta.mtime_nsec()), contents, same_as })
    };
    names.into_iter().map(seen).collect()
}

/// What differs, a line each, by what `same` makes of two that have one name.
pub fn differing(
    was: &BTreeMap<PathBuf, Seen>,
    is: &BTreeMap<PathBuf, Seen>,
    same: impl Fn(&Seen, &Seen) -> bool,
) -> Vec<String> {
    let new = is.keys().filter(|name| !was.contains_key(*name)).map(|name| format!("{name:?} is new"));
    let mut wrong: Vec<String> = new.collect();
    for (name, was) in was {
        match is.get(name) {
            None => wrong.push(format!("{name:?} is missing")),
            Some(is) if same(was, is) => {}
            Some(is) => wrong.push(format!(
                "{name:?}: mode {:o}, {:?}, {} bytes became {:o}, {:?}, {} bytes",
                was.mode,
                was.mtime,
                was.contents.len(),
                is.mode,
                is.mtime,
                is.contents.len()
            )),
        }
    }
    wrong
}
