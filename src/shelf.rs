//! A directory of archives, and what is known of each of ours: each is read to its end, and that it was proven is noted
//! on it, so that it is not read again every day.
//!
//! The note is an extended attribute that is bound to the file's inode, length and time: a copy is read again, and so is
//! what was written to, and all whose proof is older than [`GOOD_FOR`], since disks rot. Whoever reads an archive and finds
//! it broken takes the note away (`crate::verify`). Where attributes cannot be had, every archive is read every time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::archive::Name;
use crate::entry::{Kind, Stat, Timestamp};
use crate::error::{Error, Result};
use crate::event::Observer;
use crate::gate::{self, Gate, Realm, Verb};
use crate::naming::{PROVEN, archive_stamp};
use crate::report::{Consistency, Report};
use crate::sys::{self, Dir, Reader};
use crate::verify::{Guest, Told, read_ours_of};
use crate::way_back;

/// For so long a proof that is noted is believed.
const GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An archive that says it is made later than in so long was made by a clock that was wrong.
const CLOCKS_DIFFER: Duration = Duration::from_secs(24 * 60 * 60);

/// How archives are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// Each is read, whatever is noted on it.
    pub(crate) again: bool,
    /// What is proven is noted.
    pub(crate) note: bool,
}

/// The archives in a directory that have a name of ours.
pub(crate) struct Shelf {
    /// The directory.
    pub(crate) dir: Dir,
    /// Its path.
    pub(crate) path: PathBuf,
    /// By name, so that the oldest comes first.
    pub(crate) archives: Vec<Shelved>,
}

/// One of them.
pub(crate) struct Shelved {
    /// Its name.
    pub(crate) name: Vec<u8>,
    /// The file that was looked at.
    pub(crate) stat: Stat,
    /// What is known of it, or why it is not proven.
    pub(crate) known: std::result::Result<Known, String>,
}

/// What is known of an archive that is proven.
pub(crate) struct Known {
    /// When it was made.
    pub(crate) at: jiff::Timestamp,
    /// What it says about itself.
    pub(crate) about: About,
    /// Whether a command that failed can be gone back from by it.
    pub(crate) is_way_back: bool,
}

/// What an archive says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// When it was made: ISO 8601, UTC.
    pub(crate) created_at: String,
    /// What it is a backup of. The workspaces of a state directory come and go, and are not named.
    pub(crate) sources: Vec<String>,
    /// Names that are torn, hollow or lost.
    pub(crate) losses: u64,
    /// Reasons why it may lack what it should hold. Older archives, and notes on them, do not tell.
    #[serde(default)]
    pub(crate) gaps: u64,
    /// `instant` or `window`.
    pub(crate) consistent: String,
    /// What the run took until the report was written.
    pub(crate) elapsed_milliseconds: Option<u64>,
}

/// That an archive was proven, and which file that was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    ino: u64,
    bytes: u64,
    mtime: String,
    proven: i64,
    about: About,
}

impl Shelf {
    /// Looks at all archives in a directory that have a name of ours.
    ///
    /// # Errors
    /// A directory that cannot be listed to its end; a cancelled run.
    pub(crate) fn open(
        directory: &Path,
        manner: Manner,
        gate: &Arc<dyn Gate>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let failed = |error| Error::failed("open the directory", directory, error);
        let path = {
            let _step = gate::take_at(&**gate, Verb::Stat, Realm::Output, directory).map_err(failed)?;
            directory.canonicalize().map_err(failed)?
        };
        let dir = Dir::open(&path, Realm::Output, Arc::clone(gate)).map_err(failed)?;
        let look = Look { dir: &dir, path: &path, manner, gate, observer };
        let mut archives = Vec::new();
        for name in names(&dir).map_err(|error| Error::failed("list the directory", directory, error))? {
            archives.extend(look.at(name)?);
        }
        Ok(Self { dir, path, archives })
    }
}

/// The names of ours, the oldest first.
fn names(dir: &Dir) -> io::Result<Vec<Vec<u8>>> {
    let all = dir.list()?.whole()?.into_iter().map(|found| found.name.to_vec());
    let mut ours: Vec<Vec<u8>> = all.filter(|name| archive_stamp(name).is_some()).collect();
    ours.sort_by(|one, other| archive_stamp(one).cmp(&archive_stamp(other)));
    Ok(ours)
}

/// Where and how archives are looked at.
struct Look<'a> {
    dir: &'a Dir,
    path: &'a Path,
    manner: Manner,
    gate: &'a Arc<dyn Gate>,
    observer: &'a dyn Observer,
}

impl Look<'_> {
    /// What is known of the archive `name`; nothing where it is gone.
    fn at(&self, name: Vec<u8>) -> Result<Option<Shelved>> {
        let found = sys::if_there(self.dir.stat(&name));
        let found = found.map_err(|error| Error::failed("look at an archive in", self.path, error))?;
        let Some(stat) = found else { return Ok(None) };
        let known = match self.know(&name, &stat) {
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => Err(error.to_string()),
            Ok((about, is_way_back)) => made_at(&name, about, is_way_back),
        };
        Ok(Some(Shelved { name, stat, known }))
    }

    /// What it says about itself, and whether it is marked as a way back.
    fn know(&self, name: &[u8], stat: &Stat) -> Result<(About, bool)> {
        if stat.kind != Kind::File {
            return Err(Error::Unproven("it is no regular file".to_owned()));
        }
        let path = self.path.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
        let failed = |error| Error::failed("read the archive", &path, error);
        let file = self.dir.open_file(name).map_err(failed)?;
        // What cannot be read now is asked for again before the archive is removed.
        let is_way_back = gate::tolerate(way_back::is_marked(&file)).map_err(failed)?.unwrap_or(false);
        if !self.manner.again
            && let Some(about) = noted(&file, stat)
        {
            return Ok((about, is_way_back));
        }
        let contents = self.dir.open_file(name).map_err(failed)?;
        let about = self.read(contents, &path)?;
        if !is_same(&file.stat().map_err(failed)?, stat) {
            return Err(Error::Unproven("it changed while it was read".to_owned()));
        }
        if self.manner.note {
            note(&file, stat, &about);
        }
        Ok((about, is_way_back))
    }

    fn read(&self, file: Reader, path: &Path) -> Result<About> {
        let mut reading = Reading::default();
        let proof = read_ours_of(file.into_file(), path, self.gate, self.observer, &mut reading)?;
        let stamp = proof.root.split('-').next().unwrap_or_default();
        let is_own = archive_stamp(path.file_name().map_or(b"", |name| name.as_encoded_bytes()));
        if is_own.is_none_or(|(named, _)| named != stamp) {
            return Err(Error::Unproven("it was made at another time than its name says".to_owned()));
        }
        Ok(reading.0)
    }
}

/// Keeps what the report in an archive says.
#[derive(Default)]
struct Reading(About);

impl Guest for Reading {
    fn report(&mut self, report: Told) {
        let assets = report.assets.into_iter().map(|source| (source.kind, source.source_path));
        self.0 = About {
            created_at: report.created_at.unwrap_or_default(),
            sources: sources(assets, report.include_workspace, report.state_alone),
            losses: report.losses.len() as u64,
            gaps: report.gaps.0,
            consistent: report.consistent.unwrap_or_default(),
            elapsed_milliseconds: report.elapsed_milliseconds,
        };
    }
}

impl About {
    /// What a report that was just made says.
    fn of(report: &Report) -> Self {
        Self {
            created_at: report.created_at.clone(),
            sources: sources_of(report),
            losses: report.losses.len() as u64,
            gaps: report.gaps.len() as u64,
            consistent: report.consistent.map_or("", Consistency::as_str).to_owned(),
            elapsed_milliseconds: report.elapsed_milliseconds,
        }
    }
}

/// What a report names as its sources. With a state directory, what its config adds is not: that comes and goes. Where
/// that was left out, because only the state directory was named, this is another source.
fn sources(assets: impl Iterator<Item = (String, Name)>, include_workspace: bool, state_alone: bool) -> Vec<String> {
    let (mut told, mut is_state) = (Vec::new(), false);
    let assets: Vec<_> = assets.inspect(|(kind, _)| is_state |= kind == "state").collect();
    for (kind, path) in assets {
        let path = match path {
            Name::Text(path) => path,
            Name::Bytes { hex } => format!("hex:{hex}"),
        };
        match kind.as_str() {
            "state" | "tree" => told.push(path),
            _ if is_state => {}
            _ => told.push(format!("{kind} {path}")),
        }
    }
    told.sort();
    told.extend((is_state && !include_workspace).then(|| "without workspaces".to_owned()));
    told.extend((is_state && state_alone).then(|| "named alone".to_owned()));
    told
}

/// What a report that was just made says of its archive.
pub(crate) fn sources_of(report: &Report) -> Vec<String> {
    let assets = report.assets.iter().map(|asset| (asset.kind.to_owned(), Name::new(&asset.source_path.0)));
    sources(assets, report.include_workspace, report.state_alone)
}

fn made_at(name: &[u8], about: About, is_way_back: bool) -> std::result::Result<Known, String> {
    let at: jiff::Timestamp = about.created_at.parse().map_err(|_| "it does not say when it was made".to_owned())?;
    let now = sys::now().seconds;
    if at.as_second() > now.saturating_add_unsigned(CLOCKS_DIFFER.as_secs()) {
        return Err("it says that it was made in the future: a clock was wrong".to_owned());
    }
    // A note may be older than the name.
    let stamp = sys::utc_stamp(Timestamp { seconds: at.as_second(), nanos: 0 });
    match archive_stamp(name) {
        Some((named, _)) if named == stamp => Ok(Known { at, about, is_way_back }),
        _ => Err("it was made at another time than its name says".to_owned()),
    }
}

/// Whether this is the file that was looked at, as it was then.
pub(crate) fn is_same(stat: &Stat, seen: &Stat) -> bool {
    (stat.ino, stat.size, stat.mtime) == (seen.ino, seen.size, seen.mtime)
}

/// What is noted on an archive, if that is about this very file, and not too old.
fn noted(file: &Reader, stat: &Stat) -> Option<About> {
    let xattrs = file.xattrs().ok()?;
    let (_, value) = xattrs.iter().find(|(name, _)| name == PROVEN)?;
    let note: Note = serde_json::from_slice(value).ok()?;
    let is_it = (note.ino, note.bytes, &note.mtime) == (stat.ino, stat.size, &stat.mtime.to_string());
    let now = sys::now();
    let is_fresh = note.proven <= now.seconds && note.proven >= now.before(GOOD_FOR).seconds;
    (is_it && is_fresh).then_some(note.about)
}

/// Notes that an archive was proven. Where that cannot be, it is read again the next time.
fn note(file: &Reader, stat: &Stat, about: &About) {
    let (mtime, proven) = (stat.mtime.to_string(), sys::now().seconds);
    let note = Note { ino: stat.ino, bytes: stat.size, mtime, proven, about: about.clone() };
    let written = serde_json::to_vec(&note).map_err(io::Error::from).and_then(|note| file.set_xattr(PROVEN, &note));
    written.unwrap_or_default();
}

/// Notes on an archive that it was proven when it was published, if it has a name that a shelf looks at.
pub(crate) fn note_published(path: &Path, report: &Report, gate: &Arc<dyn Gate>) {
    let noted = || -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(|name| name.as_encoded_bytes())) else {
            return Ok(());
        };
        if archive_stamp(name).is_none() {
            return Ok(());
        }
        let file = Dir::open(parent, Realm::Output, Arc::clone(gate))?.open_file(name)?;
        note(&file, &file.stat()?, &About::of(report));
        Ok(())
    };
    // It is proven without a note as well; whoever looks at it then reads it.
    noted().unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_same_though_its_workspaces_change() {
        let of = |assets: &[(&str, &str)], include: bool| {
            sources(assets.iter().map(|(kind, path)| ((*kind).to_owned(), Name::new(path.as_bytes()))), include, false)
        };
        let (state, workspace) = (("state", "/h/.claw"), ("workspace", "/h/w"));
        let whole = of(&[state], true);
        assert_eq!(whole, of(&[workspace, state], true));
        assert_ne!(whole, of(&[state], false), "a part is no substitute for the whole");
        assert_ne!(whole, of(&[state, ("tree", "/h/notes")], true));
        assert_eq!(of(&[("config", "/h/c.json")], false), ["config /h/c.json"]);
        assert_eq!(of(&[("tree", "/b"), ("tree", "/a")], true), ["/a", "/b"]);
        assert_eq!(sources([("tree".to_owned(), Name::new(b"/\xff"))].into_iter(), true, false), ["hex:2fff"]);
    }

    #[test]
    fn a_name_that_does_not_fit_the_report_is_not_believed() {
        let about = |at: &str| About { created_at: at.to_owned(), ..About::default() };
        let name = b"clawsnap-20231114T221320Z.tar";
        assert!(made_at(name, about("2023-11-14T22:13:20.123Z"), false).is_ok());
        for (created, reason) in [
            ("2023-11-14T22:13:21.000Z", "another time"),
            ("yesterday", "does not say"),
            ("2199-01-01T00:00:00.000Z", "future"),
        ] {
            let error = made_at(name, about(created), false).err().expect(created);
            assert!(error.contains(reason), "{error}");
        }
    }
}
