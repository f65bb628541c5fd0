//! Archives that `openclaw backup create` made: no inventory, and the rules of OpenClaw's own `backup verify`.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read};

use tar::{Archive, Entry, EntryType};

use super::database::Databases;
use super::shape::{Digest, digest, is_plain};
use super::stranger::{nothing_follows, parse, unproven, unreadable};
use crate::archive::{LONGEST_MANIFEST, MANIFEST, PAYLOAD};
use crate::error::Result;
use crate::relpath::{joined, shown};

/// Longest headers of one entry, with the names in them: the tar crate would take any length into memory.
const LONGEST_HEADERS: u64 = 1 << 20;

/// What an archive of OpenClaw's tells of itself.
pub(super) struct Found {
    pub(super) root: String,
    pub(super) created_at: Option<String>,
    /// Entries but for the manifest.
    pub(super) entries: u64,
}

/// What was seen so far.
#[derive(Default)]
struct Reading {
    root: Option<Vec<u8>>,
    /// Whether an entry can hold others.
    seen: HashMap<Digest, bool>,
    entries: u64,
    manifest: Option<serde_json::Value>,
}

/// Reads one to its end.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(input: impl Read, databases: &mut Databases) -> Result<Found> {
    let mut reading = Reading::default();
    let allowed = Cell::new(LONGEST_HEADERS);
    let mut archive = Archive::new(Allowance { inner: input, left: &allowed });
    for entry in archive.entries().map_err(unreadable)? {
        allowed.set(u64::MAX);
        reading.meet(&mut entry.map_err(unreadable)?, databases)?;
        allowed.set(LONGEST_HEADERS);
    }
    allowed.set(u64::MAX);
    nothing_follows(archive.into_inner())?;
    reading.conclude()
}

/// Ends the reading where more is read at a time than may be.
struct Allowance<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Allowance<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(n as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("the headers of an entry are longer than any name"))?);
        Ok(n)
    }
}

/// What this manifest alone would make of an archive with the root that it names.
///
/// # Errors
/// What is wrong with it.
pub(super) fn judge(mut manifest: &[u8]) -> Result<Found> {
    let manifest: serde_json::Value = parse(&mut manifest, LONGEST_MANIFEST as u64, "manifest")?;
    let root = manifest["archiveRoot"].as_str().map(|root| root.as_bytes().to_vec());
    Reading { root, manifest: Some(manifest), ..Reading::default() }.conclude()
}

impl Reading {
    fn meet<R: Read>(&mut self, entry: &mut Entry<'_, R>, databases: &mut Databases) -> Result<()> {
        let path = entry.path_bytes().into_owned();
        let path = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
        let below = self.below_root(&path)?;
        let kind = entry.header().entry_type();
        self.once(&path, kind)?;
        if below == MANIFEST {
            let limit = LONGEST_MANIFEST as u64;
            return parse(entry, limit, "manifest").map(|manifest| self.manifest = Some(manifest));
        }
        self.entries += 1;
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                databases.meet(&below, entry.size(), entry).map_err(unreadable)?
            }
            EntryType::Directory => {}
            EntryType::Symlink => {}
            EntryType::Link => self.leads_back(&path, entry)?,
            _ => return Err(unproven(format!("{} is of a kind that cannot be restored", shown(&below)))),
        }
        std::io::copy(entry, &mut std::io::sink()).map_err(unreadable)?;
        Ok(())
    }

    /// The path below the one root.
    fn below_root(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        if !is_plain(path) || path.contains(&b'\\') {
            return Err(unproven(format!("{} is no plain path", shown(path))));
        }
        let root = path.split(|&c| c == b'/').next().unwrap_or_default();
        if self.root.get_or_insert_with(|| root.to_vec()) != root {
            return Err(unproven(format!("{} lies outside the root", shown(path))));
        }
        Ok(path.get(root.len() + 1..).unwrap_or_default().to_vec())
    }

    /// No path comes twice, and nothing lies beneath what is no directory.
    fn once(&mut self, path: &[u8], kind: EntryType) -> Result<()> {
        if self.seen.insert(digest(path), kind == EntryType::Directory).is_some() {
            return Err(unproven(format!("{} comes twice", shown(path))));
        }
        let slashes = path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(at, _)| at);
        for at in slashes {
            if self.seen.get(&digest(&path[..at])) == Some(&false) {
                return Err(unproven(format!("{} lies beneath something that is no directory", shown(path))));
            }
        }
        Ok(())
    }

    /// A hard link leads to an entry before it.
    fn leads_back<R: Read>(&self, path: &[u8], entry: &Entry<'_, R>) -> Result<()> {
        let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
        if self.seen.get(&digest(&target)) == Some(&false) && target != path {
            return Ok(());
        }
        Err(unproven(format!("{} is a hard link to {}, which is not there", shown(path), shown(&target))))
    }

    fn conclude(self) -> Result<Found> {
        let root = self.root.ok_or_else(|| unproven("it is empty"))?;
        let manifest = self.manifest.ok_or_else(|| unproven("it has no manifest: it was cut, or is no backup"))?;
        if manifest["schemaVersion"] != 1 || manifest["archiveRoot"].as_str().map(str::as_bytes) != Some(&root) {
            return Err(unproven("its manifest is not of schema version 1, or names another root"));
        }
        for asset in manifest["assets"].as_array().into_iter().flatten() {
            let text = |field: &str| asset[field].as_str().unwrap_or_default().as_bytes().to_vec();
            let (source, path) = (text("sourcePath"), text("archivePath"));
            let expected = joined(&joined(&root, PAYLOAD), source.strip_prefix(b"/").unwrap_or(&source));
            if path != expected || !self.seen.contains_key(&digest(&path)) {
                return Err(unproven(format!("its asset {} is not where it should be", shown(&source))));
            }
        }
        let created_at = manifest["createdAt"].as_str().map(str::to_owned);
        Ok(Found { root: String::from_utf8_lossy(&root).into_owned(), created_at, entries: self.entries })
    }
}
