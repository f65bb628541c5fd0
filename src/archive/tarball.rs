//! Tar entries: ustar headers, and PAX records for everything that these cannot say.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use tar::{EntryType, Header};

use super::pax;
use crate::entry::{Timestamp, Xattrs};

/// Tar's unit: headers are one block, contents are padded to whole blocks.
const BLOCK: usize = 512;

/// The largest number in an eleven-digit octal field: sizes and times beyond need a PAX record.
const OCTAL_11: u64 = 0o777_7777_7777;

/// The same for the seven digits of owners.
const OCTAL_7: u32 = 0o777_7777;

/// One entry to be written.
pub(crate) struct Member<'a> {
    /// Its whole path in the archive, without a trailing slash.
    pub(crate) path: &'a [u8],
    /// What it is.
    pub(crate) kind: EntryType,
    /// Length of the contents that follow.
    pub(crate) size: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Last change of the contents.
    pub(crate) mtime: Timestamp,
    /// The target of a symbolic or hard link.
    pub(crate) link: Option<&'a [u8]>,
    /// Extended attributes.
    pub(crate) xattrs: &'a Xattrs,
    /// A comment, which readers pass over.
    pub(crate) comment: Option<&'a str>,
}

/// A tar stream. Only [`Tarball::finish`] ends it: a dropped one has no end-of-archive mark.
pub(crate) struct Tarball<W: Write> {
    out: W,
    names: Names,
}

impl<W: Write> Tarball<W> {
    /// Begins a stream.
    pub(crate) fn new(out: W) -> Self {
        Self { out, names: Names::default() }
    }

    /// Writes one entry. `contents` must yield exactly [`Member::size`] bytes; see
    /// [`Exact`](super::exact::Exact).
    ///
    /// # Errors
    /// Those of the sink; those of `contents`, which tear the stream: the run must end then.
    pub(crate) fn append(&mut self, member: &Member<'_>, contents: &mut dyn BufRead) -> io::Result<()> {
        let records = pax_records(member);
        if !records.is_empty() {
            self.append_records(&records)?;
        }
        let mut header = self.header(member);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.copy(member.size, contents)?;
        self.pad(member.size)
    }

    fn copy(&mut self, size: u64, contents: &mut dyn BufRead) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let there = contents.fill_buf()?;
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there.len());
            if taken == 0 {
                return Err(io::Error::other(format!("{left} of {size} promised bytes are missing")));
            }
            self.out.write_all(&there[..taken])?;
            contents.consume(taken);
            left -= taken as u64;
        }
        Ok(())
    }

    fn append_records(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        put(&mut header.as_ustar_mut().map(|h| &mut h.name[..]), b"PaxHeaders/entry");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn header(&mut self, member: &Member<'_>) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(member.kind);
        let (user, group) = (self.names.user(member.uid), self.names.group(member.gid));
        if let Some(ustar) = header.as_ustar_mut() {
            let path = fallback(&with_slash(member));
            let (prefix, name) = split_ustar(&path).unwrap_or_else(|| (Vec::new(), shorten(&path)));
            put(&mut Some(&mut ustar.prefix[..]), &prefix);
            put(&mut Some(&mut ustar.name[..]), &name);
            put(&mut Some(&mut ustar.linkname[..]), &fallback(member.link.unwrap_or_default()));
            put(&mut Some(&mut ustar.uname[..31]), user.as_bytes());
            put(&mut Some(&mut ustar.gname[..31]), group.as_bytes());
        }
        header.set_mode(member.mode);
        header.set_uid(u64::from(member.uid.min(OCTAL_7)));
        header.set_gid(u64::from(member.gid.min(OCTAL_7)));
        header.set_mtime(u64::try_from(member.mtime.seconds).unwrap_or(0).min(OCTAL_11));
        header.set_size(member.size);
        header
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let zeros = [0; BLOCK];
        self.out.write_all(if over == 0 { &[] } else { &zeros[over..] })
    }

    /// Ends the stream with two blocks of zeros, and returns the sink.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Copies as much of `text` as the field takes; the rest of the field stays zero.
fn put(field: &mut Option<&mut [u8]>, text: &[u8]) {
    if let Some(field) = field {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    }
}

fn with_slash(member: &Member<'_>) -> Vec<u8> {
    let mut path = member.path.to_vec();
    if member.kind == EntryType::Directory {
        path.push(b'/');
    }
    path
}

/// A path as the ustar header carries it: the same, or with every byte that is not part of UTF-8 as `%FF`.
///
/// Readers that know PAX take the record instead. OpenClaw's takes the header's name where the record is not UTF-8,
/// so two names that differ in such a byte alone must differ here as well.
pub(crate) fn fallback(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.extend_from_slice(chunk.valid().as_bytes());
        chunk.invalid().iter().for_each(|byte| text.extend_from_slice(format!("%{byte:02X}").as_bytes()));
    }
    text
}

/// Splits a path into ustar's prefix (155 bytes) and name (100 bytes) at a slash; `None` if it does not fit.
fn split_ustar(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if path.len() <= 100 {
        return Some((Vec::new(), path.to_vec()));
    }
    let body = path.strip_suffix(b"/").unwrap_or(path);
    let earliest = path.len().saturating_sub(101);
    let slash = body.iter().enumerate().skip(earliest).find(|(_, c)| **c == b'/')?.0;
    (slash <= 155 && slash > 0).then(|| (path[..slash].to_vec(), path[slash + 1..].to_vec()))
}

/// A stand-in for a path that fits no ustar header; its PAX record has the real one.
fn shorten(path: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(path).to_hex();
    let end = (0..=80).rev().find(|&n| std::str::from_utf8(&path[..n]).is_ok()).unwrap_or(0);
    [&path[..end], b"~", &hash.as_bytes()[..16]].concat()
}

/// The records for what the ustar header cannot say; empty if it can say everything.
fn pax_records(member: &Member<'_>) -> Vec<u8> {
    let path = with_slash(member);
    let link = member.link.unwrap_or_default();
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let mut records = Vec::new();
    let mut record = |key: &[u8], value: &[u8]| pax::push(&mut records, key, value);
    if !text(&path) || !text(link) {
        record(b"hdrcharset", b"BINARY");
    }
    if !text(&path) || split_ustar(&path).is_none() {
        record(b"path", &path);
    }
    if !text(link) || link.len() > 100 {
        record(b"linkpath", link);
    }
    if member.size > OCTAL_11 {
        record(b"size", member.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], member.uid), (b"gid", member.gid)] {
        if id > OCTAL_7 {
            record(key, id.to_string().as_bytes());
        }
    }
    let seconds = member.mtime.seconds;
    if member.mtime.nanos != 0 || seconds < 0 || seconds.unsigned_abs() > OCTAL_11 {
        record(b"mtime", member.mtime.to_string().as_bytes());
    }
    if let Some(comment) = member.comment {
        record(b"comment", comment.as_bytes());
    }
    for (name, value) in member.xattrs {
        record(&pax::xattr_key(name), value);
    }
    records
}

/// Names of users and groups, looked up once each.
#[derive(Default)]
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    fn user(&mut self, uid: u32) -> String {
        let find = || nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
        self.users.entry(uid).or_insert_with(|| find().unwrap_or_default()).clone()
    }

    fn group(&mut self, gid: u32) -> String {
        let find = || nix::unistd::Group::from_gid(gid.into()).ok().flatten().map(|group| group.name);
        self.groups.entry(gid).or_insert_with(|| find().unwrap_or_default()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Path and PAX records of each entry, as a reader that knows both sees them.
    fn read_back(members: &[Member<'_>]) -> Vec<(Vec<u8>, pax::Records)> {
        let mut tarball = Tarball::new(Vec::new());
        for member in members {
            let contents = vec![b'c'; usize::try_from(member.size).expect("small")];
            tarball.append(member, &mut &contents[..]).expect("writes");
        }
        let bytes = tarball.finish().expect("finishes");
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        let mut records = pax::Records::default();
        for entry in archive.entries().expect("is an archive").raw(true) {
            let mut entry = entry.expect("reads");
            if entry.header().entry_type() == EntryType::XHeader {
                let mut text = Vec::new();
                entry.read_to_end(&mut text).expect("reads");
                records = pax::parse(&text).expect("parses");
            } else {
                let records = std::mem::take(&mut records);
                let path = records.get(b"path").map_or_else(|| entry.header().path_bytes().to_vec(), <[u8]>::to_vec);
                found.push((path, records));
            }
        }
        found
    }

    fn member<'a>(path: &'a [u8], xattrs: &'a Xattrs) -> Member<'a> {
        Member {
            path,
            kind: EntryType::Regular,
            size: 3,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 5, nanos: 0 },
            link: None,
            xattrs,
            comment: None,
        }
    }

    #[test]
    fn any_path_comes_back_byte_for_byte() {
        let none = Xattrs::new();
        let deep = |n: usize| [b"root/".to_vec(), vec![b'd'; n], b"/".to_vec(), vec![b'f'; n]].concat();
        let mut paths = vec![b"a".to_vec(), b"r/\xff\xfe".to_vec(), "ä\n b".as_bytes().to_vec()];
        paths.extend([47, 48, 49, 50, 95, 99, 100, 101, 154, 155, 156, 255].map(deep));
        paths.push([deep(100), b"\xff".to_vec()].concat());
        paths.push([deep(155), b"two\nlines".to_vec()].concat());
        for path in &paths {
            let found = read_back(&[member(path, &none)]);
            assert_eq!(found[0].0, *path, "{}", crate::relpath::shown(path));
        }
    }

    #[test]
    fn attributes_and_times_come_back_exactly() {
        let xattrs: Xattrs = vec![(b"user.a=b%".to_vec(), b"\0\xff\n".to_vec())];
        let mut odd = member(b"x", &xattrs);
        odd.mtime = Timestamp { seconds: -2, nanos: 500_000_000 };
        odd.uid = 3_000_000;
        let found = read_back(&[odd]);
        let records = &found[0].1;
        assert_eq!(records.get(b"mtime"), Some(&b"-1.500000000"[..]));
        assert_eq!(records.get(b"uid"), Some(&b"3000000"[..]));
        assert_eq!(records.xattrs(), xattrs);
    }

    #[test]
    fn contents_that_fall_short_of_the_promise_are_an_error() {
        let none = Xattrs::new();
        let mut tarball = Tarball::new(Vec::new());
        assert!(tarball.append(&member(b"x", &none), &mut &b"cc"[..]).is_err());
    }

    #[test]
    fn names_that_differ_in_a_byte_that_is_no_text_differ_in_the_header_too() {
        assert_eq!(fallback(b"n\xff"), b"n%FF");
        assert_ne!(fallback(b"n\xff"), fallback(b"n\xfe"));
    }
}
