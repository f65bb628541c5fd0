//! Alive to still: everything that the plan names is listed, captured, and proved to be of one instant.
//!
//! What happens to the live tree meanwhile is data, not an error: each name meets a [`Fate`].

mod capture;
mod choice;
mod content;
mod database;
mod place;
mod queue;
mod refusal;
mod settle;
mod staging;
mod sweeping;
mod tree;
mod visit;

pub use choice::{Capture, Facts, Mode, chain, choose};
pub use database::{Check, DatabaseOptions, Way, serve};
pub use settle::{Rest, Restless, Why};

pub(crate) use capture::is_database;
pub(crate) use content::{Fingerprint, copy, copy_prefix, read};
pub(crate) use database::{
    Copied, MAGIC as DATABASE_MAGIC, SIDECARS, check_copy, may_be_database, sessions_in, sidecar_of,
};
pub(crate) use place::{Quarters, is_of_staging};
pub(crate) use refusal::{Meaning, meaning};
pub(crate) use staging::{Claim, Staged, Staging};
pub(crate) use sweeping::sweep;
pub(crate) use tree::{Entry, Found, Held, Marks, Node, NodeId, State, Walk};

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::entry::Stat;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::fate::{Fate, Ledger};
use crate::gate::{Gate, Realm};
use crate::plan::{Plan, Rules};
use crate::relpath::{Leaf, RelPath};
use crate::sys::{self, Dir};
use capture::Settings;
use content::Pool;
use database::Databases;
use place::{Place, Places};

/// Bytes of hot files that are held in memory at most. The windows of the compressor and of the proof take 64 MiB each,
/// and all together shall stay within 256 MB, however many files are hot; what is beyond this is linked or pinned, with a
/// fingerprint.
const HOLD_BUDGET: u64 = 8 * 1024 * 1024;

/// Descriptors left for everything but pinned files.
const SPARE_DESCRIPTORS: u64 = 256;

/// More threads gain nothing: linking waits for the directory it links into.
const MOST_WORKERS: usize = 8;

/// How the freeze shall be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which captures may be used.
    pub mode: Mode,
    /// How long the tree may take to come to rest after the first round.
    pub settle: Duration,
    /// What was modified within this time before the freeze is hot.
    pub hot_window: Duration,
    /// The largest hot file that is held in memory, in bytes. Larger ones are linked or pinned, with a fingerprint.
    pub hold_limit: u64,
    /// How databases are copied.
    pub databases: DatabaseOptions,
    /// What tests leave out, to see that they would notice. Not for use.
    #[doc(hidden)]
    pub ablation: Option<Ablation>,
}

/// A part of the promise that a test leaves out.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// The first pass counts as a snapshot.
    Settle,
    /// What is read counts as what was promised.
    Exact,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            settle: Duration::from_secs(2),
            hot_window: Duration::from_secs(300),
            hold_limit: 4 * 1024 * 1024,
            databases: DatabaseOptions::default(),
            ablation: None,
        }
    }
}

/// A root, opened: from here on no absolute path is resolved.
pub(crate) struct Base {
    /// The directory, or the one that holds the root where that is a single file; or why it cannot be opened.
    opened: std::result::Result<Dir, sys::Errno>,
    /// The single file.
    pub(crate) only: Option<Box<[u8]>>,
    /// The absolute path of the directory.
    pub(crate) prefix: Box<[u8]>,
}

impl Base {
    fn open(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let (at, only) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if !is_dir => (parent, Some(name.as_bytes().into())),
            _ => (path, None),
        };
        let opened = match Dir::open(at, Realm::Source, Arc::clone(gate)) {
            Ok(dir) => Ok(dir),
            Err(error) => Err(sys::errno(&error).ok_or_else(|| Error::failed("open the source", at, error))?),
        };
        Ok(Self { opened, only, prefix: at.as_os_str().as_bytes().into() })
    }

    /// The directory.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(crate) fn dir(&self) -> io::Result<&Dir> {
        self.opened.as_ref().map_err(|errno| (*errno).into())
    }

    /// What proves that nothing was renamed, made or removed: the directory's metadata, or the single file's.
    fn stat(&self, dir: &Dir) -> io::Result<Stat> {
        self.only.as_ref().map_or_else(|| dir.stat_self(), |name| dir.stat(name))
    }

    /// Where it is.
    fn path(&self) -> PathBuf {
        let at = Path::new(std::ffi::OsStr::from_bytes(&self.prefix));
        self.only.as_ref().map_or_else(|| at.to_owned(), |name| at.join(std::ffi::OsStr::from_bytes(name)))
    }
}

/// A source of which nothing can be opened is an error; one among others is a loss.
fn open_all(plan: &Plan, gate: &Arc<dyn Gate>) -> Result<Vec<Base>> {
    let bases = plan.roots.iter().map(|root| Base::open(&root.path, gate)).collect::<Result<Vec<_>>>()?;
    let closed = bases.iter().find_map(|base| Some((base.path(), base.dir().err()?)));
    match closed {
        Some((path, error)) if bases.iter().all(|base| base.opened.is_err()) => {
            Err(Error::failed("open the source", path, error).remedy("run it as the owner of the source"))
        }
        _ => Ok(bases),
    }
}

/// A freeze under way.
pub(crate) struct Freezer<'a> {
    rules: &'a Rules,
    bases: Vec<Base>,
    settings: Settings,
    places: Places,
    observer: &'a dyn Observer,
    nodes: Mutex<Vec<Node>>,
    suspects: Mutex<BTreeSet<NodeId>>,
    /// What is visited in this round, or was: each once, and what it holds is to be sorted at the round's end.
    visited: Mutex<BTreeSet<NodeId>>,
    files: AtomicU64,
    directories: AtomicU64,
    workers: usize,
    budget: Duration,
    ablation: Option<Ablation>,
}

impl Freezer<'_> {
    fn nodes(&self) -> MutexGuard<'_, Vec<Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visited(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.visited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_node(&self, node: Node) -> NodeId {
        let mut nodes = self.nodes();
        nodes.push(node);
        NodeId::try_from(nodes.len() - 1).unwrap_or(NodeId::MAX)
    }

    /// How coarse the clock is that stamps what is at `place`.
    fn tick(&self, place: &Place) -> Duration {
        match &place.staging {
            Some(staging) if place.same_mount => staging.tick(),
            _ => sys::coarse_tick(),
        }
    }

    fn coarsest_tick(&self) -> Duration {
        sys::coarse_tick().clamp(Duration::from_millis(1), settle::LONGEST_TICK)
    }
}

/// Everything that will be archived, held. Dropping it lets go of everything.
pub(crate) struct Frozen {
    /// The opened roots.
    pub(crate) bases: Vec<Base>,
    /// All directories; those of the roots come first, in their order.
    pub(crate) nodes: Vec<Node>,
    /// Whether there was one instant.
    pub(crate) rest: Rest,
    /// Rounds of listing and checking.
    pub(crate) rounds: u32,
    /// From the first stamp to the last check, in microseconds.
    pub(crate) width_us: u64,
    /// What became of the names that are not held.
    pub(crate) ledger: Ledger,
    /// Names that are held, by how.
    pub(crate) captures: HashMap<Capture, u64>,
    /// What a test leaves out.
    pub(crate) ablation: Option<Ablation>,
    /// Bytes of contents that are held.
    pub(crate) bytes: u64,
    /// Files, links and the like that are held.
    pub(crate) files: u64,
    places: Places,
}

impl Frozen {
    /// Everything that is held, root by root, each sorted as an archive is: a directory before what it holds.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk::new(&self.bases, &self.nodes)
    }

    /// Hands everything that is held on, as `hand` walks through it, and writes down what it says became of each name.
    ///
    /// # Errors
    /// Those of `hand`.
    pub(crate) fn hand_on(
        &mut self,
        hand: impl for<'a> FnOnce(Walk<'a>, &mut dyn FnMut(Found<'a>, Fate)) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut noted = Vec::new();
        hand(self.walk(), &mut |found, fate| {
            if let Some(entry) = found.entry.filter(|_| fate != Fate::Kept) {
                noted.push((found.node.root, found.node.path.join(&entry.name), fate));
            }
        })?;
        noted.into_iter().for_each(|(root, path, fate)| self.ledger.note(root, path, fate));
        Ok(())
    }

    /// Removes all second names, clones and copies.
    ///
    /// # Errors
    /// What could not be removed: the next run on the same source will try again.
    pub(crate) fn release(self) -> Result<()> {
        let Self { nodes, places, .. } = self;
        drop(nodes);
        places.release().map_err(|(name, error)| {
            Error::failed("remove the staging directory", name, error).remedy("the next run on this source removes it")
        })
    }
}

/// Freezes what the plan names.
///
/// `quarters` tells where and under which name staging directories are made.
///
/// # Errors
/// A root that cannot be opened or is gone; the cancellation of the run. Nothing is left behind then.
pub(crate) fn freeze(
    plan: &Plan,
    options: &Options,
    quarters: &Quarters<'_>,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
) -> Result<Frozen> {
    let bases = open_all(plan, gate)?;
    let descriptors = sys::raise_descriptor_limit().saturating_sub(SPARE_DESCRIPTORS);
    let hot_since = sys::now().before(options.hot_window);
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MOST_WORKERS);
    let freezer = Freezer {
        rules: &plan.rules,
        bases,
        settings: Settings {
            mode: options.mode,
            hot_since,
            hold_limit: options.hold_limit,
            memory: Pool::new(HOLD_BUDGET),
            descriptors: Pool::new(descriptors),
            databases: Databases::new(options.databases.clone(), hot_since),
        },
        places: Places::new(workers, quarters),
        observer,
        nodes: Mutex::default(),
        suspects: Mutex::default(),
        visited: Mutex::default(),
        files: AtomicU64::new(0),
        directories: AtomicU64::new(0),
        workers,
        budget: options.settle,
        ablation: options.ablation,
    };
    let roots = (0..freezer.bases.len()).map(|root| u16::try_from(root).unwrap_or(u16::MAX));
    let roots: Vec<NodeId> = roots.map(|root| freezer.add_node(Node::pending(root, RelPath::root(), None))).collect();
    let swept = freezer.places.sweep(freezer.bases.iter().filter_map(|base| base.dir().ok()), gate);
    swept.map_err(|error| gone_root(&freezer, error))?;
    let begun = sys::now();
    let settled = freezer.settle(roots).map_err(|error| gone_root(&freezer, error))?;
    let ended = match settled.rest {
        Rest::Instant(moment) => moment,
        Rest::Window(_) => sys::now(),
    };
    let width = ended.as_nanos().saturating_sub(begun.as_nanos()) / 1_000;
    let databases = &freezer.settings.databases;
    let copied = databases.release().and_then(|()| databases.finish(observer));
    copied.map_err(|error| gone_root(&freezer, error))?;
    Ok(finish(freezer, settled, u64::try_from(width).unwrap_or(0)))
}

/// The freeze ends early only if a root is gone or the run was cancelled.
fn gone_root(freezer: &Freezer<'_>, error: io::Error) -> Error {
    let gone = freezer.bases.iter().find(|base| base.dir().and_then(|dir| base.stat(dir)).is_err());
    Error::failed("freeze the source", gone.or(freezer.bases.first()).map(Base::path).unwrap_or_default(), error)
}

fn finish(freezer: Freezer<'_>, settled: settle::Settled, width_us: u64) -> Frozen {
    let Freezer { bases, nodes, places, observer, ablation, .. } = freezer;
    let mut nodes = nodes.into_inner().unwrap_or_else(PoisonError::into_inner);
    nodes.iter_mut().for_each(take_in_copies);
    let ledger = ledger(&mut nodes);
    let mut frozen = Frozen {
        bases,
        nodes,
        rest: settled.rest,
        rounds: settled.rounds,
        width_us,
        ledger,
        captures: HashMap::new(),
        ablation,
        bytes: 0,
        files: 0,
        places,
    };
    count(&mut frozen);
    observer.on(Event::Frozen { files: frozen.files, bytes: frozen.bytes });
    frozen
}

/// The databases of a directory are copied: their entries tell of the copies, and what else of them had to be copied
/// gets entries of its own.
fn take_in_copies(node: &mut Node) {
    let mut parts = Vec::new();
    let mut left_out = Vec::new();
    for entry in &mut node.entries {
        let Held::Database(database) = &entry.held else { continue };
        let finished = database.finished();
        if finished.as_ref().map_or(true, |finished| finished.copied.way == Way::Raw) {
            left_out.extend((0..database::SIDECARS.len()).map(|number| database::sidecar(&entry.name, number)));
        }
        let Ok(finished) = finished else { continue };
        entry.stat = finished.stat;
        parts.extend(finished.parts.iter().map(|(number, stat, staged)| Entry {
            name: Leaf::from(&*database::sidecar(&entry.name, *number)),
            stat: *stat,
            held: Held::Copy(*staged),
            xattrs: None,
            fingerprint: None,
            marks: Marks { database: true, ..Marks::default() },
        }));
    }
    // What was only named like a part was captured as a file by itself, as of the freeze: that stays, and comes once.
    let is_held = |part: &mut Entry| node.entries.binary_search_by(|entry| entry.name.cmp(&part.name)).is_ok();
    let surplus: Vec<Entry> = parts.extract_if(.., is_held).collect();
    surplus.iter().for_each(|part| visit::give_up(&node.place, part));
    for part in parts {
        node.notes.remove(&part.name);
        node.entries.push(part);
    }
    // Nothing was folded into bytes: what is not among them is not in the archive.
    for name in left_out {
        if let Some(note) = node.notes.get_mut(&*name)
            && matches!(note, Fate::Folded(_))
        {
            *note = Fate::Lost("its database could only be copied raw, and this not at all".into());
        }
    }
    node.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
}

/// Gathers what became of the names that are not held. A name that departed with its directory may have come back
/// with another one of the same path: what is held, or has another fate there, is no departure.
fn ledger(nodes: &mut [Node]) -> Ledger {
    let mut gone = Vec::new();
    let mut ledger = Ledger::default();
    for node in nodes.iter_mut() {
        let (root, path) = (node.root, node.path.clone());
        let notes = std::mem::take(&mut node.notes).into_iter().map(|(name, fate)| (root, path.join(&name), fate));
        if node.state == State::Gone {
            gone.extend(notes);
            continue;
        }
        notes.for_each(|(root, path, fate)| ledger.note(root, path, fate));
        if let State::Hollow(reason) = &node.state {
            // Without its metadata not even the directory itself can be archived.
            let fate = if node.stat.is_some() { Fate::Hollow } else { Fate::Lost };
            ledger.note(root, path, fate(reason.clone()));
        }
    }
    let alive = if gone.is_empty() { BTreeSet::new() } else { held_below(nodes, &gone) };
    let known: BTreeSet<(u16, RelPath)> = ledger.iter().map(|(root, path, _)| (root, path.clone())).collect();
    for (root, path, fate) in gone {
        let key = (root, path);
        if !alive.contains(&key) && !known.contains(&key) {
            ledger.note(key.0, key.1, fate);
        }
    }
    ledger
}

/// Those of the given names that are held after all.
fn held_below(nodes: &[Node], names: &[(u16, RelPath, Fate)]) -> BTreeSet<(u16, RelPath)> {
    let wanted: BTreeSet<(u16, &RelPath)> = names.iter().map(|(root, path, _)| (*root, path)).collect();
    let living = nodes.iter().filter(|node| node.state != State::Gone);
    let held = living.flat_map(|node| node.entries.iter().map(|entry| (node.root, node.path.join(&entry.name))));
    held.filter(|(root, path)| wanted.contains(&(*root, path))).collect()
}

fn count(frozen: &mut Frozen) {
    for node in frozen.nodes.iter().filter(|node| node.state != State::Gone) {
        for entry in &node.entries {
            if let Some(capture) = entry.held.capture() {
                *frozen.captures.entry(capture).or_default() += 1;
                frozen.bytes += entry.stat.size;
            }
            frozen.files += u64::from(!matches!(entry.held, Held::Directory(_)));
        }
    }
}
