//! What is left out, and how each file that stays may be frozen.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::exclude::Excludes;
use super::habits;
use super::path_set::{PathSet, within};
use crate::entry::Kind;
use crate::naming::{is_partial_name, is_staging_name, is_swap_name};

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is archived; a file is frozen in a way that its class allows.
    Keep(Class),
    /// It is left out, and so is what it holds, by the rule of this name: `socket`, `special-file`, `clawsnap`,
    /// `workspace`, `pid`, `lock`, `temporary`, `regenerable:…`, `exclude:<pattern>`.
    Exclude(&'a str),
}

/// How the owner treats a file; decides how it may be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The owner reads it whatever its nlink and ctime: it may be hard-linked.
    Linkable,
    /// The owner refuses it while it has a second name, or may do so: it is never linked.
    Guarded,
}

/// What is left out of each root, and how each file that stays may be frozen.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    roots: Vec<RootRules>,
    excludes: Excludes,
    include_regenerable: bool,
}

impl Rules {
    pub(super) fn new(roots: Vec<RootRules>, excludes: Excludes, include_regenerable: bool) -> Self {
        Self { roots, excludes, include_regenerable }
    }

    /// What becomes of `path` in the root of index `root`.
    ///
    /// The path is relative to the root, its components joined by `/`, and not empty. What an excluded directory
    /// holds need not be asked about.
    #[inline]
    pub fn judge(&self, root: usize, path: &[u8], kind: Kind) -> Verdict<'_> {
        let name = path.rsplit(|&c| c == b'/').next().unwrap_or(path);
        if let Some(rule) = unarchivable(kind).or_else(|| of_our_own(name, kind)) {
            return Verdict::Exclude(rule);
        }
        let Some(rules) = self.roots.get(root) else { return Verdict::Keep(Class::Guarded) };
        if let Some(rule) = self.excludes.find(&rules.path, path, name, kind) {
            return Verdict::Exclude(rule);
        }
        rules.judge(path, name, kind, self.include_regenerable)
    }

    /// The class of a root that is a single file.
    pub fn class_of_root(&self, root: usize) -> Class {
        let Some(rules) = self.roots.get(root) else { return Class::Guarded };
        let name = rules.path.file_name().unwrap_or_default();
        rules.class(b"", name.as_bytes(), Kind::File)
    }
}

fn unarchivable(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Socket => Some("socket"),
        Kind::Fifo | Kind::Device => Some("special-file"),
        Kind::File | Kind::Directory | Kind::Symlink => None,
    }
}

/// Our own staging directories and unfinished archives.
#[inline]
fn of_our_own(name: &[u8], kind: Kind) -> Option<&'static str> {
    let ours = match kind {
        Kind::Directory => is_staging_name(name) || is_partial_name(name) || is_swap_name(name),
        Kind::File => is_partial_name(name),
        _ => false,
    };
    ours.then_some("clawsnap")
}

/// The rules of one root. All paths are relative to it.
#[derive(Clone, Debug)]
pub(super) struct RootRules {
    path: PathBuf,
    /// The class of what no rule speaks of.
    base: Class,
    /// Sessions are guarded as well: the version that owns them refuses those with a second name.
    guards_sessions: bool,
    /// Where OpenClaw's state directory is, if it is the root or in it and its rules apply.
    state: Option<Vec<u8>>,
    /// Parts of a plain tree that OpenClaw reads through a guard.
    guarded: PathSet,
    /// Workspaces: no habit of the state directory holds there.
    foreign: PathSet,
    /// Directories of agents outside `agents/<id>/agent`: only one habit holds there.
    agents: PathSet,
    /// Workspaces that shall not be in the archive.
    left_out: PathSet,
    /// What the config names: it stays although it lies in a place that is left out.
    protected: Vec<Vec<u8>>,
}

impl RootRules {
    /// The rules of a plain tree.
    pub(super) fn plain(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            base: Class::Linkable,
            guards_sessions: false,
            state: None,
            guarded: PathSet::default(),
            foreign: PathSet::default(),
            agents: PathSet::default(),
            left_out: PathSet::default(),
            protected: Vec::new(),
        }
    }

    /// The rules of a tree that OpenClaw reads through a guard.
    pub(super) fn guarded(path: &Path) -> Self {
        Self { base: Class::Guarded, ..Self::plain(path) }
    }

    /// Guards sessions too, where the version says so.
    pub(super) fn guard_sessions(self, guards_sessions: bool) -> Self {
        Self { guards_sessions, ..self }
    }

    /// Applies the rules of OpenClaw's state directory at `state`, where that is in this root.
    pub(super) fn state(mut self, state: &Path) -> Self {
        self.state = self.relative(state);
        self
    }

    /// Guards `paths`.
    pub(super) fn guard<'a>(mut self, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        self.guarded = self.set(paths);
        self
    }

    /// Names the workspaces and the agents' directories that lie elsewhere than OpenClaw puts them.
    pub(super) fn foreign<'a>(
        mut self,
        workspaces: impl IntoIterator<Item = &'a Path>,
        agents: impl IntoIterator<Item = &'a Path>,
    ) -> Self {
        self.agents = self.set(agents.into_iter().filter(|path| !self.holds_state(path)));
        let workspaces: Vec<Vec<u8>> = self.inside(workspaces.into_iter().filter(|path| !self.holds_state(path)));
        self.foreign = PathSet::of(workspaces);
        self
    }

    /// Leaves out the workspaces at `paths`, but for one that holds the state directory.
    pub(super) fn leave_out<'a>(mut self, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        self.left_out = self.set(paths.into_iter().filter(|path| !self.holds_state(path)));
        self
    }

    /// Keeps `paths` although they lie in a place that is left out.
    pub(super) fn protect<'a>(mut self, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        self.protected = self.inside(paths);
        self
    }

    fn holds_state(&self, path: &Path) -> bool {
        let state = self.state.as_deref().map(|state| within_path(&self.path, state));
        state.is_some_and(|state| state.starts_with(path))
    }

    fn relative(&self, path: &Path) -> Option<Vec<u8>> {
        path.strip_prefix(&self.path).ok().map(|rest| rest.as_os_str().as_bytes().to_vec())
    }

    fn inside<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Vec<Vec<u8>> {
        paths.into_iter().filter_map(|path| self.relative(path)).collect()
    }

    fn set<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> PathSet {
        PathSet::of(self.inside(paths))
    }

    #[inline]
    fn judge(&self, path: &[u8], name: &[u8], kind: Kind, include_regenerable: bool) -> Verdict<'static> {
        if let Some(place) = self.left_out.covering(path)
            && !self.is_protected(path, place)
        {
            return Verdict::Exclude("workspace");
        }
        if !include_regenerable && let Some(rule) = self.habit(path, name, kind) {
            return Verdict::Exclude(rule);
        }
        Verdict::Keep(self.class(path, name, kind))
    }

    #[inline]
    fn habit(&self, path: &[u8], name: &[u8], kind: Kind) -> Option<&'static str> {
        if self.agents.covers(path) {
            return (kind == Kind::File && habits::is_sqlite_scratch(name)).then_some("regenerable:sqlite-scratch");
        }
        let inner = self.in_state(path)?;
        if self.foreign.covers(path) {
            return None;
        }
        let habit = habits::of_state(inner, name, kind)?;
        let place = &path[..path.len() - inner.len() + habit.place.len()];
        (!self.is_protected(path, place)).then_some(habit.rule)
    }

    /// Whether `path`, which a rule about `place` would leave out, is, holds or leads to something that the config
    /// put there.
    fn is_protected(&self, path: &[u8], place: &[u8]) -> bool {
        let mut put_there = self.protected.iter().filter(|protected| within(protected, place));
        put_there.any(|protected| within(path, protected) || within(protected, path))
    }

    /// `path` relative to the state directory, if it lies in it.
    #[inline]
    fn in_state<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let state = self.state.as_deref()?;
        let rest = path.strip_prefix(state)?;
        if state.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }

    #[inline]
    fn class(&self, path: &[u8], name: &[u8], kind: Kind) -> Class {
        let linkable = match self.base {
            Class::Linkable => !self.is_guarded(path, name),
            Class::Guarded => {
                let inner = self.in_state(path).filter(|_| !self.foreign.covers(path));
                let may = kind == Kind::File && !self.guards_sessions;
                may && inner.is_some_and(|inner| habits::is_unguarded(inner, name))
            }
        };
        if linkable { Class::Linkable } else { Class::Guarded }
    }

    /// Whether a name in a plain tree is nevertheless read through a guard, as far as names can tell. A false yes
    /// costs time; a false no would stop a running agent.
    #[inline]
    fn is_guarded(&self, path: &[u8], name: &[u8]) -> bool {
        habits::is_database_name(name)
            || habits::is_bootstrap_name(name)
            || self.guarded.covers(path)
            || path.split(|&c| c == b'/').any(|part| habits::is_state_name(part) || habits::is_archive_name(part))
    }
}

fn within_path(root: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() { root.to_path_buf() } else { root.join(std::ffi::OsStr::from_bytes(relative)) }
}
