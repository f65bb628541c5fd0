//! Still to bytes: an OpenClaw backup, schema version 1, plus two entries of ours, readable by any tar.
//!
//! ```text
//! <root>/payload/posix/<absolute source path>/…   what was frozen, sorted
//! <root>/clawsnap/tails/<the same path>           half-written records that were cut off
//! <root>/clawsnap/inventory.jsonl                 one line for each entry before it
//! <root>/clawsnap/report.json                     what the run saw
//! <root>/manifest.json                            what OpenClaw demands
//! ```
//!
//! Files that are hard-linked in the source are hard links in the archive, each behind its target. Times are exact to
//! the nanosecond, names may be any bytes. The same frozen input gives the same bytes, apart from the report.

mod codec;
mod contents;
mod exact;
mod inventory;
mod linked;
mod manifest;
mod pax;
mod prefetch;
mod tarball;

pub use codec::{Codec, Compression};

pub(crate) use codec::{Decoder, Encoder};
pub(crate) use contents::{Body, Contents, Place, Reading, SMALL};
pub(crate) use exact::Exact;
pub(crate) use inventory::{Facts, Line, Name, Seen, Spool, written_time, xattrs_digest};
pub(crate) use linked::FirstNames;
pub(crate) use manifest::LONGEST as LONGEST_MANIFEST;
pub(crate) use pax::{Records, parse as parse_pax};

use std::io::{self, BufRead, BufReader, Read, Write};

use tar::EntryType;

use crate::entry::{Stat, Timestamp, Xattrs};
use crate::event::{Event, Observer};
use crate::fate::Fate;
use crate::freeze::{Capture, Copied, Entry, Found, Frozen, Held, Node, State};
use crate::gate;
use crate::output::Sink;
use crate::plan::Plan;
use crate::relpath::joined;
use crate::report::{Counts, ExternalLink, PathName, Report};
use prefetch::Ready;
use tarball::{Member, Tarball};

/// Bytes of a large file that are moved at a time.
const STRETCH: usize = 256 * 1024;

/// Where the payload lies below the archive's root.
pub(crate) const PAYLOAD: &[u8] = b"payload/posix";
/// Where half-written records lie.
pub(crate) const TAILS: &[u8] = b"clawsnap/tails";
/// The inventory's path below the archive's root.
pub(crate) const INVENTORY: &[u8] = b"clawsnap/inventory.jsonl";
/// The report's.
pub(crate) const REPORT: &[u8] = b"clawsnap/report.json";
/// The manifest's.
pub(crate) const MANIFEST: &[u8] = b"manifest.json";

/// Where a source path lies below the archive's root.
pub(crate) fn payload_path(absolute: &[u8]) -> Vec<u8> {
    joined(PAYLOAD, absolute.strip_prefix(b"/").unwrap_or(absolute))
}

/// The source path that a path below the archive's root stands for.
pub(crate) fn source_path(stored: &[u8]) -> &[u8] {
    match [PAYLOAD, TAILS].iter().find_map(|place| stored.strip_prefix(*place)) {
        Some(b"") => b"/",
        inside => inside.unwrap_or(stored),
    }
}

/// What the archive holds, once the payload is written.
pub(crate) struct Payload {
    /// Names by fate.
    pub(crate) counts: Counts,
    /// Symbolic links that lead out of the state directory.
    pub(crate) external: Vec<ExternalLink>,
}

/// What proves an archive that is being read back.
pub(crate) struct Written<W> {
    /// The sink, with all of the archive in it.
    pub(crate) sink: W,
    /// BLAKE3 of the inventory.
    pub(crate) inventory: String,
}

/// Writes the archive of what is frozen. `report` is told what the payload holds, and gives the report that goes into
/// the archive.
///
/// # Errors
/// Those of the sink, such as a full disk; the cancellation of the run. Trouble with the source is a fate.
pub(crate) fn write<W: Sink>(
    frozen: &mut Frozen,
    plan: &Plan,
    sink: W,
    compression: Compression,
    root: &str,
    observer: &dyn Observer,
    report: impl FnOnce(&Frozen, Payload, &str, u64) -> Report,
) -> io::Result<Written<W>> {
    let spool = Spool::new(sink.room()?)?;
    let encoder = Encoder::new(sink, compression, codec::processors())?;
    let mut writer = Writer::new(Tarball::new(encoder), spool, root, manifest::boundary(plan), observer);
    let reading = Reading::new(frozen.ablation);
    writer.payload(frozen, &reading)?;
    let Writer { mut tarball, spool, counts, external, .. } = writer;
    let inventory = spool.finish()?;
    let report = report(frozen, Payload { counts, external }, &inventory.blake3, inventory.lines);
    let mut end = || {
        let mut text = BufReader::with_capacity(STRETCH, inventory.text()?);
        append_own(&mut tarball, root, INVENTORY, (inventory.length, &inventory.blake3), &mut text)?;
        let text = serde_json::to_vec_pretty(&report)?;
        append_own(&mut tarball, root, REPORT, measured(&text), &mut &text[..])?;
        let text = manifest::text(plan, &report, &inventory.blake3)?;
        append_own(&mut tarball, root, MANIFEST, measured(&text), &mut &text[..])
    };
    end()?;
    let sink = tarball.finish()?.finish()?;
    Ok(Written { sink, inventory: inventory.blake3 })
}

/// Length and BLAKE3 of a text.
fn measured(text: &[u8]) -> (u64, String) {
    (text.len() as u64, blake3::hash(text).to_hex().to_string())
}

/// The comment that stands before one of our own files: no inventory has their hashes.
pub(crate) fn own_comment(blake3: &str) -> String {
    format!("blake3={blake3}")
}

/// Appends one of our own files, of this length and hash.
fn append_own<W: Write>(
    tarball: &mut Tarball<W>,
    root: &str,
    name: &[u8],
    (size, blake3): (u64, impl AsRef<str>),
    contents: &mut dyn BufRead,
) -> io::Result<()> {
    let member = Member {
        path: &joined(root.as_bytes(), name),
        kind: EntryType::Regular,
        size,
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        link: None,
        xattrs: &Xattrs::new(),
        comment: Some(&own_comment(blake3.as_ref())),
    };
    tarball.append(&member, contents)
}

/// A payload being written.
struct Writer<'a, W: Write> {
    tarball: Tarball<W>,
    spool: Spool,
    root: &'a [u8],
    boundary: Vec<u8>,
    observer: &'a dyn Observer,
    /// Below the archive's root.
    linked: FirstNames,
    /// Half-written records, until the payload is written; there are few, and they are short.
    tails: Vec<(Vec<u8>, Stat, Vec<u8>)>,
    counts: Counts,
    external: Vec<ExternalLink>,
    done: u64,
}

/// What an entry is, in the archive's and in the inventory's words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    File,
    Directory,
    Symlink,
    Hardlink,
    Tail,
}

impl Form {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Hardlink => "hardlink",
            Self::Tail => "tail",
        }
    }

    fn entry_type(self) -> EntryType {
        match self {
            Self::File | Self::Tail => EntryType::Regular,
            Self::Directory => EntryType::Directory,
            Self::Symlink => EntryType::Symlink,
            Self::Hardlink => EntryType::Link,
        }
    }
}

/// One entry: what its header and its inventory line both say.
struct Piece<'a> {
    form: Form,
    /// Its path below the archive's root.
    path: &'a [u8],
    size: u64,
    stat: &'a Stat,
    /// The target; that of a hard link is below the archive's root.
    link: Option<&'a [u8]>,
    xattrs: &'a Xattrs,
}

impl<'a> Piece<'a> {
    fn new(form: Form, path: &'a [u8], stat: &'a Stat) -> Self {
        Self { form, path, size: 0, stat, link: None, xattrs: const { &Xattrs::new() } }
    }
}

/// What only the inventory line says.
#[derive(Default)]
struct Told {
    blake3: Option<blake3::Hash>,
    fate: Option<Fate>,
    capture: Option<&'static str>,
    allocated: Option<u64>,
    tail: Option<u64>,
    database: Option<Copied>,
}

/// Hashes what is read through it, and tells how far the archive is.
struct Hashing<'a, R> {
    reader: R,
    hasher: blake3::Hasher,
    observer: &'a dyn Observer,
    done: u64,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.done += n as u64;
        self.observer.on(Event::Archived { bytes: self.done });
        Ok(n)
    }
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(tarball: Tarball<W>, spool: Spool, root: &'a str, boundary: Vec<u8>, observer: &'a dyn Observer) -> Self {
        Self {
            tarball,
            spool,
            root: root.as_bytes(),
            boundary,
            observer,
            linked: FirstNames::default(),
            tails: Vec::new(),
            counts: Counts::default(),
            external: Vec::new(),
            done: 0,
        }
    }

    /// Writes everything that is held, root by root, each as a sorted walk.
    fn payload(&mut self, frozen: &mut Frozen, reading: &Reading) -> io::Result<()> {
        frozen.hand_on(|walk, note| {
            prefetch::each(walk, reading, |found, ready| {
                note(found, self.found(found, ready, reading)?);
                Ok(())
            })
        })?;
        // Behind the payload: GNU tar takes a directory for finished, and sets its time, when something else follows.
        let tails = std::mem::take(&mut self.tails);
        tails.iter().try_for_each(|(path, stat, tail)| self.tail(path, stat, tail))
    }

    /// Writes what is next; its fate is what became of it in the end.
    fn found<'f>(&mut self, found: Found<'f>, ready: Option<Ready<'f>>, reading: &Reading) -> io::Result<Fate> {
        let Found { base, node, entry } = found;
        let Some(entry) = entry else {
            return self.directory(&base.prefix, node).map(|()| Fate::Kept);
        };
        let place = Place { base, node, entry };
        let absolute = joined(&joined(&base.prefix, node.path.as_bytes()), &entry.name);
        let path = payload_path(&absolute);
        let fate = match &entry.held {
            Held::Symlink(target) => self.symlink(&absolute, &path, entry, target)?,
            _ => match self.hard_link(&path, place)? {
                Some(fate) => fate,
                None => self.file(&path, place, ready.unwrap_or_else(|| Ready::of(place, reading)))?,
            },
        };
        if fate.is_archived() {
            self.counts.files += 1;
        }
        Ok(fate)
    }

    fn directory(&mut self, prefix: &[u8], node: &Node) -> io::Result<()> {
        let Some(stat) = node.stat else { return Ok(()) };
        let path = payload_path(&joined(prefix, node.path.as_bytes()));
        let fate = match &node.state {
            State::Hollow(reason) => Fate::Hollow(reason.clone()),
            _ => Fate::Kept,
        };
        self.counts.directories += 1;
        let piece = Piece { xattrs: &node.xattrs, ..Piece::new(Form::Directory, &path, &stat) };
        self.append(&piece, &mut io::empty())?;
        self.tell(&piece, Told { fate: Some(fate), ..Told::default() })
    }

    fn symlink(&mut self, absolute: &[u8], path: &[u8], entry: &Entry, target: &[u8]) -> io::Result<Fate> {
        if manifest::is_external(&self.boundary, absolute, target) {
            // As OpenClaw reads them, which knows no names but UTF-8.
            let entry_path = PathName(tarball::fallback(&joined(self.root, path)));
            self.external.push(ExternalLink { entry_path, linkpath: PathName(tarball::fallback(target)) });
        }
        let stat = Stat { mode: 0o777, ..entry.stat };
        let piece = Piece { link: Some(target), ..Piece::new(Form::Symlink, path, &stat) };
        self.append(&piece, &mut io::empty())?;
        self.tell(&piece, Told::default())?;
        Ok(Fate::Kept)
    }

    /// Writes a second name of an inode as a link to its first, whose fate it shares; `None` if this is the first.
    fn hard_link(&mut self, path: &[u8], place: Place<'_>) -> io::Result<Option<Fate>> {
        let Entry { stat, held, .. } = place.entry;
        let Some((first, fate)) = self.linked.of(place.entry).map(|(path, fate)| (path.to_vec(), fate)) else {
            return Ok(None);
        };
        let piece = Piece { link: Some(&first), ..Piece::new(Form::Hardlink, path, stat) };
        self.append(&piece, &mut io::empty())?;
        let capture = held.capture().map(Capture::as_str);
        self.tell(&piece, Told { capture, fate: Some(fate.clone()), ..Told::default() })?;
        place.let_go();
        self.advance(stat.size);
        Ok(Some(fate))
    }

    fn file(&mut self, path: &[u8], place: Place<'_>, ready: Ready<'_>) -> io::Result<Fate> {
        let contents = match ready.contents {
            Ok(contents) => contents,
            Err(error) if gate::is_cancelled(&error) => return Err(error),
            Err(error) => {
                place.let_go();
                self.advance(place.entry.stat.size);
                return Ok(Fate::Lost(format!("cannot be read: {error}").into()));
            }
        };
        let (size, stat) = (contents.size, contents.stat);
        let piece = Piece { size, xattrs: &contents.xattrs, ..Piece::new(Form::File, path, &stat) };
        let (blake3, touched) = match &contents.body {
            Body::Bytes(bytes) => {
                self.append(&piece, &mut &bytes[..])?;
                (ready.blake3.unwrap_or_else(|| blake3::hash(bytes)), None)
            }
            Body::File(source) | Body::Own(source, _) => {
                source.expect_sequential();
                let mut exact = Exact::new(source, size);
                let blake3 = self.append_hashed(&piece, &mut exact)?;
                place.let_go();
                (blake3, contents.touched(exact.shortfall(), source)?)
            }
        };
        let Contents { body, fate, tail, .. } = contents;
        let fate = touched.unwrap_or(fate);
        let told = Told {
            blake3: Some(blake3),
            fate: Some(fate.clone()),
            capture: place.entry.held.capture().map(Capture::as_str),
            allocated: (stat.blocks * 512 < size).then_some(stat.blocks * 512),
            tail: tail.as_ref().map(|tail| tail.len() as u64),
            database: copied(place.entry),
        };
        self.tell(&piece, told)?;
        place.give_up(&body);
        if let Some(tail) = tail {
            self.tails.push((path.to_vec(), stat, tail));
        }
        self.linked.note(place.entry, &stat, path, &fate);
        self.advance(place.entry.stat.size);
        self.counts.bytes += size;
        Ok(fate)
    }

    /// Archives a half-written record.
    fn tail(&mut self, path: &[u8], stat: &Stat, tail: &[u8]) -> io::Result<()> {
        let below = path.strip_prefix(PAYLOAD).unwrap_or(path);
        let path = joined(TAILS, below.strip_prefix(b"/").unwrap_or(below));
        self.counts.tails += 1;
        let piece = Piece { size: tail.len() as u64, ..Piece::new(Form::Tail, &path, stat) };
        self.append(&piece, &mut &tail[..])?;
        self.tell(&piece, Told { blake3: Some(blake3::hash(tail)), ..Told::default() })
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        self.observer.on(Event::Archived { bytes: self.done });
    }

    fn append_hashed(&mut self, piece: &Piece<'_>, contents: &mut Exact<'_>) -> io::Result<blake3::Hash> {
        let (observer, done) = (self.observer, self.done);
        let hashing = Hashing { reader: contents, hasher: blake3::Hasher::new(), observer, done };
        let mut contents = BufReader::with_capacity(STRETCH, hashing);
        self.append(piece, &mut contents)?;
        Ok(contents.get_ref().hasher.finalize())
    }

    fn append(&mut self, piece: &Piece<'_>, contents: &mut dyn BufRead) -> io::Result<()> {
        let path = joined(self.root, piece.path);
        let target = match piece.form {
            Form::Hardlink => piece.link.map(|below| joined(self.root, below)),
            _ => piece.link.map(<[u8]>::to_vec),
        };
        let Stat { mode, uid, gid, mtime, .. } = *piece.stat;
        let (kind, size, link, xattrs) = (piece.form.entry_type(), piece.size, target.as_deref(), piece.xattrs);
        let comment = None;
        let member = Member { path: &path, kind, size, mode, uid, gid, mtime, link, xattrs, comment };
        self.tarball.append(&member, contents)
    }

    fn tell(&mut self, piece: &Piece<'_>, told: Told) -> io::Result<()> {
        let Stat { mode, uid, gid, mtime, .. } = *piece.stat;
        let fate = told.fate.unwrap_or(Fate::Kept);
        self.spool.add(&Line {
            path: Name::new(piece.path),
            kind: piece.form.as_str().to_owned(),
            size: piece.size,
            mode,
            uid,
            gid,
            mtime: written_time(mtime),
            link: piece.link.map(Name::new),
            blake3: told.blake3.map(|hash| hash.to_hex().to_string()),
            xattrs: xattrs_digest(piece.xattrs),
            capture: told.capture.map(str::to_owned),
            fate: fate.as_str().to_owned(),
            reason: fate.reason().map(str::to_owned),
            allocated: told.allocated,
            tail: told.tail,
            database: told.database,
        })
    }
}

/// How a database was copied.
fn copied(entry: &Entry) -> Option<Copied> {
    match &entry.held {
        Held::Database(database) => Some(database.finished().ok()?.copied.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_the_archive_is_shown_as_it_was_in_the_source() {
        assert_eq!(source_path(b"payload/posix/home/claw/x"), b"/home/claw/x");
        assert_eq!(source_path(b"clawsnap/tails/home/claw/x"), b"/home/claw/x");
    }
}
