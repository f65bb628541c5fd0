//! How the entries of an archive of ours hang together: sorted, each in a directory that came before it, every second
//! name bound to a file, and every half-written record too.
//!
//! Directories are known from the order: what leads to an entry was met right before it. What is bound is only known
//! when the inventory is read, which tells the entries in the same order. So memory grows with the links alone.

use std::collections::HashMap;

use super::stranger::unproven;
use crate::archive::{Line, PAYLOAD, TAILS};
use crate::error::{Error, Result};
use crate::relpath::{shown, split, walk_order};

/// Longest path of a source: the kernel takes no longer one at a time.
const LONGEST_SOURCE: usize = 4096;

/// What is remembered of a path: half a hash stands for it.
pub(super) type Digest = [u8; 16];

pub(super) fn digest(path: &[u8]) -> Digest {
    let hash = blake3::hash(path);
    std::array::from_fn(|at| hash.as_bytes()[at])
}

/// Whether every part of `path` is a name.
pub(super) fn is_plain(path: &[u8]) -> bool {
    path.split(|&c| c == b'/').all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0))
}

/// Whether `path` lies beneath `dir`.
pub(super) fn lies_in(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// What holds the entries together that were met so far.
#[derive(Default)]
pub(super) struct Shape {
    /// The last path of the payload.
    last: Vec<u8>,
    /// The last path of what was set aside.
    last_tail: Vec<u8>,
    /// The entries that lead to the last path of the payload, itself among them.
    open: Vec<Open>,
    /// Where hard links lead, and whether the inventory has told a file there.
    links: HashMap<Digest, bool>,
    /// Files that the inventory says to be cut, and the length of what was cut off.
    cut: HashMap<Digest, u64>,
}

struct Open {
    /// Length of its path.
    length: usize,
    is_directory: bool,
}

impl Shape {
    /// Takes up the next entry of the payload.
    ///
    /// # Errors
    /// It comes twice or out of order, or lies in no directory of the archive.
    pub(super) fn payload(&mut self, below: &[u8], kind: &str, link: Option<&[u8]>) -> Result<()> {
        in_order(&self.last, below)?;
        while self.open.last().is_some_and(|open| !lies_in(below, &self.last[..open.length])) {
            self.open.pop();
        }
        let in_place = match self.open.last() {
            None => below.len() <= PAYLOAD.len() + LONGEST_SOURCE,
            Some(above) => above.is_directory && split(below).0.len() == above.length,
        };
        if !in_place {
            return Err(unproven(format!("{} lies in no directory of the archive", shown(below))));
        }
        self.open.push(Open { length: below.len(), is_directory: kind == "directory" });
        self.last = below.to_vec();
        if let ("hardlink", Some(target)) = (kind, link) {
            // What is not before it needs no inventory to be refused.
            if !is_plain(target) || !lies_in(target, PAYLOAD) || walk_order(target, below).is_ge() {
                return Err(leads_to_no_file(below, target));
            }
            self.links.insert(digest(target), false);
        }
        Ok(())
    }

    /// Takes up the next half-written record.
    ///
    /// # Errors
    /// It comes twice or out of order.
    pub(super) fn tail(&mut self, below: &[u8]) -> Result<()> {
        in_order(&self.last_tail, below)?;
        self.last_tail = below.to_vec();
        Ok(())
    }

    /// Takes up a line of the inventory, which is what the entry was.
    ///
    /// # Errors
    /// A hard link leads to no file before it; a half-written record was cut off no file.
    pub(super) fn line(&mut self, line: &Line) -> Result<()> {
        let path = line.path.bytes().unwrap_or_default();
        match line.kind.as_str() {
            "file" => {
                self.links.entry(digest(&path)).and_modify(|met| *met = true);
                if let Some(tail) = line.tail {
                    self.cut.insert(digest(path.strip_prefix(PAYLOAD).unwrap_or(&path)), tail);
                }
            }
            "hardlink" => {
                let target = line.link.as_ref().and_then(|link| link.bytes()).unwrap_or_default();
                if self.links.get(&digest(&target)) != Some(&true) {
                    return Err(leads_to_no_file(&path, &target));
                }
            }
            "tail" => {
                let file = path.strip_prefix(TAILS).unwrap_or(&path);
                if self.cut.remove(&digest(file)) != Some(line.size) {
                    return Err(unproven(format!("{} was cut off no file", shown(&path))));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// # Errors
    /// A half-written record is missing that a file is said to be cut by.
    pub(super) fn conclude(&self) -> Result<()> {
        if self.cut.is_empty() { Ok(()) } else { Err(unproven("a half-written record that was cut off is missing")) }
    }
}

fn leads_to_no_file(link: &[u8], target: &[u8]) -> Error {
    unproven(format!("{} is a hard link to {}, which is no file before it", shown(link), shown(target)))
}

/// Entries come sorted, so none can come twice.
fn in_order(last: &[u8], below: &[u8]) -> Result<()> {
    if !last.is_empty() && walk_order(last, below).is_ge() {
        return Err(unproven(format!("{} comes twice or out of order", shown(below))));
    }
    Ok(())
}
