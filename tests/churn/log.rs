//! The ground truth: what happened to every name and to every content, and when.
//!
//! A clock cannot be read at the same instant as a system call takes effect, so everything has a [`Span`]: the
//! effect fell somewhere inside. The rule that makes this exact enough to judge by: **one name belongs to one
//! thread**, so the operations on one name never overlap, while those on different names do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock just before and just after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub before: u64,
    pub after: u64,
}

impl Span {
    /// For what was there before the log began.
    pub const ALWAYS: Span = Span { before: 0, after: 1 };

    pub fn new(before: u64, after: u64) -> Self {
        assert!(before < after, "an operation takes time: {before} to {after}");
        Span { before, after }
    }
}

/// One system call that changed names. All its flips happen at one instant inside its span.
#[derive(Clone, Debug)]
pub struct NameOp {
    pub span: Span,
    /// Each name with the incarnation that it is bound to from then on.
    pub flips: Vec<(PathBuf, Option<usize>)>,
}

/// The time for which a name was bound to one incarnation.
#[derive(Clone, Debug)]
pub struct Life {
    pub born: Span,
    pub gone: Option<Span>,
    /// Index into [`Log::incarnations`]. An inode number alone names nothing: it is used again after an unlink.
    pub incarnation: usize,
    pub inode: u64,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file was there, or came to be, with this length.
    Found,
    /// Bytes were added at the end.
    Append,
    /// `O_TRUNC`: a new generation begins, empty.
    Truncate,
}

/// The content after one write: the first `len` bytes of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    pub span: Span,
    pub change: Change,
    pub generation: usize,
    pub len: usize,
}

/// One inode from its creation to its end, with all it ever held.
#[derive(Clone, Debug)]
pub struct Incarnation {
    pub inode: u64,
    pub versions: Vec<Version>,
    /// Each truncation begins a new one; a version is a prefix of its generation.
    pub generations: Vec<Vec<u8>>,
}

impl Incarnation {
    /// What it holds after its last write.
    pub fn content(&self) -> &[u8] {
        self.generations.last().map_or(&[], Vec::as_slice)
    }

    fn push(&mut self, span: Span, change: Change) {
        let generation = self.generations.len() - 1;
        let len = self.generations[generation].len();
        self.versions.push(Version { span, change, generation, len });
    }
}

/// What one thread writes down while it works.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub ops: Vec<NameOp>,
    pub incarnations: Vec<Incarnation>,
    pub tally: BTreeMap<&'static str, u64>,
    /// Operations that failed; the log no longer tells the truth about their files.
    pub errors: Vec<String>,
}

impl Notes {
    /// A new inode, with the content that it has at first.
    pub fn incarnate(&mut self, span: Span, inode: u64, content: Vec<u8>) -> usize {
        let mut incarnation = Incarnation { inode, versions: Vec::new(), generations: vec![content] };
        incarnation.push(span, Change::Found);
        self.incarnations.push(incarnation);
        self.incarnations.len() - 1
    }

    pub fn appended(&mut self, incarnation: usize, span: Span, bytes: &[u8]) {
        let file = &mut self.incarnations[incarnation];
        if let Some(generation) = file.generations.last_mut() {
            generation.extend_from_slice(bytes);
        }
        file.push(span, Change::Append);
    }

    pub fn truncated(&mut self, incarnation: usize, span: Span) {
        let file = &mut self.incarnations[incarnation];
        file.generations.push(Vec::new());
        file.push(span, Change::Truncate);
    }

    pub fn bound(&mut self, span: Span, path: &Path, incarnation: usize) {
        self.op(span, vec![(path.to_owned(), Some(incarnation))]);
    }

    pub fn unbound(&mut self, span: Span, path: &Path) {
        self.op(span, vec![(path.to_owned(), None)]);
    }

    pub fn renamed(&mut self, span: Span, from: &Path, to: &Path, incarnation: usize) {
        self.op(span, vec![(from.to_owned(), None), (to.to_owned(), Some(incarnation))]);
    }

    pub fn found(&mut self, path: &Path, inode: u64, content: Vec<u8>) -> usize {
        let incarnation = self.incarnate(Span::ALWAYS, inode, content);
        self.bound(Span::ALWAYS, path, incarnation);
        incarnation
    }

    pub fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn op(&mut self, span: Span, flips: Vec<(PathBuf, Option<usize>)>) {
        self.ops.push(NameOp { span, flips });
    }

    /// Takes in what another thread wrote down.
    fn absorb(&mut self, other: Notes) {
        let base = self.incarnations.len();
        self.incarnations.extend(other.incarnations);
        self.errors.extend(other.errors);
        self.ops.extend(other.ops.into_iter().map(|op| op.shifted(base)));
        for (what, times) in other.tally {
            *self.tally.entry(what).or_default() += times;
        }
    }
}

impl NameOp {
    fn shifted(mut self, base: usize) -> Self {
        for (_, incarnation) in &mut self.flips {
            *incarnation = incarnation.map(|index| index + base);
        }
        self
    }
}

/// The whole ground truth of one churn. The oracles are in `names.rs` and `contents.rs`.
#[derive(Clone, Debug)]
pub struct Log {
    pub started_ns: u64,
    pub ended_ns: u64,
    pub(super) ops: Vec<NameOp>,
    pub(super) lives: BTreeMap<PathBuf, Vec<Life>>,
    pub incarnations: Vec<Incarnation>,
    tally: BTreeMap<&'static str, u64>,
    errors: Vec<String>,
}

impl Log {
    pub fn new(started_ns: u64, ended_ns: u64, notes: Vec<Notes>) -> Self {
        let mut all = Notes::default();
        for one in notes {
            all.absorb(one);
        }
        // Operations on one name do not overlap, so this order is theirs.
        all.ops.sort_by_key(|op| op.span.before);
        Log {
            started_ns,
            ended_ns,
            lives: lives(&all.ops, &all.incarnations),
            ops: all.ops,
            incarnations: all.incarnations,
            tally: all.tally,
            errors: all.errors,
        }
    }

    /// The same log, knowing only the names that `keep` accepts.
    pub fn only(mut self, keep: impl Fn(&Path) -> bool) -> Self {
        for op in &mut self.ops {
            op.flips.retain(|(path, _)| keep(path));
        }
        self.ops.retain(|op| !op.flips.is_empty());
        self.lives.retain(|path, _| keep(path));
        self
    }

    /// Every name that ever was, relative to the state directory.
    pub fn names(&self) -> impl Iterator<Item = &Path> {
        self.lives.keys().map(PathBuf::as_path)
    }

    /// The times for which a name existed, in order.
    pub fn lives_of(&self, path: &Path) -> &[Life] {
        self.lives.get(path).map_or(&[], Vec::as_slice)
    }

    /// How often each operation was done.
    pub fn tally(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally
    }

    /// Operations that failed. A test begins by asserting that there are none.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let done: Vec<String> = self.tally.iter().map(|(what, times)| format!("{what} {times}")).collect();
        let failed = match self.errors.len() {
            0 => String::new(),
            count => format!(", failed {count} (first: {})", self.errors[0]),
        };
        match done.is_empty() {
            true => format!("did nothing{failed}"),
            false => format!("{}{failed}", done.join(", ")),
        }
    }
}

fn lives(ops: &[NameOp], incarnations: &[Incarnation]) -> BTreeMap<PathBuf, Vec<Life>> {
    let mut lives: BTreeMap<PathBuf, Vec<Life>> = BTreeMap::new();
    for op in ops {
        for (path, binding) in &op.flips {
            let of_name = lives.entry(path.clone()).or_default();
            if let Some(last) = of_name.last_mut() {
                last.gone.get_or_insert(op.span);
            }
            of_name.extend(binding.map(|incarnation| Life {
                born: op.span,
                gone: None,
                incarnation,
                inode: incarnations[incarnation].inode,
            }));
        }
    }
    lives
}
