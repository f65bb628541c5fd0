//! Reads an archive as a stranger would: nothing is believed that the bytes do not say.
//!
//! Every entry is held against the inventory, the inventory against report and manifest, and nothing may be missing,
//! doubled, or beside. What is remembered of an entry is the start of a digest, so memory grows by eight bytes an entry.

use std::io::{self, BufRead, BufReader, Read};

use serde::de::DeserializeOwned;
use tar::{EntryType, Header};

use super::ahead::read_ahead;
use super::blocks::{Blocks, Entry};
use super::memory::{Compared, Memory};
use super::noting::Noting;
use super::shape::{Shape, is_plain, lies_in};
use super::told::{Told, ToldManifest};
use crate::archive::{
    Decoder, Facts, INVENTORY, LONGEST_MANIFEST, Line, MANIFEST, PAYLOAD, REPORT, Records, Seen, TAILS, own_comment,
    parse_pax, written_time, xattrs_digest,
};
use crate::entry::{Timestamp, Xattrs};
use crate::error::{Error, Result};
use crate::gate;
use crate::relpath::shown;

/// Longest line of an inventory that is read: two names of a megabyte each, and change.
const LONGEST_LINE: u64 = 8 * 1024 * 1024;

/// Longest PAX records of one entry: two names, and attributes of 64 KiB each.
const LONGEST_RECORDS: u64 = 64 * 1024 * 1024;

/// Longest report that is parsed; it lists every name that has a fate worth a line.
const LONGEST_REPORT: u64 = 4 * 1024 * 1024 * 1024;

/// Largest contents of one entry: a petabyte. No disk holds more, and a header can say anything.
const LARGEST_ENTRY: u64 = 1 << 50;

/// An entry as it is met, before anything proves that it is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met<'a> {
    /// Its path below the archive's root.
    pub(crate) path: &'a [u8],
    /// `file`, `directory`, `symlink`, `hardlink` or `tail`.
    pub(crate) kind: &'a str,
    /// Bytes of contents, as its header tells.
    pub(crate) size: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Last modification.
    pub(crate) mtime: Timestamp,
    /// Where a link leads: a hard one below the archive's root.
    pub(crate) link: Option<&'a [u8]>,
    /// Extended attributes.
    pub(crate) xattrs: &'a Xattrs,
}

/// Somebody who comes along while an archive is read. Nothing that is shown is proven before the end.
pub(crate) trait Guest {
    /// An entry of the payload. What is not read of its contents is read past.
    ///
    /// # Errors
    /// Those of reading, as they are; any other ends the reading.
    fn entry(&mut self, _met: Met<'_>, _contents: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }

    /// A line of the inventory, and the entry that was met is what it says, as far as the start of a digest tells.
    ///
    /// # Errors
    /// What makes the archive unproven.
    fn line(&mut self, _line: &Line) -> Result<()> {
        Ok(())
    }

    /// The report that the archive holds.
    fn report(&mut self, _report: Told) {}
}

impl Guest for () {}

/// What an archive proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The one directory that everything lies in.
    pub(crate) root: String,
    /// Entries that the inventory lists.
    pub(crate) entries: u64,
    /// BLAKE3 of the inventory.
    pub(crate) inventory: String,
}

/// Reads a whole archive and proves that it is complete and equal to its inventory.
///
/// # Errors
/// [`Error::Unproven`] with the first thing that is wrong, and where; [`Error::Cancelled`].
pub(crate) fn prove(input: impl Read + Send) -> Result<Proof> {
    read_ahead(Decoder::new(input).map_err(unreadable)?, |unpacked| prove_unpacked(unpacked, &mut ()))
}

/// The same for an archive that is unpacked already, with a guest.
///
/// # Errors
/// Those of [`prove`] and of the guest.
pub(crate) fn prove_unpacked(input: impl BufRead, guest: &mut dyn Guest) -> Result<Proof> {
    let mut stranger = Stranger::beside(guest);
    let mut blocks = Blocks::new(input);
    while let Some(mut entry) = blocks.next().map_err(unreadable)? {
        stranger.meet(&mut entry)?;
        entry.finish().map_err(unreadable)?;
    }
    stranger.conclude()
}

pub(super) fn unreadable(error: io::Error) -> Error {
    if gate::is_cancelled(&error) { Error::Cancelled } else { unproven(format!("it cannot be read: {error}")) }
}

/// An archive is not proven, for this reason.
pub(crate) fn unproven(what: impl AsRef<str>) -> Error {
    Error::Unproven(format!("the archive is not proven: {}", what.as_ref()))
}

/// What follows an archive that others made: its second block of zeros, and perhaps more of them.
pub(super) fn nothing_follows(mut rest: impl Read) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut zeros = 0_u64;
    loop {
        match rest.read(&mut buffer).map_err(unreadable)? {
            0 if zeros >= 512 => return Ok(()),
            0 => return Err(unproven("its end-of-archive mark is missing")),
            n if buffer[..n].iter().all(|&byte| byte == 0) => zeros += n as u64,
            _ => return Err(unproven("something follows its end-of-archive mark")),
        }
    }
}

/// What was seen so far.
pub(super) struct Stranger<'g> {
    guest: &'g mut dyn Guest,
    root: Option<Vec<u8>>,
    records: Option<Records>,
    met: Memory,
    entries: u64,
    shape: Shape,
    inventory: Option<String>,
    reported: Option<String>,
    declared: Option<String>,
    manifest_root: Option<String>,
}

impl<'g> Stranger<'g> {
    pub(super) fn beside(guest: &'g mut dyn Guest) -> Self {
        Self {
            guest,
            root: None,
            records: None,
            met: Memory::default(),
            entries: 0,
            shape: Shape::default(),
            inventory: None,
            reported: None,
            declared: None,
            manifest_root: None,
        }
    }

    fn meet<R: BufRead>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        if entry.header().entry_type() == EntryType::XHeader {
            return self.records(entry);
        }
        let records = self.records.take().unwrap_or_default();
        let path = records.get(b"path").map_or_else(|| entry.header().path_bytes().into_owned(), <[u8]>::to_vec);
        let kind = entry.header().entry_type();
        let slash = path.ends_with(b"/");
        let below = self.below_root(&path[..path.len() - usize::from(slash)])?.to_vec();
        if slash != (kind == EntryType::Directory) {
            return Err(unproven(format!("{} is named as what it is not", shown(&below))));
        }
        if self.manifest_root.is_some() {
            return Err(unproven(format!("{} follows the manifest, which must be last", shown(&below))));
        }
        if records.get(b"size").is_some_and(|told| told != entry.size().to_string().as_bytes()) {
            return Err(unproven(format!("{} has two lengths", shown(&below))));
        }
        let hash = match below.as_slice() {
            INVENTORY | REPORT | MANIFEST if kind != EntryType::Regular => {
                return Err(unproven(format!("{} is no file", shown(&below))));
            }
            INVENTORY => self.inventory(entry)?,
            REPORT => self.report(entry)?,
            MANIFEST => self.manifest(entry)?,
            _ => return self.payload(&below, entry, &records),
        };
        if records.get(b"comment") == Some(own_comment(&hash).as_bytes()) {
            return Ok(());
        }
        Err(unproven(format!("{} is not what was written", shown(&below))))
    }

    /// The PAX records that belong to the next entry.
    fn records<R: BufRead>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let mut text = Vec::new();
        entry.take(LONGEST_RECORDS).read_to_end(&mut text).map_err(unreadable)?;
        let records = parse_pax(&text).ok_or_else(|| unproven("it has malformed PAX records"))?;
        if !records.are_ours() {
            return Err(unproven("it has PAX records that we never write"));
        }
        match self.records.replace(records) {
            None => Ok(()),
            Some(_) => Err(unproven("it has PAX records that belong to no entry")),
        }
    }

    /// The path below the root, which is the same for all entries.
    fn below_root<'a>(&mut self, path: &'a [u8]) -> Result<&'a [u8]> {
        let slash = path
            .iter()
            .position(|&c| c == b'/')
            .ok_or_else(|| unproven(format!("{} lies beside the root", shown(path))))?;
        let (root, below) = (&path[..slash], &path[slash + 1..]);
        let known = self.root.get_or_insert_with(|| root.to_vec());
        if root.is_empty() || known != root {
            return Err(unproven(format!("{} lies outside the root", shown(path))));
        }
        if !is_plain(below) {
            return Err(unproven(format!("{} is no plain path", shown(path))));
        }
        Ok(below)
    }

    fn payload<R: BufRead>(&mut self, below: &[u8], entry: &mut Entry<'_, R>, records: &Records) -> Result<()> {
        if self.inventory.is_some() {
            return Err(unproven(format!("{} follows the inventory", shown(below))));
        }
        let is_tail = lies_in(below, TAILS);
        if !is_tail && !lies_in(below, PAYLOAD) {
            return Err(unproven(format!("{} is nothing that belongs there", shown(below))));
        }
        if records.get(b"comment").is_some() {
            return Err(unproven(format!("{} has a comment, which we never write", shown(below))));
        }
        let kind = kind(entry.header().entry_type(), is_tail)
            .ok_or_else(|| unproven(format!("{} is of a kind that we never write", shown(below))))?;
        let link = self.link(below, kind, entry.header(), records)?;
        if is_tail {
            self.shape.tail(below)?
        } else {
            self.shape.payload(below, kind, link.as_deref())?
        }
        let facts = self.facts(below, kind, link.as_deref(), entry, records)?;
        self.met.add(facts);
        Ok(())
    }

    fn facts<R: BufRead>(
        &mut self,
        below: &[u8],
        kind: &str,
        link: Option<&[u8]>,
        entry: &mut Entry<'_, R>,
        records: &Records,
    ) -> Result<Facts> {
        let has_contents = matches!(kind, "file" | "tail");
        if entry.size() > if has_contents { LARGEST_ENTRY } else { 0 } {
            return Err(unproven(format!("{} claims to be larger than a {kind} can be", shown(below))));
        }
        let header = entry.header();
        let mode = permissions(header)?;
        let uid = owner(records, b"uid", header.uid())?;
        let gid = owner(records, b"gid", header.gid())?;
        let mtime = match records.get(b"mtime") {
            Some(text) => String::from_utf8_lossy(text).into_owned(),
            None => whole_seconds(header.mtime().map_err(unreadable)?),
        };
        let told = entry.size();
        let mut digesting = Digesting { entry, hasher: blake3::Hasher::new(), size: 0 };
        let xattrs = records.xattrs();
        let time = parsed_time(&mtime).ok_or_else(|| unproven(format!("{} has no time", shown(below))))?;
        let met = Met { path: below, kind, size: told, mode, uid, gid, mtime: time, link, xattrs: &xattrs };
        let mut reading = Noting::new(&mut digesting);
        let taken = self.guest.entry(met, &mut reading);
        let is_archives_fault = reading.failed;
        taken.map_err(|error| match is_archives_fault {
            true => unreadable(error),
            false => Error::failed("take in", shown(below), error),
        })?;
        let (size, blake3) = digesting.finish().map_err(unreadable)?;
        Ok(Seen {
            path: below,
            kind,
            size,
            mode,
            uid,
            gid,
            mtime: &mtime,
            link,
            blake3: has_contents.then_some(&blake3),
            xattrs: xattrs_digest(&xattrs).as_deref(),
        }
        .facts())
    }

    /// Where a link leads: a hard one below the root.
    fn link(&self, below: &[u8], kind: &str, header: &Header, records: &Records) -> Result<Option<Vec<u8>>> {
        let link = records.get(b"linkpath").map(<[u8]>::to_vec);
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        match (kind, link) {
            ("symlink", Some(target)) if !target.is_empty() && !target.contains(&0) => Ok(Some(target)),
            ("hardlink", Some(target)) => self.target(&target).map(|target| Some(target.to_vec())),
            ("symlink" | "hardlink", _) => Err(unproven(format!("{} leads nowhere", shown(below)))),
            (_, Some(_)) => Err(unproven(format!("{} is no link, but leads somewhere", shown(below)))),
            (_, None) => Ok(None),
        }
    }

    fn target<'a>(&self, target: &'a [u8]) -> Result<&'a [u8]> {
        let root = self.root.as_deref().unwrap_or_default();
        let below = target.strip_prefix(root).and_then(|rest| rest.strip_prefix(b"/"));
        below.ok_or_else(|| unproven(format!("a hard link leads to {}, outside the root", shown(target))))
    }

    /// Holds the inventory's lines against what was seen, one by one.
    fn inventory<R: BufRead>(&mut self, entry: &mut Entry<'_, R>) -> Result<String> {
        if self.inventory.is_some() {
            return Err(unproven("it has two inventories"));
        }
        let mut hashing = HashingLines::new(BufReader::with_capacity(64 * 1024, entry));
        let mut recall = std::mem::take(&mut self.met).recall();
        let mut count = 0;
        while let Some(text) = hashing.next_line()? {
            let line: Line = serde_json::from_slice(&text).map_err(|error| unproven(format!("inventory: {error}")))?;
            let facts = line.facts().ok_or_else(|| unproven("the inventory has a name that is none"))?;
            let named = || shown(&line.path.bytes().unwrap_or_default());
            match recall.line(facts) {
                Compared::Same => {
                    self.shape.line(&line)?;
                    self.guest.line(&line)?;
                    count += 1;
                }
                Compared::Other => return Err(unproven(format!("{} is not what the inventory says", named()))),
                Compared::Surplus => return Err(unproven(format!("{} is in the inventory only", named()))),
            }
        }
        if recall.is_left() {
            return Err(unproven(format!("it has entries after the {count} that the inventory lists")));
        }
        if !recall.proves() {
            return Err(unproven("one of its entries is not what the inventory says"));
        }
        self.shape.conclude()?;
        self.entries = count;
        let hash = hashing.hasher.finalize().to_hex().to_string();
        self.inventory = Some(hash.clone());
        Ok(hash)
    }

    pub(super) fn report(&mut self, entry: &mut impl BufRead) -> Result<String> {
        let (report, hash) = parse_hashed::<Told>(entry, LONGEST_REPORT, "report")?;
        self.reported.clone_from(&report.inventory_blake3);
        self.guest.report(report);
        Ok(hash)
    }

    pub(super) fn manifest(&mut self, entry: &mut impl BufRead) -> Result<String> {
        let limit = LONGEST_MANIFEST.saturating_mul(256) as u64;
        let (manifest, hash) = parse_hashed::<ToldManifest>(entry, limit, "manifest")?;
        self.manifest_root = manifest.archive_root;
        self.declared = manifest.clawsnap.inventory_blake3;
        if manifest.schema_version != 1 || self.manifest_root.is_none() {
            return Err(unproven("its manifest is not of schema version 1"));
        }
        Ok(hash)
    }

    pub(super) fn conclude(self) -> Result<Proof> {
        if self.records.is_some() {
            return Err(unproven("it has PAX records that belong to no entry"));
        }
        let root = self.root.ok_or_else(|| unproven("it is empty"))?;
        let inventory = self.inventory.ok_or_else(|| unproven("it has no inventory: it was cut, or is not ours"))?;
        let manifest_root = self.manifest_root.ok_or_else(|| unproven("it has no manifest: it was cut"))?;
        if manifest_root.as_bytes() != root {
            return Err(unproven("its manifest names another root"));
        }
        if self.reported.as_ref() != Some(&inventory) || self.declared.as_ref() != Some(&inventory) {
            return Err(unproven("its inventory is not the one that its report and its manifest tell"));
        }
        Ok(Proof { root: manifest_root, entries: self.entries, inventory })
    }
}

fn kind(entry_type: EntryType, is_tail: bool) -> Option<&'static str> {
    match entry_type {
        EntryType::Regular if is_tail => Some("tail"),
        _ if is_tail => None,
        EntryType::Regular => Some("file"),
        EntryType::Directory => Some("directory"),
        EntryType::Symlink => Some("symlink"),
        EntryType::Link => Some("hardlink"),
        _ => None,
    }
}

/// Hashes and counts what anybody reads of an entry.
struct Digesting<R> {
    entry: R,
    hasher: blake3::Hasher,
    size: u64,
}

impl<R: BufRead> Digesting<R> {
    /// Reads what is left; size and hash of all of it.
    fn finish(mut self) -> io::Result<(u64, String)> {
        loop {
            let there = self.entry.fill_buf()?;
            if there.is_empty() {
                break;
            }
            self.hasher.update(there);
            let n = there.len();
            self.entry.consume(n);
            self.size += n as u64;
        }
        Ok((self.size, self.hasher.finalize().to_hex().to_string()))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.entry.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

/// Parses one of our own files, and hashes it.
fn parse_hashed<T: DeserializeOwned>(entry: impl BufRead, limit: u64, what: &str) -> Result<(T, String)> {
    let mut digesting = Digesting { entry, hasher: blake3::Hasher::new(), size: 0 };
    let value = parse(&mut digesting, limit, what)?;
    let (_, hash) = digesting.finish().map_err(unreadable)?;
    Ok((value, hash))
}

pub(super) fn parse<T: DeserializeOwned>(entry: &mut impl Read, limit: u64, what: &str) -> Result<T> {
    let limited = BufReader::new(entry.take(limit));
    serde_json::from_reader(limited).map_err(|error| match error.is_io() {
        true => unreadable(error.into()),
        false => unproven(format!("its {what} cannot be parsed: {error}")),
    })
}

/// Reads lines of bounded length and hashes every byte of them.
pub(super) struct HashingLines<R> {
    reader: R,
    hasher: blake3::Hasher,
}

impl<R: BufRead> HashingLines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, hasher: blake3::Hasher::new() }
    }

    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(unreadable)?;
        self.hasher.update(&line);
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) => Err(unproven("a line of its inventory has no end")),
        }
    }
}

/// The permission bits, and nothing beside them.
fn permissions(header: &Header) -> Result<u32> {
    let mode = header.mode().map_err(unreadable)?;
    if mode & !0o7777 == 0 { Ok(mode) } else { Err(unproven(format!("{mode:o} are no permissions"))) }
}

/// The owner that a record tells, else the header.
fn owner(records: &Records, key: &[u8], header: io::Result<u64>) -> Result<u32> {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
    let id = match records.get(key) {
        Some(text) => number(text).filter(|id: &u32| id.to_string().as_bytes() == text),
        None => u32::try_from(header.map_err(unreadable)?).ok(),
    };
    id.ok_or_else(|| unproven("an owner is no number of a user or a group"))
}

/// The moment that we write as seconds with nine decimals.
pub(super) fn parsed_time(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.')?;
    let seconds: i128 = whole.trim_start_matches('-').parse().ok()?;
    let nanos: i128 = fraction.parse().ok()?;
    let magnitude = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    let time = Timestamp::from_nanos(if whole.starts_with('-') { -magnitude } else { magnitude });
    (written_time(time) == text).then_some(time)
}

fn whole_seconds(seconds: u64) -> String {
    written_time(Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 })
}
