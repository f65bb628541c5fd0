//! The frozen tree: what was listed, and what is held of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Base;
use super::capture::{Bytes, Pinned};
use super::choice::Capture;
use super::content::Fingerprint;
use super::database::Database;
use super::place::Place;
use super::staging::Staged;
use crate::entry::{Stamp, Stat, Xattrs};
use crate::fate::Fate;
use crate::relpath::{Leaf, RelPath};

/// The number of a directory among all that were met.
pub(crate) type NodeId = u32;

/// One directory.
pub(crate) struct Node {
    /// Which root it is below.
    pub(crate) root: u16,
    /// Its path below that root.
    pub(crate) path: RelPath,
    /// The directory that it was listed in.
    pub(crate) parent: Option<NodeId>,
    /// Its metadata, as of the last listing; `None` until it was opened.
    pub(crate) stat: Option<Stat>,
    /// Its extended attributes.
    pub(crate) xattrs: Xattrs,
    /// What it holds, sorted by name. Before the place, so that helpers are gone before their staging directory is.
    pub(crate) entries: Vec<Entry>,
    /// Where its files are staged.
    pub(crate) place: Place,
    /// Where it stands.
    pub(crate) state: State,
    /// What became of the other names that it was seen to hold.
    pub(crate) notes: BTreeMap<Leaf, Fate>,
    /// Names that were listed and then not there: the next listing decides.
    pub(crate) unresolved: Vec<Leaf>,
}

/// Where a directory stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// To be listed.
    Pending,
    /// Listed; any change after that moves the stamp, if it proves.
    Listed {
        /// Taken before the listing.
        stamp: Stamp,
        /// Whether the next change must move it.
        proves: bool,
    },
    /// There, but it could not be listed, for this reason.
    Hollow(Box<str>),
    /// No longer there.
    Gone,
}

/// One name, held.
pub(crate) struct Entry {
    /// The name.
    pub(crate) name: Leaf,
    /// The metadata at the freeze; the link count is without our own link.
    pub(crate) stat: Stat,
    /// What holds it.
    pub(crate) held: Held,
    /// Its extended attributes, where they were read at the freeze.
    pub(crate) xattrs: Option<Box<Xattrs>>,
    /// What proves that it was only appended to, where the contents are not frozen.
    pub(crate) fingerprint: Option<Box<Fingerprint>>,
    /// What is special about it.
    pub(crate) marks: Marks,
}

/// What is special about an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Modified within the hot window.
    pub(crate) hot: bool,
    /// Its contents kept moving while they were read.
    pub(crate) unproven: bool,
    /// Part of a SQLite database, copied raw.
    pub(crate) database: bool,
    /// Modified so shortly before it was captured that the next change could leave its mtime unmoved.
    pub(crate) young: bool,
    /// To be captured anew by the next visit.
    pub(crate) stale: bool,
}

/// What holds an entry.
pub(crate) enum Held {
    /// A directory of its own.
    Directory(NodeId),
    /// A symbolic link's target; boxed twice, as a box of bytes alone would make every entry longer.
    Symlink(Box<Box<[u8]>>),
    /// A second name.
    Link(Staged),
    /// Shared extents.
    Clone(Staged),
    /// A copy.
    Copy(Staged),
    /// The bytes.
    Hold(Box<Bytes>),
    /// An open descriptor.
    Pin(Box<Pinned>),
    /// A read transaction, and its copy afterwards.
    Database(Arc<Database>),
}

impl Entry {
    /// Whether other names can hold the same contents. Those of a database, and of its parts, are not the file's alone: its log
    /// and its journal are found by its name, so each name is copied by itself, and may come to other contents.
    pub(crate) fn may_have_other_names(&self) -> bool {
        let is_database = self.marks.database || matches!(self.held, Held::Database(_));
        self.stat.nlink > 1 && !is_database
    }
}

impl Held {
    /// By which capture it is held; none was needed for directories and symbolic links.
    pub(crate) fn capture(&self) -> Option<Capture> {
        match self {
            Self::Directory(_) | Self::Symlink(_) => None,
            Self::Link(_) => Some(Capture::Link),
            Self::Clone(_) => Some(Capture::Clone),
            Self::Copy(_) => Some(Capture::Copy),
            Self::Hold(_) => Some(Capture::Hold),
            Self::Pin(_) => Some(Capture::Pin),
            Self::Database(_) => Some(Capture::Database),
        }
    }

    /// The place in staging that this takes.
    pub(crate) fn staged(&self) -> Option<Staged> {
        match self {
            Self::Link(staged) | Self::Clone(staged) | Self::Copy(staged) => Some(*staged),
            Self::Database(database) => Some(database.staged()),
            _ => None,
        }
    }

    /// Whether the contents cannot move any more, but may be older than the instant that is found for the tree.
    pub(crate) fn freezes_contents(&self) -> bool {
        matches!(self, Self::Clone(_) | Self::Copy(_) | Self::Hold(_))
    }

    /// Whether it keeps the inode alive, so that its number cannot be given to another file. (A database that no
    /// helper has opened yet is not; there its stamps tell.)
    pub(crate) fn pins_inode(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Pin(_) | Self::Database(_))
    }
}

impl Node {
    /// A directory that is still to be listed.
    pub(crate) fn pending(root: u16, path: RelPath, parent: Option<NodeId>) -> Self {
        Self {
            root,
            path,
            parent,
            stat: None,
            xattrs: Xattrs::new(),
            place: Place::default(),
            state: State::Pending,
            entries: Vec::new(),
            notes: BTreeMap::new(),
            unresolved: Vec::new(),
        }
    }
}

/// A name that is held, with all that is needed to find it again.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    /// The root that it is below.
    pub(crate) base: &'a Base,
    /// The directory that it is in.
    pub(crate) node: &'a Node,
    /// The name; `None` for the directory itself.
    pub(crate) entry: Option<&'a Entry>,
}

/// A walk through what is held. Directories are told once, before what they hold; a root that is a single file has none.
pub(crate) struct Walk<'a> {
    bases: &'a [Base],
    nodes: &'a [Node],
    next_root: usize,
    /// Directories that were begun, each with what of it comes next: itself, then its entries.
    open: Vec<(NodeId, usize)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bases: &'a [Base], nodes: &'a [Node]) -> Self {
        Self { bases, nodes, next_root: 0, open: Vec::new() }
    }

    fn next_base(&mut self) -> Option<()> {
        let base = self.bases.get(self.next_root)?;
        self.open.push((NodeId::try_from(self.next_root).ok()?, usize::from(base.only.is_some())));
        self.next_root += 1;
        Some(())
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        loop {
            let Some((id, next)) = self.open.pop() else {
                self.next_base()?;
                continue;
            };
            let node = &self.nodes[id as usize];
            let base = &self.bases[usize::from(node.root)];
            let entry = match next.checked_sub(1).map(|at| node.entries.get(at)) {
                Some(None) => continue,
                Some(Some(entry)) => Some(entry),
                None => None,
            };
            self.open.push((id, next + 1));
            match entry.map(|entry| &entry.held) {
                Some(Held::Directory(child)) => self.open.push((*child, 0)),
                _ => return Some(Found { base, node, entry }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million files may take 400 MB, of which the windows of the compressor and of the proof are 150: what is held of
    /// each file, with a name of some fifty bytes and what the freeze itself needs, has to stay well below 250.
    #[test]
    fn what_is_held_of_a_file_takes_little_memory() {
        assert!(size_of::<Entry>() <= 136, "{}", size_of::<Entry>());
        assert!(size_of::<Stat>() <= 76, "{}", size_of::<Stat>());
        assert!(size_of::<Leaf>() <= 16, "{}", size_of::<Leaf>());
    }
}
