//! Files with several names: the first is written out, and the others are links to it.

use std::collections::HashMap;

use crate::entry::{Stat, Timestamp};
use crate::fate::Fate;
use crate::freeze::Entry;

/// Where the first name of each hard-linked inode lies.
#[derive(Default)]
pub(crate) struct FirstNames(HashMap<(u64, u64), First>);

/// The first name of an inode, with the metadata that a second name of it must have too.
struct First {
    path: Box<[u8]>,
    size: u64,
    mtime: Timestamp,
    /// What became of it, where that is worth a line: it became of all its names.
    fate: Option<Box<Fate>>,
}

impl FirstNames {
    /// A file lies at `path`, by this metadata, and met this fate. What came in the place of the one that was held is not
    /// what the other names of that are bound to.
    pub(crate) fn note(&mut self, entry: &Entry, written: &Stat, path: &[u8], fate: &Fate) {
        let stat = entry.stat;
        if entry.may_have_other_names() && written.id() == stat.id() {
            let fate = (*fate != Fate::Kept).then(|| Box::new(fate.clone()));
            self.0.insert(stat.id(), First { path: path.into(), size: stat.size, mtime: stat.mtime, fate });
        }
    }

    /// Where the first name of the same file lies, and what became of it, if this is another one.
    pub(crate) fn of(&self, entry: &Entry) -> Option<(&[u8], Fate)> {
        let stat = entry.stat;
        if !entry.may_have_other_names() {
            return None;
        }
        // Where the inode was not kept alive, its number may have been given to another file: that one differs.
        let first = self.0.get(&stat.id()).filter(|first| first.size == stat.size && first.mtime == stat.mtime)?;
        Some((&first.path, first.fate.as_deref().cloned().unwrap_or(Fate::Kept)))
    }
}
