//! When a set of captures is a snapshot.
//!
//! Every directory's stamp is taken *before* the directory is listed. After the last capture every directory is
//! stamped again. What moved is listed again, what is new is captured, and then everything is checked anew. When
//! nothing moved, each directory's interval from stamp to second stamp contains the moment between the last capture
//! and the first second stamp: at that moment the source held exactly what we hold.
//!
//! A link or a descriptor keeps its inode alive, so that the inode's number cannot come back under the same name
//! meanwhile. The (size, mtime) of a file that is hot, or whose contents are already frozen, must be unmoved as well.
//! (A cold file of which only the name is frozen is held against its (size, mtime) when it is archived.) Databases are
//! pinned right before everything is checked: see [`database`](super::database). And a stamp that was younger than one tick of the
//! filesystem's clock when the directory was listed proves nothing: it is listed again a tick later.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use super::capture::{By, Refusal};
use super::queue::Queue;
use super::refusal::Meaning;
use super::tree::{Entry, Node, NodeId, State};
use super::visit::Task;
use super::{Ablation, Freezer};
use crate::entry::{Kind, Stamp, Timestamp};
use crate::event::Event;
use crate::fate::Fate;
use crate::gate::{self, Verb};
use crate::relpath::{Leaf, RelPath, sort_by_name, split};
use crate::sys::{Dir, Listing};

/// Rounds after which a tree that keeps moving is not asked any more, however much time is left.
const MOST_ROUNDS: u32 = 4_000;

/// Whether there was a moment at which the source held what we hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There was: this one.
    Instant(Timestamp),
    /// None was found in time; these moved to the last.
    Window(Vec<Restless>),
}

/// Something that would not rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Restless {
    /// The root that it is below.
    pub root: u16,
    /// Its path below that root.
    pub path: RelPath,
    /// What moved.
    pub why: Why,
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The directory's names.
    Names,
    /// The file's contents.
    Contents,
    /// Nothing that was seen; but the last change is so young that the next could leave no mark.
    Young,
    /// Nothing that was seen; but the database was locked and could not be pinned.
    Locked,
}

impl Why {
    /// The reason's name, as the report writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Contents => "contents",
            Self::Young => "young",
            Self::Locked => "locked",
        }
    }
}

/// The verdict on the whole tree, and what it took.
pub(crate) struct Settled {
    pub(crate) rest: Rest,
    pub(crate) rounds: u32,
}

/// What one check of the tree found.
#[derive(Default)]
struct Check {
    restless: Vec<Restless>,
    visits: BTreeSet<NodeId>,
}

impl Check {
    fn is_clean(&self) -> bool {
        self.restless.is_empty() && self.visits.is_empty()
    }
}

impl Freezer<'_> {
    /// Captures the tree, again and again where it moved, until it rests or the time is over.
    ///
    /// # Errors
    /// Only what ends the run.
    pub(crate) fn settle(&self, roots: Vec<NodeId>) -> io::Result<Settled> {
        self.round(roots)?;
        let deadline = Instant::now() + self.budget;
        let mut order = Vec::new();
        let mut rounds = 1;
        loop {
            // Databases first: where no instant is found, what is listed after them holds what their rows speak of.
            let begun = Instant::now();
            let (moment, restless) = self.settings.databases.pin()?;
            let mut check = self.check(&order)?;
            check.restless.extend(restless);
            if check.is_clean() || self.ablation == Some(Ablation::Settle) {
                let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.observer.on(Event::Settled { microseconds });
                return Ok(Settled { rest: Rest::Instant(moment), rounds });
            }
            if Instant::now() >= deadline || rounds >= MOST_ROUNDS {
                self.round(check.visits.into_iter().collect())?;
                self.resolve()?;
                return Ok(Settled { rest: Rest::Window(check.restless), rounds: rounds + 1 });
            }
            self.observer.on(Event::Settling { round: rounds, restless: check.visits.len() as u64 });
            if check.restless.iter().any(|restless| restless.why == Why::Young) {
                std::thread::sleep(self.coarsest_tick());
            }
            order = check.visits.into_iter().collect();
            self.round(order.clone())?;
            rounds += 1;
        }
    }

    fn round(&self, visits: Vec<NodeId>) -> io::Result<()> {
        let tasks = visits.into_iter().map(Task::Visit).collect();
        Queue::run(self.workers, tasks, |task, worker, queue| self.work(task, worker, queue))?;
        let mut nodes = self.nodes();
        for id in std::mem::take(&mut *self.visited()) {
            sort_by_name(&mut nodes[id as usize].entries, |entry| &entry.name);
        }
        Ok(())
    }

    /// Looks at every directory and every watched file again; those that moved last are looked at first, as the time
    /// from their listing to this look is what must stay undisturbed.
    fn check(&self, first: &[NodeId]) -> io::Result<Check> {
        let mut check = Check { visits: std::mem::take(&mut *self.suspects()), ..Check::default() };
        let count = self.nodes().len();
        let all = 0..NodeId::try_from(count).unwrap_or(NodeId::MAX);
        let first_set: BTreeSet<NodeId> = first.iter().copied().collect();
        for id in first.iter().copied().chain(all.filter(|id| !first_set.contains(id))) {
            self.check_node(id, &mut check)?;
        }
        let nodes = self.nodes();
        check.visits.retain(|id| nodes[*id as usize].state != State::Gone);
        Ok(check)
    }

    fn check_node(&self, id: NodeId, check: &mut Check) -> io::Result<()> {
        let (root, path, state, watched, unresolved) = self.snapshot_of(id);
        let State::Listed { stamp, proves } = state else { return Ok(()) };
        let mut restless = |path: RelPath, why| {
            check.restless.push(Restless { root, path, why });
            check.visits.insert(id);
        };
        let looked = self.look_again(root, &path);
        match looked {
            Ok((dir, now)) => {
                if now != stamp || unresolved {
                    restless(path.clone(), Why::Names);
                } else if !proves {
                    restless(path.clone(), Why::Young);
                }
                let moved = self.moved_contents(id, &dir, &watched)?;
                moved.into_iter().for_each(|(name, why)| restless(path.join(&name), why));
            }
            Err(refusal) if refusal.meaning() == Meaning::Cancelled => return Err(refusal.into_error()),
            Err(_) => {
                restless(path.clone(), Why::Names);
                // Where it went is its parent's to tell.
                check.visits.extend(self.nodes()[id as usize].parent);
            }
        }
        Ok(())
    }

    fn snapshot_of(&self, id: NodeId) -> (u16, RelPath, State, Vec<Watched>, bool) {
        let nodes = self.nodes();
        let node = &nodes[id as usize];
        let watched = node.entries.iter().filter_map(Watched::of).collect();
        (node.root, node.path.clone(), node.state.clone(), watched, !node.unresolved.is_empty())
    }

    fn look_again(&self, root: u16, path: &RelPath) -> Result<(Dir, Stamp), Refusal> {
        let base = &self.bases[usize::from(root)];
        let dir = base.dir().and_then(|dir| dir.open_dir(path.as_bytes())).by(Verb::OpenDir)?;
        let stat = base.stat(&dir).by(Verb::Stat)?;
        Ok((dir, Stamp::of(&stat)))
    }

    /// The watched files whose contents moved since they were captured; they are marked for the next visit.
    fn moved_contents(&self, id: NodeId, dir: &Dir, watched: &[Watched]) -> io::Result<Vec<(Leaf, Why)>> {
        let mut moved = Vec::new();
        for file in watched {
            let why = match dir.stat(&file.name).by(Verb::Stat) {
                Ok(now) if file.rests(&now) => (!file.proves).then_some(Why::Young),
                Err(refusal) if refusal.meaning() == Meaning::Cancelled => return Err(refusal.into_error()),
                _ => Some(Why::Contents),
            };
            moved.extend(why.map(|why| (file.name.clone(), why)));
        }
        let mut nodes = self.nodes();
        let entries = &mut nodes[id as usize].entries;
        for (name, _) in &moved {
            if let Ok(at) = entries.binary_search_by(|entry| entry.name.cmp(name)) {
                entries[at].marks.stale = true;
            }
        }
        Ok(moved)
    }

    /// The time is over: names that were listed and then not there still need a fate, and only a listing proves a
    /// departure.
    fn resolve(&self) -> io::Result<()> {
        let mut left = BTreeMap::new();
        for id in self.nodes_that(|node| node.state == State::Pending) {
            self.resolve_directory(id, &mut left)?;
        }
        for id in self.nodes_that(|node| !node.unresolved.is_empty()) {
            self.resolve_names(id, &mut left)?;
        }
        Ok(())
    }

    fn nodes_that(&self, wanted: impl Fn(&Node) -> bool) -> Vec<NodeId> {
        let nodes = self.nodes();
        let found = nodes.iter().enumerate().filter(|(_, node)| wanted(node));
        found.filter_map(|(id, _)| NodeId::try_from(id).ok()).collect()
    }

    /// A directory that was not there when it was to be listed, to the last.
    fn resolve_directory(&self, id: NodeId, left: &mut BTreeMap<NodeId, bool>) -> io::Result<()> {
        let (root, path, parent) = {
            let nodes = self.nodes();
            let node = &nodes[id as usize];
            // It may have left with the one that it is in.
            let State::Pending = node.state else { return Ok(()) };
            (node.root, node.path.clone(), node.parent)
        };
        let (above, name) = split(path.as_bytes());
        match parent {
            Some(parent) if self.has_left(id, left)? => self.leave(parent, id, name),
            _ => {
                let above = gate::tolerate(self.open_dir(root, above))?;
                self.hollow(id, above.map_or_else(|| Ok(TOO_FAST.into()), |dir| why_unheld(&dir, name))?);
            }
        }
        Ok(())
    }

    /// Whether a listing proves that a directory has left, be it with one that it is in: that of the nearest one above it
    /// that can be listed. What is known of other directories is in `left`.
    fn has_left(&self, id: NodeId, left: &mut BTreeMap<NodeId, bool>) -> io::Result<bool> {
        if let Some(known) = left.get(&id) {
            return Ok(*known);
        }
        let (root, path, parent) = {
            let node = &self.nodes()[id as usize];
            (node.root, node.path.clone(), node.parent)
        };
        let Some(parent) = parent else { return Ok(false) };
        let (above, name) = split(path.as_bytes());
        let has_left = match self.list_again(root, above)? {
            Some((listing, _)) => !listing.has(name),
            None => self.has_left(parent, left)?,
        };
        left.insert(id, has_left);
        Ok(has_left)
    }

    fn leave(&self, parent: NodeId, id: NodeId, name: &[u8]) {
        self.depart(id);
        let mut nodes = self.nodes();
        let parent = &mut nodes[parent as usize];
        parent.entries.retain(|entry| *entry.name != *name);
        parent.notes.insert(name.into(), Fate::Departed);
    }

    fn resolve_names(&self, id: NodeId, left: &mut BTreeMap<NodeId, bool>) -> io::Result<()> {
        let (root, path, unresolved) = {
            let mut nodes = self.nodes();
            let node = &mut nodes[id as usize];
            (node.root, node.path.clone(), std::mem::take(&mut node.unresolved))
        };
        let listed = self.list_again(root, path.as_bytes())?;
        for name in unresolved {
            let fate = match &listed {
                Some((listing, _)) if !listing.has(&name) => Fate::Departed,
                Some((_, dir)) => Fate::Lost(why_unheld(dir, &name)?),
                None if self.has_left(id, left)? => Fate::Departed,
                None => Fate::Lost(TOO_FAST.into()),
            };
            self.nodes()[id as usize].notes.insert(name, fate);
        }
        Ok(())
    }

    /// All names of a directory, if they can be had.
    fn list_again(&self, root: u16, path: &[u8]) -> io::Result<Option<(Listing, Dir)>> {
        let dir = gate::tolerate(self.open_dir(root, path))?;
        let Some(dir) = dir else { return Ok(None) };
        let listing = gate::tolerate(dir.list())?.filter(|listing| listing.trouble.is_none());
        Ok(listing.map(|listing| (listing, dir)))
    }
}

const TOO_FAST: &str = "came and went, or changed hands, too fast to be held";

/// Why a name could not be held, though it is there: a filesystem may say of a file that it is stale, time and again.
fn why_unheld(dir: &Dir, name: &[u8]) -> io::Result<Box<str>> {
    let look = || match dir.stat(name).by(Verb::Stat)?.kind {
        Kind::Directory => {
            let found = dir.open_dir(name).by(Verb::OpenDir)?;
            found.list().and_then(Listing::whole).by(Verb::List).map(drop)
        }
        Kind::File => dir.open_file(name).by(Verb::Open)?.read_at(&mut [0], 0).by(Verb::Read).map(drop),
        _ => Ok(()),
    };
    match look() {
        Err(refusal) if refusal.meaning() == Meaning::Cancelled => Err(refusal.into_error()),
        Err(refusal) if !refusal.is_absence() => Ok(refusal.reason()),
        _ => Ok(TOO_FAST.into()),
    }
}

/// A file whose contents must be unmoved: it is hot, or its contents were frozen before the instant was, and would be
/// older than the instant says.
struct Watched {
    name: Leaf,
    stat: crate::entry::Stat,
    /// Read without anything moving, and old enough that the next change must show.
    proves: bool,
}

impl Watched {
    /// A raw copy of a database is torn anyway, and would never rest.
    fn of(entry: &Entry) -> Option<Self> {
        let marks = entry.marks;
        let watched = (marks.hot || marks.unproven || entry.held.freezes_contents()) && !marks.database;
        watched.then(|| Self { name: entry.name.clone(), stat: entry.stat, proves: !marks.unproven && !marks.young })
    }

    fn rests(&self, now: &crate::entry::Stat) -> bool {
        now.same_contents(&self.stat)
    }
}

/// The longest tick that a filesystem may have; a kernel with 100 ticks a second.
pub(crate) const LONGEST_TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::super::tree::{Held, Marks};
    use super::*;
    use crate::entry::{Kind, Stat, Timestamp};
    use crate::freeze::Staged;

    const AT: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 5 };

    fn stat() -> Stat {
        Stat {
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 3,
            blocks: 8,
            ino: 7,
            dev: 1,
            mtime: AT,
            ctime: AT,
        }
    }

    fn watched(held: Held, marks: Marks) -> Option<Watched> {
        Watched::of(&Entry { name: b"a"[..].into(), stat: stat(), held, xattrs: None, fingerprint: None, marks })
    }

    /// Two of these conditions could be turned round, and no test noticed.
    #[test]
    fn what_is_hot_unproven_or_frozen_with_its_contents_is_watched_and_proves_what_it_can() {
        let none = Marks::default();
        let (hot, unproven) = (Marks { hot: true, ..none }, Marks { unproven: true, ..none });
        let young = Marks { young: true, ..none };
        let proves = |held, marks| watched(held, marks).map(|watched| watched.proves);
        let linked = || Held::Link(Staged::default());
        assert_eq!(proves(linked(), none), None);
        assert_eq!(proves(linked(), hot), Some(true));
        assert_eq!(proves(linked(), unproven), Some(false));
        for held in [Held::Clone, Held::Copy] {
            assert_eq!(proves(held(Staged::default()), none), Some(true));
            assert_eq!(proves(held(Staged::default()), young), Some(false));
            assert_eq!(proves(held(Staged::default()), Marks { young: true, ..unproven }), Some(false));
            assert_eq!(proves(held(Staged::default()), Marks { database: true, ..hot }), None);
        }
    }

    #[test]
    fn a_file_rests_while_it_is_the_same_of_the_same_length_and_time() {
        let watched = watched(Held::Copy(Staged::default()), Marks::default()).expect("is watched");
        assert!(watched.rests(&stat()));
        for moved in [
            Stat { ino: 8, ..stat() },
            Stat { size: 4, ..stat() },
            Stat { mtime: Timestamp { nanos: 6, ..AT }, ..stat() },
        ] {
            assert!(!watched.rests(&moved));
        }
    }
}
