//! Owners of databases, each a process of its own: SQLite's locks are per process, so nobody who backs up may be one.
//!
//! The test binary starts itself again, as the one test `owner`, which does what its environment says.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

const WHAT: &str = "CLAWSNAP_TEST_OWNER";
const WHERE: &str = "CLAWSNAP_TEST_DIRECTORY";

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What an owner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Commits a pair of rows every two milliseconds.
    Writes,
    /// Writes the number of each step to three databases and a session, in this order, every five milliseconds.
    Steps,
    /// The same with one database, which is opened for each step and closed again.
    Reopens,
    /// Makes sessions and rows that speak of them, and removes both.
    Sessions,
    /// Has committed to a log that was never checkpointed, and does nothing more.
    KeepsLog,
    /// Is in the middle of a transaction that has reached the file.
    InTransaction,
    /// Keeps others out.
    Locks,
}

impl Habit {
    const ALL: [Self; 7] =
        [Self::Writes, Self::Steps, Self::Reopens, Self::Sessions, Self::KeepsLog, Self::InTransaction, Self::Locks];
}

/// A running owner. Dropping it kills it.
pub struct Owner {
    child: Child,
    dir: PathBuf,
}

impl Owner {
    /// Starts one in `dir`, with databases in the given journal mode, and waits until it is at work.
    pub fn start(dir: &Path, journal: &str, habit: Habit) -> Self {
        let child = Command::new(std::env::current_exe().expect("has a path"))
            .args(["--exact", "owner", "--nocapture", "--test-threads=1"])
            .env(WHAT, format!("{habit:?} {journal}"))
            .env(WHERE, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let owner = Self { child, dir: dir.to_owned() };
        let begun = Instant::now();
        while !ready(dir).exists() {
            assert!(begun.elapsed() < PATIENCE, "the owner is not at work");
            std::thread::sleep(Duration::from_millis(2));
        }
        owner
    }

    /// Lets it end its work and close its databases.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("ends").success(), "the owner itself failed");
    }

    /// Ends it in the middle of what it does.
    pub fn kill(mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _marker = fs::remove_file(ready(&self.dir));
    }
}

/// Beside the directory, so that it is no part of what is backed up.
fn ready(dir: &Path) -> PathBuf {
    dir.with_extension("ready")
}

/// What the test `owner` does: nothing, unless it was started as one.
pub fn serve() {
    let (Ok(what), Some(dir)) = (std::env::var(WHAT), std::env::var_os(WHERE)) else { return };
    let (habit, journal) = what.split_once(' ').expect("two words");
    let habit = Habit::ALL.into_iter().find(|known| format!("{known:?}") == habit).expect("is known");
    let dir = PathBuf::from(dir);
    match habit {
        Habit::Writes => writes(&dir, journal),
        Habit::Steps => steps(&dir, journal),
        Habit::Reopens => reopens(&dir, journal),
        Habit::Sessions => sessions(&dir, journal),
        Habit::KeepsLog => keeps_log(&dir, journal),
        Habit::InTransaction => in_transaction(&dir, journal),
        Habit::Locks => locks(&dir, journal),
    }
}

/// Opens a database with two tables that always have the same rows.
pub fn open(path: &Path, journal: &str) -> Connection {
    let connection = Connection::open(path).expect("opens");
    connection.busy_timeout(PATIENCE).expect("waits");
    connection.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).expect("has a journal");
    let tables = "CREATE TABLE IF NOT EXISTS a(n INTEGER PRIMARY KEY, text);
        CREATE TABLE IF NOT EXISTS b(n INTEGER PRIMARY KEY, text); PRAGMA user_version=7";
    connection.execute_batch(tables).expect("has tables");
    connection
}

/// Puts row `n` into both tables by one transaction.
pub fn put(connection: &Connection, n: i64) {
    let text = "x".repeat(200);
    let statement = format!(
        "BEGIN IMMEDIATE; INSERT OR REPLACE INTO a VALUES({n}, '{text}');
         INSERT OR REPLACE INTO b VALUES({n}, '{text}'); COMMIT"
    );
    connection.execute_batch(&statement).expect("commits");
}

/// Works until the other end of the standard input is closed.
fn work(dir: &Path, pause: Duration, mut step: impl FnMut(i64)) {
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _end = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(sender);
    });
    for n in 1.. {
        step(n);
        if n == 3 {
            fs::write(ready(dir), "").expect("writes");
        }
        if ended.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn wait_to_be_killed(dir: &Path) {
    work(dir, Duration::from_millis(1), |_| {});
    // An end by itself would close the database: that is another story.
    std::process::abort();
}

fn writes(dir: &Path, journal: &str) {
    let connection = open(&dir.join("owned.sqlite"), journal);
    work(dir, Duration::from_millis(2), |n| put(&connection, n % 500));
}

fn steps(dir: &Path, journal: &str) {
    let databases = [1, 2, 3].map(|number| open(&dir.join(format!("{number}.sqlite")), journal));
    let session = dir.join("agents/main/sessions/steps.jsonl");
    fs::create_dir_all(session.parent().expect("a parent")).expect("makes");
    work(dir, Duration::from_millis(5), |n| {
        databases.iter().for_each(|database| put(database, n));
        append(&session, &format!("{{\"step\":{n}}}\n"));
    });
}

fn reopens(dir: &Path, journal: &str) {
    let session = dir.join("agents/main/sessions/steps.jsonl");
    work(dir, Duration::from_micros(200), |n| {
        let connection = open(&dir.join("owned.sqlite"), journal);
        put(&connection, n);
        connection.close().expect("closes");
        append(&session, &format!("{{\"step\":{n}}}\n"));
    });
}

fn append(path: &Path, line: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("opens");
    file.write_all(line.as_bytes()).expect("appends");
}

/// The file first, then the row; the row away first, then the file: a row always has its file.
fn sessions(dir: &Path, journal: &str) {
    let connection = open(&dir.join("owned.sqlite"), journal);
    let sessions = dir.join("agents/main/sessions");
    fs::create_dir_all(&sessions).expect("makes");
    work(dir, Duration::from_millis(2), |n| {
        append(&sessions.join(format!("{n}.jsonl")), "{\"session\":true}\n");
        put(&connection, n);
        let old = n - 20;
        if old > 0 {
            connection
                .execute_batch(&format!("BEGIN; DELETE FROM a WHERE n={old}; DELETE FROM b WHERE n={old}; COMMIT"))
                .expect("deletes");
            fs::remove_file(sessions.join(format!("{old}.jsonl"))).expect("removes");
        }
    });
}

fn keeps_log(dir: &Path, journal: &str) {
    let connection = open(&dir.join("owned.sqlite"), journal);
    connection.query_row("PRAGMA wal_autocheckpoint=0", [], |_| Ok(())).expect("keeps its log");
    (1..200).for_each(|n| put(&connection, n));
    wait_to_be_killed(dir);
}

fn in_transaction(dir: &Path, journal: &str) {
    let connection = open(&dir.join("owned.sqlite"), journal);
    (1..200).for_each(|n| put(&connection, n));
    // A cache of ten pages: what does not fit is written before the commit.
    connection.execute_batch("PRAGMA cache_size=10; BEGIN IMMEDIATE; DELETE FROM a; ").expect("begins");
    for n in 1..200 {
        connection.execute("UPDATE b SET text = ? WHERE n = ?", ("half done ".repeat(30), n)).expect("updates");
    }
    wait_to_be_killed(dir);
}

fn locks(dir: &Path, journal: &str) {
    let connection = open(&dir.join("owned.sqlite"), journal);
    (1..50).for_each(|n| put(&connection, n));
    connection.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    wait_to_be_killed(dir);
}
