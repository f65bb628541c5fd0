//! A set of paths below a root, asked about every name of a tree.

use std::cmp::Ordering;

use crate::relpath::walk_order;

/// Paths below a root, none inside another, in the order of a sorted walk.
#[derive(Clone, Debug, Default)]
pub(super) struct PathSet(Vec<Vec<u8>>);

impl PathSet {
    /// The set of `paths`; what lies inside another of them adds nothing.
    pub(super) fn of(paths: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut paths: Vec<Vec<u8>> = paths.into_iter().collect();
        paths.sort_by(|a, b| walk_order(a, b));
        paths.dedup_by(|later, earlier| within(later, earlier));
        Self(paths)
    }

    /// Whether `path` is one of them or lies inside one.
    #[inline]
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        self.covering(path).is_some()
    }

    /// The one that `path` is or lies inside.
    #[inline]
    pub(super) fn covering(&self, path: &[u8]) -> Option<&[u8]> {
        if self.0.is_empty() {
            return None;
        }
        // A sorted walk names a directory right before what it holds: only the last one not after `path` can cover it.
        let after = self.0.partition_point(|member| walk_order(member, path) != Ordering::Greater);
        let last = self.0.get(after.checked_sub(1)?)?;
        within(path, last).then_some(last)
    }
}

/// Whether `path` is `dir` or lies inside it; the root, which is empty, holds everything.
#[inline]
pub(super) fn within(path: &[u8], dir: &[u8]) -> bool {
    match path.strip_prefix(dir) {
        Some(rest) => rest.is_empty() || dir.is_empty() || rest[0] == b'/',
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> PathSet {
        PathSet::of(paths.iter().map(|path| path.as_bytes().to_vec()))
    }

    #[test]
    fn a_set_covers_its_paths_and_what_they_hold() {
        let paths = set(&["workspace", "workspace-a", "a/b", "a/b/c", "z.d"]);
        for path in ["workspace", "workspace/x", "workspace-a/x", "a/b", "a/b/c/d", "z.d/e"] {
            assert!(paths.covers(path.as_bytes()), "{path}");
        }
        for path in ["workspac", "workspace-b", "workspace.x", "a", "a/bb", "z", "0"] {
            assert!(!paths.covers(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn the_root_itself_covers_everything_and_an_empty_set_nothing() {
        assert!(set(&["", "a"]).covers(b"x/y"));
        assert!(!set(&[]).covers(b"x"));
    }

    proptest::proptest! {
        #[test]
        fn the_search_agrees_with_asking_every_member(
            members in proptest::collection::vec("[ab/.-]{0,6}", 0..6), path in "[ab/.-]{1,8}",
        ) {
            let asked = members.iter().any(|member| within(path.as_bytes(), member.as_bytes()));
            let set = PathSet::of(members.into_iter().map(String::into_bytes));
            proptest::prop_assert_eq!(set.covers(path.as_bytes()), asked);
        }
    }
}
