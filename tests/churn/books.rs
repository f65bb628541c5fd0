//! The databases of a sample, at work. Only for a process of its own: SQLite's locks are per process, and whoever backs
//! the sample up must not be the one who holds them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

/// The sample's databases, and how each is written.
const BOOKS: [(&str, &str); 2] = [("memory/main.sqlite", "wal"), ("tasks/runs.sqlite", "delete")];

/// Between two commits.
const PAUSE: Duration = Duration::from_millis(5);

/// A thread that commits to the databases of a sample until it is stopped.
pub struct Books {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<rusqlite::Result<u64>>,
}

impl Books {
    /// Begins to commit to those databases that are there.
    pub fn open(state: &Path) -> rusqlite::Result<Self> {
        let there = BOOKS.iter().map(|(name, journal)| (state.join(name), *journal)).filter(|(path, _)| path.exists());
        let books = there.map(|(path, journal)| open(&path, journal)).collect::<rusqlite::Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Ok(Self { stop, writer: thread::spawn(move || write(&books, &told)) })
    }

    /// Ends it; how often it committed.
    pub fn stop(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.writer.join().map_err(|_| "a writer panicked".to_owned())?;
        written.map_err(|error| format!("a database could not be written: {error}"))
    }
}

fn open(path: &Path, journal: &str) -> rusqlite::Result<Connection> {
    let book = Connection::open(path)?;
    book.busy_timeout(Duration::from_secs(60))?;
    book.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(()))?;
    book.execute_batch("CREATE TABLE IF NOT EXISTS given(n, sum); CREATE TABLE IF NOT EXISTS taken(n, sum)")?;
    Ok(book)
}

/// What is given is taken, by one transaction.
fn write(books: &[Connection], stop: &AtomicBool) -> rusqlite::Result<u64> {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(n);
        }
        for book in books {
            let sum = n * 7919 % 1000;
            book.execute_batch(&format!(
                "BEGIN IMMEDIATE; INSERT INTO given VALUES({n}, {sum}); INSERT INTO taken VALUES({n}, {sum}); COMMIT"
            ))?;
        }
        thread::sleep(PAUSE);
    }
    Ok(0)
}

/// Audits the databases of a sample below `top`, wherever it was extracted: each is sound, and everything that was given
/// was taken.
pub fn audit(top: &Path) -> Result<String, String> {
    let mut audited = 0;
    let mut rows = 0;
    for path in below(top) {
        if BOOKS.iter().any(|(name, _)| path.ends_with(name)) {
            rows += audit_one(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            audited += 1;
        }
    }
    Ok(format!("{audited} databases, {rows} rows, all of them sound and in balance"))
}

fn audit_one(path: &Path) -> Result<i64, String> {
    let told = |error: rusqlite::Error| error.to_string();
    let book = Connection::open(path).map_err(told)?;
    let check: String = book.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(told)?;
    if check != "ok" {
        return Err(check);
    }
    let sums = |table: &str| {
        let query = format!("SELECT count(*), coalesce(sum(sum), 0) FROM {table}");
        book.query_row(&query, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).map_err(told)
    };
    let (given, taken) = (sums("given")?, sums("taken")?);
    if given == taken { Ok(given.0) } else { Err(format!("given {given:?}, taken {taken:?}")) }
}

fn below(top: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(top).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => below(&entry.path()),
        _ => vec![entry.path()],
    });
    found.collect()
}
