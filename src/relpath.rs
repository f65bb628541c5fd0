//! Paths below a root, as the bytes that the kernel gave.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A path relative to a root: components joined by `/`, no leading or trailing slash; empty for the root itself.
///
/// Bytes, not text: file names on Unix need not be UTF-8. The order is the order of a sorted walk: a directory
/// comes right before what it holds (`a`, `a/b`, `a-b`), which plain byte order would not give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path from its bytes, which must already have the form described at the type.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Self {
        Self(joined(&self.0, name).into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, for the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

/// A name in a directory, as a listing gave it: its bytes lie in a block that it shares with its neighbours.
///
/// Millions of them are held at a time. An allocation for each would take half as much again, and the time to make it.
/// A block lives as long as one of its names does, and is therefore small.
#[derive(Clone, Default)]
pub(crate) struct Leaf {
    block: Option<Arc<Box<[u8]>>>,
    start: u16,
    length: u16,
}

impl Deref for Leaf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = usize::from(self.start);
        self.block.as_deref().map_or(&[], |block| &block[start..start + usize::from(self.length)])
    }
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Leaf {}

impl Ord for Leaf {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<[u8]> for Leaf {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self))
    }
}

/// A name by itself.
impl From<&[u8]> for Leaf {
    fn from(name: &[u8]) -> Self {
        let mut block = Leaves::default();
        block.push(name);
        block.take().next().unwrap_or_default()
    }
}

/// A block of names in the making.
#[derive(Default)]
pub(crate) struct Leaves {
    bytes: Vec<u8>,
    lengths: Vec<u16>,
}

impl Leaves {
    /// Bytes in a block, but for the last name in it.
    const FULL: usize = 4096;

    /// Adds a name. No kernel has longer ones than 64 KiB, of which more would be cut.
    pub(crate) fn push(&mut self, name: &[u8]) {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&name[..usize::from(length)]);
        self.lengths.push(length);
    }

    /// Whether the next name should be in another block.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= Self::FULL
    }

    /// The names that were added, in that order; the next one begins another block.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Leaf> + use<> {
        let Self { bytes, lengths } = std::mem::take(self);
        let block = Arc::new(bytes.into_boxed_slice());
        let mut start = 0;
        lengths.into_iter().map(move |length| {
            let leaf = Leaf { block: Some(Arc::clone(&block)), start, length };
            start += length;
            leaf
        })
    }
}

/// `dir` and `name` joined by a slash; `name` alone below the root.
pub fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The directory of a path, and the name in it; the inverse of [`joined`].
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&c| c == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Sorts by name. The first bytes of a name mostly decide: they are sorted by themselves, and each item moves once.
pub(crate) fn sort_by_name<T>(items: &mut [T], name: impl Fn(&T) -> &[u8]) {
    let start = |item: &T| {
        let (name, mut bytes) = (name(item), [0; 16]);
        let length = name.len().min(bytes.len());
        bytes[..length].copy_from_slice(&name[..length]);
        u128::from_be_bytes(bytes)
    };
    items.sort_by_cached_key(start);
    for alike in items.chunk_by_mut(|a, b| start(a) == start(b)).filter(|alike| alike.len() > 1) {
        alike.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    }
}

/// The same, and what has the name of another goes.
pub(crate) fn sort_by_name_once<T>(items: &mut Vec<T>, name: impl Fn(&T) -> &[u8]) {
    sort_by_name(items, &name);
    items.dedup_by(|next, item| name(next) == name(item));
}

/// Compares two paths component by component, so that a directory comes right before what it holds.
pub fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|&c| c == b'/').cmp(b.split(|&c| c == b'/'))
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        walk_order(&self.0, &other.0)
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_bytes(&self.0, serializer)
    }
}

/// How bytes that name a file are shown to people: control characters escaped, so that a name can neither break a
/// line of the report nor speak to the terminal, and what is not UTF-8 as `\xNN`.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        text.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02x}")));
    }
    text
}

/// How bytes that name a file are written in JSON, without loss: a string where they are UTF-8, else
/// `{"hex": "…"}`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Hex {
        hex: String,
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => Hex { hex: hex(bytes) }.serialize(serializer),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of lower- or upper-case hexadecimal; `None` where it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A byte as it stands in the quotes that take escapes.
fn ansi(byte: &u8) -> String {
    let is_plain = (byte.is_ascii_graphic() || *byte == b' ') && !b"'\\".contains(byte);
    if is_plain { char::from(*byte).to_string() } else { format!(r"\x{byte:02x}") }
}

/// A path as a word for the shell.
pub(crate) fn quoted(path: &[u8]) -> String {
    let is_plain = |&c: &u8| c.is_ascii_alphanumeric() || b"/._-+:@,".contains(&c);
    match std::str::from_utf8(path) {
        Ok(text) if path.iter().all(is_plain) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => format!("$'{}'", path.iter().map(ansi).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_as_bytes_are_however_much_they_begin_alike() {
        let alike = "a-name-that-is-longer-than-what-is-sorted-first-";
        let mut names = vec![format!("{alike}2"), "b".into(), format!("{alike}10"), "a".into(), alike.into()];
        names.extend(["a-name-that-is-l", "a-name-that-is", "\u{1}", "ü", ""].map(str::to_owned));
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sort_by_name(&mut names, |name| name.as_bytes());
        assert_eq!(names, sorted);
        names.extend(sorted.clone());
        sort_by_name_once(&mut names, |name| name.as_bytes());
        assert_eq!(names, sorted);
    }

    #[test]
    fn names_of_a_block_are_what_was_put_in_and_outlive_each_other() {
        let mut leaves = Leaves::default();
        let names = [&b"a"[..], b"", b"\xff", &[b'x'; 5000], b"last"];
        names.iter().for_each(|name| leaves.push(name));
        assert!(leaves.is_full());
        let mut taken: Vec<Leaf> = leaves.take().collect();
        assert_eq!(taken.iter().map(|leaf| &**leaf).collect::<Vec<_>>(), names);
        let last = taken.pop().expect("is there");
        drop(taken);
        assert_eq!((&*last, &*Leaf::default(), &*Leaf::from(&b"b"[..])), (&b"last"[..], &b""[..], &b"b"[..]));
        assert!(!leaves.is_full() && leaves.take().next().is_none());
    }

    #[test]
    fn a_directory_sorts_right_before_what_it_holds() {
        let mut paths: Vec<RelPath> =
            ["a-b", "a/b", "a", "a.b", "b", "a/b/c"].map(|p| RelPath::new(p.as_bytes())).into();
        paths.sort();
        let sorted: Vec<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, ["a", "a/b", "a/b/c", "a-b", "a.b", "b"]);
    }

    #[test]
    fn a_hostile_name_cannot_speak_to_the_terminal() {
        assert_eq!(shown(b"a\nb\x1b[2J\xff"), "a\\nb\\u{1b}[2J\\xff");
    }

    #[test]
    fn json_carries_any_name_without_loss() {
        let json = |b: &[u8]| serde_json::to_string(&RelPath::new(b)).expect("serializes");
        assert_eq!(json("ä\n".as_bytes()), "\"ä\\n\"");
        assert_eq!(json(b"\xffa"), r#"{"hex":"ff61"}"#);
        assert_eq!(unhex("ff61"), Some(vec![0xff, 0x61]));
        assert_eq!(unhex("ff6"), None);
        assert_eq!(unhex("zz"), None);
    }
}
