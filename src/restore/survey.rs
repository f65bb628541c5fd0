//! The first of two readings: what an archive would restore, before anything is written.

use std::path::Path;
use std::sync::Arc;

use super::mapping::{Mapping, Unmet, below};
use super::{Remark, flagged};
use crate::archive::{Line, PAYLOAD};
use crate::error::Result;
use crate::event::Observer;
use crate::gate::Gate;
use crate::list::Wanted;
use crate::report::PathName;
use crate::verify::{Guest, Proof, Told, read_ours};

/// A source that was backed up.
#[derive(Debug)]
pub(super) struct Root {
    /// Its absolute path there.
    pub(super) path: Vec<u8>,
    /// Whether it was OpenClaw's state directory.
    pub(super) is_state: bool,
    /// Whether it was a directory, and not one file.
    pub(super) is_directory: bool,
    /// Names in it that are wanted.
    pub(super) names: u64,
    /// Bytes of their contents, without holes.
    pub(super) bytes: u64,
}

/// What an archive would restore.
pub(super) struct Survey {
    /// That it is what it should be.
    pub(super) proof: Proof,
    /// Where it all comes from, with what is wanted of it.
    pub(super) roots: Vec<Root>,
    /// What is wanted and not whole.
    pub(super) flagged: Vec<Remark>,
    /// Names that were lost when it was made, and so are not in it.
    pub(super) lost: Vec<Remark>,
    /// Names that a rule left out when it was made.
    pub(super) left_out: u64,
}

impl Survey {
    /// Reads an archive to its end.
    ///
    /// # Errors
    /// An archive that is not proven, or cannot be read; one that has nothing of a path that is mapped.
    pub(super) fn of(
        archive: &Path,
        (wanted, mapping): (&Wanted, &Mapping),
        gate: &Arc<dyn Gate>,
        observer: &dyn Observer,
    ) -> Result<Survey> {
        let (unmet, roots, flagged, lost) = (Unmet::of(mapping), Vec::new(), Vec::new(), Vec::new());
        let mut surveyor = Surveyor { wanted, unmet, roots, flagged, lost, left_out: 0 };
        let proof = read_ours(archive, gate, observer, &mut surveyor)?;
        surveyor.unmet.check()?;
        let Surveyor { mut roots, flagged, lost, left_out, .. } = surveyor;
        roots.retain(|root| root.names > 0);
        Ok(Survey { proof, roots, flagged, lost, left_out })
    }
}

struct Surveyor<'a> {
    wanted: &'a Wanted,
    unmet: Unmet,
    roots: Vec<Root>,
    flagged: Vec<Remark>,
    lost: Vec<Remark>,
    left_out: u64,
}

impl Surveyor<'_> {
    /// The root that `path` lies in. Entries come sorted, each root before what lies in it, and no root in another.
    fn root(&mut self, path: &[u8], kind: &str) -> &mut Root {
        let known = self.roots.last().is_some_and(|root| below(path, &root.path).is_some());
        if !known {
            let is_directory = kind == "directory";
            self.roots.push(Root { path: path.to_vec(), is_state: false, is_directory, names: 0, bytes: 0 });
        }
        let last = self.roots.len() - 1;
        &mut self.roots[last]
    }
}

/// Bytes that a file takes on disk: what was a hole becomes one again.
fn taken(line: &Line) -> u64 {
    line.allocated.map_or(line.size, |allocated| allocated.min(line.size))
}

impl Guest for Surveyor<'_> {
    fn line(&mut self, line: &Line) -> Result<()> {
        let stored = line.path.bytes().unwrap_or_default();
        let Some(path) = stored.strip_prefix(PAYLOAD) else { return Ok(()) };
        let (wanted, size) = (self.wanted.fits(path), if line.kind == "file" { taken(line) } else { 0 });
        self.unmet.meet(path);
        let root = self.root(path, &line.kind);
        if wanted {
            root.names += 1;
            root.bytes += size;
        }
        self.flagged.extend(flagged(line, self.wanted));
        Ok(())
    }

    fn report(&mut self, report: Told) {
        self.left_out = report.excluded.0;
        for loss in report.losses.iter().filter(|loss| loss.fate == "lost") {
            let what = format!("lost when the archive was made: {}", loss.reason);
            self.lost.extend(loss.path.bytes().map(|path| Remark { path: PathName(path), what }));
        }
        for source in report.assets.iter().filter(|source| source.kind == "state") {
            let path = source.source_path.bytes();
            self.roots
                .iter_mut()
                .filter(|root| Some(&root.path) == path.as_ref())
                .for_each(|root| root.is_state = true);
        }
    }
}
