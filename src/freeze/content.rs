//! Contents that may move while they are read: stable reads, fingerprints, and the budgets they live on.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::staging::{Staged, Staging};
use crate::entry::{Stat, Timestamp};
use crate::sys::{self, Reader};

/// How often a file is read again because it moved meanwhile, before the reading counts as unproven.
const ATTEMPTS: u32 = 4;

/// How much of each end of a file its fingerprint covers.
const FINGERPRINT_SPAN: u64 = 64 * 1024;

/// Bytes moved at a time when a file is copied.
const COPY_BUFFER: usize = 256 * 1024;

/// A limited supply: of bytes in memory, of open descriptors.
pub(crate) struct Pool(AtomicU64);

/// A part of a [`Pool`], given back when dropped.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    amount: u64,
}

impl Pool {
    /// A supply of `amount`.
    pub(crate) fn new(amount: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(amount)))
    }

    /// Takes `amount`, if there is so much left.
    pub(crate) fn take(self: &Arc<Self>, amount: u64) -> Option<Permit> {
        let less = |left: u64| left.checked_sub(amount);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Permit { pool: Arc::clone(self), amount })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.0.fetch_add(self.amount, Ordering::Relaxed);
    }
}

/// What proves that the first `length` bytes of a file are still those that were promised: a hash of both their
/// ends. An append leaves it alone; a rewrite in place moves the header or the tail of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    length: u64,
    /// Half a BLAKE3: there is one for each hot file, and 128 bits are enough to tell a file from its own past.
    hash: [u8; 16],
}

impl Fingerprint {
    /// The fingerprint of the first `length` bytes; `None` if the file is shorter by now.
    pub(crate) fn of(reader: &Reader, length: u64) -> io::Result<Option<Self>> {
        let span = length.min(FINGERPRINT_SPAN);
        let half = usize::try_from(span).unwrap_or(0);
        let mut ends = vec![0; 2 * half];
        let (head, tail) = ends.split_at_mut(half);
        let whole = reader.fill_at(head, 0)? == head.len() && reader.fill_at(tail, length - span)? == tail.len();
        let hash = *blake3::hash(&ends).as_bytes();
        Ok(whole.then(|| Self { length, hash: std::array::from_fn(|at| hash[at]) }))
    }

    /// Whether the file still begins with what was promised.
    pub(crate) fn matches(&self, reader: &Reader) -> io::Result<bool> {
        Ok(Self::of(reader, self.length)?.as_ref() == Some(self))
    }
}

/// What was read of a file, and whether nothing moved meanwhile.
pub(crate) struct Reading<T> {
    /// The bytes, or where they are.
    pub(crate) contents: T,
    /// The metadata that belongs to them; its size is theirs.
    pub(crate) stat: Stat,
    /// The filesystem's clock before that metadata was taken: what changes the file from then on is not older.
    pub(crate) looked: Timestamp,
    /// (size, mtime, inode) were the same before and after.
    pub(crate) proven: bool,
}

impl Reading<()> {
    fn of<T>(self, contents: T) -> Reading<T> {
        let Self { stat, looked, proven, .. } = self;
        Reading { contents, stat, looked, proven }
    }
}

/// Reads a whole file into memory, again if it moved meanwhile, a few times.
pub(crate) fn read(reader: &Reader) -> io::Result<Reading<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut attempt = || {
        let (looked, before) = (sys::coarse_now(), reader.stat()?);
        bytes.clear();
        bytes.resize(usize::try_from(before.size).map_err(io::Error::other)?, 0);
        let filled = reader.fill_at(&mut bytes, 0)?;
        bytes.truncate(filled);
        finish(reader, looked, before, filled as u64)
    };
    let reading = until_proven(&mut attempt)?;
    Ok(reading.of(bytes))
}

/// Copies the first `length` bytes of a file into staging; what it lacks of them is zeros.
///
/// # Errors
/// Those of reading and of writing; nothing is left of the copy then.
pub(crate) fn copy_prefix(reader: &Reader, staging: &Staging, length: u64) -> io::Result<Staged> {
    let place = staging.place(0)?;
    let copy = || {
        let mut to = staging.create_file(place)?;
        let copied = copy_once(reader, &mut to, length)?;
        io::copy(&mut io::repeat(0).take(length - copied), &mut to)?;
        Ok(place)
    };
    copy().inspect_err(|_| staging.give_up(place))
}

/// Copies a whole file into staging, again if it moved meanwhile, a few times.
pub(crate) fn copy(reader: &Reader, staging: &Staging, worker: usize) -> io::Result<Reading<Staged>> {
    let place = staging.place(worker)?;
    let mut attempt = || {
        staging.give_up(place);
        let (looked, before) = (sys::coarse_now(), reader.stat()?);
        let copied = copy_once(reader, staging.create_file(place)?, before.size)?;
        finish(reader, looked, before, copied)
    };
    let outcome = until_proven(&mut attempt).inspect_err(|_| staging.give_up(place));
    outcome.map(|reading| reading.of(place))
}

fn copy_once(reader: &Reader, mut to: impl Write, length: u64) -> io::Result<u64> {
    let mut buffer = vec![0; COPY_BUFFER.min(usize::try_from(length).unwrap_or(COPY_BUFFER))];
    let mut copied = 0;
    while copied < length {
        let wanted = buffer.len().min(usize::try_from(length - copied).unwrap_or(buffer.len()));
        let n = reader.fill_at(&mut buffer[..wanted], copied)?;
        to.write_all(&buffer[..n])?;
        copied += n as u64;
        if n < wanted {
            break;
        }
    }
    Ok(copied)
}

/// Looks after the reading: does the file still have the stamp that it had before?
fn finish(reader: &Reader, looked: Timestamp, before: Stat, length: u64) -> io::Result<Reading<()>> {
    let proven = length == before.size && reader.stat()?.same_contents(&before);
    Ok(Reading { contents: (), stat: Stat { size: length, ..before }, looked, proven })
}

fn until_proven(attempt: &mut dyn FnMut() -> io::Result<Reading<()>>) -> io::Result<Reading<()>> {
    let mut last = attempt()?;
    for _ in 1..ATTEMPTS {
        if last.proven {
            break;
        }
        last = attempt()?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{CancelFlag, Gate, Realm, Step, Verb};
    use crate::sys::Dir;
    use std::path::{Path, PathBuf};

    fn reader(path: &Path, gate: Arc<dyn Gate>) -> Reader {
        let dir = Dir::open(path.parent().expect("a parent"), Realm::Source, gate).expect("opens");
        dir.open_file(path.file_name().expect("a name").as_encoded_bytes()).expect("opens")
    }

    /// Appends to a file before each read, for the first so many times.
    struct Appender(PathBuf, AtomicU64);

    impl Gate for Appender {
        fn pass(&self, step: &Step<'_>) -> io::Result<()> {
            let less = |left: u64| left.checked_sub(1);
            if step.verb == Verb::Read && self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
                std::fs::OpenOptions::new().append(true).open(&self.0)?.write_all(b"more\n")?;
            }
            Ok(())
        }
    }

    #[test]
    fn a_file_that_comes_to_rest_is_read_whole() {
        let top = tempfile::tempdir().expect("a directory");
        let file = top.path().join("f");
        std::fs::write(&file, b"one\n").expect("writes");
        let reading = read(&reader(&file, Arc::new(Appender(file.clone(), AtomicU64::new(2))))).expect("reads");
        assert!(reading.proven);
        assert_eq!(reading.contents, std::fs::read(&file).expect("reads"));
        assert_eq!({ reading.stat.size }, reading.contents.len() as u64);
    }

    #[test]
    fn a_file_that_never_rests_is_not_called_proven() {
        let top = tempfile::tempdir().expect("a directory");
        let file = top.path().join("f");
        std::fs::write(&file, b"one\n").expect("writes");
        let reading = read(&reader(&file, Arc::new(Appender(file.clone(), AtomicU64::new(u64::MAX))))).expect("reads");
        assert!(!reading.proven);
        assert_eq!({ reading.stat.size }, reading.contents.len() as u64);
    }

    #[test]
    fn a_fingerprint_survives_an_append_and_no_rewrite() {
        let top = tempfile::tempdir().expect("a directory");
        let file = top.path().join("f");
        let contents = vec![b'a'; 300_000];
        std::fs::write(&file, &contents).expect("writes");
        let open = || reader(&file, Arc::new(CancelFlag::new()));
        let print = Fingerprint::of(&open(), 300_000).expect("reads").expect("is long enough");
        std::fs::write(&file, [&contents[..], b"appended"].concat()).expect("writes");
        assert!(print.matches(&open()).expect("reads"));
        for at in [0, 299_999] {
            let mut rewritten = contents.clone();
            rewritten[at] = b'b';
            std::fs::write(&file, &rewritten).expect("writes");
            assert!(!print.matches(&open()).expect("reads"), "changed at {at}");
        }
        std::fs::write(&file, b"short").expect("writes");
        assert!(!print.matches(&open()).expect("reads"));
    }

    #[test]
    fn a_pool_gives_what_it_has_and_takes_it_back() {
        let pool = Pool::new(10);
        let permit = pool.take(8).expect("enough");
        assert!(pool.take(3).is_none());
        drop(permit);
        assert!(pool.take(10).is_some());
    }
}
