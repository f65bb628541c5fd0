//! Freezing one name: look, choose, hold, look again.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::choice::{self, Capture, Facts, Mode};
use super::content::{self, Fingerprint, Permit, Pool, Reading};
use super::database::{Databases, MAGIC, Spot, is_sidecar, may_be_database};
use super::refusal::{Meaning, meaning};
use super::staging::Staging;
use super::tree::{Entry, Held, Marks};
use crate::entry::{Kind, Stat, Timestamp, Xattrs};
use crate::fate::Fate;
use crate::gate::{self, Verb};
use crate::plan::Class;
use crate::relpath::Leaf;
use crate::sys::{self, Dir, Reader};

/// How often a name is looked at again because it was bound to something else after we took hold of it.
const ATTEMPTS: u32 = 4;

/// What every capture of a run goes by.
pub(crate) struct Settings {
    /// How files shall be frozen.
    pub(crate) mode: Mode,
    /// What was modified at or after this moment is hot.
    pub(crate) hot_since: Timestamp,
    /// The largest file that is held in memory.
    pub(crate) hold_limit: u64,
    /// Bytes that may be held in memory.
    pub(crate) memory: Arc<Pool>,
    /// Descriptors that may be kept open.
    pub(crate) descriptors: Arc<Pool>,
    /// Those that have helpers.
    pub(crate) databases: Databases,
}

/// What came of the attempt to capture one name.
pub(crate) enum Outcome {
    /// It is held; the entry has no name yet.
    Taken(Entry),
    /// It was not there, or was something else than was listed, or changed hands all the time: the next listing
    /// decides.
    Moved,
    /// It cannot be held; this is its fate.
    Noted(Fate),
}

/// The kernel refused a step.
#[derive(Debug)]
pub(crate) struct Refusal {
    verb: Verb,
    error: io::Error,
}

impl Refusal {
    pub(crate) fn meaning(&self) -> Meaning {
        meaning(self.verb, &self.error)
    }

    /// The refusal in words, as the reason of a fate.
    pub(crate) fn reason(&self) -> Box<str> {
        format!("{}: {}", verb_in_words(self.verb), self.error).into()
    }

    /// Whether the answer was that nothing is there.
    pub(crate) fn is_absence(&self) -> bool {
        sys::errno(&self.error) == Some(sys::Errno::NOENT)
    }

    /// The kernel's answer itself.
    pub(crate) fn into_error(self) -> io::Error {
        self.error
    }
}

fn verb_in_words(verb: Verb) -> &'static str {
    match verb {
        Verb::Open | Verb::OpenDir => "cannot be opened",
        Verb::List => "cannot be listed",
        Verb::Stat => "cannot be looked at",
        Verb::Link => "cannot be linked",
        Verb::Create | Verb::Write => "cannot be copied into staging",
        Verb::Spawn | Verb::Ask => "cannot be served by a helper",
        _ => "cannot be read",
    }
}

/// Names the step that an answer came from.
pub(crate) trait By<T> {
    /// The same result, with the step in its error.
    fn by(self, verb: Verb) -> Result<T, Refusal>;
}

impl<T> By<T> for io::Result<T> {
    fn by(self, verb: Verb) -> Result<T, Refusal> {
        self.map_err(|error| Refusal { verb, error })
    }
}

/// A file as it was found, and how it shall be treated.
#[derive(Clone, Copy)]
struct Found<'a> {
    name: &'a [u8],
    class: Class,
    stat: Stat,
    marks: Marks,
    /// Of a database: its extended attributes. They were read before it had a helper.
    database: Option<&'a Xattrs>,
    /// There will be no other attempt: it is held as well as it can be.
    is_last: bool,
}

/// A file of which only the name is frozen, as it was looked at when it was held.
struct Named {
    stat: Stat,
    /// What proves that it only grew since, if it is hot.
    fingerprint: Option<Box<Fingerprint>>,
    marks: Marks,
}

/// Captures the names of one directory.
pub(crate) struct Capturer<'a> {
    /// What the run goes by.
    pub(crate) settings: &'a Settings,
    /// The number of the root that the directory is below.
    pub(crate) root: u16,
    /// The root's directory.
    pub(crate) base: &'a Dir,
    /// The live directory.
    pub(crate) dir: &'a Dir,
    /// Where captures are put, if there is a place at all.
    pub(crate) staging: Option<&'a Arc<Staging>>,
    /// Whether that place is on the directory's mount.
    pub(crate) same_mount: bool,
    /// How coarse the clock is that stamps files here.
    pub(crate) tick: Duration,
    /// Which worker this is.
    pub(crate) worker: usize,
}

impl Capturer<'_> {
    /// Captures `name`. `raw` says that it is the log or journal of a database whose bytes alone could be had.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(crate) fn capture(&self, name: &[u8], class: Class, raw: bool) -> io::Result<Outcome> {
        for number in 1..=ATTEMPTS {
            match self.attempt(name, class, raw, number == ATTEMPTS) {
                Ok(Some(entry)) => return Ok(Outcome::Taken(entry)),
                Ok(None) => {}
                Err(refusal) => match refusal.meaning() {
                    Meaning::Cancelled => return Err(refusal.into_error()),
                    Meaning::Vanished => return Ok(Outcome::Moved),
                    _ => return Ok(Outcome::Noted(Fate::Lost(refusal.reason()))),
                },
            }
        }
        Ok(Outcome::Moved)
    }

    /// One attempt; `None` if the name changed hands meanwhile, or its file moved and this attempt is not the last.
    fn attempt(&self, name: &[u8], class: Class, raw: bool, is_last: bool) -> Result<Option<Entry>, Refusal> {
        let looked = sys::coarse_now();
        let stat = self.dir.stat(name).by(Verb::Stat)?;
        match stat.kind {
            Kind::Symlink => self.symlink(name, stat).map(Some),
            Kind::File => {
                let database = if raw { None } else { self.database_at(name, &stat)? };
                let marks = Marks { database: raw || database.is_some(), ..self.marks(&stat, looked) };
                self.file(Found { name, class, stat, marks, database: database.as_ref(), is_last })
            }
            Kind::Directory | Kind::Fifo | Kind::Socket | Kind::Device => Ok(None),
        }
    }

    fn symlink(&self, name: &[u8], stat: Stat) -> Result<Entry, Refusal> {
        let target = self.dir.read_link(name).by(Verb::ReadLink)?;
        Ok(entry(stat, Held::Symlink(Box::new(target.into())), Marks::default()))
    }

    /// What its times say about a file whose metadata was taken when the filesystem's clock stood at `looked`, or
    /// later.
    fn marks(&self, stat: &Stat, looked: Timestamp) -> Marks {
        // What is young is hot by any clock: that of a server may be far behind ours.
        let young = stat.mtime.is_fresh(looked, self.tick);
        let hot = young || stat.mtime >= self.settings.hot_since;
        Marks { hot, young, ..Marks::default() }
    }

    /// The marks of a file that was read: it may have been modified since it was found, and is hot then.
    fn marks_when_read<T>(&self, found: &Found<'_>, reading: &Reading<T>) -> Marks {
        let database = found.marks.database;
        Marks { unproven: !reading.proven, database, ..self.marks(&reading.stat, reading.looked) }
    }

    fn file(&self, found: Found<'_>) -> Result<Option<Entry>, Refusal> {
        let mut first_refusal = None;
        for &capture in choice::chain(self.choose(&found), found.class) {
            match self.take(capture, &found) {
                Err(refusal) if matches!(refusal.meaning(), Meaning::Vanished | Meaning::Cancelled) => {
                    return Err(refusal);
                }
                // The first answer that is about the file, not about our way of taking it, explains a loss best.
                Err(refusal) if refusal.meaning() == Meaning::Unsuited => {
                    first_refusal = first_refusal.or(Some(refusal))
                }
                Err(refusal) => first_refusal = Some(refusal),
                taken => return taken,
            }
        }
        first_refusal.map_or(Ok(None), Err)
    }

    fn choose(&self, found: &Found<'_>) -> Capture {
        if found.marks.database && found.database.is_none() {
            return Capture::Copy;
        }
        let holdable = found.stat.size <= self.settings.hold_limit;
        choice::choose(
            self.settings.mode,
            Facts {
                class: found.class,
                hot: found.marks.hot,
                database: found.marks.database,
                holdable,
                staged: self.same_mount,
                clones: self.staging.is_some_and(|staging| staging.clones()),
            },
        )
    }

    fn take(&self, capture: Capture, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        match capture {
            Capture::Link => self.link(found),
            Capture::Clone => self.clone_extents(found),
            Capture::Hold => self.hold(found),
            Capture::Pin => self.pin(found),
            Capture::Copy => self.copy(found),
            Capture::Database => self.database(found),
        }
    }

    fn staging(&self) -> Result<&Arc<Staging>, Refusal> {
        let missing = || io::Error::other("there is no staging directory");
        self.staging.ok_or_else(missing).by(Verb::Create)
    }

    /// Look after you hold: what the link is bound to is what was frozen, whatever the name was bound to before.
    fn link(&self, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        let staging = self.staging()?;
        let berth = staging.berth(self.worker).by(Verb::Create)?;
        berth.link(self.dir, found.name).by(Verb::Link)?;
        let held = berth.stat().by(Verb::Stat);
        match held.and_then(|held| self.named(found, held, || berth.open().map(Arc::new))) {
            Ok(Some(Named { stat, fingerprint, marks })) => {
                let stat = Stat { nlink: stat.nlink - 1, ctime: found.stat.ctime, ..stat };
                Ok(Some(Entry { fingerprint, ..entry(stat, Held::Link(berth.staged), marks) }))
            }
            other => {
                staging.give_up(berth.staged);
                other.map(|_| None)
            }
        }
    }

    fn pin(&self, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        let exhausted = || io::Error::other("the limit of open files is reached");
        let permit = self.settings.descriptors.take(1).ok_or_else(exhausted).by(Verb::Create)?;
        let Some((reader, held)) = self.open(found)? else { return Ok(None) };
        let reader = Arc::new(reader);
        let Some(named) = self.named(found, held, || Ok(Arc::clone(&reader)))? else { return Ok(None) };
        let Named { stat, fingerprint, marks } = named;
        let file =
            Arc::try_unwrap(reader).map_err(|_| io::Error::other("the file is in use")).by(Verb::Open)?.into_file();
        let held = Held::Pin(Box::new(Pinned { file, _permit: permit }));
        Ok(Some(Entry { fingerprint, ..entry(stat, held, marks) }))
    }

    fn hold(&self, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        let refused = || io::Error::other("it is not for the memory of hot files");
        let fits = found.marks.hot && found.stat.size <= self.settings.hold_limit;
        let permit = fits.then(|| self.settings.memory.take(found.stat.size)).flatten();
        let permit = permit.ok_or_else(refused).by(Verb::Create)?;
        let Some((reader, _)) = self.open(found)? else { return Ok(None) };
        let xattrs = boxed(reader.xattrs().by(Verb::Xattr)?);
        let reading = content::read(&reader).by(Verb::Read)?;
        let marks = self.marks_when_read(found, &reading);
        let held = Held::Hold(Box::new(Bytes { bytes: reading.contents, _permit: permit }));
        Ok(Some(Entry { xattrs, ..entry(reading.stat, held, marks) }))
    }

    fn copy(&self, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        let staging = self.staging()?;
        let Some((reader, _)) = self.open(found)? else { return Ok(None) };
        let xattrs = boxed(reader.xattrs().by(Verb::Xattr)?);
        let reading = content::copy(&reader, staging, self.worker).by(Verb::Read)?;
        let marks = self.marks_when_read(found, &reading);
        Ok(Some(Entry { xattrs, ..entry(reading.stat, Held::Copy(reading.contents), marks) }))
    }

    fn clone_extents(&self, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        let staging = self.staging()?;
        let Some((reader, _)) = self.open(found)? else { return Ok(None) };
        let xattrs = boxed(reader.xattrs().by(Verb::Xattr)?);
        let place = staging.place(self.worker).by(Verb::Create)?;
        let file = staging.create_file(place).by(Verb::Create)?;
        let cloned = file.clone_from_file(&reader).by(Verb::Clone).and_then(|()| reader.stat().by(Verb::Stat));
        match cloned {
            Ok(after) => {
                // The extents are shared at once, but not the metadata: the length is that of what was shared.
                let size = file.reader().and_then(|clone| clone.stat()).by(Verb::Stat)?.size;
                let marks = Marks { unproven: !after.same_contents(&found.stat), ..found.marks };
                let stat = Stat { size, ..after };
                Ok(Some(Entry { xattrs, ..entry(stat, Held::Clone(place), marks) }))
            }
            Err(refusal) => {
                staging.give_up(place);
                if refusal.verb == Verb::Clone && refusal.meaning() == Meaning::Unsuited {
                    staging.refuse_clones();
                }
                Err(refusal)
            }
        }
    }

    fn database(&self, found: &Found<'_>) -> Result<Option<Entry>, Refusal> {
        let (staging, databases) = (self.staging()?, &self.settings.databases);
        if !databases.are_served() {
            return Err(io::Error::other("no helper is known")).by(Verb::Spawn);
        }
        let (base, dir) = (self.base.clone(), self.dir.path().clone());
        let spot = Spot { root: self.root, base, dir, name: found.name.into() };
        let database = databases.take(spot, found.stat, self.tick, staging);
        let held = Held::Database(database.by(Verb::Create)?);
        let xattrs = boxed(found.database.cloned().unwrap_or_default());
        Ok(Some(Entry { xattrs, ..entry(found.stat, held, Marks::default()) }))
    }

    /// Opens what was found, and looks at it; `None` if the name is bound to something else by now.
    fn open(&self, found: &Found<'_>) -> Result<Option<(Reader, Stat)>, Refusal> {
        let reader = self.dir.open_file(found.name).by(Verb::Open)?;
        let opened = reader.stat().by(Verb::Stat)?;
        Ok((opened.kind == Kind::File && opened.id() == found.stat.id()).then_some((reader, opened)))
    }

    /// What is known of a file whose contents are not frozen, and that looked like this when it was `held`; `None` if it is
    /// to be taken anew.
    fn named(
        &self,
        found: &Found<'_>,
        held: Stat,
        open: impl FnOnce() -> io::Result<Arc<Reader>>,
    ) -> Result<Option<Named>, Refusal> {
        let unmoved = held.same_contents(&found.stat);
        if unmoved && !found.marks.hot {
            return Ok(Some(Named { stat: held, fingerprint: None, marks: found.marks }));
        }
        if held.id() != found.stat.id() || !unmoved && !found.is_last {
            return Ok(None);
        }
        let reader = open().by(Verb::Open)?;
        let print = if unmoved { Fingerprint::of(&reader, held.size).by(Verb::Read)? } else { None };
        let now = reader.stat().by(Verb::Stat)?;
        // Taken of other contents than were looked at, it would prove the wrong thing.
        let fingerprint = print.filter(|_| now.same_contents(&found.stat)).map(Box::new);
        if fingerprint.is_some() {
            return Ok(Some(Named { stat: held, fingerprint, marks: found.marks }));
        }
        // It is written to faster than it can be looked at. It is there all the time, so it is held as it is by now, and
        // nothing is believed of it: what became of it shows when it is archived.
        let marks = Marks { hot: true, unproven: true, ..found.marks };
        Ok(found.is_last.then_some(Named { stat: now, fingerprint, marks }))
    }

    /// The extended attributes of a SQLite database; `None` if the file is none. From then on this process does not
    /// open it.
    fn database_at(&self, name: &[u8], stat: &Stat) -> Result<Option<Xattrs>, Refusal> {
        let found = sniff(self.dir, name, stat).and_then(|reader| reader.map(|reader| reader.xattrs()).transpose());
        match found.by(Verb::Open) {
            Ok(found) => Ok(found),
            Err(refusal) if matches!(refusal.meaning(), Meaning::Vanished | Meaning::Cancelled) => Err(refusal),
            // What we may not read is nobody's database here; its capture will say so.
            Err(refusal) if refusal.meaning() == Meaning::Denied => Ok(None),
            // Not knowing is no leave to link it.
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether `name` is what its ending says: the log, journal or index of a database.
    ///
    /// # Errors
    /// Only the cancellation of the run: what cannot be looked at is captured, or not, as any other file.
    pub(crate) fn is_sidecar(&self, name: &[u8]) -> io::Result<bool> {
        let look = || -> io::Result<bool> {
            let stat = self.dir.stat(name)?;
            let mut start = [0; 8];
            let filled = match stat.kind {
                Kind::File => self.dir.open_file(name)?.fill_at(&mut start, 0)?,
                _ => return Ok(false),
            };
            Ok(is_sidecar(name, &start[..filled]))
        };
        match look() {
            Err(error) if gate::is_cancelled(&error) => Err(error),
            // One that may not be read beside a database that could be copied was read by somebody who may.
            other => Ok(other.unwrap_or(true)),
        }
    }
}

/// Opens a file if it is a SQLite database, by its first bytes. Only this reads a file before it is captured, and only
/// where length or name allow it to be one.
fn sniff(dir: &Dir, name: &[u8], stat: &Stat) -> io::Result<Option<Reader>> {
    if !may_be_database(name, stat.size) {
        return Ok(None);
    }
    let reader = dir.open_file(name)?;
    let mut magic = [0; MAGIC.len()];
    reader.fill_at(&mut magic, 0)?;
    Ok((magic == *MAGIC).then_some(reader))
}

/// Whether a file would be captured as a database, as far as it can be read.
pub(crate) fn is_database(dir: &Dir, name: &[u8], stat: &Stat) -> bool {
    sniff(dir, name, stat).is_ok_and(|found| found.is_some())
}

/// Bytes held in memory.
pub(crate) struct Bytes {
    pub(crate) bytes: Vec<u8>,
    _permit: Permit,
}

/// A descriptor held open.
pub(crate) struct Pinned {
    pub(crate) file: File,
    _permit: Permit,
}

/// An entry that still lacks its name: whoever asked for the capture has that.
fn entry(stat: Stat, held: Held, marks: Marks) -> Entry {
    Entry { name: Leaf::default(), stat, held, xattrs: None, fingerprint: None, marks }
}

fn boxed(xattrs: Xattrs) -> Option<Box<Xattrs>> {
    (!xattrs.is_empty()).then(|| Box::new(xattrs))
}
