//! One database and its copy, as the helper sees them: every way to get from the one to the other.
//!
//! What is never done: the live directory is not written to, and its files are not opened for writing; a log is neither
//! checkpointed nor replayed there. A database that could only be read by doing so is copied file by file while it
//! rests, and recovered in the copy.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::child::alive;
use super::stamps::Stamps;
use super::words::{Copied, Task, Way};
use super::{COPY, Check, JOURNAL, MAGIC, SHM, SIDECARS, WAL, part, sidecar};
use crate::sys::{self, Dir, Reader};

/// Pages that are copied at a time. In between the helper says that it lives; nobody can come in between, as the read
/// transaction stays open.
const PAGES: i32 = 1024;

/// Bytes that are copied at a time.
const BUFFER: usize = 1 << 20;

/// SQLite's virtual instructions, or pages where it checks a file, between two looks at the clock; and how often that
/// leads to a sign of life.
const INSTRUCTIONS: i32 = 1_000;
const SIGNS: Duration = Duration::from_millis(500);

/// How long files must not have been modified before they count as resting.
const QUIET: Duration = Duration::from_millis(20);

/// The byte of a `-shm` file on which everybody who has the database open holds a lock (`UNIX_SHM_DMS` in SQLite's
/// `os_unix.c`).
const IN_USE: i64 = 128;

/// The two copies of the header with which the index of a log begins. A commit is visible from the moment that they are
/// written; the log itself, with its times, was written before.
pub(super) const INDEX_HEADER: usize = 96;

/// Where a database's header tells how it is written: 1 for a rollback journal, 2 for a write-ahead log.
const WRITE_VERSION: usize = 18;

/// Lines of SQLite's complaint that are passed on.
const MOST_COMPLAINTS: usize = 5;

/// Why a way was not passable.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its owner has locked it.
    Busy(String),
    /// It cannot be read without writing beside it: what there is are its files.
    Files(String),
    /// The system cannot: that says nothing about the database.
    System(String),
    /// It is broken.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Busy(words) | Self::Files(words) | Self::System(words) | Self::Broken(words)) = self;
        f.write_str(words)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::System(error.to_string())
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let words = error.to_string();
        let rusqlite::Error::SqliteFailure(failure, _) = &error else { return Self::Broken(words) };
        match (failure.code, failure.extended_code) {
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed, _) => {
                Self::Busy(words)
            }
            // It would have to be recovered, or its log made; or its path is longer than SQLite takes.
            (ErrorCode::ReadOnly | ErrorCode::CannotOpen, _) => Self::Files(words),
            // A file that ends too early is a fault of its own.
            (_, ffi::SQLITE_IOERR_SHORT_READ) => Self::Broken(words),
            (ErrorCode::OutOfMemory | ErrorCode::DiskFull | ErrorCode::SystemIoFailure, _) => Self::System(words),
            _ => Self::Broken(words),
        }
    }
}

/// How a database is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// With a write-ahead log: readers and the writer do not wait for each other.
    Wal,
    /// With a rollback journal: while somebody reads, nobody commits.
    Rollback,
}

impl Mode {
    fn of(header: &[u8]) -> Self {
        if header.get(WRITE_VERSION) == Some(&2) { Self::Wal } else { Self::Rollback }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Rollback => "rollback",
        }
    }
}

/// A database, and where its copy goes.
pub(super) struct Source {
    dir: Dir,
    staging: Dir,
    task: Task,
    name: Vec<u8>,
    connection: Option<Connection>,
    /// The index of the log, while the connection is open. Were it closed before that, SQLite's locks on it would be
    /// gone.
    index: Option<Reader>,
}

impl Source {
    pub(super) fn new(dir: Dir, staging: Dir, task: Task) -> Self {
        let name = task.name();
        Self { dir, staging, task, name, connection: None, index: None }
    }

    /// Ends the transaction and closes the database.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.index = None;
    }

    /// The header of the log's index, which every commit changes: it counts them.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn commits(&self) -> io::Result<[u8; INDEX_HEADER]> {
        let mut header = [0; INDEX_HEADER];
        let index = self.index.as_ref().ok_or_else(|| io::Error::other("it has no index"))?;
        index.fill_at(&mut header, 0)?;
        Ok(header)
    }

    /// Ends the transaction and begins another, of the present state.
    pub(super) fn begin_anew(&self) -> rusqlite::Result<()> {
        let connection = self.connection.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
        connection.execute_batch("ROLLBACK")?;
        begin(connection)
    }

    /// Opens the database, read-only, and begins a read transaction.
    pub(super) fn connect(&mut self, wait: Duration) -> Result<Mode, Trouble> {
        self.disconnect();
        let mode = self.mode()?;
        let index = if mode == Mode::Wal { Some(self.index_in_use()?) } else { None };
        // Without `readonly_shm` SQLite would write into the index that its owner maps.
        let uri = format!("file:{}?mode=ro&readonly_shm=1", encoded(&self.name));
        let connection = open_in(&self.dir, &uri, OpenFlags::SQLITE_OPEN_READ_ONLY, self.task.id)?;
        connection.busy_timeout(wait)?;
        // Any error leaves the connection to be closed before the index, as locals are dropped in reverse.
        begin(&connection)?;
        self.is_what_was_looked_at(&connection, mode, index.as_ref())?;
        (self.connection, self.index) = (Some(connection), index);
        Ok(mode)
    }

    /// Its owner may have closed it and opened it anew, or changed its mode, since it was looked at. From now on neither
    /// can happen: we hold a lock.
    fn is_what_was_looked_at(
        &self,
        connection: &Connection,
        mode: Mode,
        index: Option<&Reader>,
    ) -> Result<(), Trouble> {
        let now: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let same_mode = (now == "wal") == (mode == Mode::Wal);
        let same_index = match index {
            Some(index) => self.dir.stat(&sidecar(&self.name, SHM))?.id() == index.stat()?.id(),
            None => true,
        };
        if same_mode && same_index {
            return Ok(());
        }
        Err(Trouble::Busy("its owner opened it anew meanwhile".to_owned()))
    }

    /// How it is written, by its header: read before there is any connection.
    fn mode(&self) -> Result<Mode, Trouble> {
        let mut header = [0; 100];
        let reader = self.dir.open_file(&self.name)?;
        let filled = reader.fill_at(&mut header, 0)?;
        if reader.stat()?.id() != self.task.id {
            return Err(Trouble::Broken("another file has its name by now".to_owned()));
        }
        if !header[..filled].starts_with(MAGIC) {
            return Err(Trouble::Broken("it is no database any more".to_owned()));
        }
        Ok(Mode::of(&header))
    }

    /// The index of the log, if anybody has the database open: whoever opens it first would make a new index, and
    /// recover what was left. An index that we may not read tells nothing.
    fn index_in_use(&self) -> Result<Reader, Trouble> {
        let index = self.dir.open_file(&sidecar(&self.name, SHM));
        let used = index.and_then(|index| Ok(index.is_locked(IN_USE)?.then_some(index)));
        used.ok().flatten().ok_or_else(|| Trouble::Files("nobody has it open".to_owned()))
    }

    /// Copies what the open transaction sees.
    pub(super) fn back_up(&mut self, alive: &mut dyn FnMut()) -> Result<(), Trouble> {
        let source = self.connection.as_ref().ok_or_else(|| Trouble::Broken("it is not open".to_owned()))?;
        let mut target = open_target(&self.staging)?;
        let backup = Backup::new(source, &mut target)?;
        loop {
            match backup.step(PAGES)? {
                StepResult::Done => break,
                StepResult::More => alive(),
                _ => return Err(Trouble::Busy("its lock was lost while it was copied".to_owned())),
            }
        }
        drop(backup);
        Ok(target.close().map_err(|(_, error)| error)?)
    }

    /// Copies its files, if they rest meanwhile, and recovers the copy where that is needed.
    pub(super) fn copy_files(&self, alive: &mut dyn FnMut()) -> Result<Way, Trouble> {
        if !self.copy_once(alive)? {
            return Err(Trouble::Busy("it kept changing while its files were copied".to_owned()));
        }
        let lasting = [WAL, JOURNAL].map(|number| sidecar(COPY, number));
        let unfinished = lasting.iter().any(|name| self.staging.stat(name).is_ok_and(|found| found.size > 0));
        if unfinished {
            self.recover()?;
        }
        self.discard_sidecars()?;
        Ok(if unfinished { Way::Recovered } else { Way::Closed })
    }

    /// Copies the files once; says whether they rested meanwhile.
    fn copy_once(&self, alive: &mut dyn FnMut()) -> Result<bool, Trouble> {
        let before = Stamps::look(&self.dir, &self.name, QUIET)?;
        if before.young {
            return Ok(false);
        }
        self.copy_file(&self.name, COPY, alive)?;
        for number in [WAL, JOURNAL] {
            let to = sidecar(COPY, number);
            match self.copy_file(&sidecar(&self.name, number), &to, alive) {
                Err(error) if sys::errno(&error) == Some(sys::Errno::NOENT) => self.discard(&to)?,
                other => other?,
            }
        }
        let after = Stamps::look(&self.dir, &self.name, QUIET)?;
        Ok(before == after)
    }

    /// Lets SQLite replay the log, or roll back the journal, of the copy.
    fn recover(&self) -> Result<(), Trouble> {
        let id = self.staging.stat(COPY)?.id();
        let copy = open_in(&self.staging, "file:0", OpenFlags::SQLITE_OPEN_READ_WRITE, id)?;
        copy.execute_batch("PRAGMA synchronous=OFF")?;
        copy.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
        copy.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(copy.close().map_err(|(_, error)| error)?)
    }

    /// Copies the bytes as they are, whatever happens meanwhile; returns which sidecars there were.
    pub(super) fn copy_raw(&self, alive: &mut dyn FnMut()) -> Result<Vec<usize>, Trouble> {
        self.discard_sidecars()?;
        self.copy_file(&self.name, COPY, alive)?;
        let mut found = Vec::new();
        for number in 0..SIDECARS.len() {
            match self.copy_file(&sidecar(&self.name, number), part(number).as_bytes(), alive) {
                Ok(()) => found.push(number),
                Err(error) if sys::errno(&error) == Some(sys::Errno::NOENT) => {}
                // One that may not be read leaves the others.
                Err(_) => self.discard(part(number).as_bytes())?,
            }
        }
        Ok(found)
    }

    /// Copies one file into staging, as long as it was when it was opened.
    fn copy_file(&self, name: &[u8], to: &[u8], alive: &mut dyn FnMut()) -> io::Result<()> {
        let reader = self.dir.open_file(name)?;
        self.discard(to)?;
        let mut writer = self.staging.create(to)?;
        copy_bytes(&reader, &mut writer, alive)
    }

    /// Removes the copy, however much of it there is.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn discard_copy(&self) -> io::Result<()> {
        self.discard(COPY)
    }

    fn discard_sidecars(&self) -> io::Result<()> {
        (0..SIDECARS.len()).try_for_each(|number| self.discard(&sidecar(COPY, number)))
    }

    fn discard(&self, name: &[u8]) -> io::Result<()> {
        discard(&self.staging, name)
    }

    /// Opens the copy to read it. Whoever waits hears that it is being read.
    pub(super) fn open_copy(&self, mut channel: UnixStream) -> Result<Connection, Trouble> {
        let id = self.staging.stat(COPY)?.id();
        let mut copy = open_in(&self.staging, "file:0?mode=ro&immutable=1", OpenFlags::SQLITE_OPEN_READ_ONLY, id)?;
        let mut told = Instant::now();
        let working = move || {
            if told.elapsed() > SIGNS {
                told = Instant::now();
                alive(&mut channel);
            }
            false
        };
        copy.progress_handler(INSTRUCTIONS, Some(working))?;
        Ok(copy)
    }

    /// Reads all of the copy, to see whether that can be done.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn read_copy(&self, alive: &mut dyn FnMut()) -> io::Result<()> {
        copy_bytes(&self.staging.open_file(COPY)?, &mut io::sink(), alive)
    }

    /// Checks the copy.
    pub(super) fn check(&self, check: Check, channel: UnixStream) -> Result<Copied, Trouble> {
        let mut header = [0; 100];
        self.staging.open_file(COPY)?.fill_at(&mut header, 0)?;
        let copy = self.open_copy(channel)?;
        let number = |pragma: &str| copy.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
        let positive = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Copied {
            journal: Mode::of(&header).as_str().to_owned(),
            page_size: positive(number("page_size")?),
            pages: positive(number("page_count")?),
            user_version: number("user_version")?,
            check: verdict(&copy, check)?,
            ..Copied::default()
        })
    }
}

/// SQLite's opinion of a copy: `ok`, or why it could not be formed. What it finds wrong is an error.
fn verdict(copy: &Connection, check: Check) -> Result<String, Trouble> {
    let pragma = match check {
        Check::Off => return Ok("off".to_owned()),
        Check::Quick => "PRAGMA quick_check",
        Check::Full => "PRAGMA integrity_check",
    };
    let complaints = || -> rusqlite::Result<Vec<String>> {
        let mut statement = copy.prepare(pragma)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.take(MOST_COMPLAINTS).collect()
    };
    match complaints() {
        Ok(words) if words == ["ok"] => Ok("ok".to_owned()),
        Ok(words) => Err(Trouble::Broken(words.join("; "))),
        // Its schema needs functions or collations that only its owner has.
        Err(error) if is_about_schema(&error) => Ok(format!("not checked: {error}")),
        Err(error) => Err(error.into()),
    }
}

/// Whether SQLite did not understand what was asked, as opposed to what it found: the plain error, or one of its kinds.
fn is_about_schema(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) | rusqlite::Error::SqlInputError { error: failure, .. } => {
            failure.extended_code & 0xff == ffi::SQLITE_ERROR
        }
        _ => false,
    }
}

/// Begins a read transaction, and reads: only that takes hold of the snapshot.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))
}

/// Removes a file, if it is there.
fn discard(dir: &Dir, name: &[u8]) -> io::Result<()> {
    sys::if_there(dir.unlink(name)).map(drop)
}

/// A fresh file for the copy, opened. It needs neither journal nor syncs: until it is archived it may be lost.
fn open_target(staging: &Dir) -> Result<Connection, Trouble> {
    discard(staging, COPY)?;
    let writer = staging.create(COPY)?;
    let id = writer.reader()?.stat()?.id();
    let target = open_in(staging, "file:0", OpenFlags::SQLITE_OPEN_READ_WRITE, id)?;
    target.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")?;
    Ok(target)
}

/// Opens a database by its name in a directory.
///
/// SQLite only knows paths, so the directory is entered; and since a path can lead elsewhere by the time that it is
/// opened, what was opened is looked at before it is used.
fn open_in(dir: &Dir, uri: &str, access: OpenFlags, id: (u64, u64)) -> Result<Connection, Trouble> {
    dir.enter()?;
    let flags = access
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let connection = Connection::open_with_flags(uri, flags)?;
    if !has_open(id)? {
        return Err(Trouble::Broken("another file has its name by now".to_owned()));
    }
    connection.execute_batch("PRAGMA temp_store=MEMORY")?;
    Ok(connection)
}

/// Whether this process has the inode open.
fn has_open(id: (u64, u64)) -> io::Result<bool> {
    let open = std::fs::read_dir(Path::new("/proc/self/fd"))?;
    let ids = open.flatten().filter_map(|entry| std::fs::metadata(entry.path()).ok());
    Ok(ids.map(|found| (found.dev(), found.ino())).any(|found| found == id))
}

/// A name as a URI has it: every byte that could mean something else there as `%FF`.
fn encoded(name: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let text = |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    name.iter().map(text).collect()
}

fn copy_bytes(reader: &Reader, writer: &mut impl Write, alive: &mut dyn FnMut()) -> io::Result<()> {
    let length = reader.stat()?.size;
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    while copied < length {
        let wanted = usize::try_from(length - copied).unwrap_or(BUFFER).min(BUFFER);
        let filled = reader.fill_at(&mut buffer[..wanted], copied)?;
        if filled == 0 {
            break;
        }
        writer.write_all(&buffer[..filled])?;
        copied += filled as u64;
        alive();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where memory ran short, or a disk could not be read, a sound archive was called broken.
    #[test]
    fn trouble_of_the_system_is_no_fault_of_the_database() {
        let trouble = |code| Trouble::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_NOMEM, ffi::SQLITE_FULL, ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_NOMEM] {
            assert!(matches!(trouble(code), Trouble::System(_)), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_SHORT_READ] {
            assert!(matches!(trouble(code), Trouble::Broken(_)), "{code}");
        }
    }

    #[test]
    fn a_name_means_nothing_else_in_a_uri() {
        assert_eq!(encoded(b"runs.sqlite"), "runs.sqlite");
        assert_eq!(encoded(b"a?b#c%d e/\xff\n"), "a%3Fb%23c%25d%20e%2F%FF%0A");
    }
}
