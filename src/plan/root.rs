//! What is backed up, as trees that do not overlap.

use std::path::{Path, PathBuf};

/// What a root is to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssetKind {
    /// OpenClaw's state directory.
    State,
    /// A config file, or one that it includes.
    Config,
    /// The credentials directory.
    Credentials,
    /// An agent's workspace.
    Workspace,
    /// An agent's own directory.
    Agent,
    /// Sessions or cron jobs that the config puts elsewhere.
    Store,
    /// What a link among the managed skills points to.
    ManagedSkill,
    /// A plain source.
    Tree,
}

impl AssetKind {
    /// OpenClaw's name for it, where it has one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Config => "config",
            Self::Credentials => "credentials",
            Self::Workspace => "workspace",
            Self::Agent => "agent",
            Self::Store => "store",
            Self::ManagedSkill => "managed skill",
            Self::Tree => "tree",
        }
    }
}

/// A tree to back up: a directory, or a single file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// What it is to its owner.
    pub kind: AssetKind,
    /// Absolute and canonical.
    pub path: PathBuf,
}

/// Something that was asked for and lies inside a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// What it is to its owner.
    pub kind: AssetKind,
    /// Absolute and canonical.
    pub path: PathBuf,
    /// The root that it lies in.
    pub covered_by: PathBuf,
}

/// Something that was asked for and does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it would be to its owner.
    pub kind: AssetKind,
    /// Where it would be.
    pub path: PathBuf,
}

/// Sorts `candidates` into roots that do not overlap, and what they cover. The shortest path covers the others; of
/// the same path, the first kind stands.
pub(super) fn disjoint(mut candidates: Vec<Root>) -> (Vec<Root>, Vec<Covered>) {
    candidates.sort_by(|a, b| {
        let key = |root: &Root| (root.path.as_os_str().len(), root.kind);
        key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
    });
    candidates.dedup_by(|later, earlier| later.path == earlier.path);
    let (mut roots, mut covered) = (Vec::<Root>::new(), Vec::new());
    for candidate in candidates {
        match roots.iter().find(|root| candidate.path.starts_with(&root.path)) {
            Some(root) => {
                covered.push(Covered { kind: candidate.kind, path: candidate.path, covered_by: root.path.clone() })
            }
            None => roots.push(candidate),
        }
    }
    roots.sort_by(|a, b| a.path.cmp(&b.path));
    (roots, covered)
}

/// `path` with the symbolic links of its existing part resolved; what does not exist yet is kept as written.
pub(super) fn canonical_prefix(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => canonical_prefix(parent).join(name),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(kind: AssetKind, path: &str) -> Root {
        Root { kind, path: path.into() }
    }

    #[test]
    fn what_lies_in_a_root_is_covered_by_it() {
        use AssetKind::{Agent, State, Workspace};
        let (roots, covered) = disjoint(vec![
            root(Workspace, "/s/workspace"),
            root(Workspace, "/z"),
            root(State, "/s"),
            root(Workspace, "/s"),
            root(Agent, "/sx"),
        ]);
        assert_eq!(roots, [root(State, "/s"), root(Agent, "/sx"), root(Workspace, "/z")]);
        let inside = Covered { kind: Workspace, path: "/s/workspace".into(), covered_by: "/s".into() };
        assert_eq!(covered, [inside]);
    }

    #[test]
    fn links_are_resolved_as_far_as_the_path_exists() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let real = dir.path().canonicalize().expect("canonical");
        std::os::unix::fs::symlink(&real, real.join("link")).expect("link");
        assert_eq!(canonical_prefix(&real.join("link/not/yet")), real.join("not/yet"));
    }
}
