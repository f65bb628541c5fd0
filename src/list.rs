//! What an archive holds, name by name, proven while it is read.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Serialize;

use crate::archive::{Line, source_path};
use crate::error::{Error, Result};
use crate::event::Observer;
use crate::gate::Gate;
use crate::report::PathName;
use crate::verify::{Guest, Loss, Told, read_ours};

/// One name in an archive.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its absolute path where it was backed up.
    pub path: PathName,
    /// `file`, `directory`, `symlink`, `hardlink`, or `tail` for a half-written record that was set aside.
    pub kind: String,
    /// Bytes of contents in the archive.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification: seconds since the epoch, with nine decimals.
    pub mtime: String,
    /// Where a link leads: a symbolic one as it is, a hard one by an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<PathName>,
    /// What became of it: `kept`, `prefix`, `later`, `torn` or `hollow`.
    pub fate: String,
    /// Why, where that has a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A loss that the archive's report tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldLoss {
    /// The absolute path in the source, or its bytes in hexadecimal.
    pub path: String,
    /// `torn`, `hollow` or `lost`.
    pub fate: String,
    /// Why.
    pub reason: String,
}

/// Which names are wanted: all of them, or those that a pattern fits, and what lies below.
#[derive(Clone, Debug, Default)]
pub struct Wanted(Option<Patterns>);

#[derive(Clone, Debug)]
struct Patterns {
    globs: GlobSet,
    /// Whole paths as they were written: they fit themselves, whatever they would mean as globs.
    paths: Vec<Vec<u8>>,
}

impl Wanted {
    /// Patterns of whole paths. One that begins with no slash may begin at any component. One that could be the start
    /// of a session's number stands for all files of that session too. A whole path fits itself, though its names have
    /// brackets or the like in them.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn parse(patterns: &[String]) -> Result<Self> {
        if patterns.is_empty() {
            return Ok(Self(None));
        }
        let (mut set, mut paths) = (GlobSetBuilder::new(), Vec::new());
        let malformed = |error: globset::Error| Error::Usage(error.to_string());
        for pattern in patterns {
            let trimmed = pattern.strip_suffix('/').unwrap_or(pattern);
            let is_path = trimmed.starts_with('/');
            let whole = if is_path { trimmed.to_owned() } else { format!("**/{trimmed}") };
            let sessions = is_session_id(trimmed).then(|| format!("**/sessions/{trimmed}*"));
            let below = |glob: String| [format!("{glob}/**"), glob];
            for glob in [whole].into_iter().chain(sessions).flat_map(below) {
                match GlobBuilder::new(&glob).literal_separator(true).build() {
                    Ok(glob) => drop(set.add(glob)),
                    Err(_) if is_path => {}
                    Err(error) => return Err(malformed(error)),
                }
            }
            paths.extend(is_path.then(|| trimmed.as_bytes().to_vec()));
        }
        Ok(Self(Some(Patterns { globs: set.build().map_err(malformed)?, paths })))
    }

    /// Whether all names are.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `path` is one of them.
    pub fn fits(&self, path: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|patterns| {
            let is_below =
                |top: &Vec<u8>| path.strip_prefix(&top[..]).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
            patterns.paths.iter().any(is_below) || patterns.globs.is_match(Path::new(OsStr::from_bytes(path)))
        })
    }
}

/// Whether a pattern could be the start of a session's number, which is a UUID: at least four of its digits.
fn is_session_id(pattern: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f' | '-');
    (4..=36).contains(&pattern.len()) && pattern.chars().all(is_digit)
}

/// Lists what is in an archive of ours. `tell` is told each wanted name as soon as it is known that its entry is what
/// the inventory says; that the archive is complete is only proven when this returns.
///
/// Returns the losses that the archive's report tells.
///
/// # Errors
/// [`Error::Unproven`] with the first thing that is wrong; an archive that cannot be read; those of `tell`, which end
/// the listing.
pub fn list(
    archive: &Path,
    wanted: &Wanted,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    tell: &mut dyn FnMut(Listed) -> io::Result<()>,
) -> Result<Vec<ToldLoss>> {
    let mut lister = Lister { wanted, tell, losses: Vec::new() };
    read_ours(archive, gate, observer, &mut lister)?;
    Ok(lister.losses)
}

struct Lister<'a> {
    wanted: &'a Wanted,
    tell: &'a mut dyn FnMut(Listed) -> io::Result<()>,
    losses: Vec<ToldLoss>,
}

impl Guest for Lister<'_> {
    fn line(&mut self, line: &Line) -> Result<()> {
        let below = line.path.bytes().unwrap_or_default();
        let path = source_path(&below).to_vec();
        if !self.wanted.fits(&path) {
            return Ok(());
        }
        let link = line.link.as_ref().and_then(|link| link.bytes());
        let link = link.map(|link| PathName(if line.kind == "hardlink" { source_path(&link).to_vec() } else { link }));
        let listed = Listed {
            path: PathName(path),
            kind: line.kind.clone(),
            size: line.size,
            mode: line.mode,
            uid: line.uid,
            gid: line.gid,
            mtime: line.mtime.clone(),
            link,
            fate: line.fate.clone(),
            reason: line.reason.clone(),
        };
        (self.tell)(listed).map_err(|error| Error::failed("write", "the list", error))
    }

    fn report(&mut self, report: Told) {
        let told = |loss: Loss| ToldLoss { path: loss.path.text(), fate: loss.fate, reason: loss.reason };
        self.losses = report.losses.into_iter().map(told).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_a_path_and_what_lies_below() {
        let fits =
            |pattern: &str, path: &str| Wanted::parse(&[pattern.to_owned()]).expect("parses").fits(path.as_bytes());
        for (pattern, path, expected) in [
            ("/s/agents", "/s/agents", true),
            ("/s/agents/", "/s/agents/a/b", true),
            ("/s/agents", "/s/agents2", false),
            ("agents/main", "/s/agents/main/sessions/x", true),
            ("*.jsonl", "/s/a/x.jsonl", true),
            ("/s/*.jsonl", "/s/a/x.jsonl", false),
            ("/s/**/*.jsonl", "/s/a/x.jsonl", true),
            ("4f1c", "/s/agents/main/sessions/4f1c0a3e-1111.jsonl", true),
            ("4f1c0a3e-", "/s/agents/main/sessions/4f1c0a3e-1111.jsonl.deleted.1", true),
            ("4f1c", "/s/agents/main/notes/4f1c0a3e.jsonl", false),
            ("4f1", "/s/agents/main/sessions/4f1c0a3e-1111.jsonl", false),
            ("4f1z", "/s/agents/main/sessions/4f1z.jsonl", false),
            // A path copied from a list did not fit itself, and named its neighbour in its place.
            ("/s/app/[id]", "/s/app/[id]/page.tsx", true),
            ("/s/{{name}}/", "/s/{{name}}", true),
            ("/s/a[", "/s/a[", true),
            ("/s/a[", "/s/a[2", false),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
        assert!(Wanted::default().fits(b"/anything"));
        assert!(Wanted::parse(&["a[".to_owned()]).is_err());
    }
}
