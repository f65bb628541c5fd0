//! Where a path of the archive goes, if not to where it came from.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::relpath::shown;

/// Paths that stand for others, with all that lies below: `OLD=NEW`.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// The longest first.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Mapping {
    /// The same, and `old` goes to `new` as well. What was said before wins.
    ///
    /// # Errors
    /// A path that is not absolute.
    pub fn and(mut self, old: &Path, new: &Path) -> Result<Self> {
        for path in [old, new] {
            if !path.is_absolute() {
                return Err(Error::Usage(format!("{} is no absolute path, as a mapping wants them", path.display())));
            }
        }
        let plain = |path: &Path| path.components().collect::<std::path::PathBuf>().as_os_str().as_bytes().to_vec();
        let (old, new) = (plain(old), plain(new));
        if self.pairs.iter().all(|(known, _)| *known != old) {
            self.pairs.push((old, new));
            self.pairs.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
        }
        Ok(self)
    }

    /// Where an absolute path goes.
    pub(super) fn apply(&self, path: &[u8]) -> Vec<u8> {
        self.mapped(path).unwrap_or_else(|| path.to_vec())
    }

    /// Where an absolute path goes by what was said, which may be where it was; nothing if nothing was said of it.
    pub(super) fn mapped(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (new, rest) = self.pairs.iter().find_map(|(old, new)| Some((new, below(path, old)?)))?;
        Some(match (new.as_slice(), rest) {
            (new, b"") => new.to_vec(),
            (b"/", rest) => [b"/", rest].concat(),
            (new, rest) => [new, b"/", rest].concat(),
        })
    }

    /// A path that is mapped and lies below `root`, but is not `root`.
    pub(super) fn inside(&self, root: &[u8]) -> Option<&[u8]> {
        let olds = self.pairs.iter().map(|(old, _)| old.as_slice());
        olds.into_iter().find(|old| below(old, root).is_some_and(|rest| !rest.is_empty()))
    }
}

/// What was said of paths of which an archive has shown nothing so far.
pub(super) struct Unmet {
    olds: Vec<Vec<u8>>,
    /// Where everything that it has shown comes from.
    roots: Vec<Vec<u8>>,
}

impl Unmet {
    pub(super) fn of(mapping: &Mapping) -> Self {
        Self { olds: mapping.pairs.iter().map(|(old, _)| old.clone()).collect(), roots: Vec::new() }
    }

    /// The archive has this path. It shows each root before what lies in it.
    pub(super) fn meet(&mut self, path: &[u8]) {
        self.olds.retain(|old| below(path, old).is_none());
        if self.roots.last().is_none_or(|root| below(path, root).is_none()) {
            self.roots.push(path.to_vec());
        }
    }

    /// # Errors
    /// Something was said of a path that the archive does not have: what was meant would go to where it was.
    pub(super) fn check(&self) -> Result<()> {
        let Some(old) = self.olds.first() else { return Ok(()) };
        let roots: Vec<String> = self.roots.iter().map(|root| shown(root)).collect();
        let old = shown(old);
        Err(Error::Usage(format!("--map {old}=…: the archive has no {old}; it has {}", roots.join(", "))))
    }
}

/// What is left of `path` below `top`: nothing if it is `top`, `None` if it does not lie there.
pub(super) fn below<'a>(path: &'a [u8], top: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(top)? {
        b"" => Some(b""),
        rest if top.ends_with(b"/") || top.is_empty() => Some(rest.strip_prefix(b"/").unwrap_or(rest)),
        rest => rest.strip_prefix(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pairs: &[(&str, &str)]) -> Mapping {
        let and = |mapping: Mapping, (old, new): &(&str, &str)| mapping.and(Path::new(old), Path::new(new));
        pairs.iter().try_fold(Mapping::default(), and).expect("are absolute")
    }

    #[test]
    fn a_path_goes_where_the_longest_mapping_of_whole_names_says() {
        let mapping = mapping(&[("/home/a", "/home/b"), ("/home/a/deep/", "/srv"), ("/", "/old"), ("/root", "/")]);
        for (from, to) in [
            ("/home/a", "/home/b"),
            ("/home/a/x", "/home/b/x"),
            ("/home/a/deep/x/y", "/srv/x/y"),
            ("/home/abc", "/old/home/abc"),
            ("/root/x", "/x"),
            ("/root", "/"),
        ] {
            assert_eq!(mapping.apply(from.as_bytes()), to.as_bytes(), "{from}");
        }
    }

    #[test]
    fn what_is_said_first_wins_and_only_whole_paths_can_be_said() {
        let mapping = mapping(&[("/a", "/b"), ("/a", "/c")]);
        assert_eq!(mapping.apply(b"/a/x"), b"/b/x");
        assert_eq!(mapping.apply(b"/z"), b"/z");
        assert_eq!(mapping.mapped(b"/z"), None);
        assert!(mapping.clone().and(Path::new("a"), Path::new("/b")).is_err());
        assert_eq!(mapping.inside(b"/"), Some(&b"/a"[..]));
        assert_eq!(mapping.inside(b"/a"), None);
    }
}
