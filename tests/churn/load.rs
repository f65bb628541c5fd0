//! How much of what a churn does.

use std::collections::BTreeMap;

use super::rng::Rng;

/// One kind of operation, as OpenClaw does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A new session, under a fresh name or one that was there before.
    Create,
    /// Unlink a session, or an archived one.
    Delete,
    /// Rename to `….jsonl.deleted.<ts>` or `….jsonl.reset.<ts>`.
    Archive,
    /// One whole line by one write.
    Append,
    /// One line by two writes with a pause between.
    Split,
    /// A shorter version is renamed over the session, by way of `….truncate-tmp`.
    Compact,
    /// In place: `O_TRUNC`, then new content by several writes.
    Rewrite,
    /// `sessions.json` by way of a temporary file and a rename.
    Index,
    /// `….jsonl.lock` by `O_EXCL`, unlinked a millisecond later.
    Lock,
    /// A file goes to another directory, or back, by rename.
    Move,
}

/// What a churn does, how often, with how many hands.
#[derive(Clone, Debug)]
pub struct Load {
    pub seed: u64,
    pub threads: usize,
    /// Files that are moved between two directories.
    pub tokens: usize,
    /// Operations per second by kind, over all threads. A kind that is not here is not done.
    pub rates: BTreeMap<Kind, f64>,
}

impl Load {
    /// A quiet gateway with a few channels.
    pub fn light() -> Self {
        Load::of(2, [4.0, 3.0, 2.0, 20.0, 6.0, 2.0, 1.0, 6.0, 10.0, 2.0])
    }

    /// Busier than any gateway, and with no moment of rest.
    pub fn heavy() -> Self {
        Load::of(4, [40.0, 30.0, 15.0, 200.0, 60.0, 20.0, 15.0, 40.0, 100.0, 60.0])
    }

    /// Nothing but renames between directories: contents stand still, and only one instant explains a listing.
    pub fn moves_only() -> Self {
        let mut load = Load::of(2, [0.0; 10]).rate(Kind::Move, 150.0);
        load.tokens = 16;
        load
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub fn rate(mut self, kind: Kind, per_second: f64) -> Self {
        self.rates.insert(kind, per_second);
        self
    }

    /// Every rate multiplied.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.rates.values_mut().for_each(|rate| *rate *= factor);
        self
    }

    /// Without what rewrites content in place.
    pub fn without_rewrites(self) -> Self {
        self.rate(Kind::Rewrite, 0.0)
    }

    fn of(threads: usize, rates: [f64; 10]) -> Self {
        use Kind::{Append, Archive, Compact, Create, Delete, Index, Lock, Move, Rewrite, Split};
        let kinds = [Create, Delete, Archive, Append, Split, Compact, Rewrite, Index, Lock, Move];
        Load { seed: 1, threads, tokens: 4, rates: kinds.into_iter().zip(rates).collect() }
    }

    pub(super) fn total(&self) -> f64 {
        self.rates.values().sum()
    }

    pub(super) fn moves(&self) -> bool {
        self.tokens > 0 && self.rates.get(&Kind::Move).is_some_and(|rate| *rate > 0.0)
    }

    /// A kind, with the chance that its rate gives it.
    pub(super) fn choose(&self, rng: &mut Rng) -> Option<Kind> {
        let mut left = rng.unit() * self.total();
        self.rates.iter().find_map(|(kind, rate)| {
            left -= rate;
            (left < 0.0).then_some(*kind)
        })
    }
}
