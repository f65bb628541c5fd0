//! What an archive was made of, in a few bytes: whether the source still is what it was.
//!
//! A backup that may be the last for a while (`--if-changed`) marks its archive: with a hash of what was asked for, a hash
//! of the frozen tree, and its own length and time. The mark is an extended attribute of the archive itself: it appears
//! with it, goes with it, and cannot belong to another. The tree's hash covers every name with its kind, owner, mode and
//! identity (device, inode), length and time, the targets of symbolic links, and the contents of the databases' copies.
//! Times of directories are not in it, since every name is; nor are attributes of files that were not read at the freeze.
//!
//! On any doubt there is no hash: where there was no one instant, where something is lost, and where something was
//! written to so lately that the next change could have the same time.

use std::fmt;
use std::io;

use blake3::Hasher;

use crate::entry::{COARSEST, Kind, Stat, Timestamp, Xattrs};
use crate::fate::Fate;
use crate::freeze::{Entry, Frozen, Held, Node, Rest, State};
use crate::plan::{Plan, Request};
use crate::sys::Reader;

/// What this version hashes.
const FORMAT: &str = "1";

/// Bytes of a database's copy that are read at a time.
const BUFFER: usize = 256 * 1024;

/// What was asked for, and what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    asked: blake3::Hash,
    tree: blake3::Hash,
}

/// How the mark of an archive compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The archive was made of the same.
    Same,
    /// The same was asked for, and something else was there.
    Changed,
    /// Something else was asked for, or it is no mark of this archive.
    Other,
}

impl Seen {
    /// What `frozen` is; none where that could be mistaken for something else later.
    ///
    /// # Errors
    /// The copy of a database cannot be read; the cancellation of the run.
    pub(crate) fn of(frozen: &Frozen, plan: &Plan, request: &Request, how: &str) -> io::Result<Option<Self>> {
        let Rest::Instant(instant) = &frozen.rest else { return Ok(None) };
        if frozen.ledger.count(Fate::is_loss) > 0 {
            return Ok(None);
        }
        let mut tree = Tree { hasher: Hasher::new(), settled: instant.before(COARSEST), certain: true };
        let mut nodes: Vec<&Node> = frozen.nodes.iter().filter(|node| node.state != State::Gone).collect();
        nodes.sort_unstable_by(|a, b| (a.root, &a.path).cmp(&(b.root, &b.path)));
        for node in nodes {
            tree.node(node)?;
        }
        Ok(tree.certain.then(|| Self { asked: asked(plan, request, how), tree: tree.hasher.finalize() }))
    }

    /// The mark of an archive with this metadata.
    pub(crate) fn mark(&self, archive: &Stat) -> String {
        format!("{FORMAT} {} {} {} {}", self.asked, self.tree, { archive.size }, archive.mtime)
    }

    /// What the mark of an archive with this metadata says.
    pub(crate) fn compare(&self, mark: &[u8], archive: &Stat) -> Mark {
        let own = format!(" {} {}", { archive.size }, archive.mtime);
        let asked = format!("{FORMAT} {} ", self.asked);
        match mark.strip_prefix(asked.as_bytes()).and_then(|rest| rest.strip_suffix(own.as_bytes())) {
            None => Mark::Other,
            Some(tree) if tree == self.tree.to_string().as_bytes() => Mark::Same,
            Some(_) => Mark::Changed,
        }
    }
}

/// What decides which archive is made of a tree.
fn asked(plan: &Plan, request: &Request, how: &str) -> blake3::Hash {
    let mut hasher = Hasher::new();
    let Request { only_config, include_workspace, include_regenerable, exclude, .. } = request;
    field(&mut hasher, env!("CARGO_PKG_VERSION"));
    field(&mut hasher, how);
    field(&mut hasher, format_args!("{only_config} {include_workspace} {include_regenerable} {exclude:?}"));
    plan.roots.iter().for_each(|root| field(&mut hasher, format_args!("{:?} {:?}", root.kind, root.path)));
    plan.missing.iter().for_each(|missing| field(&mut hasher, format_args!("{:?} {:?}", missing.kind, missing.path)));
    hasher.finalize()
}

fn field(hasher: &mut Hasher, text: impl fmt::Display) {
    bytes(hasher, text.to_string().as_bytes());
}

/// With its length, so that no two rows of fields look alike.
fn bytes(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// The hash of a tree in the making.
struct Tree {
    hasher: Hasher,
    /// What was modified after this may be modified again without a trace.
    settled: Timestamp,
    certain: bool,
}

impl Tree {
    fn node(&mut self, node: &Node) -> io::Result<()> {
        bytes(&mut self.hasher, &node.root.to_le_bytes());
        bytes(&mut self.hasher, node.path.as_bytes());
        match &node.stat {
            Some(stat) => self.owned(stat),
            None => self.certain = false,
        }
        self.xattrs(&node.xattrs);
        bytes(&mut self.hasher, &(node.entries.len() as u64).to_le_bytes());
        node.entries.iter().try_for_each(|entry| self.entry(node, entry))
    }

    fn entry(&mut self, node: &Node, entry: &Entry) -> io::Result<()> {
        bytes(&mut self.hasher, &entry.name);
        if let Some(xattrs) = &entry.xattrs {
            self.xattrs(xattrs);
        }
        match &entry.held {
            // It is a node of its own.
            Held::Directory(_) => return Ok(()),
            Held::Symlink(target) => bytes(&mut self.hasher, target),
            Held::Database(database) => {
                self.owned(&entry.stat);
                let staging = node.place.staging.as_ref().ok_or_else(|| io::Error::other("has no copy"))?;
                return self.contents(&staging.open(database.finished()?.staged)?);
            }
            _ => {}
        }
        self.owned(&entry.stat);
        self.identity(&entry.stat);
        self.certain &= !entry.marks.unproven && !entry.marks.database;
        Ok(())
    }

    /// Whose it is, and who may do what with it.
    fn owned(&mut self, stat: &Stat) {
        let Stat { kind, mode, uid, gid, .. } = stat;
        field(&mut self.hasher, format_args!("{} {mode:o} {uid} {gid}", letter(*kind)));
    }

    /// What tells one file from another, and from its own past.
    fn identity(&mut self, stat: &Stat) {
        self.certain &= stat.mtime < self.settled;
        let Stat { dev, ino, size, mtime, .. } = *stat;
        field(&mut self.hasher, format_args!("{dev} {ino} {size} {mtime}"));
    }

    fn xattrs(&mut self, xattrs: &Xattrs) {
        for (name, value) in xattrs {
            bytes(&mut self.hasher, name);
            bytes(&mut self.hasher, value);
        }
    }

    fn contents(&mut self, copy: &Reader) -> io::Result<()> {
        let (mut hasher, mut buffer, mut at) = (Hasher::new(), vec![0; BUFFER], 0);
        loop {
            match copy.fill_at(&mut buffer, at)? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    at += n as u64;
                }
            }
        }
        bytes(&mut self.hasher, hasher.finalize().as_bytes());
        Ok(())
    }
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => 'f',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo | Kind::Socket | Kind::Device => 's',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(asked: &str, tree: &str) -> Seen {
        Seen { asked: blake3::hash(asked.as_bytes()), tree: blake3::hash(tree.as_bytes()) }
    }

    #[test]
    fn a_mark_speaks_for_the_archive_that_it_was_given_to_and_no_other() {
        let stat = crate::sys::Dir::open(
            std::path::Path::new("/"),
            crate::gate::Realm::Output,
            std::sync::Arc::new(crate::gate::CancelFlag::new()),
        )
        .and_then(|dir| dir.stat_self())
        .expect("is there");
        let mark = seen("a", "t").mark(&stat);
        let compare = |seen: Seen, stat: &Stat| seen.compare(mark.as_bytes(), stat);
        assert_eq!(compare(seen("a", "t"), &stat), Mark::Same);
        assert_eq!(compare(seen("a", "u"), &stat), Mark::Changed);
        assert_eq!(compare(seen("b", "t"), &stat), Mark::Other);
        assert_eq!(compare(seen("a", "t"), &Stat { size: stat.size + 1, ..stat }), Mark::Other);
        assert_eq!(compare(seen("a", "t"), &Stat { mtime: Timestamp { seconds: 1, nanos: 1 }, ..stat }), Mark::Other);
        assert_eq!(seen("a", "t").compare(b"", &stat), Mark::Other);
    }
}
