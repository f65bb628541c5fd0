//! Oracles for names: could this set of names have existed at one instant?

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::log::{Life, Log, NameOp, Span};

/// How many differing names an error message lists.
const SHOWN: usize = 6;

impl Log {
    /// Ok if there is a moment in `from_ns..=to_ns` at which the names that the log knows can have been exactly
    /// `archived` (names in it that the log does not know are not judged).
    pub fn names_possible_at(&self, from_ns: u64, to_ns: u64, archived: &BTreeSet<PathBuf>) -> Result<(), String> {
        let agrees = |path: &Path, bound: Option<usize>| bound.is_some() == archived.contains(path);
        self.possible_at(from_ns, to_ns, agrees)
    }

    /// The stronger question: each name bound to the inode that was archived under it.
    pub fn bindings_possible_at(
        &self,
        from_ns: u64,
        to_ns: u64,
        archived: &BTreeMap<PathBuf, u64>,
    ) -> Result<(), String> {
        let agrees = |path: &Path, bound: Option<usize>| {
            bound.map(|incarnation| self.incarnations[incarnation].inode) == archived.get(path).copied()
        };
        self.possible_at(from_ns, to_ns, agrees)
    }

    /// The names that were certainly bound to one and the same inode from `from_ns` to `to_ns`, with that inode.
    pub fn existed_throughout(&self, from_ns: u64, to_ns: u64) -> Vec<(PathBuf, u64)> {
        let lasting = |life: &&Life| life.born.after <= from_ns && life.gone.is_none_or(|gone| gone.before >= to_ns);
        self.lives.iter().filter_map(|(path, lives)| Some((path.clone(), lives.iter().find(lasting)?.inode))).collect()
    }

    /// The names that can have existed at some moment from `from_ns` to `to_ns`.
    pub fn may_have_existed(&self, from_ns: u64, to_ns: u64) -> BTreeSet<PathBuf> {
        self.lives
            .iter()
            .filter(|(_, lives)| lives.iter().any(|life| life.touches(from_ns, to_ns)))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Walks through the moments between the borders of the operations, and asks at each.
    fn possible_at(&self, from: u64, to: u64, agrees: impl Fn(&Path, Option<usize>) -> bool) -> Result<(), String> {
        if from > to {
            return Err(format!("no moment lies between {from} and {to}"));
        }
        // Before that moment not even what was always there is there.
        let from = from.max(Span::ALWAYS.after);
        let mut sweep = Sweep::new(self, agrees);
        let mut borders = borders(&self.ops).into_iter().peekable();
        while let Some(border) = borders.next_if(|border| border.at <= from) {
            sweep.cross(&border);
        }
        let mut nearest = sweep.difference(from);
        for border in borders.take_while(|border| border.at <= to) {
            sweep.cross(&border);
            if sweep.wrong.len() < nearest.wrong.len() {
                nearest = sweep.difference(border.at);
            }
        }
        nearest.verdict(from, to)
    }
}

impl Life {
    /// Whether it can have been going on at some moment between the two.
    pub(super) fn touches(&self, from: u64, to: u64) -> bool {
        self.born.before <= to && self.gone.is_none_or(|gone| gone.after >= from)
    }
}

/// The beginning or the end of an operation.
struct Border<'a> {
    at: u64,
    begins: bool,
    op: &'a NameOp,
}

/// At one and the same time ends come first: so the next operation on a name never begins inside the last one.
fn borders(ops: &[NameOp]) -> Vec<Border<'_>> {
    let border = |op, at, begins| Border { at, begins, op };
    let mut borders: Vec<Border<'_>> =
        ops.iter().flat_map(|op| [border(op, op.span.before, true), border(op, op.span.after, false)]).collect();
    borders.sort_by_key(|border| (border.at, border.begins));
    borders
}

/// The state of all names while time moves on.
struct Sweep<'a, F> {
    agrees: F,
    /// What each name is bound to by the operations that are over.
    now: BTreeMap<&'a Path, Option<usize>>,
    /// The names that cannot be as the archive has them, however the operations under way are counted.
    wrong: BTreeSet<&'a Path>,
}

impl<'a, F: Fn(&Path, Option<usize>) -> bool> Sweep<'a, F> {
    /// Before the first operation there is no name at all.
    fn new(log: &'a Log, agrees: F) -> Self {
        let now: BTreeMap<&Path, Option<usize>> = log.names().map(|path| (path, None)).collect();
        let wrong = now.keys().copied().filter(|path| !agrees(path, None)).collect();
        Sweep { agrees, now, wrong }
    }

    fn cross(&mut self, border: &Border<'a>) {
        match border.begins {
            true => self.begin(border.op),
            false => self.end(border.op),
        }
    }

    /// From here on the operation may be done or not, but all its names go one way together.
    fn begin(&mut self, op: &'a NameOp) {
        let flips = || op.flips.iter();
        let undone = flips().all(|(path, _)| (self.agrees)(path, self.now[path.as_path()]));
        let done = flips().all(|(path, bound)| (self.agrees)(path, *bound));
        for (path, _) in &op.flips {
            self.judge(path, undone || done);
        }
    }

    fn end(&mut self, op: &'a NameOp) {
        for (path, bound) in &op.flips {
            self.now.insert(path, *bound);
            self.judge(path, (self.agrees)(path, *bound));
        }
    }

    fn judge(&mut self, path: &'a Path, right: bool) {
        match right {
            true => self.wrong.remove(path),
            false => self.wrong.insert(path),
        };
    }

    fn difference(&self, at: u64) -> Difference {
        let told = |path: &&Path| match self.now[path] {
            Some(_) => format!("{} (was there)", path.display()),
            None => format!("{} (was not there)", path.display()),
        };
        Difference { at, wrong: self.wrong.iter().map(told).collect() }
    }
}

/// What cannot be explained at one moment.
struct Difference {
    at: u64,
    wrong: Vec<String>,
}

impl Difference {
    fn verdict(self, from: u64, to: u64) -> Result<(), String> {
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(format!(
            "these names never were so together between {from} and {to}; nearest at +{} ns, {} wrong: {}",
            self.at.saturating_sub(from),
            self.wrong.len(),
            self.wrong[..self.wrong.len().min(SHOWN)].join(", ")
        ))
    }
}
