//! The inventory: one line of JSON for each entry of the archive, in the archive's order.
//!
//! It is what makes an archive provable: a reader that has seen every entry compares them with the lines, and what is
//! missing, surplus or different shows. As it follows the payload, an archive that was cut has none.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::entry::{Timestamp, Xattrs};
use crate::freeze::Copied;
use crate::relpath::{hex, unhex};
use crate::sys::{Reader, Writer};

/// A name in JSON: a string where it is UTF-8, else its bytes in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Name {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes {
        /// The bytes, two digits each.
        hex: String,
    },
}

impl Name {
    /// The JSON form of `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { hex: hex(bytes) },
        }
    }

    /// The text, or the hexadecimal, which no text is told from.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Bytes { hex } => hex,
        }
    }

    /// The bytes; `None` if the hexadecimal is none.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.as_bytes().to_vec()),
            Self::Bytes { hex } => unhex(hex),
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Path below the archive's root.
    pub(crate) path: Name,
    /// `file`, `directory`, `symlink`, `hardlink`, or `tail` for what was set aside.
    pub(crate) kind: String,
    /// Bytes of contents in the archive.
    pub(crate) size: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Seconds since the epoch, with nine decimals.
    pub(crate) mtime: String,
    /// The target of a symbolic link; of a hard link, its path below the archive's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<Name>,
    /// BLAKE3 of the contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blake3: Option<String>,
    /// BLAKE3 over the extended attributes, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) xattrs: Option<String>,
    /// How it was frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<String>,
    /// What became of it.
    pub(crate) fate: String,
    /// Why, where the fate has a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Bytes on disk, where the source has holes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allocated: Option<u64>,
    /// Length of the half-written tail that was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tail: Option<u64>,
    /// Of a database: how it was copied, and what the copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<Copied>,
}

/// What a reader of the archive can see of an entry, and a reader of the inventory too: one digest stands for it, so
/// that a reader need not remember its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts(pub(crate) [u8; 32]);

/// What [`Facts`] are made of.
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) kind: &'a str,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: &'a str,
    pub(crate) link: Option<&'a [u8]>,
    pub(crate) blake3: Option<&'a str>,
    pub(crate) xattrs: Option<&'a str>,
}

impl Seen<'_> {
    /// The digest of all of it. Every field is preceded by its length, so that none can flow into the next.
    pub(crate) fn facts(&self) -> Facts {
        // Gathered first: the hash of one text takes half the time that it takes piece by piece.
        let mut text = Vec::with_capacity(512);
        let mut field = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            text.extend_from_slice(bytes);
        };
        field(self.path);
        field(self.kind.as_bytes());
        for number in [self.size, self.mode.into(), self.uid.into(), self.gid.into()] {
            field(&number.to_le_bytes());
        }
        field(self.mtime.as_bytes());
        for part in [self.link, self.blake3.map(str::as_bytes), self.xattrs.map(str::as_bytes)] {
            field(&[u8::from(part.is_some())]);
            field(part.unwrap_or_default());
        }
        Facts(*blake3::hash(&text).as_bytes())
    }
}

impl Line {
    /// An empty file of nobody in particular that was linked.
    pub(crate) fn of_linked(path: &[u8]) -> Self {
        Self {
            path: Name::new(path),
            kind: "file".into(),
            size: 0,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: "0.000000000".into(),
            link: None,
            blake3: None,
            xattrs: None,
            capture: Some("link".into()),
            fate: "kept".into(),
            reason: None,
            allocated: None,
            tail: None,
            database: None,
        }
    }

    /// The digest of what a reader of the archive should have seen; `None` if a name is no name.
    pub(crate) fn facts(&self) -> Option<Facts> {
        let path = self.path.bytes()?;
        let link = self.link.as_ref().map(Name::bytes);
        let link = match &link {
            Some(bytes) => Some(bytes.as_deref()?),
            None => None,
        };
        let seen = Seen {
            path: &path,
            kind: &self.kind,
            size: self.size,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: &self.mtime,
            link,
            blake3: self.blake3.as_deref(),
            xattrs: self.xattrs.as_deref(),
        };
        Some(seen.facts())
    }
}

/// How the inventory writes a time.
pub(crate) fn written_time(time: Timestamp) -> String {
    time.to_string()
}

/// The digest of extended attributes; `None` where there are none.
pub(crate) fn xattrs_digest(xattrs: &Xattrs) -> Option<String> {
    if xattrs.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// The inventory while it is gathered: compressed, some sixty bytes a line, as its own entry needs to know its length
/// beforehand.
pub(crate) struct Spool {
    packed: zstd::Encoder<'static, Room>,
    length: u64,
    hasher: blake3::Hasher,
    lines: u64,
}

/// A finished inventory.
pub(crate) struct Inventory {
    packed: Room,
    /// Its length in bytes.
    pub(crate) length: u64,
    /// Its BLAKE3.
    pub(crate) blake3: String,
    /// Entries that it lists.
    pub(crate) lines: u64,
}

impl Spool {
    /// An empty inventory, to be gathered in a file of ours, or in memory if there is none.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(file: Option<Writer>) -> io::Result<Self> {
        let room = file.map_or_else(|| Room::Memory(Vec::new()), Room::File);
        Ok(Self { packed: zstd::Encoder::new(room, 1)?, length: 0, hasher: blake3::Hasher::new(), lines: 0 })
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// Those of the file, such as a full disk; out of memory.
    pub(crate) fn add(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.length += text.len() as u64;
        self.lines += 1;
        self.hasher.update(&text);
        self.packed.write_all(&text)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Those of [`Spool::add`].
    pub(crate) fn finish(self) -> io::Result<Inventory> {
        Ok(Inventory {
            packed: self.packed.finish()?,
            length: self.length,
            blake3: self.hasher.finalize().to_hex().to_string(),
            lines: self.lines,
        })
    }
}

impl Inventory {
    /// Its text.
    ///
    /// # Errors
    /// Those of the file that it was gathered in; out of memory.
    pub(crate) fn text(&self) -> io::Result<impl Read + '_> {
        zstd::Decoder::new(self.packed.read()?)
    }
}

/// Where a packed inventory is kept.
enum Room {
    /// On disk, where it takes no memory however many lines it has. Nothing has to make it durable: it is read once,
    /// by the same run, and is in the archive then.
    File(Writer),
    Memory(Vec<u8>),
}

impl Room {
    fn read(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::File(file) => Box::new(FromStart { reader: file.reader()?, at: 0 }),
            Self::Memory(bytes) => Box::new(&bytes[..]),
        })
    }
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    /// Nothing is buffered here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file, read from its start to its end.
struct FromStart {
    reader: Reader,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gate::{CancelFlag, Realm};
    use crate::sys::Dir;

    fn line() -> Line {
        Line {
            size: 3,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: "5.000000000".into(),
            blake3: Some("00".into()),
            ..Line::of_linked(b"payload/a\xff")
        }
    }

    #[test]
    fn a_line_survives_the_way_through_json() {
        let text = serde_json::to_string(&line()).expect("serializes");
        assert_eq!(serde_json::from_str::<Line>(&text).expect("parses"), line());
        assert!(text.contains(r#""path":{"hex":"#), "{text}");
    }

    #[test]
    fn every_fact_that_differs_shows() {
        let facts = line().facts().expect("has names");
        let changes: [fn(&mut Line); 9] = [
            |l| l.path = Name::new(b"payload/b"),
            |l| l.kind = "symlink".into(),
            |l| l.size = 4,
            |l| l.mode = 0o600,
            |l| l.uid = 9,
            |l| l.gid = 9,
            |l| l.mtime = "5.000000001".into(),
            |l| l.blake3 = Some("01".into()),
            |l| l.link = Some(Name::new(b"")),
        ];
        for change in changes {
            let mut other = line();
            change(&mut other);
            assert_ne!(other.facts(), Some(facts), "{other:?}");
        }
    }

    #[test]
    fn the_spool_gives_back_what_was_put_in() {
        let top = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(top.path(), Realm::Output, Arc::new(CancelFlag::new())).expect("opens");
        for file in [None, Some(dir.create(b"spool").expect("is made"))] {
            let mut spool = Spool::new(file).expect("begins");
            (0..1000).for_each(|_| spool.add(&line()).expect("adds"));
            let inventory = spool.finish().expect("ends");
            let mut text = String::new();
            inventory.text().expect("opens").read_to_string(&mut text).expect("reads");
            assert_eq!((text.lines().count() as u64, text.len() as u64), (1000, inventory.length));
            assert_eq!(blake3::hash(text.as_bytes()).to_hex().to_string(), inventory.blake3);
        }
    }
}
