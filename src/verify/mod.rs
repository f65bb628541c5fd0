//! Reads archives as a stranger would: ours against their inventory, OpenClaw's by their manifest.

mod ahead;
mod blocks;
mod database;
mod desk;
mod foreign;
#[doc(hidden)]
pub mod fuzzing;
mod memory;
mod noting;
mod shape;
mod stranger;
mod told;
mod verdict;

pub use verdict::{Origin, Trust, Verdict};

pub(crate) use desk::Desk;
pub(crate) use noting::Noting;
pub(crate) use stranger::{Guest, Met, Proof, prove, unproven};
pub(crate) use told::{Loss, Told};

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::archive::Decoder;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::freeze::DatabaseOptions;
use crate::gate::{self, At, Gate, Realm, Step, Verb};
use crate::naming::{PROVEN, SEEN};
use crate::relpath::shown;
use crate::sys;
use ahead::read_ahead;
use database::Databases;
use stranger::{prove_unpacked, unreadable};

/// What our own archives' roots end with.
const OUR_ROOT: &[u8] = b"-clawsnap-backup";

/// An archive that unpacks to more than this many times its length is taken for a bomb, as OpenClaw takes it.
const MOST_RATIO: u64 = 1_100;

/// Up to so many bytes it is not, whatever its length.
const HARMLESS: u64 = 64 << 20;

/// How an archive is verified.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// How its databases are checked; not at all without a helper.
    pub databases: DatabaseOptions,
    /// Whether an archive may unpack to any multiple of its length.
    pub any_ratio: bool,
}

/// Verifies one archive: reads all of it, and believes nothing that its bytes do not say.
///
/// Memory is bounded but for some tens of bytes an entry. Databases are written to a private temporary directory, one
/// at a time, to be checked there.
pub fn verify(archive: &Path, options: &VerifyOptions, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Verdict {
    let begun = Instant::now();
    let mut verdict = Verdict::of(archive.into());
    let outcome = run(archive, options, gate, observer, &mut verdict);
    verdict.conclude(outcome, begun);
    verdict
}

fn run(
    archive: &Path,
    options: &VerifyOptions,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    verdict: &mut Verdict,
) -> Result<()> {
    let file = opened(archive, gate)?;
    let mut bound = Bound { most: if options.any_ratio { u64::MAX } else { MOST_RATIO }, exceeded: false };
    let outcome = look_at(&file, archive, options, gate, observer, verdict, &mut bound);
    // What may be a bomb was not read to its end: nothing says that it is broken.
    if bound.exceeded { outcome } else { believed_no_more(&file, gate, outcome) }
}

/// How far an archive may unpack.
struct Bound {
    /// To so many times its length.
    most: u64,
    /// It went further.
    exceeded: bool,
}

impl Bound {
    /// Bytes that an archive of this length may unpack to. One that has none cannot be held against it.
    fn of(&self, length: Option<u64>) -> u64 {
        length.map_or(u64::MAX, |length| length.saturating_mul(self.most).max(HARMLESS))
    }
}

fn opened(archive: &Path, gate: &Arc<dyn Gate>) -> Result<File> {
    let open = || {
        let _step = gate::take_at(&**gate, Verb::Open, Realm::Output, archive)?;
        File::open(archive)
    };
    open().map_err(|error| Error::failed("open the archive", archive, error))
}

/// A step about a file that is open.
fn step(verb: Verb) -> Step<'static> {
    Step { verb, realm: Realm::Output, dir: b"", name: b"" }
}

fn look_at(
    file: &File,
    archive: &Path,
    options: &VerifyOptions,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    verdict: &mut Verdict,
    bound: &mut Bound,
) -> Result<()> {
    let Opened { input, bytes, ours } = open(file, archive, gate, observer)?;
    verdict.archive_bytes = bytes.unwrap_or_default();
    let mut databases = Databases::new(&options.databases, gate);
    let outcome = read_ahead(input, |inner| {
        // Whoever reads meets the bound, and not who reads ahead: what is wrong before it is found first.
        let input = Bounded { inner, left: bound.of(bytes), exceeded: &mut bound.exceeded };
        if ours { read_own(input, verdict, &mut databases) } else { read_foreign(input, verdict, &mut databases) }
    });
    // Trouble with the temporary directory is no fault of the archive.
    if let Some(trouble) = databases.trouble() {
        return Err(trouble);
    }
    outcome?;
    verdict.databases = databases.checked();
    databases.refuse_broken()
}

fn read_own(input: impl BufRead, verdict: &mut Verdict, databases: &mut Databases) -> Result<()> {
    verdict.origin = Some(Origin::Clawsnap);
    let proof = prove_unpacked(input, &mut Visitor { verdict, databases })?;
    verdict.archive_root = Some(proof.root);
    verdict.entries = proof.entries;
    verdict.inventory_blake3 = Some(proof.inventory);
    Ok(())
}

fn read_foreign(input: impl Read, verdict: &mut Verdict, databases: &mut Databases) -> Result<()> {
    let found = foreign::read(input, databases)?;
    verdict.origin = Some(Origin::Openclaw);
    verdict.archive_root = Some(found.root);
    verdict.created_at = found.created_at;
    verdict.entries = found.entries;
    verdict.warnings.push(
        "OpenClaw made this archive. It carries no inventory: what is in it is well-formed, but nothing proves that it \
         is all that was there, or what it was."
            .to_owned(),
    );
    Ok(())
}

/// An archive that is about to be read.
struct Opened<R> {
    /// All of it, unpacked.
    input: R,
    /// Its length; a pipe has none.
    bytes: Option<u64>,
    /// Whether we made it.
    ours: bool,
}

/// An archive that turned out broken is not taken for proven any more, nor for what `--if-changed` would make again,
/// whatever is noted on it: its length and time may well be what they were.
fn believed_no_more<T>(file: &File, gate: &Arc<dyn Gate>, outcome: Result<T>) -> Result<T> {
    if matches!(outcome, Err(Error::Unproven(_))) {
        for note in [PROVEN, SEEN] {
            // Where there is none, or it is not ours to take away, there is nothing to do.
            let taken = gate::take(&**gate, &step(Verb::Xattr), At::File(file.as_raw_fd()));
            taken.and_then(|_step| sys::remove_xattr(file, note)).unwrap_or_default();
        }
    }
    outcome
}

/// `archive` names it in messages.
fn open<'a>(
    file: &'a File,
    archive: &Path,
    gate: &Arc<dyn Gate>,
    observer: &'a dyn Observer,
) -> Result<Opened<impl Read + Send + use<'a>>> {
    let look = || {
        let _step = gate::take(&**gate, &step(Verb::Stat), At::File(file.as_raw_fd()))?;
        file.metadata()
    };
    let found = look().map_err(|error| Error::failed("look at the archive", archive, error))?;
    if found.is_dir() {
        let cause = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(Error::failed("read the archive", archive, cause));
    }
    let bytes = found.len();
    observer.on(Event::Sealed { bytes });
    let input = Watched { file, read: 0, gate: Arc::clone(gate), observer };
    let mut input = BufReader::with_capacity(256 * 1024, Decoder::new(input).map_err(unreadable)?);
    let mut start = Vec::new();
    input.by_ref().take(LOOKED_AT).read_to_end(&mut start).map_err(unreadable)?;
    let ours = is_ours(&start);
    Ok(Opened { input: Cursor::new(start).chain(input), bytes: found.is_file().then_some(bytes), ours })
}

/// Reads an archive of ours to its end, with a guest. How far it unpacks is not bounded: nothing is written.
///
/// # Errors
/// What is wrong with it, or that it is not ours.
pub(crate) fn read_ours(
    archive: &Path,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    guest: &mut dyn Guest,
) -> Result<Proof> {
    let file = opened(archive, gate)?;
    read_ours_of(file, archive, gate, observer, guest)
}

/// The same for an archive that is open at its start; `archive` names it in messages.
///
/// # Errors
/// Those of [`read_ours`].
pub(crate) fn read_ours_of(
    file: File,
    archive: &Path,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    guest: &mut dyn Guest,
) -> Result<Proof> {
    let mut read = || {
        let Opened { input, ours, .. } = open(&file, archive, gate, observer)?;
        if !ours {
            return Err(unproven(
                "it has no inventory, as clawsnap's archives have: `clawsnap verify` looks at it, tar -t lists it",
            ));
        }
        read_ahead(input, |input| prove_unpacked(input, guest))
    };
    let outcome = read();
    believed_no_more(&file, gate, outcome)
}

/// Whether an archive that begins like this is one of ours, by the name of its root: what comes before the first header
/// of an entry are records about it.
fn is_ours(start: &[u8]) -> bool {
    let mut rest = start;
    while let Some(header) = rest.get(..BLOCK) {
        let header = tar::Header::from_byte_slice(header);
        let kind = header.entry_type();
        let records = kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
        if !records && !kind.is_gnu_longname() && !kind.is_gnu_longlink() {
            let path = header.path_bytes();
            return path.split(|&c| c == b'/').next().is_some_and(|root| root.ends_with(OUR_ROOT));
        }
        let blocks = header.entry_size().ok().and_then(|size| usize::try_from(size.div_ceil(BLOCK as u64)).ok());
        let next = blocks.and_then(|blocks| blocks.checked_add(1)?.checked_mul(BLOCK));
        rest = next.and_then(|next| rest.get(next..)).unwrap_or_default();
    }
    false
}

/// Tar's unit.
const BLOCK: usize = 512;

/// So much is looked at to tell whose an archive is: the records of one entry, and its header.
const LOOKED_AT: u64 = 256 * 1024;

/// Notes what the archive says of itself, and has its databases checked.
struct Visitor<'a> {
    verdict: &'a mut Verdict,
    databases: &'a mut Databases,
}

impl Guest for Visitor<'_> {
    fn entry(&mut self, met: Met<'_>, contents: &mut dyn Read) -> io::Result<()> {
        if met.kind == "file" { self.databases.meet(met.path, met.size, contents) } else { Ok(()) }
    }

    fn line(&mut self, line: &crate::archive::Line) -> Result<()> {
        self.verdict.count(line);
        // What is torn, or was archived as a file, is what the archive says, and nobody said that it was sound.
        let (torn, as_file) = (line.fate == "torn", line.database.is_none());
        if torn || as_file {
            let path = line.path.bytes().unwrap_or_default();
            let words = self.databases.forgive(&path).filter(|_| !torn);
            self.verdict.warnings.extend(words.map(|words| archived_as_file(&path, &words)));
        }
        Ok(())
    }

    fn report(&mut self, report: Told) {
        self.verdict.quote(report);
    }
}

fn archived_as_file(path: &[u8], words: &str) -> String {
    format!(
        "{} begins like a SQLite database, but was archived as a file; as a database it is broken: {words}",
        shown(path)
    )
}

/// The archive's file, read from its start.
struct Watched<'a> {
    file: &'a File,
    read: u64,
    gate: Arc<dyn Gate>,
    observer: &'a dyn Observer,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = {
            let _step = gate::take(&*self.gate, &step(Verb::Read), At::File(self.file.as_raw_fd()))?;
            self.file.read(buffer)?
        };
        self.read += n as u64;
        self.observer.on(Event::ReadBack { bytes: self.read });
        Ok(n)
    }
}

/// Ends a bomb.
struct Bounded<'a, R> {
    inner: R,
    left: u64,
    exceeded: &'a mut bool,
}

impl<R: BufRead> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Bounded<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let block = self.inner.fill_buf()?;
        if self.left == 0 && !block.is_empty() {
            *self.exceeded = true;
            return Err(io::Error::other(format!(
                "it unpacks to more than {MOST_RATIO} times its length; if it is yours and holds such files, --any-ratio"
            )));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(&block[..block.len().min(most)])
    }

    fn consume(&mut self, n: usize) {
        self.left -= n as u64;
        self.inner.consume(n);
    }
}
