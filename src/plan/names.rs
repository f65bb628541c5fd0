//! Names that OpenClaw's own restore refuses or changes. They are archived all the same, and reported.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use unicode_normalization::UnicodeNormalization;

use crate::relpath::{RelPath, joined, shown};

/// Why OpenClaw's restore would not take a name as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It holds a backslash.
    Backslash,
    /// It is not UTF-8.
    NotUtf8,
    /// It holds a line break.
    LineBreak,
    /// It differs from this sibling only in case or in how its characters are composed.
    Clash(RelPath),
}

/// A name that OpenClaw's restore would not take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The path, relative to its root.
    pub path: RelPath,
    /// Why.
    pub refusal: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = shown(self.path.as_bytes());
        match &self.refusal {
            Refusal::Backslash => write!(f, "{path} has a backslash in its name, which OpenClaw's restore refuses."),
            Refusal::NotUtf8 => write!(f, "{path} is not UTF-8, and OpenClaw's restore would change its name."),
            Refusal::LineBreak => {
                write!(f, "{path} has a line break in its name, which OpenClaw's restore may not find.")
            }
            Refusal::Clash(other) => write!(
                f,
                "{path} differs from {other} only in case or in how its characters are composed, which OpenClaw's \
                 restore refuses."
            ),
        }
    }
}

/// Finds the names that OpenClaw's restore would not take as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameAudit;

impl NameAudit {
    /// The refused among the archived `names` in the directory `dir`, which is relative to its root.
    ///
    /// Asked directory by directory: two paths clash if and only if two siblings on the way do. Memory: eight bytes a
    /// name, and the names that clash.
    pub fn audit_directory<'a, N>(&self, dir: &[u8], names: N) -> Vec<Refused>
    where
        N: IntoIterator<Item = &'a [u8]>,
        N::IntoIter: Clone,
    {
        let names = names.into_iter();
        let alike = hashed_alike(names.clone());
        let mut seen: HashMap<String, &[u8]> = HashMap::new();
        let mut refused = Vec::new();
        let at = |name: &[u8]| RelPath::new(joined(dir, name));
        for name in names {
            let mut refuse = |refusal| refused.push(Refused { path: at(name), refusal });
            if let Some(refusal) = Self::audit_path(name) {
                refuse(refusal);
            }
            if alike.is_empty() || !alike.contains(&portable_hash(name)) {
                continue;
            }
            let first = *seen.entry(portable(name)).or_insert(name);
            if first != name {
                refuse(Refusal::Clash(at(first)));
            }
        }
        refused
    }

    /// What is wrong with a name or a path by itself; also for the path of a root.
    pub fn audit_path(path: &[u8]) -> Option<Refusal> {
        if std::str::from_utf8(path).is_err() {
            Some(Refusal::NotUtf8)
        } else if path.contains(&b'\\') {
            Some(Refusal::Backslash)
        } else {
            path.contains(&b'\n').then_some(Refusal::LineBreak)
        }
    }
}

/// The hashes that more than one of the names has. A large directory would take much room if the keys themselves were
/// compared.
fn hashed_alike<'a>(names: impl Iterator<Item = &'a [u8]>) -> BTreeSet<u64> {
    let mut hashes: Vec<u64> = names.map(portable_hash).collect();
    hashes.sort_unstable();
    hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// Names that clash have the same; others may, though hardly ever.
fn portable_hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    portable(name).hash(&mut hasher);
    hasher.finish()
}

/// The key by which OpenClaw tells paths apart: composed characters, lower case.
fn portable(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if text.is_ascii() => text.to_ascii_lowercase(),
        Ok(text) => text.nfc().collect::<String>().to_lowercase(),
        Err(_) => String::from_utf8_lossy(name).nfc().collect::<String>().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(names: &[&[u8]]) -> Vec<String> {
        let refused = NameAudit.audit_directory(b"d", names.iter().copied());
        refused.iter().map(|refused| format!("{} {:?}", refused.path, refused.refusal)).collect()
    }

    #[test]
    fn ordinary_names_are_not_refused() {
        assert!(audit(&[b"a", b"b", b"a b", "ä".as_bytes(), b"a:b", b"\x1b", b"CON"]).is_empty());
    }

    #[test]
    fn names_that_differ_in_case_or_composition_clash() {
        let composed = "d/\u{e9}";
        assert_eq!(audit(&[b"README", b"Readme"]).len(), 1);
        assert_eq!(audit(&["\u{e9}".as_bytes(), "e\u{301}".as_bytes()]).len(), 1);
        assert_eq!(audit(&["\u{c9}".as_bytes(), "e\u{301}".as_bytes()]).len(), 1);
        assert_eq!(audit(&["\u{3a3}".as_bytes(), "\u{3c3}".as_bytes()]).len(), 1);
        let refused = NameAudit.audit_directory(b"d", ["\u{e9}".as_bytes(), "\u{c9}".as_bytes()]);
        assert!(refused[0].to_string().contains(composed), "{}", refused[0]);
    }

    #[test]
    fn a_backslash_a_line_break_and_other_encodings_are_refused() {
        let expected = ["d/a\\b Backslash", "d/a\\nb LineBreak", "d/\\xff NotUtf8"];
        assert_eq!(audit(&[b"a\\b", b"a\nb", b"\xff"]), expected);
    }

    #[test]
    fn every_refusal_is_one_sentence() {
        for refused in NameAudit.audit_directory(b"", [&b"a\\b"[..], b"a\nb", b"\xff", b"x", b"X"]) {
            let sentence = refused.to_string();
            assert!(sentence.ends_with('.') && !sentence.contains('\n'), "{sentence}");
        }
    }
}
