//! What the tests of guarded commands share: a run of `clawsnap guard` with a shell script, and the tree that it guards.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::stage::{Stage, text, wait_until};

/// By path: mode, time, contents or target.
pub type Tree = BTreeMap<PathBuf, (u32, (i64, i64), Vec<u8>)>;

impl Stage {
    /// `clawsnap guard`, with what a shell shall do then. That finds clawsnap itself in its PATH.
    pub fn guard(&self, line: &str, script: &str) -> Command {
        let mut command = self.command(&format!("guard {line}"));
        command.env("PATH", self.search_path()).args(["--", "sh", "-c", script]);
        command
    }

    pub fn guarded(&self, line: &str, script: &str) -> Output {
        self.guard(line, script).output().expect("runs")
    }

    /// A guard that runs by now.
    pub fn begun(&self, line: &str, script: &str) -> Child {
        let mut command = self.guard(line, script);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")
    }

    /// One in which `clawsnap` is what is tested here.
    pub fn search_path(&self) -> String {
        let bin = self.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).expect("makes a directory");
            symlink(env!("CARGO_BIN_EXE_clawsnap"), bin.join("clawsnap")).expect("links");
        }
        format!("{}:{}", bin.display(), std::env::var("PATH").expect("is set"))
    }

    /// A shell that was opened later: nothing is set but HOME, and it is somewhere else.
    pub fn later(&self, line: &str, home: &Path) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env_clear().env("PATH", self.search_path()).env("HOME", home);
        shell.current_dir("/").output().expect("runs")
    }

    pub fn said(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    pub fn wait_for(&self, name: &str) {
        wait_until(|| self.path(name).exists());
    }

    /// A database that is none.
    pub fn broken(self) -> Self {
        self.file("source/broken.sqlite", &[&b"SQLite format 3\0"[..], &[0xaa; 8192]].concat())
    }
}

/// The command that is printed as the way back.
pub fn way_back(output: &Output) -> String {
    let told = text(&output.stderr);
    let line = told.lines().find_map(|line| line.strip_prefix("the way back: "));
    line.unwrap_or_else(|| panic!("no way back: {told}")).to_owned()
}

/// Everything below `top`.
pub fn tree(top: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().expect("is there");
        let contents = match meta.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).expect("a target").as_os_str().as_bytes().to_vec(),
            kind if kind.is_file() => fs::read(&path).expect("reads"),
            _ => Vec::new(),
        };
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
        }
        let time = (meta.mtime(), meta.mtime_nsec());
        found.insert(path.strip_prefix(top).expect("lies below").to_owned(), (meta.mode(), time, contents));
    }
    found
}

/// What a restore in place has kept of the directory at `path`.
pub fn kept(path: &Path) -> Vec<PathBuf> {
    let (parent, name) = (path.parent().expect("has one"), path.file_name().expect("has one").to_string_lossy());
    let prefix = format!("{name}.before-restore-");
    let found = fs::read_dir(parent).expect("lists").map(|entry| entry.expect("an entry").path());
    found.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))).collect()
}
