//! From what is held to what is archived: the promised bytes of one file, and its fate.
//!
//! A link or a descriptor freezes a name, not the contents. What was not touched since is kept. What was only
//! appended to is a prefix. What was rewritten is captured again, whole and at rest, from the live name; only if that
//! fails too it is torn.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::exact::Shortfall;
use crate::entry::{Kind, Stat, Xattrs};
use crate::fate::Fate;
use crate::freeze::{self, Ablation, Base, Claim, Entry, Fingerprint, Held, Node, Staged, Staging};
use crate::gate;
use crate::lines;
use crate::sys::{self, Reader};

/// Files up to this size are read whole before their header is written.
pub(crate) const SMALL: u64 = 1024 * 1024;

/// How long a file must not have been modified before it is taken for whole again.
const QUIET: Duration = Duration::from_millis(20);

/// How long one file is waited for, and all files of a run together.
const PATIENCE: Duration = Duration::from_secs(1);
const ALL_PATIENCE: Duration = Duration::from_secs(10);

/// A file that is about to be archived.
pub(crate) struct Contents<'a> {
    /// Its bytes.
    pub(crate) body: Body<'a>,
    /// Their number.
    pub(crate) size: u64,
    /// Metadata that belongs to them.
    pub(crate) stat: Stat,
    /// Extended attributes.
    pub(crate) xattrs: Cow<'a, Xattrs>,
    /// What became of it, as far as is known before the bytes are read.
    pub(crate) fate: Fate,
    /// A half-written record that is set aside.
    pub(crate) tail: Option<Vec<u8>>,
    /// How to find out afterwards whether it was touched while it was read.
    pub(crate) recheck: Option<Recheck<'a>>,
}

/// Where the bytes come from.
pub(crate) enum Body<'a> {
    /// From memory, all of them.
    Bytes(Cow<'a, [u8]>),
    /// From a file that others may write to.
    File(Arc<Reader>),
    /// From a file of ours in staging, which nobody else has.
    Own(Arc<Reader>, Staged),
}

/// What a streamed file must still look like when it was read.
pub(crate) struct Recheck<'a> {
    stat: Stat,
    /// What proves, if it moved, that it only grew.
    print: Option<&'a Fingerprint>,
}

impl Recheck<'_> {
    /// The fate of what was read, where that is another one than was thought before.
    fn outcome(&self, reader: &Reader) -> io::Result<Option<Fate>> {
        if reader.stat()?.same_contents(&self.stat) {
            return Ok(None);
        }
        let is_prefix = self.print.map_or(Ok(false), |print| grew(reader, self.stat.size, print))?;
        Ok(Some(if is_prefix { Fate::Prefix } else { modified() }))
    }
}

impl Contents<'_> {
    /// The same, in memory if it is a small file of ours: many are made ready at a time, and each that is only opened takes
    /// a descriptor.
    ///
    /// # Errors
    /// Those of reading it; it is shorter than it was.
    pub(crate) fn in_memory(mut self) -> io::Result<Self> {
        if let Body::Own(reader, _) = &self.body
            && self.stat.size <= SMALL
        {
            let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
            let filled = reader.fill_at(&mut bytes, 0)?;
            if filled < bytes.len() {
                return Err(io::Error::other(format!("only {filled} bytes of its copy are left")));
            }
            self.body = Body::Bytes(Cow::Owned(bytes));
        }
        Ok(self)
    }

    /// The fate of a file that was streamed from `reader`, where that was not as it should have been.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(crate) fn touched(&self, shortfall: Option<Shortfall>, reader: &Reader) -> io::Result<Option<Fate>> {
        if let Some(shortfall) = shortfall {
            return Ok(Some(Fate::Torn(shortfall.reason(self.size))));
        }
        // What is lost in part stays so, however little it moved.
        let Some(recheck) = self.recheck.as_ref().filter(|_| !self.fate.is_loss()) else { return Ok(None) };
        Ok(gate::tolerate(recheck.outcome(reader))?.unwrap_or_else(|| Some(modified())))
    }
}

/// Makes ready the files of one run.
pub(crate) struct Reading {
    /// How much longer this run may wait for files to come to rest.
    patience: Mutex<Duration>,
    /// Bytes that are going to be written into staging by copies under way.
    claimed: AtomicU64,
    ablation: Option<Ablation>,
}

/// One entry, with all that is needed to find it again.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) base: &'a Base,
    pub(crate) node: &'a Node,
    pub(crate) entry: &'a Entry,
}

impl Place<'_> {
    /// Where what holds the file, and copies of it, can be.
    ///
    /// # Errors
    /// There is no such place.
    pub(crate) fn staging(&self) -> io::Result<&Staging> {
        self.node.place.staging.as_deref().ok_or_else(|| io::Error::other("there is no staging directory"))
    }

    /// Gives up what holds the file in staging: what was read of it, or opened, stays.
    pub(crate) fn let_go(&self) {
        if let (Ok(staging), Some(staged)) = (self.staging(), self.entry.held.staged()) {
            staging.give_up(staged);
        }
    }

    /// Gives up a copy that was made after the freeze.
    pub(crate) fn give_up(&self, body: &Body<'_>) {
        if let (Body::Own(_, copy), Ok(staging)) = (body, self.staging())
            && self.entry.held.staged() != Some(*copy)
        {
            staging.give_up(*copy);
        }
    }

    /// A pinned file, to be read.
    fn pinned(&self, file: &File) -> io::Result<Reader> {
        self.base.dir()?.reader(file, &crate::relpath::joined(self.node.path.as_bytes(), &self.entry.name))
    }

    /// A file of ours in staging.
    fn own<'a>(&self, staged: Staged) -> io::Result<Body<'a>> {
        Ok(Body::Own(Arc::new(self.staging()?.open(staged)?), staged))
    }

    /// The live file, if the name is still bound to a file.
    fn live(&self) -> io::Result<Reader> {
        let dir = self.base.dir()?.open_dir(self.node.path.as_bytes())?;
        let reader = dir.open_file(&self.entry.name)?;
        match reader.stat()?.kind {
            Kind::File => Ok(reader),
            _ => Err(sys::Errno::NOENT.into()),
        }
    }
}

impl Reading {
    /// All patience is left.
    pub(crate) fn new(ablation: Option<Ablation>) -> Self {
        Self { patience: Mutex::new(ALL_PATIENCE), claimed: AtomicU64::new(0), ablation }
    }

    /// The promised bytes of a file.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub(crate) fn contents<'a>(&self, place: Place<'a>) -> io::Result<Contents<'a>> {
        let mut contents = self.promised(place)?;
        let entry = place.entry;
        if entry.marks.database {
            contents.fate = Fate::Torn("raw database".into());
        }
        let is_database = matches!(entry.held, Held::Database(_));
        let in_flight = !is_database && (entry.marks.hot || contents.fate != Fate::Kept);
        if in_flight && lines::is_lines(&entry.name) {
            set_tail_aside(&mut contents)?;
        }
        Ok(contents)
    }

    fn promised<'a>(&self, place: Place<'a>) -> io::Result<Contents<'a>> {
        let Entry { held, stat, marks, .. } = place.entry;
        let frozen = |body| Contents {
            body,
            size: stat.size,
            stat: *stat,
            xattrs: place.entry.xattrs.as_deref().map_or_else(|| Cow::Owned(Xattrs::new()), Cow::Borrowed),
            fate: Fate::Kept,
            tail: None,
            recheck: None,
        };
        let contents = match held {
            Held::Hold(held) => frozen(Body::Bytes(Cow::Borrowed(&held.bytes))),
            Held::Clone(staged) | Held::Copy(staged) => frozen(place.own(*staged)?),
            Held::Link(staged) => return self.named(place, Arc::new(place.staging()?.open(*staged)?)),
            Held::Pin(pinned) => return self.named(place, Arc::new(place.pinned(&pinned.file)?)),
            Held::Database(database) => {
                let finished = database.finished()?;
                return Ok(Contents { fate: finished.fate.clone(), ..frozen(place.own(finished.staged)?) });
            }
            Held::Directory(_) | Held::Symlink(_) => return Err(io::Error::other("has no contents")),
        };
        if marks.unproven && !marks.database {
            // It moved while it was captured: better a later, whole state than a mixture.
            let later = self.later(place, None)?;
            return Ok(later.unwrap_or_else(|| Contents { fate: kept_changing(), ..contents }));
        }
        Ok(contents)
    }

    /// A file of which only the name was frozen.
    fn named<'a>(&self, place: Place<'a>, reader: Arc<Reader>) -> io::Result<Contents<'a>> {
        let xattrs = reader.xattrs()?;
        let promised = place.entry.stat;
        let print = place.entry.fingerprint.as_deref();
        let trusting = self.ablation == Some(Ablation::Exact);
        let untouched = |reader: &Reader| Ok::<_, io::Error>(trusting || reader.stat()?.same_contents(&promised));
        let contents = |body, fate: Fate| {
            let is_streamed = matches!(body, Body::File(_)) && !fate.is_loss();
            let recheck = is_streamed.then_some(Recheck { stat: promised, print });
            Contents {
                body,
                size: promised.size,
                stat: promised,
                xattrs: Cow::Owned(xattrs),
                fate,
                tail: None,
                recheck,
            }
        };
        if untouched(&reader)? {
            if promised.size > SMALL && print.is_none() {
                return Ok(contents(Body::File(reader), Fate::Kept));
            }
            let body = self.prefix(place, &reader, promised.size)?;
            if untouched(&reader)? {
                return Ok(contents(body, Fate::Kept));
            }
            place.give_up(&body);
        }
        if let Some(print) = print
            && let Some(body) = self.proven_prefix(place, &reader, print)?
        {
            return Ok(contents(body, Fate::Prefix));
        }
        match self.later(place, Some(&reader))? {
            Some(later) => Ok(later),
            None => {
                let body = self.prefix(place, &reader, promised.size)?;
                Ok(contents(body, kept_changing()))
            }
        }
    }

    /// The promised bytes, read to where nothing can move them any more; where that cannot be, to be streamed.
    fn prefix<'a>(&self, place: Place<'a>, reader: &Arc<Reader>, length: u64) -> io::Result<Body<'a>> {
        if length <= SMALL {
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            let filled = reader.fill_at(&mut bytes, 0)?;
            bytes[filled..].fill(0);
            return Ok(Body::Bytes(Cow::Owned(bytes)));
        }
        match self.copied(place, length, |staging| freeze::copy_prefix(reader, staging, length))? {
            Some(copy) => place.own(copy),
            None => Ok(Body::File(Arc::clone(reader))),
        }
    }

    /// A copy in staging of so many bytes; `None` where it cannot be had, or would take the room that the owner needs.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    fn copied<T>(
        &self,
        place: Place<'_>,
        bytes: u64,
        copy: impl FnOnce(&Staging) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let copy = place.staging().and_then(|staging| {
            let _claim = Claim::of(&self.claimed, staging, bytes)?;
            copy(staging)
        });
        gate::tolerate(copy)
    }

    /// The promised bytes of a file that moved since, if its fingerprint proves that it only grew.
    fn proven_prefix<'a>(
        &self,
        place: Place<'a>,
        reader: &Arc<Reader>,
        print: &Fingerprint,
    ) -> io::Result<Option<Body<'a>>> {
        let promised = place.entry.stat.size;
        if !grew(reader, promised, print)? {
            return Ok(None);
        }
        let body = self.prefix(place, reader, promised)?;
        // Once more: it may have been rewritten while it was read.
        let is_proven = grew(reader, promised, print)?;
        if !is_proven {
            place.give_up(&body);
        }
        Ok(is_proven.then_some(body))
    }

    /// The file as it is by now, whole and at rest; `None` if it would not rest.
    ///
    /// Its name may be gone, or bound to another file by now: where the file that had it at the freeze is `held`, that one
    /// comes first. A copy of ours is none: it rests, whatever it was taken from.
    fn later<'a>(&self, place: Place<'a>, held: Option<&Arc<Reader>>) -> io::Result<Option<Contents<'a>>> {
        let live = gate::tolerate(place.live())?.map(Arc::new);
        let is_frozen = |live: &Arc<Reader>| Ok::<_, io::Error>(live.stat()?.id() == place.entry.stat.id());
        let held = if live.as_ref().map_or(Ok(false), is_frozen)? { None } else { held };
        for reader in held.into_iter().chain(&live) {
            if let Some(later) = self.at_rest(place, reader)? {
                return Ok(Some(later));
            }
        }
        Ok(None)
    }

    /// What is open, whole and at rest; `None` if it would not rest. A large file that cannot be copied is streamed.
    fn at_rest<'a>(&self, place: Place<'a>, reader: &Arc<Reader>) -> io::Result<Option<Contents<'a>>> {
        self.wait_for_rest(reader)?;
        let fated = |body, stat: Stat| {
            let xattrs = Cow::Owned(reader.xattrs()?);
            let fate = Fate::Later;
            let recheck = matches!(body, Body::File(_)).then_some(Recheck { stat, print: None });
            Ok(Some(Contents { body, size: stat.size, stat, xattrs, fate, tail: None, recheck }))
        };
        let now = reader.stat()?;
        if now.size <= SMALL {
            let reading = freeze::read(reader)?;
            return if reading.proven { fated(Body::Bytes(reading.contents.into()), reading.stat) } else { Ok(None) };
        }
        let copied = self.copied(place, now.size, |staging| freeze::copy(reader, staging, 0))?;
        let Some(reading) = copied else { return fated(Body::File(Arc::clone(reader)), now) };
        if !reading.proven {
            place.staging()?.give_up(reading.contents);
            return Ok(None);
        }
        fated(place.own(reading.contents)?, reading.stat)
    }

    /// A rewrite in place takes several writes: waits, within reason, until the last one is some time ago.
    fn wait_for_rest(&self, reader: &Reader) -> io::Result<()> {
        let begun = Instant::now();
        let patience = PATIENCE.min(self.spend(Duration::ZERO));
        while reader.stat()?.mtime.is_fresh(sys::now(), QUIET) && begun.elapsed() < patience {
            std::thread::sleep(QUIET / 4);
        }
        self.spend(begun.elapsed());
        Ok(())
    }

    /// Takes so much of the patience, and tells how much is left.
    fn spend(&self, time: Duration) -> Duration {
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        *patience = patience.saturating_sub(time);
        *patience
    }
}

fn kept_changing() -> Fate {
    Fate::Torn("kept changing while it was read".into())
}

fn modified() -> Fate {
    Fate::Torn("modified while it was archived".into())
}

/// Whether a file that moved only grew, by all that is known. One that moved and is not longer was rewritten, whatever its
/// ends say.
fn grew(reader: &Reader, promised: u64, print: &Fingerprint) -> io::Result<bool> {
    Ok(reader.stat()?.size > promised && print.matches(reader)?)
}

/// Cuts a half-written record off, to be archived beside.
fn set_tail_aside(contents: &mut Contents<'_>) -> io::Result<()> {
    let tail = match &contents.body {
        Body::Bytes(bytes) => lines::torn_tail(contents.size, |buffer, offset| {
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            Ok(buffer.len())
        }),
        Body::File(reader) | Body::Own(reader, _) => {
            lines::torn_tail(contents.size, |buffer, offset| reader.fill_at(buffer, offset))
        }
    }?;
    contents.size -= tail.as_ref().map_or(0, Vec::len) as u64;
    if let Body::Bytes(bytes) = &mut contents.body {
        cut(bytes, usize::try_from(contents.size).map_err(io::Error::other)?);
    }
    contents.tail = tail;
    Ok(())
}

fn cut(bytes: &mut Cow<'_, [u8]>, length: usize) {
    match bytes {
        Cow::Borrowed(bytes) => *bytes = &bytes[..length],
        Cow::Owned(bytes) => bytes.truncate(length),
    }
}
