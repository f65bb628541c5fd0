//! Listing one directory and capturing what is new in it. The first visit and every later one are the same: the
//! first has nothing to compare with.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::Freezer;
use super::capture::{By, Capturer, Outcome, Refusal};
use super::database::sidecar_of;
use super::place::Place;
use super::queue::Queue;
use super::refusal::{Meaning, meaning};
use super::tree::{Entry, Held, Marks, Node, NodeId, State};
use crate::entry::{Kind, Stamp, Stat, Timestamp, Xattrs};
use crate::event::Event;
use crate::fate::Fate;
use crate::gate::Verb;
use crate::plan::{Class, Verdict};
use crate::relpath::{Leaf, RelPath, joined, split};
use crate::sys::{self, Dir, Listed, Listing};

/// How many names of one directory are captured at a stretch before another worker may take some.
const CHUNK: usize = 512;

/// Something to do in a round.
pub(crate) enum Task {
    /// List a directory.
    Visit(NodeId),
    /// Capture some of its names.
    Capture(NodeId, Dir, Place, Share),
}

/// A name to be captured.
pub(crate) struct Wanted {
    name: Leaf,
    /// By the listing.
    ino: u64,
    class: Class,
    /// Names that are its log, its journal and the like if it is a database.
    sidecars: Vec<(Leaf, Class)>,
    /// It is named like the log or the journal of a database that is held already.
    of_held: bool,
}

/// Some of the names that are wanted of a directory. All of them lie together until the last is captured: cut into
/// pieces, those of a large directory would be there twice.
pub(crate) struct Share {
    all: Arc<Vec<Wanted>>,
    range: Range<usize>,
}

impl Share {
    /// All of them, in shares of at most [`CHUNK`].
    fn of(wanted: Vec<Wanted>) -> impl DoubleEndedIterator<Item = Self> {
        let all = Arc::new(wanted);
        let begins = (0..all.len()).step_by(CHUNK);
        begins.map(move |at| Self { range: at..all.len().min(at + CHUNK), all: Arc::clone(&all) })
    }

    fn names(&self) -> &[Wanted] {
        &self.all[self.range.clone()]
    }
}

/// A directory that was opened, and how it looked before it was listed.
struct Opened {
    dir: Dir,
    place: Place,
    stat: Stat,
    xattrs: Xattrs,
    looked: Timestamp,
}

/// A directory that was listed, while its names are looked at.
#[derive(Clone, Copy)]
struct Visit<'a> {
    id: NodeId,
    root: u16,
    opened: &'a Opened,
    listing: &'a Listing,
}

/// A listing held against what was held before.
#[derive(Default)]
struct Compared {
    kept: Vec<Entry>,
    wanted: Vec<Wanted>,
    discarded: Vec<Entry>,
    notes: BTreeMap<Leaf, Fate>,
    visits: Vec<NodeId>,
}

impl Compared {
    /// With room for so many entries that are kept, and so many names that are wanted: vectors that grow step by step
    /// leave holes in the heap that add up.
    fn with_room(notes: BTreeMap<Leaf, Fate>, kept: usize, wanted: usize) -> Self {
        Self { kept: Vec::with_capacity(kept), wanted: Vec::with_capacity(wanted), notes, ..Self::default() }
    }
}

impl Freezer<'_> {
    /// Does one task.
    ///
    /// # Errors
    /// Only what ends the run: its cancellation, or a root that is gone.
    pub(crate) fn work(&self, task: Task, worker: usize, queue: &Queue<Task>) -> io::Result<()> {
        match task {
            Task::Visit(id) => self.visit(id, worker, queue),
            Task::Capture(id, dir, place, share) => self.capture(id, &dir, &place, share.names(), worker),
        }
    }

    fn visit(&self, id: NodeId, worker: usize, queue: &Queue<Task>) -> io::Result<()> {
        let (root, path) = {
            let nodes = self.nodes();
            let node = &nodes[id as usize];
            // Two visits at a time would capture the same names. It can be asked for twice: because of itself, and by the
            // visit of its parent.
            if node.state == State::Gone || !self.visited().insert(id) {
                return Ok(());
            }
            (node.root, node.path.clone())
        };
        match self.open(root, &path).and_then(|opened| Ok((self.list(id, root, &opened.dir)?, opened))) {
            Ok((listing, opened)) => self.take_in(id, root, opened, listing, worker, queue),
            Err(refusal) => self.closed(id, refusal),
        }
    }

    /// Opens a directory and looks at it before it is listed: whatever happens from then on moves its stamp.
    fn open(&self, root: u16, path: &RelPath) -> Result<Opened, Refusal> {
        let dir = self.open_dir(root, path.as_bytes()).by(Verb::OpenDir)?;
        let mount = dir.mount().by(Verb::Stat)?;
        let place = self.places.of_mount(mount, &dir).by(Verb::MakeDir)?;
        let xattrs = dir.xattrs().by(Verb::Xattr)?;
        let looked = sys::coarse_now();
        let stat = self.bases[usize::from(root)].stat(&dir).by(Verb::Stat)?;
        Ok(Opened { dir, place, stat, xattrs, looked })
    }

    pub(super) fn open_dir(&self, root: u16, path: &[u8]) -> io::Result<Dir> {
        self.bases[usize::from(root)].dir()?.open_dir(path)
    }

    /// Lists a directory. One that left after it was opened is refused as if it had left before.
    fn list(&self, id: NodeId, root: u16, dir: &Dir) -> Result<Listing, Refusal> {
        let base = &self.bases[usize::from(root)];
        let mut listing = dir.list().by(Verb::List)?;
        if let Some(only) = &base.only {
            listing.names.retain(|listed| *listed.name == **only);
        }
        match listing.trouble.take_if(|error| meaning(Verb::List, error) == Meaning::Vanished) {
            None => Ok(listing),
            Some(error) => {
                self.told(id, listing.names);
                Err(error).by(Verb::List)
            }
        }
    }

    /// What a directory told before it left needs a fate: the next listing decides.
    fn told(&self, id: NodeId, names: Vec<Listed>) {
        let mut nodes = self.nodes();
        let node = &mut nodes[id as usize];
        let names = names.into_iter().map(|listed| listed.name);
        if node.state == State::Gone {
            node.notes.extend(names.map(|name| (name, Fate::Departed)));
            return;
        }
        let is_held = |name: &Leaf| node.entries.binary_search_by(|entry| entry.name.cmp(name)).is_ok();
        node.unresolved.extend(names.filter(|name| !is_held(name)));
    }

    /// A directory that could not be opened or listed: its parent is asked again, or it stays hollow.
    fn closed(&self, id: NodeId, refusal: Refusal) -> io::Result<()> {
        let mut nodes = self.nodes();
        let node = &mut nodes[id as usize];
        match refusal.meaning() {
            Meaning::Cancelled => return Err(refusal.into_error()),
            // Its parent was listed meanwhile, and has told already.
            _ if node.state == State::Gone => {}
            Meaning::Vanished if node.parent.is_none() => return Err(refusal.into_error()),
            Meaning::Vanished => {
                node.state = State::Pending;
                let parent = node.parent;
                drop(nodes);
                // It can be there again by the time that its parent is listed.
                self.visited().remove(&id);
                self.suspects().extend(parent);
            }
            _ => {
                drop(nodes);
                self.hollow(id, refusal.reason());
            }
        }
        Ok(())
    }

    /// A directory that is there, and whose names cannot be had; nothing, if a listing proved meanwhile that it left.
    pub(super) fn hollow(&self, id: NodeId, why: Box<str>) {
        let (root, path, known) = {
            let mut nodes = self.nodes();
            let node = &mut nodes[id as usize];
            if node.state == State::Gone {
                return;
            }
            node.state = State::Hollow(why);
            (node.root, node.path.clone(), node.stat)
        };
        let stat = known.or_else(|| self.look_from_parent(root, &path));
        self.nodes()[id as usize].stat = stat;
    }

    /// The metadata of a directory that may not be opened.
    fn look_from_parent(&self, root: u16, path: &RelPath) -> Option<Stat> {
        let bytes = path.as_bytes();
        if path.is_root() {
            return None;
        }
        let (parent, name) = split(bytes);
        let stat = self.open_dir(root, parent).and_then(|dir| dir.stat(name)).ok()?;
        (stat.kind == Kind::Directory).then_some(stat)
    }

    fn take_in(
        &self,
        id: NodeId,
        root: u16,
        opened: Opened,
        listing: Listing,
        worker: usize,
        queue: &Queue<Task>,
    ) -> io::Result<()> {
        let compared = self.compare(id, root, &opened, &listing)?;
        let place = opened.place.clone();
        for entry in &compared.discarded {
            give_up(&place, entry);
            if let Held::Directory(child) = entry.held {
                self.depart(child);
            }
        }
        self.put_back(id, &opened, &listing, compared.kept, compared.wanted.len(), compared.notes);
        // What was listed is not needed while it is captured, and takes room.
        drop(listing);
        compared.visits.into_iter().for_each(|child| queue.add(Task::Visit(child)));
        self.counted(0, 1);
        let mut shares = Share::of(compared.wanted);
        let first = shares.next();
        // What was added last is taken first: the order of inodes stays.
        shares.rev().for_each(|share| queue.add(Task::Capture(id, opened.dir.clone(), place.clone(), share)));
        first.map_or(Ok(()), |share| self.capture(id, &opened.dir, &place, share.names(), worker))
    }

    fn put_back(
        &self,
        id: NodeId,
        opened: &Opened,
        listing: &Listing,
        kept: Vec<Entry>,
        wanted: usize,
        notes: BTreeMap<Leaf, Fate>,
    ) {
        let stamp = Stamp::of(&opened.stat);
        let tick = self.tick(&opened.place);
        let state = match &listing.trouble {
            None => State::Listed { stamp, proves: stamp.proves_from(opened.looked, tick) },
            Some(error) => State::Hollow(format!("cannot be listed to its end: {error}").into()),
        };
        let mut nodes = self.nodes();
        let node = &mut nodes[id as usize];
        let has_left = node.state == State::Gone;
        if !has_left {
            node.state = state;
        }
        let staging = opened.place.staging.as_deref();
        node.stat = Some(staging.map_or(opened.stat, |staging| staging.without_it(opened.stat)));
        node.xattrs.clone_from(&opened.xattrs);
        node.place = opened.place.clone();
        node.entries = kept;
        node.entries.reserve_exact(wanted);
        node.notes.extend(notes);
        drop(nodes);
        if has_left {
            // Its parent was listed meanwhile, and it was not there: what was found in it has left with it.
            self.depart(id);
        }
    }

    /// Holds a listing against what was held before: what is unmoved stays, what is new or replaced is wanted, what
    /// is missing has departed.
    fn compare(&self, id: NodeId, root: u16, opened: &Opened, listing: &Listing) -> io::Result<Compared> {
        let (old, mut notes, unresolved) = self.take_out(id);
        notes.retain(|_, fate| *fate == Fate::Departed);
        let (kept, wanted) = (old.len(), listing.names.len().saturating_sub(old.len()));
        let mut compared = Compared::with_room(notes, kept, wanted);
        let mut old = old.into_iter().peekable();
        let visit = Visit { id, root, opened, listing };
        for (at, listed) in listing.names.iter().enumerate() {
            while let Some(gone) = old.next_if(|entry| entry.name < listed.name) {
                Self::missing(&mut compared, gone, listing.trouble.is_some());
            }
            let before = old.next_if(|entry| entry.name == listed.name);
            compared.notes.remove(&listed.name);
            self.compare_name(&mut compared, visit, at, before)?;
        }
        old.for_each(|gone| Self::missing(&mut compared, gone, listing.trouble.is_some()));
        for name in unresolved {
            let listed = listing.names.binary_search_by(|listed| listed.name.cmp(&name)).is_ok();
            match &listing.trouble {
                Some(_) => self.unresolved(id, name),
                None if !listed => drop(compared.notes.insert(name, Fate::Departed)),
                None => {}
            }
        }
        group_sidecars(&mut compared);
        // By inode: neighbours share a block of the inode table, which is fetched once for all of them then, and not
        // once for each.
        compared.wanted.sort_unstable_by_key(|wanted| wanted.ino);
        Ok(compared)
    }

    fn take_out(&self, id: NodeId) -> (Vec<Entry>, BTreeMap<Leaf, Fate>, Vec<Leaf>) {
        let mut nodes = self.nodes();
        let node = &mut nodes[id as usize];
        (std::mem::take(&mut node.entries), std::mem::take(&mut node.notes), std::mem::take(&mut node.unresolved))
    }

    /// A name that was held and is not in the listing. An incomplete listing proves no departure.
    fn missing(compared: &mut Compared, entry: Entry, incomplete: bool) {
        if incomplete {
            compared.kept.push(entry);
            return;
        }
        compared.notes.insert(entry.name.clone(), Fate::Departed);
        compared.discarded.push(entry);
    }

    fn compare_name(
        &self,
        compared: &mut Compared,
        visit: Visit<'_>,
        at: usize,
        before: Option<Entry>,
    ) -> io::Result<()> {
        let Visit { id, root, opened, listing } = visit;
        let listed = &listing.names[at];
        let Some(kind) = self.kind_of(opened, listed)? else {
            // Gone since it was listed, where the listing does not tell kinds: the next listing decides.
            compared.discarded.extend(before);
            self.unresolved(id, listed.name.clone());
            return Ok(());
        };
        let class = match self.judge(root, opened.dir.path(), &listed.name, kind) {
            Verdict::Keep(class) => class,
            Verdict::Exclude(rule) => {
                compared.notes.insert(listed.name.clone(), Fate::Excluded(rule.into()));
                compared.discarded.extend(before);
                return Ok(());
            }
        };
        match before {
            Some(entry) if self.still_bound(opened, listed, kind, &entry)? => {
                if let Held::Directory(child) = entry.held
                    && self.nodes()[child as usize].state == State::Pending
                {
                    compared.visits.push(child);
                }
                compared.kept.push(entry);
            }
            replaced => {
                compared.discarded.extend(replaced);
                self.want(compared, visit, at, class, kind);
            }
        }
        Ok(())
    }

    fn want(&self, compared: &mut Compared, visit: Visit<'_>, at: usize, class: Class, kind: Kind) {
        let Visit { id, root, opened, listing } = visit;
        let listed = &listing.names[at];
        if kind == Kind::Directory {
            let child = self.add_node(Node::pending(root, opened.dir.path().join(&listed.name), Some(id)));
            compared.visits.push(child);
            compared.kept.push(directory_entry(listed.name.clone(), listed.ino, &opened.stat, child));
            return;
        }
        let (name, ino) = (listed.name.clone(), listed.ino);
        compared.wanted.push(Wanted { name, ino, class, sidecars: Vec::new(), of_held: false });
    }

    fn kind_of(&self, opened: &Opened, listed: &Listed) -> io::Result<Option<Kind>> {
        if listed.kind.is_some() {
            return Ok(listed.kind);
        }
        match opened.dir.stat(&listed.name).by(Verb::Stat) {
            Ok(stat) => Ok(Some(stat.kind)),
            Err(refusal) if refusal.meaning() == Meaning::Cancelled => Err(refusal.into_error()),
            Err(_) => Ok(None),
        }
    }

    fn judge(&self, root: u16, dir: &RelPath, name: &[u8], kind: Kind) -> Verdict<'_> {
        if self.bases[usize::from(root)].only.is_some() {
            return Verdict::Keep(self.rules.class_of_root(usize::from(root)));
        }
        self.rules.judge(usize::from(root), &joined(dir.as_bytes(), name), kind)
    }

    /// Whether a listed name is still bound to what is held. The listing's inode number tells, as long as what we
    /// hold keeps that number from being given to another file; otherwise a look does. A directory is not kept alive: its
    /// number may be given to another one, which is listed as any that moved, or to what is none.
    fn still_bound(&self, opened: &Opened, listed: &Listed, kind: Kind, entry: &Entry) -> io::Result<bool> {
        let known = match entry.held {
            Held::Directory(child) => self.nodes()[child as usize].stat.unwrap_or(entry.stat),
            _ => entry.stat,
        };
        let is_directory = matches!(entry.held, Held::Directory(_));
        if entry.marks.stale || is_directory != (kind == Kind::Directory) {
            return Ok(false);
        }
        if listed.ino == known.ino && (entry.held.pins_inode() || is_directory) {
            return Ok(true);
        }
        match opened.dir.stat(&listed.name).by(Verb::Stat) {
            Ok(now) if is_directory || entry.held.pins_inode() => Ok(now.id() == known.id()),
            Ok(now) => Ok(now.same_contents(&known) && now.ctime == known.ctime),
            Err(refusal) if refusal.meaning() == Meaning::Cancelled => Err(refusal.into_error()),
            Err(_) => Ok(false),
        }
    }

    /// A directory that has left, with all that it held.
    pub(super) fn depart(&self, id: NodeId) {
        let mut nodes = self.nodes();
        let mut leaving = vec![id];
        while let Some(id) = leaving.pop() {
            let node = &mut nodes[id as usize];
            node.state = State::Gone;
            let place = node.place.clone();
            for entry in std::mem::take(&mut node.entries) {
                give_up(&place, &entry);
                if let Held::Directory(child) = entry.held {
                    leaving.push(child);
                }
                node.notes.insert(entry.name, Fate::Departed);
            }
            let unresolved = std::mem::take(&mut node.unresolved);
            node.notes.extend(unresolved.into_iter().map(|name| (name, Fate::Departed)));
        }
    }

    fn capture(&self, id: NodeId, dir: &Dir, place: &Place, wanted: &[Wanted], worker: usize) -> io::Result<()> {
        let root = self.nodes()[id as usize].root;
        let capturer = Capturer {
            settings: &self.settings,
            root,
            base: self.bases[usize::from(root)].dir()?,
            dir,
            staging: place.staging.as_ref(),
            same_mount: place.same_mount,
            tick: self.tick(place),
            worker,
        };
        let mut taken = Vec::with_capacity(wanted.len());
        let mut outcomes = Vec::new();
        let mut sort = |name: &Leaf, outcome| match outcome {
            Outcome::Taken(entry) => taken.push(Entry { name: name.clone(), ..entry }),
            other => outcomes.push((name.clone(), other)),
        };
        for Wanted { name, class, sidecars, of_held, .. } in wanted {
            let outcome =
                if *of_held { of_database(&capturer, name, *class)? } else { capturer.capture(name, *class, false)? };
            for (sidecar, class) in sidecars {
                let outcome = capture_sidecar(&capturer, &outcome, sidecar, *class)?;
                sort(sidecar, outcome);
            }
            sort(name, outcome);
        }
        self.counted(taken.len() as u64, 0);
        self.record(id, place, taken, outcomes);
        Ok(())
    }

    fn record(&self, id: NodeId, place: &Place, taken: Vec<Entry>, outcomes: Vec<(Leaf, Outcome)>) {
        let mut nodes = self.nodes();
        let node = &mut nodes[id as usize];
        if node.state == State::Gone {
            taken.iter().for_each(|entry| give_up(place, entry));
            let names = taken.into_iter().map(|entry| entry.name).chain(outcomes.into_iter().map(|(name, _)| name));
            node.notes.extend(names.map(|name| (name, Fate::Departed)));
            return;
        }
        node.entries.extend(taken);
        for (name, outcome) in outcomes {
            match outcome {
                Outcome::Noted(fate) => drop(node.notes.insert(name, fate)),
                _ => node.unresolved.push(name),
            }
        }
    }

    fn unresolved(&self, id: NodeId, name: Leaf) {
        self.nodes()[id as usize].unresolved.push(name);
    }

    fn counted(&self, files: u64, directories: u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let files = self.files.fetch_add(files, Relaxed) + files;
        let directories = self.directories.fetch_add(directories, Relaxed) + directories;
        self.observer.on(Event::Freezing { files, directories });
    }
}

/// Puts names that would be the log or the journal of another one, were that a database, with that one: whether it is
/// shows when it is captured.
fn group_sidecars(compared: &mut Compared) {
    let Compared { kept, wanted: rest, discarded, .. } = compared;
    let sidecars: Vec<Wanted> = rest.extract_if(.., |found| sidecar_of(&found.name).is_some()).collect();
    let is_held = |base: &[u8]| {
        let found = kept.binary_search_by(|entry| (*entry.name).cmp(base));
        found.is_ok_and(|at| matches!(kept[at].held, Held::Database(_)))
    };
    let mut alone = Vec::new();
    for sidecar in sidecars {
        let base = sidecar_of(&sidecar.name).unwrap_or_default();
        match rest.binary_search_by(|found| (*found.name).cmp(base)) {
            Ok(at) => rest[at].sidecars.push((sidecar.name, sidecar.class)),
            Err(_) => alone.push(Wanted { of_held: is_held(base), ..sidecar }),
        }
    }
    // One that was captured before there was a database for it.
    let is_part = |entry: &mut Entry| !matches!(entry.held, Held::Directory(_)) && base_of(rest, entry).is_some();
    let parts: Vec<Entry> = kept.extract_if(.., is_part).collect();
    for part in parts {
        if let Some(at) = base_of(rest, &part) {
            rest[at].sidecars.push((part.name.clone(), Class::Guarded));
        }
        discarded.push(part);
    }
    rest.extend(alone);
}

/// Where the name stands that would be the database of `entry`, were that a log or a journal.
fn base_of(wanted: &[Wanted], entry: &Entry) -> Option<usize> {
    let base = sidecar_of(&entry.name)?;
    wanted.binary_search_by(|found| (*found.name).cmp(base)).ok()
}

/// Captures what would be the log or the journal of a name, now that it is known what that is.
fn capture_sidecar(capturer: &Capturer<'_>, outcome: &Outcome, name: &[u8], class: Class) -> io::Result<Outcome> {
    match outcome {
        Outcome::Taken(entry) if matches!(entry.held, Held::Database(_)) => of_database(capturer, name, class),
        Outcome::Taken(entry) => capturer.capture(name, class, entry.marks.database),
        Outcome::Noted(_) => capturer.capture(name, class, false),
        // The next listing decides about both.
        Outcome::Moved => Ok(Outcome::Moved),
    }
}

/// The log, journal or index of a database is in the copy of that; what only has such a name is a file as any other.
fn of_database(capturer: &Capturer<'_>, name: &[u8], class: Class) -> io::Result<Outcome> {
    match capturer.is_sidecar(name)? {
        true => Ok(Outcome::Noted(Fate::folded_into(sidecar_of(name).unwrap_or(name)))),
        false => capturer.capture(name, class, false),
    }
}

/// The entry of a subdirectory; its metadata is its node's.
fn directory_entry(name: Leaf, ino: u64, parent: &Stat, child: NodeId) -> Entry {
    let stat = Stat { kind: Kind::Directory, ino, ..*parent };
    Entry { name, stat, held: Held::Directory(child), xattrs: None, fingerprint: None, marks: Marks::default() }
}

/// Gives up what holds an entry in staging.
pub(super) fn give_up(place: &Place, entry: &Entry) {
    if let (Some(staging), Some(staged)) = (&place.staging, entry.held.staged()) {
        staging.give_up(staged);
    }
}
