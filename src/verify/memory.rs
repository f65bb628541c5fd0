//! What was met of an archive, to be held against its inventory.

use crate::archive::Facts;

/// The entries that were met, in their order: the start of each one's digest, which tells where the inventory says
/// something else, and one digest over all of them, which proves that it does so nowhere. Eight bytes an entry.
#[derive(Default)]
pub(super) struct Memory {
    starts: Vec<u64>,
    all: blake3::Hasher,
}

impl Memory {
    /// This entry comes next.
    pub(super) fn add(&mut self, facts: Facts) {
        self.starts.push(start(&facts));
        self.all.update(&facts.0);
    }

    /// Begins to hold an inventory against it.
    pub(super) fn recall(self) -> Recall {
        Recall { met: self.starts.into_iter(), all: self.all.finalize(), told: blake3::Hasher::new() }
    }
}

fn start(facts: &Facts) -> u64 {
    facts.0.iter().take(8).fold(0, |start, &byte| start << 8 | u64::from(byte))
}

/// How the next line of an inventory compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// With what was met: only the end proves it wholly.
    Same,
    /// It tells of something else.
    Other,
    /// No entry is left that it could tell of.
    Surplus,
}

/// What was met, while an inventory is held against it.
pub(super) struct Recall {
    met: std::vec::IntoIter<u64>,
    all: blake3::Hash,
    told: blake3::Hasher,
}

impl Recall {
    /// Holds the next line against the next entry.
    pub(super) fn line(&mut self, facts: Facts) -> Compared {
        self.told.update(&facts.0);
        match self.met.next() {
            None => Compared::Surplus,
            Some(met) if met == start(&facts) => Compared::Same,
            Some(_) => Compared::Other,
        }
    }

    /// Whether entries are left that no line told of.
    pub(super) fn is_left(&self) -> bool {
        self.met.len() > 0
    }

    /// Whether the lines told of exactly what was met.
    pub(super) fn proves(&self) -> bool {
        !self.is_left() && self.told.finalize() == self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recall(met: &[[u8; 32]]) -> Recall {
        let mut memory = Memory::default();
        met.iter().for_each(|&facts| memory.add(Facts(facts)));
        memory.recall()
    }

    #[test]
    fn what_was_met_in_its_order_proves_and_nothing_else() {
        let mut same = recall(&[[1; 32], [2; 32]]);
        assert_eq!(same.line(Facts([1; 32])), Compared::Same);
        assert!(same.is_left() && !same.proves());
        assert_eq!(same.line(Facts([2; 32])), Compared::Same);
        assert!(same.proves());
        assert_eq!(same.line(Facts([2; 32])), Compared::Surplus);
        assert!(!same.proves());
        assert_eq!(recall(&[[1; 32], [2; 32]]).line(Facts([2; 32])), Compared::Other);
    }

    #[test]
    fn digests_that_only_begin_alike_are_told_apart_at_the_end() {
        let mut other = [1; 32];
        other[31] = 9;
        let mut recall = recall(&[[1; 32]]);
        assert_eq!(recall.line(Facts(other)), Compared::Same);
        assert!(!recall.is_left() && !recall.proves());
    }
}
