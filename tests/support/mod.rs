//! What the tests of backups share: a backup as a sentence, an archive as a map, a source as a snapshot.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

pub mod forge;
pub mod patient;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use clawsnap::archive::Compression;
use clawsnap::entry::Timestamp;
use clawsnap::event::Observer;
use clawsnap::freeze::{Ablation, DatabaseOptions, Mode, Options};
use clawsnap::gate::{CancelFlag, Gate, Step};
use clawsnap::plan::{Environment, Request};
use clawsnap::report::Report;
use clawsnap::{Create, Output};

/// A backup that is about to be made.
pub struct Backup {
    sources: Vec<PathBuf>,
    options: Options,
    gate: Arc<dyn Gate>,
    observer: Box<dyn Observer>,
    exclude: Vec<String>,
    created_at: Option<Timestamp>,
}

impl Backup {
    /// Of this directory, by the default options.
    pub fn of(source: &Path) -> Self {
        Self {
            sources: vec![source.to_owned()],
            options: Options::default(),
            gate: Arc::new(CancelFlag::new()),
            observer: Box::new(()),
            exclude: Vec::new(),
            created_at: None,
        }
    }

    pub fn and(mut self, source: &Path) -> Self {
        self.sources.push(source.to_owned());
        self
    }

    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = mode;
        self
    }

    pub fn settle(mut self, settle: Duration) -> Self {
        self.options.settle = settle;
        self
    }

    /// Hot files are linked with a fingerprint, not held.
    pub fn holding_nothing(mut self) -> Self {
        self.options.hold_limit = 0;
        self
    }

    pub fn hot_window(mut self, window: Duration) -> Self {
        self.options.hot_window = window;
        self
    }

    pub fn without(mut self, ablation: Option<Ablation>) -> Self {
        self.options.ablation = ablation;
        self
    }

    pub fn gate(mut self, gate: impl Gate + 'static) -> Self {
        self.gate = Arc::new(gate);
        self
    }

    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// Said to be made at this second.
    pub fn at(mut self, seconds: i64) -> Self {
        self.created_at = Some(Timestamp { seconds, nanos: 0 });
        self
    }

    pub fn exclude(mut self, pattern: &str) -> Self {
        self.exclude.push(pattern.to_owned());
        self
    }

    /// With helpers for databases, as the command has them.
    pub fn serving_databases(mut self) -> Self {
        self.options.databases.helper = helper();
        self
    }

    pub fn databases(mut self, databases: DatabaseOptions) -> Self {
        self.options.databases = databases;
        self
    }

    /// Makes it, uncompressed unless the name says otherwise.
    pub fn to(self, archive: &Path) -> Report {
        let environment = Environment { home: None, cwd: "/".into(), variables: BTreeMap::new() };
        let request = Request { sources: self.sources, exclude: self.exclude, ..Request::new(environment) };
        let create = Create {
            request,
            output: Output::Path(archive.to_owned()),
            compression: Compression::from_file_name(archive),
            freeze: self.options,
            verify: true,
            if_changed: false,
            // A child that another test has just started holds the locks of this process until it becomes its program.
            wait: Duration::from_secs(20),
            created_at: self.created_at,
            retention: None,
        };
        clawsnap::create(create, &self.gate, &*self.observer)
    }
}

/// The command, as the helper that serves one database.
pub fn helper() -> Vec<OsString> {
    option_env!("CARGO_BIN_EXE_clawsnap").map_or_else(Vec::new, |command| vec![command.into(), "__database".into()])
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub kind: tar::EntryType,
    pub contents: Vec<u8>,
    pub link: Option<PathBuf>,
    pub mode: u32,
}

/// An archive without compression, read by the tar crate.
#[derive(Debug)]
pub struct Archive {
    /// The payload, by the source's absolute path.
    pub payload: BTreeMap<PathBuf, Member>,
    /// Half-written records, by the path of their file.
    pub tails: BTreeMap<PathBuf, Vec<u8>>,
    pub inventory: Vec<serde_json::Value>,
    pub report: serde_json::Value,
    pub manifest: serde_json::Value,
}

impl Archive {
    pub fn read(path: &Path) -> Self {
        Self::parse(fs::File::open(path).expect("the archive is there"))
    }

    pub fn parse(input: impl Read) -> Self {
        let mut archive = Self {
            payload: BTreeMap::new(),
            tails: BTreeMap::new(),
            inventory: Vec::new(),
            report: serde_json::Value::Null,
            manifest: serde_json::Value::Null,
        };
        let mut tar = tar::Archive::new(input);
        for entry in tar.entries().expect("is a tar archive") {
            archive.take(entry.expect("is readable"));
        }
        assert!(archive.manifest.is_object(), "the archive ends with its manifest");
        archive
    }

    fn take<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) {
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).expect("is readable");
        let path = entry.path().expect("a path").into_owned();
        let below: PathBuf = path.components().skip(1).collect();
        let json = || serde_json::from_slice(&contents).expect("is JSON");
        if let Ok(source) = below.strip_prefix("payload/posix") {
            let link = entry.link_name().expect("a link").map(|link| link.into_owned());
            let (kind, mode) = (entry.header().entry_type(), entry.header().mode().expect("a mode"));
            let before = self.payload.insert(Path::new("/").join(source), Member { kind, contents, link, mode });
            assert!(before.is_none(), "{} comes once", below.display());
        } else if let Ok(source) = below.strip_prefix("clawsnap/tails") {
            self.tails.insert(Path::new("/").join(source), contents);
        } else if below == Path::new("clawsnap/inventory.jsonl") {
            let lines = contents.split(|&c| c == b'\n').filter(|line| !line.is_empty());
            self.inventory = lines.map(|line| serde_json::from_slice(line).expect("is JSON")).collect();
        } else if below == Path::new("clawsnap/report.json") {
            self.report = json();
        } else if below == Path::new("manifest.json") {
            self.manifest = json();
        } else {
            panic!("{} has no business there", below.display());
        }
    }

    /// The contents of a file, following a hard link.
    pub fn contents(&self, source: &Path) -> Option<&[u8]> {
        let member = self.payload.get(source)?;
        match &member.link {
            Some(target) if member.kind == tar::EntryType::Link => {
                let below: PathBuf = target.components().skip(3).collect();
                self.contents(&Path::new("/").join(below))
            }
            _ => Some(&member.contents),
        }
    }
}

/// Everything that must not change about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looks {
    pub inode: u64,
    pub mode: u32,
    pub nlink: u64,
    pub mtime: (i64, i64),
    /// Length and hash of the contents, or of the target.
    pub contents: Option<(usize, String)>,
}

impl Looks {
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// What differs between two snapshots, a line each.
pub fn differences(before: &BTreeMap<PathBuf, Looks>, after: &BTreeMap<PathBuf, Looks>) -> Vec<String> {
    let names: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    changed.map(|name| format!("{}: {:?} became {:?}", name.display(), before.get(name), after.get(name))).collect()
}

/// All names below `top`, with what must not change about them.
pub fn snapshot(top: &Path) -> BTreeMap<PathBuf, Looks> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().expect("is there");
        let contents = match meta.file_type() {
            kind if kind.is_symlink() => Some(fs::read_link(&path).expect("a target").into_os_string().into_vec()),
            kind if kind.is_file() => Some(fs::read(&path).expect("is readable")),
            _ => None,
        };
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
        }
        let mtime = (meta.mtime(), meta.mtime_nsec());
        let contents = contents.map(|bytes| (bytes.len(), blake3::hash(&bytes).to_hex().to_string()));
        found.insert(path, Looks { inode: meta.ino(), mode: meta.mode(), nlink: meta.nlink(), mtime, contents });
    }
    found
}

/// The names in a directory that begin like ours.
pub fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry"));
    entries.filter(|entry| entry.file_name().as_bytes().starts_with(b".clawsnap-")).map(|entry| entry.path()).collect()
}

/// Makes a file old enough to be cold.
pub fn cool(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(86_400);
    let file = fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.set_times(fs::FileTimes::new().set_modified(then)).expect("sets its times");
}

/// Writes a file, with the directories that it needs.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("makes its directory");
    fs::write(path, contents).expect("writes");
}

/// The config of a version that reads sessions whatever their links: they are linked.
pub const LINKED: &str = r#"{"meta":{"lastTouchedVersion":"2026.4.14"}}"#;

/// Writes a cold file.
pub fn write_cold(path: &Path, contents: impl AsRef<[u8]>) {
    write(path, contents);
    cool(path);
}

/// A gate that counts the steps that it sees, and plays something at some of them.
pub struct Script<F: Fn(u64, &Step<'_>) -> io::Result<()> + Send + Sync> {
    count: Arc<AtomicU64>,
    play: F,
}

impl<F: Fn(u64, &Step<'_>) -> io::Result<()> + Send + Sync> Script<F> {
    /// `play` is told the number of each step, counted from zero, and the step.
    pub fn new(play: F) -> Self {
        Self { count: Arc::default(), play }
    }

    /// The number of steps so far, readable while the script is in use.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }
}

impl<F: Fn(u64, &Step<'_>) -> io::Result<()> + Send + Sync> Gate for Script<F> {
    fn pass(&self, step: &Step<'_>) -> io::Result<()> {
        (self.play)(self.count.fetch_add(1, Ordering::SeqCst), step)
    }
}
