//! When a database was last written to, by the times of its files.

use std::io;
use std::time::Duration;

use super::{JOURNAL, WAL, sidecar};
use crate::entry::{Kind, Stat, Timestamp};
use crate::gate;
use crate::sys::{self, Dir};

/// What tells whether a database was written to: (inode, size, mtime) of its file, its log and its journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamps {
    pub(super) main: Option<Stat>,
    pub(super) others: [Option<Stat>; 2],
    /// Modified so lately that the next change could leave no mark.
    pub(super) young: bool,
}

impl Stamps {
    /// Looks at the files.
    ///
    /// # Errors
    /// Only the cancellation of the run: what cannot be looked at is not there.
    pub(super) fn look(dir: &Dir, name: &[u8], tick: Duration) -> io::Result<Self> {
        let now = sys::coarse_now();
        let look = |name: &[u8]| match dir.stat(name) {
            Ok(stat) if stat.kind == Kind::File => Ok(Some(stat)),
            Err(error) if gate::is_cancelled(&error) => Err(error),
            _ => Ok(None),
        };
        let (main, others) = (look(name)?, [look(&sidecar(name, WAL))?, look(&sidecar(name, JOURNAL))?]);
        let stamps = Self { main, others, young: false };
        let young = stamps.times().any(|time| time.is_fresh(now, tick));
        Ok(Self { young, ..stamps })
    }

    /// Bytes of all of them.
    pub(super) fn size(&self) -> u64 {
        self.main.iter().chain(self.others.iter().flatten()).map(|stat| stat.size).sum()
    }

    /// Whether it is written with a log, as far as that is there.
    pub(super) fn has_log(&self) -> bool {
        self.others[WAL].is_some()
    }

    /// Whether the file itself is the same, whatever became of its log or journal.
    pub(super) fn same_main(&self, other: &Self) -> bool {
        self.main.zip(other.main).is_some_and(|(a, b)| a.same_contents(&b))
    }

    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.times().max()
    }

    fn times(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.main.iter().chain(self.others.iter().flatten()).map(|stat| stat.mtime)
    }
}

impl PartialEq for Stamps {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Option<Stat>, b: &Option<Stat>| match (a, b) {
            (Some(a), Some(b)) => a.same_contents(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(&self.main, &other.main) && self.others.iter().zip(&other.others).all(|(a, b)| same(a, b))
    }
}
