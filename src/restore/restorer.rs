//! Puts into trees what an archive holds, as it comes.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mapping::{Mapping, Unmet, below};
use super::{Remark, RestoreOptions, Restored};
use crate::archive::{Line, source_path};
use crate::error::{Error, Result};
use crate::gate;
use crate::relpath::joined;
use crate::report::PathName;
use crate::sys::Dir;
use crate::tree::{Meta, Tree};
use crate::verify::{Guest, Met, Noting};

/// What belongs to an entry.
fn meta(met: &Met<'_>) -> Meta {
    Meta { mode: met.mode, uid: met.uid, gid: met.gid, mtime: met.mtime, xattrs: met.xattrs.clone() }
}

/// A part of the archive, and the tree that it goes to.
pub(super) struct Site {
    /// The absolute path of the part.
    from: Vec<u8>,
    /// The path in the tree.
    to: Vec<u8>,
    tree: Tree,
    /// What the path in the tree stands for, for people.
    at: PathBuf,
}

/// Where a name goes.
struct Goal {
    site: usize,
    path: Vec<u8>,
}

impl Site {
    /// What was at `from` goes to `to` in `tree`, which shall be at `at`.
    pub(super) fn new(from: &[u8], tree: Dir, to: Vec<u8>, at: &Path) -> Self {
        Self { from: from.to_vec(), to, tree: Tree::new(tree), at: at.to_owned() }
    }

    /// Where in the tree a path of the archive goes.
    fn path(&self, archived: &[u8]) -> Option<Vec<u8>> {
        let path = joined(&self.to, below(archived, &self.from)?);
        // The tree's own directory is not the archive's to dress.
        (!path.is_empty()).then_some(path)
    }

    /// What a path in the tree stands for.
    fn shown(&self, path: &[u8]) -> PathBuf {
        let rest = below(path, &self.to).unwrap_or(path);
        if rest.is_empty() { self.at.clone() } else { self.at.join(OsStr::from_bytes(rest)) }
    }

    /// Trouble with a name below the target: files are made behind our back, so it may have been one before this.
    fn cannot_take(&self, path: &[u8], error: io::Error) -> Error {
        let failed = Error::failed("restore", self.shown(self.tree.failed_at().unwrap_or(path)), error);
        failed.if_full("free space there, or choose another --target")
    }

    /// The path in the archive that a path in the tree comes from.
    fn archived(&self, path: &[u8]) -> PathName {
        let from = self.from.strip_suffix(b"/").unwrap_or(&self.from);
        match below(path, &self.to).unwrap_or(path) {
            b"" => PathName(self.from.clone()),
            rest => PathName([from, b"/", rest].concat()),
        }
    }
}

/// Puts into trees what an archive holds.
pub(super) struct Restorer<'a> {
    sites: Vec<Site>,
    unmet: Unmet,
    mapping: Mapping,
    options: &'a RestoreOptions,
    restored: &'a mut Restored,
    failed: Option<Error>,
}

impl<'a> Restorer<'a> {
    pub(super) fn new(
        sites: Vec<Site>,
        mapping: Mapping,
        options: &'a RestoreOptions,
        restored: &'a mut Restored,
    ) -> Self {
        Self { sites, unmet: Unmet::of(&mapping), mapping, options, restored, failed: None }
    }

    /// Ends the trees, once the archive was read, and makes them durable if `sync` says so.
    ///
    /// # Errors
    /// Trouble with the target, which is no fault of the archive; that of the archive; nothing that was wanted, or is mapped.
    pub(super) fn finish<T>(mut self, outcome: Result<T>, sync: bool) -> Result<T> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let proof = outcome?;
        self.unmet.check()?;
        for site in &mut self.sites {
            let ended = site.tree.finish().and_then(|()| if sync { site.tree.sync() } else { Ok(()) });
            ended.map_err(|error| site.cannot_take(b"", error))?;
            self.restored.owners_not_kept += site.tree.owners_not_kept();
            let told = std::mem::take(&mut site.tree.differences).into_iter();
            let remarks = told.map(|told| Remark { path: site.archived(&told.path), what: told.what });
            self.restored.differences.extend(remarks);
        }
        if self.restored.files + self.restored.directories > 0 {
            return Ok(proof);
        }
        let first = self.restored.differences.first();
        let why = first.map(|remark| format!("{}: {}", crate::relpath::shown(&remark.path.0), remark.what));
        Err(Error::Usage(why.unwrap_or_else(super::nothing_fits)))
    }

    /// Where a name in the payload goes, wanted or not.
    fn goal(&self, archived: &[u8]) -> Option<Goal> {
        let mapped = self.mapping.apply(archived);
        let found = |(site, place): (usize, &Site)| Some(Goal { site, path: place.path(&mapped)? });
        self.sites.iter().enumerate().find_map(found)
    }

    fn is_wanted(&self, met: &Met<'_>, archived: &[u8]) -> bool {
        self.options.wanted.fits(archived) && (met.kind != "tail" || self.options.tails)
    }

    fn put(&mut self, met: &Met<'_>, goal: &Goal, contents: &mut dyn Read) -> io::Result<()> {
        let meta = meta(met);
        let tree = &mut self.sites[goal.site].tree;
        let link = met.link.unwrap_or_default();
        match met.kind {
            "directory" => tree.directory(&goal.path, meta)?,
            "symlink" => tree.symlink(&goal.path, &meta, link)?,
            "hardlink" => {
                if !self.hard_link(&goal.path, goal.site, &meta, link)? {
                    return Ok(());
                }
            }
            "tail" => self.restored.bytes += tree.tail(&goal.path, &meta, contents)?,
            _ => self.restored.bytes += tree.file(&goal.path, &meta, contents)?,
        }
        if met.kind == "directory" {
            self.restored.directories += 1;
        } else {
            self.restored.files += 1;
        }
        Ok(())
    }

    /// Whether the file that it is a second name of was restored.
    fn hard_link(&mut self, path: &[u8], site: usize, meta: &Meta, link: &[u8]) -> io::Result<bool> {
        let target = source_path(link).to_vec();
        let Some(first) = self.goal(&target) else {
            self.sites[site].tree.lacks(path, &target);
            return Ok(false);
        };
        self.sites[first.site].tree.settle()?;
        let from = self.sites[first.site].tree.root().clone();
        self.sites[site].tree.hard_link(path, meta, &from, &first.path, &target)
    }
}

impl Guest for Restorer<'_> {
    fn entry(&mut self, met: Met<'_>, contents: &mut dyn Read) -> io::Result<()> {
        let archived = source_path(met.path);
        self.unmet.meet(archived);
        let place = if met.kind == "tail" { [archived, b".tail"].concat() } else { archived.to_vec() };
        let Some(goal) = self.goal(&place) else { return Ok(()) };
        if !self.is_wanted(&met, archived) {
            if met.kind == "directory" {
                self.sites[goal.site].tree.remember(&goal.path, meta(&met));
            }
            return Ok(());
        }
        let mut reading = Noting::new(contents);
        match self.put(&met, &goal, &mut reading) {
            // What the archive's reader says is about the archive.
            Err(error) if reading.failed || gate::is_cancelled(&error) => Err(error),
            Err(error) => {
                self.failed = Some(self.sites[goal.site].cannot_take(&goal.path, error));
                Err(io::Error::other("the target cannot take it"))
            }
            Ok(()) => Ok(()),
        }
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        self.restored.flagged.extend(super::flagged(line, &self.options.wanted));
        Ok(())
    }
}
