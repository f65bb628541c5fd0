//! One thread of the churn. It owns its names: no other thread ever touches them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::load::{Kind, Load};
use super::log::{Notes, Span, now_ns};
use super::rng::Rng;
use super::scribe::Scribe;

/// With fewer sessions than this a thread makes one instead of taking one away.
const FEWEST: usize = 3;

/// A file that exists now.
#[derive(Clone, Debug)]
pub(super) struct Live {
    /// Relative to the state directory.
    path: PathBuf,
    incarnation: usize,
}

/// A file that goes to and fro.
struct Token {
    file: Live,
    /// The directory that it goes to next.
    other: PathBuf,
}

pub(super) struct Worker {
    root: PathBuf,
    load: Load,
    stop: Arc<AtomicBool>,
    rng: Rng,
    scribe: Scribe,
    notes: Notes,
    /// The end of the last call: spans of one thread never overlap.
    last: u64,
    homes: Vec<PathBuf>,
    sessions: Vec<Live>,
    archived: Vec<Live>,
    indexes: Vec<Live>,
    tokens: Vec<Token>,
    /// Names that were, and can be again.
    free: Vec<PathBuf>,
}

impl Worker {
    pub(super) fn new(root: PathBuf, homes: Vec<PathBuf>, load: Load, number: u64, stop: Arc<AtomicBool>) -> Self {
        let mut rng = Rng::new(load.seed.wrapping_mul(1000).wrapping_add(number));
        Worker {
            scribe: Scribe::new(rng.next()),
            root,
            load,
            stop,
            rng,
            notes: Notes::default(),
            last: 0,
            homes,
            sessions: Vec::new(),
            archived: Vec::new(),
            indexes: Vec::new(),
            tokens: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes over a file that is there before the churn begins.
    pub(super) fn adopt(&mut self, path: PathBuf) -> io::Result<()> {
        let full = self.root.join(&path);
        let (content, inode) = (fs::read(&full)?, fs::metadata(&full)?.ino());
        let incarnation = self.notes.found(&path, inode, content);
        let list = match kind_of(&path) {
            Found::Session => &mut self.sessions,
            Found::Archived => &mut self.archived,
            Found::Index => &mut self.indexes,
            Found::Other => return Ok(()),
        };
        list.push(Live { path, incarnation });
        Ok(())
    }

    /// Makes a token before the churn begins.
    pub(super) fn mint(&mut self, home: &Path, other: &Path) -> io::Result<()> {
        let id = self.rng.uuid();
        let path = self.fresh(home, "token-");
        let text = self.scribe.session(&id, 1024);
        let mut file = File::create_new(self.root.join(&path))?;
        file.write_all(&text)?;
        let incarnation = self.notes.found(&path, file.metadata()?.ino(), text);
        self.tokens.push(Token { file: Live { path, incarnation }, other: other.to_owned() });
        Ok(())
    }

    /// Works until told to stop, then hands over what it wrote down.
    pub(super) fn run(mut self) -> Notes {
        let rate = self.load.total() / self.load.threads as f64;
        let mut due = Instant::now();
        while self.wait_until(due, rate) {
            if let Some(kind) = self.load.choose(&mut self.rng) {
                self.attempt(kind);
            }
            // What a slow machine could not do in time is not made up for in a burst.
            due = due.max(Instant::now() - Duration::from_millis(50)) + self.gap(rate);
        }
        self.notes
    }

    /// False when it is time to stop.
    fn wait_until(&self, due: Instant, rate: f64) -> bool {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if left.is_zero() && rate > 0.0 {
                return true;
            }
            thread::park_timeout(left.clamp(Duration::from_micros(50), Duration::from_millis(20)));
        }
    }

    /// As events come that do not know of each other: bursts, and pauses between.
    fn gap(&mut self, rate: f64) -> Duration {
        let seconds = -(1.0 - self.rng.unit()).ln() / rate;
        Duration::from_secs_f64(seconds.min(1.0))
    }

    fn attempt(&mut self, kind: Kind) {
        if let Err(error) = self.act(kind) {
            self.notes.errors.push(format!("{kind:?}: {error}"));
        }
    }

    fn act(&mut self, kind: Kind) -> io::Result<()> {
        match kind {
            Kind::Create => self.create(),
            Kind::Delete => self.delete(),
            Kind::Archive => self.archive(),
            Kind::Append => self.append(),
            Kind::Split => self.split(),
            Kind::Compact => self.compact(),
            Kind::Rewrite => self.rewrite(),
            Kind::Index => self.index(),
            Kind::Lock => self.lock(),
            Kind::Move => self.move_token(),
        }
    }

    // The operations.

    fn create(&mut self) -> io::Result<()> {
        let path = self.name_for_new();
        let id = self.rng.uuid();
        let size = self.rng.between(200, 9_000);
        let text = self.scribe.session(&id, size);
        let (live, mut file) = self.born(path)?;
        self.write(&mut file, &live, &text)?;
        self.sessions.push(live);
        self.notes.count("created");
        Ok(())
    }

    fn delete(&mut self) -> io::Result<()> {
        let doomed = match self.archived.is_empty() || self.rng.percent(70) {
            true => self.take_session(),
            false => Some(take(&mut self.rng, &mut self.archived)),
        };
        let Some(live) = doomed else {
            return self.create();
        };
        self.unlink(&live.path)?;
        if kind_of(&live.path) == Found::Session {
            self.free.push(live.path);
        }
        self.notes.count("deleted");
        Ok(())
    }

    fn archive(&mut self) -> io::Result<()> {
        let Some(live) = self.take_session() else {
            return self.create();
        };
        let why = *self.rng.pick(&["deleted", "reset"]);
        let to = appended(&live.path, &format!(".{why}.{}", self.scribe.tick().replace(':', "-")));
        self.rename(&live, &to)?;
        self.free.push(live.path);
        self.archived.push(Live { path: to, ..live });
        self.notes.count("archived");
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        let Some(live) = self.some_session() else {
            return self.create();
        };
        let record = self.scribe.record();
        let mut file = self.open_to_append(&live)?;
        self.write(&mut file, &live, &record)?;
        self.notes.count("appended");
        Ok(())
    }

    fn split(&mut self) -> io::Result<()> {
        let Some(live) = self.some_session() else {
            return self.create();
        };
        let record = self.scribe.record();
        let cut = self.rng.between(1, record.len() - 1);
        let mut file = self.open_to_append(&live)?;
        self.write(&mut file, &live, &record[..cut])?;
        self.pause(500, 4_000);
        self.write(&mut file, &live, &record[cut..])?;
        self.notes.count("split");
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        let Some(at) = self.some_session_at() else {
            return self.create();
        };
        let old = self.sessions[at].clone();
        let text = shortened(self.notes.incarnations[old.incarnation].content());
        let (new, mut file) = self.born(appended(&old.path, ".truncate-tmp"))?;
        self.write(&mut file, &new, &text)?;
        self.rename(&new, &old.path)?;
        self.sessions[at].incarnation = new.incarnation;
        self.notes.count("compacted");
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let Some(live) = self.some_session() else {
            return self.create();
        };
        let id = self.rng.uuid();
        let size = self.rng.between(1_000, 20_000);
        let text = self.scribe.session(&id, size);
        let mut file = self.open_truncated(&live)?;
        for piece in text.chunks(text.len() / 3 + 1) {
            self.write(&mut file, &live, piece)?;
            self.pause(50, 800);
        }
        self.notes.count("rewritten");
        Ok(())
    }

    fn index(&mut self) -> io::Result<()> {
        if self.indexes.is_empty() {
            return self.append();
        }
        let at = self.rng.below(self.indexes.len());
        let path = self.indexes[at].path.clone();
        let text = self.index_text();
        let temporary = appended(&path, &format!(".{}.{}.tmp", std::process::id(), self.rng.hex(8)));
        let (new, mut file) = self.born(temporary)?;
        self.write(&mut file, &new, text.as_bytes())?;
        self.rename(&new, &path)?;
        self.indexes[at].incarnation = new.incarnation;
        self.notes.count("indexed");
        Ok(())
    }

    fn lock(&mut self) -> io::Result<()> {
        let Some(live) = self.some_session() else {
            return self.create();
        };
        let (lock, mut file) = self.born(appended(&live.path, ".lock"))?;
        let text = json!({"pid": std::process::id(), "createdAt": self.scribe.tick()}).to_string();
        self.write(&mut file, &lock, text.as_bytes())?;
        self.pause(500, 1_500);
        self.unlink(&lock.path)?;
        self.notes.count("locked");
        Ok(())
    }

    fn move_token(&mut self) -> io::Result<()> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.tokens.len());
        let from = self.tokens[at].file.clone();
        let to = moved(&from.path, &self.tokens[at].other);
        self.rename(&from, &to)?;
        let token = &mut self.tokens[at];
        token.other = from.path.parent().unwrap_or(Path::new("")).to_owned();
        token.file.path = to;
        self.notes.count("moved");
        Ok(())
    }

    // The system calls, each with its span in the log.

    fn timed<T>(&mut self, call: impl FnOnce() -> io::Result<T>) -> io::Result<(Span, T)> {
        let before = now_ns().max(self.last);
        let result = call();
        self.last = now_ns().max(before + 1);
        result.map(|value| (Span::new(before, self.last), value))
    }

    fn born(&mut self, path: PathBuf) -> io::Result<(Live, File)> {
        let full = self.root.join(&path);
        let (span, file) = self.timed(|| File::create_new(&full)).map_err(|error| at(&path, &error))?;
        let inode = file.metadata()?.ino();
        let incarnation = self.notes.incarnate(span, inode, Vec::new());
        self.notes.bound(span, &path, incarnation);
        Ok((Live { path, incarnation }, file))
    }

    fn write(&mut self, file: &mut File, live: &Live, bytes: &[u8]) -> io::Result<()> {
        let (span, ()) = self.timed(|| file.write_all(bytes)).map_err(|error| at(&live.path, &error))?;
        self.notes.appended(live.incarnation, span, bytes);
        Ok(())
    }

    fn open_to_append(&self, live: &Live) -> io::Result<File> {
        let opened = OpenOptions::new().append(true).open(self.root.join(&live.path));
        opened.map_err(|error| at(&live.path, &error))
    }

    fn open_truncated(&mut self, live: &Live) -> io::Result<File> {
        let full = self.root.join(&live.path);
        let open = || OpenOptions::new().write(true).truncate(true).open(&full);
        let (span, file) = self.timed(open).map_err(|error| at(&live.path, &error))?;
        self.notes.truncated(live.incarnation, span);
        Ok(file)
    }

    fn rename(&mut self, from: &Live, to: &Path) -> io::Result<()> {
        let (old, new) = (self.root.join(&from.path), self.root.join(to));
        let (span, ()) = self.timed(|| fs::rename(&old, &new)).map_err(|error| at(&from.path, &error))?;
        self.notes.renamed(span, &from.path, to, from.incarnation);
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let full = self.root.join(path);
        let (span, ()) = self.timed(|| fs::remove_file(&full)).map_err(|error| at(path, &error))?;
        self.notes.unbound(span, path);
        Ok(())
    }

    // Choices.

    fn pause(&mut self, low_us: usize, high_us: usize) {
        thread::sleep(Duration::from_micros(self.rng.between(low_us, high_us) as u64));
    }

    /// Now and then a name comes back with another inode.
    fn name_for_new(&mut self) -> PathBuf {
        if !self.free.is_empty() && self.rng.percent(25) {
            return take(&mut self.rng, &mut self.free);
        }
        let home = self.rng.pick(&self.homes).clone();
        self.fresh(&home, "")
    }

    /// A second churn with the same seed would invent the names of the first one again. Tokens wander, so the
    /// name must be free everywhere.
    fn fresh(&mut self, home: &Path, prefix: &str) -> PathBuf {
        loop {
            let name = format!("{prefix}{}.jsonl", self.rng.uuid());
            let taken = |home: &PathBuf| fs::symlink_metadata(self.root.join(home).join(&name)).is_ok();
            if !self.homes.iter().any(taken) {
                return home.join(name);
            }
        }
    }

    fn take_session(&mut self) -> Option<Live> {
        (self.sessions.len() > FEWEST).then(|| take(&mut self.rng, &mut self.sessions))
    }

    fn some_session(&mut self) -> Option<Live> {
        self.some_session_at().map(|at| self.sessions[at].clone())
    }

    fn some_session_at(&mut self) -> Option<usize> {
        (!self.sessions.is_empty()).then(|| self.rng.below(self.sessions.len()))
    }

    fn index_text(&mut self) -> String {
        let mut index = Map::new();
        for (number, live) in self.sessions.iter().enumerate() {
            let id = live.path.file_stem().unwrap_or_default().to_string_lossy();
            index.insert(format!("agent:{number}"), json!({"sessionId": id}));
        }
        index.insert("nonce".to_owned(), json!(self.rng.hex(16)));
        format!("{:#}\n", Value::Object(index))
    }
}

/// What a file is for the churn, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Session,
    Archived,
    Index,
    Other,
}

fn kind_of(path: &Path) -> Found {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name == "sessions.json" {
        Found::Index
    } else if name.ends_with(".jsonl") {
        Found::Session
    } else if name.contains(".jsonl.deleted.") || name.contains(".jsonl.reset.") {
        Found::Archived
    } else {
        Found::Other
    }
}

fn take<T>(rng: &mut Rng, from: &mut Vec<T>) -> T {
    let at = rng.below(from.len());
    from.swap_remove(at)
}

fn appended(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn moved(path: &Path, to: &Path) -> PathBuf {
    to.join(path.file_name().unwrap_or_default())
}

/// The header, and the later half of the records.
fn shortened(text: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let Some((header, records)) = lines.split_first() else {
        return Vec::new();
    };
    [&[*header], &records[records.len() / 2..]].concat().concat()
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
