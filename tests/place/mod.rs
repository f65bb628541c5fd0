//! What the tests of restores in place share: a home with a state directory, and an archive of it.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

#[path = "../support/mod.rs"]
pub mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use clawsnap::gate::{CancelFlag, Gate, Verb};
use clawsnap::list::Wanted;
use clawsnap::plan::Environment;
use clawsnap::report::PathName;
use clawsnap::restore::{BroughtBack, Destination, InPlace, RestoreOptions, Restored};
use support::{Backup, Script, leftovers, write_cold};

/// A child holds the locks of its parent until it becomes another program. So nobody starts one while a restore of this
/// process is at work: the next restore would take that one for alive.
static CHILDREN: RwLock<()> = RwLock::new(());

/// Nobody starts a child as long as this is held.
pub fn childless() -> RwLockReadGuard<'static, ()> {
    CHILDREN.read().unwrap_or_else(PoisonError::into_inner)
}

/// No restore of this process is at work as long as this is held.
pub fn idle() -> RwLockWriteGuard<'static, ()> {
    CHILDREN.write().unwrap_or_else(PoisonError::into_inner)
}

/// A home with a state directory, and an archive of it.
pub struct Scene {
    pub top: PathBuf,
    /// Removed with the scene, unless another process made it.
    pub _made: Option<tempfile::TempDir>,
}

impl Scene {
    pub fn new() -> Self {
        let scene = Self::empty();
        scene.fill("old");
        scene
    }

    pub fn empty() -> Self {
        Self::made(tempfile::tempdir().expect("a directory"))
    }

    /// Where it takes no time to make things durable, for thousands of restores.
    pub fn quick() -> Self {
        Self::made(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory"))
    }

    fn made(made: tempfile::TempDir) -> Self {
        Self { top: made.path().canonicalize().expect("is there"), _made: Some(made) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("home/.openclaw")
    }

    /// A state whose files say `words`.
    pub fn fill(&self, words: &str) {
        let state = self.state();
        write_cold(&state.join("openclaw.json"), "{}");
        for name in ["agents/main/sessions/4f1c0a3e-1.jsonl", "agents/main/sessions/9999aaaa-2.jsonl", "logs/a.log"] {
            write_cold(&state.join(name), format!("{{\"said\":\"{words}\",\"in\":\"{name}\"}}\n"));
        }
    }

    pub fn archive(&self) -> PathBuf {
        let path = self.path("a.tar.zst");
        let report = Backup::of(&self.state()).to(&path);
        assert_eq!(report.exit_code(), 0, "{:?} {:?}", report.error, report.losses);
        path
    }

    /// What the state becomes after it was archived.
    pub fn go_on(&self) {
        self.fill("new");
        fs::remove_file(self.state().join("agents/main/sessions/9999aaaa-2.jsonl")).expect("removes");
        write_cold(&self.state().join("agents/main/sessions/later.jsonl"), "{}\n");
        write_cold(&self.state().join("workspace/later.md"), "later");
    }

    pub fn environment(&self) -> Environment {
        Environment { home: Some(self.path("home")), cwd: "/".into(), ..Environment::default() }
            .with("TMPDIR", self.path("tmp"))
    }

    pub fn ways(&self) -> InPlace {
        InPlace { environment: self.environment(), force: false }
    }

    pub fn options(&self, patterns: &[&str]) -> RestoreOptions {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let wanted = Wanted::parse(&patterns).expect("parses");
        RestoreOptions { wanted, ..RestoreOptions::to(Destination::InPlace(self.ways())) }
    }

    pub fn restore(&self, archive: &Path, patterns: &[&str]) -> Restored {
        restore(archive, &self.options(patterns), Arc::new(CancelFlag::new()))
    }

    pub fn undo(&self, kept: &Path) -> BroughtBack {
        let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
        let _childless = childless();
        clawsnap::restore::bring_back(&[kept.to_owned()], &self.ways(), &gate)
    }

    /// What was kept beside, or in, the state directory.
    pub fn kept(&self) -> Vec<PathBuf> {
        let state = self.state();
        let dirs = [state.parent().expect("a parent").to_owned(), state];
        let mut kept: Vec<PathBuf> = dirs
            .iter()
            .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".before-restore-")))
            .collect();
        kept.sort();
        kept
    }

    pub fn only_kept(&self) -> PathBuf {
        let kept = self.kept();
        assert_eq!(kept.len(), 1, "{kept:?}");
        kept[0].clone()
    }

    pub fn assert_nothing_hidden(&self, what: &str) {
        for dir in [self.path("home"), self.state(), self.top.clone()] {
            let left = if dir.exists() { leftovers(&dir) } else { Vec::new() };
            assert_eq!(left, [] as [PathBuf; 0], "{what}");
        }
    }
}

pub fn restore(archive: &Path, options: &RestoreOptions, gate: Arc<dyn Gate>) -> Restored {
    let _childless = childless();
    clawsnap::restore::restore(archive, options, &gate, &(), &|_| true)
}

/// A restore name by name that was left midway: after so many renames, the first of which is its journal's, nothing could
/// be done any more.
pub fn left_midway(archive: &Path, options: &RestoreOptions, renames: u64) {
    let seen = AtomicU64::new(0);
    let gate = Script::new(move |_, step| {
        let is_rename = u64::from(step.verb == Verb::Rename);
        let so_far = seen.fetch_add(is_rename, Ordering::SeqCst) + is_rename;
        if so_far > renames { Err(std::io::Error::from_raw_os_error(5)) } else { Ok(()) }
    });
    let left = restore(archive, options, Arc::new(gate));
    assert!(left.error.is_some_and(|error| error.contains("could not be put back")), "{:?}", left.outcome);
}

/// By path: mode, time of what is no directory, contents or target.
pub type Tree = BTreeMap<PathBuf, (u32, Option<(i64, i64)>, Vec<u8>)>;

/// Everything below `top` but what was kept there.
pub fn tree(top: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(".before-restore-") && path != top {
            continue;
        }
        let meta = path.symlink_metadata().expect("is there");
        let contents = match meta.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).expect("a target").as_os_str().as_bytes().to_vec(),
            kind if kind.is_file() => fs::read(&path).expect("reads"),
            _ => Vec::new(),
        };
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
        }
        let time = (!meta.is_dir()).then(|| (meta.mtime(), meta.mtime_nsec()));
        found.insert(path.strip_prefix(top).expect("lies below").to_owned(), (meta.mode(), time, contents));
    }
    found
}

/// All contents of files below `top`, but for those that a test has put aside.
pub fn contents(top: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        match fs::read_dir(&path) {
            Ok(entries) if !path.ends_with("pristine") => {
                open.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
            Ok(_) => {}
            Err(_) => drop(fs::read(&path).map(|contents| found.insert(contents))),
        }
    }
    found
}

pub fn said(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("is there").uid() == 0
}

pub fn name(path: &Path) -> PathName {
    PathName(path.as_os_str().as_bytes().to_vec())
}

/// Runs `script` with the state directory as its first argument.
pub fn sh(script: &str, state: &Path) -> bool {
    let _idle = idle();
    Command::new("sh").args(["-ec", script, "sh"]).arg(state).status().expect("runs").success()
}

/// Unmounts what was mounted on the state directory.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn on(path: &Path) -> Option<Self> {
        let mounted = is_root() && sh("mkdir -p \"$1\" && mount -t tmpfs tmpfs \"$1\"", path);
        if !mounted {
            eprintln!("skipped: nothing can be mounted here");
        }
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(sh("umount \"$1\"", &self.0), "{} stays mounted", self.0.display());
    }
}
