//! From what is held to a plain tree: what nobody moved since is linked, what cannot be is copied as it was promised.

use std::io;

use super::Stand;
use crate::archive::{Body, Contents, Exact, FirstNames, Place, Reading, SMALL};
use crate::entry::{Stat, Xattrs};
use crate::event::{Event, Observer};
use crate::fate::Fate;
use crate::freeze::{Ablation, Entry, Found, Frozen, Held, Node};
use crate::gate;
use crate::relpath::joined;
use crate::report::{Counts, Fated, PathName};
use crate::sys::Dir;
use crate::tree::{Meta, Tree};

/// Where half-written records are laid out, by the absolute paths of the files that they were cut off.
pub(super) const TAILS: &[u8] = b"tails";

/// A tree being laid out.
pub(super) struct Layout<'a> {
    stand: &'a Stand,
    tree: Tree,
    reading: Reading,
    observer: &'a dyn Observer,
    linked: FirstNames,
    /// For each entry in the order of the walk, whether its owner can still write to it.
    live: Vec<bool>,
    counts: Counts,
    done: u64,
}

/// A tree that was laid out.
pub(super) struct Laid<'a> {
    stand: &'a Stand,
    live: Vec<bool>,
    /// What it holds.
    pub(super) counts: Counts,
    /// What could not be laid out as it was, though its contents were.
    pub(super) differences: Vec<Fated>,
}

fn meta(stat: &Stat, xattrs: &Xattrs) -> Meta {
    Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, xattrs: xattrs.clone() }
}

impl<'a> Layout<'a> {
    pub(super) fn new(stand: &'a Stand, ablation: Option<Ablation>, observer: &'a dyn Observer) -> Self {
        Self {
            stand,
            tree: Tree::new(stand.staging.dir().clone()),
            reading: Reading::new(ablation),
            observer,
            linked: FirstNames::default(),
            live: Vec::new(),
            counts: Counts::default(),
            done: 0,
        }
    }

    /// Lays everything out, and enters what became of it.
    ///
    /// # Errors
    /// Those of the place where it is laid out, such as a full disk; the cancellation of the run. Trouble with the source
    /// is a fate.
    pub(super) fn of(mut self, frozen: &mut Frozen) -> io::Result<Laid<'a>> {
        frozen.hand_on(|walk, note| {
            for found in walk {
                note(found, self.found(found)?);
            }
            Ok(())
        })?;
        self.tree.finish()?;
        let Self { stand, tree, live, counts, .. } = self;
        let told = tree.differences.into_iter();
        let differences =
            told.map(|told| Fated { path: stand.origin(&told.path), fate: "different", reason: Some(told.what) });
        Ok(Laid { stand, live, counts, differences: differences.collect() })
    }

    fn found(&mut self, Found { base, node, entry }: Found<'_>) -> io::Result<Fate> {
        let above = self.stand.directory(base, node);
        match entry {
            None => self.directory(&above, node).map(|()| Fate::Kept),
            Some(entry) => self.entry(&joined(&above, &entry.name), Place { base, node, entry }),
        }
    }

    fn directory(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        let Some(stat) = node.stat else { return Ok(()) };
        self.counts.directories += 1;
        self.tree.directory(path, meta(&stat, &node.xattrs))
    }

    fn entry(&mut self, path: &[u8], place: Place<'_>) -> io::Result<Fate> {
        let entry = place.entry;
        let before = self.live.len();
        let fate = match &entry.held {
            Held::Symlink(target) => {
                self.tree.symlink(path, &meta(&entry.stat, &Xattrs::new()), target)?;
                Fate::Kept
            }
            _ => match self.second_name(path, entry)? {
                Some(fate) => fate,
                None => self.file(path, place)?,
            },
        };
        self.live.resize(before + 1, false);
        if !self.live[before]
            && let (Some(staging), Some(staged)) = (&place.node.place.staging, entry.held.staged())
        {
            staging.give_up(staged);
        }
        self.counts.files += u64::from(fate.is_archived());
        self.done += entry.stat.size;
        self.observer.on(Event::Archived { bytes: self.done });
        Ok(fate)
    }

    /// Lays out another name of a file that has its place already, whose fate it shares; `None` if it is none.
    fn second_name(&mut self, path: &[u8], entry: &Entry) -> io::Result<Option<Fate>> {
        let Some((first, fate)) = self.linked.of(entry) else { return Ok(None) };
        self.tree.settle()?;
        let root = self.tree.root().clone();
        let is_linked = self.tree.hard_link(path, &meta(&entry.stat, &Xattrs::new()), &root, first, first)?;
        Ok(is_linked.then_some(fate))
    }

    fn file(&mut self, path: &[u8], place: Place<'_>) -> io::Result<Fate> {
        if !self.live_link(path, place)? {
            return self.frozen_file(path, place);
        }
        self.live.push(true);
        self.counts.bytes += place.entry.stat.size;
        self.linked.note(place.entry, &place.entry.stat, path, &Fate::Kept);
        Ok(Fate::Kept)
    }

    /// Whether the second name that holds the file could be given its place: it is large, and nobody wrote to it, by all
    /// that is known.
    ///
    /// Its owner can still write to such a file while the command reads it. What is small takes hardly longer to copy,
    /// and then nobody can.
    fn live_link(&mut self, path: &[u8], place: Place<'_>) -> io::Result<bool> {
        let (Held::Link(staged), marks) = (&place.entry.held, place.entry.marks) else { return Ok(false) };
        if place.entry.stat.size <= SMALL && !self.stand.only_links {
            return Ok(false);
        }
        if place.entry.fingerprint.is_some() || marks.hot || marks.unproven || marks.database {
            return Ok(false);
        }
        let staging = place.staging()?;
        let rests = gate::tolerate(staging.stat(*staged))?.is_some_and(|now| now.same_contents(&place.entry.stat));
        let (from, name) = staging.find(*staged)?;
        Ok(rests && self.tree.move_in(path, &from, &name)?)
    }

    fn frozen_file(&mut self, path: &[u8], place: Place<'_>) -> io::Result<Fate> {
        let contents = match self.reading.contents(place) {
            Ok(contents) => contents,
            Err(error) if gate::is_cancelled(&error) => return Err(error),
            Err(error) => return Ok(Fate::Lost(format!("cannot be read: {error}").into())),
        };
        let meta = meta(&contents.stat, &contents.xattrs);
        let fate = self.contents(path, &meta, &contents, place)?;
        if let Some(tail) = &contents.tail {
            let path = joined(TAILS, self.stand.origin(path).0.strip_prefix(b"/").unwrap_or_default());
            self.tree.file(&path, &meta, &mut &tail[..])?;
            self.counts.tails += 1;
        }
        self.counts.bytes += contents.size;
        self.linked.note(place.entry, &contents.stat, path, &fate);
        Ok(fate)
    }

    fn contents(&mut self, path: &[u8], meta: &Meta, contents: &Contents<'_>, place: Place<'_>) -> io::Result<Fate> {
        let fate = contents.fate.clone();
        let source = match &contents.body {
            Body::Bytes(bytes) => {
                self.tree.file(path, meta, &mut &bytes[..])?;
                return Ok(fate);
            }
            Body::Own(source, staged) => {
                let (from, name) = place.staging()?.find(*staged)?;
                if self.tree.take(path, meta, contents.size, &from, &name)? {
                    return Ok(fate);
                }
                source
            }
            Body::File(source) => source,
        };
        source.expect_sequential();
        let mut exact = Exact::new(source, contents.size);
        self.tree.file(path, meta, &mut exact)?;
        Ok(contents.touched(exact.shortfall(), source)?.unwrap_or(fate))
    }
}

impl Laid<'_> {
    /// The files that moved since they were laid out, by what their owners, or the command, did to them.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(super) fn touched(&self, frozen: &Frozen) -> io::Result<Vec<Fated>> {
        let mut found = Vec::new();
        let mut last: Option<(Vec<u8>, Option<Dir>)> = None;
        let entries = frozen.walk().filter_map(|Found { base, node, entry }| Some((base, node, entry?)));
        for ((base, node, entry), _) in entries.zip(&self.live).filter(|(_, live)| **live) {
            let above = self.stand.directory(base, node);
            if last.as_ref().is_none_or(|(path, _)| *path != above) {
                let opened = gate::tolerate(self.stand.staging.dir().unstoppable().open_dir(&above))?;
                last = Some((above.clone(), opened));
            }
            let dir = last.as_ref().and_then(|(_, dir)| dir.as_ref());
            let now = dir.and_then(|dir| dir.stat(&entry.name).ok());
            if let Some(reason) = how_touched(&entry.stat, now.as_ref()) {
                let path: PathName = self.stand.origin(&joined(&above, &entry.name));
                found.push(Fated { path, fate: "touched", reason: Some(reason) });
            }
        }
        Ok(found)
    }
}

/// What became of a file while the command ran; nothing, if it rested.
fn how_touched(then: &Stat, now: Option<&Stat>) -> Option<String> {
    match now {
        None => Some("removed from the staged tree".to_owned()),
        Some(now) if now.id() != then.id() => Some("replaced in the staged tree".to_owned()),
        Some(now) if now.same_contents(then) => None,
        Some(now) if now.size == then.size => Some(format!("written to, still {} bytes", { then.size })),
        Some(now) => Some(format!("written to, {} bytes before, {} after", { then.size }, { now.size })),
    }
}
