//! The helper process of one database: it answers what the main process asks, until that is gone.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::sessions;
use super::source::{INDEX_HEADER, Mode, Source, Trouble};
use super::words::{Ask, Copied, Say, Task, Way};
use crate::gate::{CancelFlag, Gate, Realm};
use crate::sys::{self, Dir};

/// How long a lock that the owner waits for is kept for the main process to find the instant.
const LONGEST_LOCK: Duration = Duration::from_millis(500);

/// How often a transaction is begun anew because there was a commit while it began.
const PIN_ATTEMPTS: u32 = 32;

/// How soon a way is tried again that was not passable.
const AGAIN: Duration = Duration::from_millis(5);

/// How long a pin waits for a lock. It is asked for again while the tree comes to rest.
const PIN_WAIT: Duration = Duration::from_millis(50);

/// Serves one database: `source` is its directory, `staging` a private directory for its copy, `channel` leads to
/// whoever asks. Returns when that is gone.
///
/// # Errors
/// Those of the channel; a thread that cannot be started.
pub fn serve(source: OwnedFd, staging: OwnedFd, channel: OwnedFd) -> io::Result<()> {
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    let staging = Dir::adopt(staging, Realm::Staging, Arc::clone(&gate));
    sys::forgo_ownership();
    // Belt and braces: SQLite is only ever asked to read there. But one that opens a database which its owner closes
    // at that moment would make an empty log beside it.
    let _as_far_as_the_kernel_can = staging.confine_writes();
    let channel = UnixStream::from(channel);
    let (sender, asked) = mpsc::channel();
    let reader = channel.try_clone()?;
    std::thread::Builder::new().spawn(move || listen(reader, &sender))?;
    let Ok(Ask::Serve(task)) = asked.recv() else { return Ok(()) };
    let source = Source::new(Dir::adopt(source, Realm::Source, gate), staging, task.clone());
    Server { source, task, channel, state: State::Idle, locked: Duration::ZERO }.serve(&asked)
}

/// Hears the main process out. When that is gone, nobody wants a copy any more, however far it is.
fn listen(reader: UnixStream, sender: &Sender<Ask>) {
    for line in BufReader::new(reader).split(b'\n') {
        let ask = line.ok().and_then(|line| serde_json::from_slice(&line).ok());
        let Some(true) = ask.map(|ask| sender.send(ask).is_ok()) else { break };
    }
    std::process::exit(0);
}

/// What is held of the database.
enum State {
    /// Nothing.
    Idle,
    /// A snapshot, by a read transaction that nobody waits for; and what the index of the log said of it.
    Snapshot([u8; INDEX_HEADER]),
    /// A copy, already made; and, since that moment, the lock that makes it the present state still.
    Made(Option<Instant>),
}

struct Server {
    source: Source,
    task: Task,
    channel: UnixStream,
    state: State,
    /// For how long the owner could not commit.
    locked: Duration,
}

impl Server {
    fn serve(mut self, asked: &Receiver<Ask>) -> io::Result<()> {
        loop {
            let ask = match self.lock_ends() {
                Some(end) => match asked.recv_timeout(end.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.unlock();
                        continue;
                    }
                    other => other.ok(),
                },
                None => asked.recv().ok(),
            };
            let Some(ask) = ask else { return Ok(()) };
            let answer = self.answer(ask);
            say(&mut self.channel, &answer)?;
        }
    }

    fn lock_ends(&self) -> Option<Instant> {
        match self.state {
            State::Made(Some(since)) => Some(since + LONGEST_LOCK),
            _ => None,
        }
    }

    fn unlock(&mut self) {
        if let State::Made(since) = &mut self.state {
            self.source.disconnect();
            self.locked += since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
    }

    fn answer(&mut self, ask: Ask) -> Say {
        match ask {
            Ask::Serve(_) => Say::Failed("it serves one database only".to_owned()),
            Ask::Pin { room } => self.pin(room),
            Ask::Check => Say::Rests(self.rests()),
            Ask::Release => {
                self.unlock();
                Say::Released
            }
            Ask::Copy => self.copy(),
            Ask::Verify => match self.verify() {
                Ok(copied) => Say::Copied(copied),
                Err(Trouble::Broken(words)) => Say::Failed(words),
                // Nobody else has that copy: what keeps it from being opened is the system too.
                Err(trouble) => Say::Unable(trouble.to_string()),
            },
            Ask::Sessions => self.sessions(),
            Ask::Raw(reason) => self.raw(reason),
        }
    }

    fn sessions(&mut self) -> Say {
        let channel = &mut self.channel;
        let told = channel.try_clone().map_err(Trouble::from).and_then(|signs| {
            let copy = self.source.open_copy(signs)?;
            sessions::tell(&copy, &mut |stored| say(channel, &Say::Session(Box::new(stored))))
        });
        match told {
            Ok(()) => Say::NoMore,
            Err(trouble) => Say::Failed(trouble.to_string()),
        }
    }

    fn pin(&mut self, room: bool) -> Say {
        self.unlock();
        let is_open = matches!(std::mem::replace(&mut self.state, State::Idle), State::Snapshot(_));
        let mode = if is_open { Ok(Mode::Wal) } else { self.source.connect(PIN_WAIT) };
        match mode {
            Ok(Mode::Wal) => self.snapshot(),
            Ok(Mode::Rollback) => self.make(room),
            Err(Trouble::Busy(words)) => Say::Refused(words),
            Err(_) => Say::Loose,
        }
    }

    /// Makes the copy at once. Where that fails its owner gets the room back that a part of it took.
    fn make(&mut self, room: bool) -> Say {
        if room && self.back_up_locked().is_ok() {
            self.state = State::Made(Some(Instant::now()));
            return Say::Pinned { locked: true };
        }
        self.source.disconnect();
        // What cannot be removed now is removed with its directory.
        let _later = self.source.discard_copy();
        Say::Loose
    }

    /// Begins read transactions until no commit comes in between: only then is it known what the transaction sees.
    fn snapshot(&mut self) -> Say {
        for _ in 0..PIN_ATTEMPTS {
            let begun = self.source.commits().map_err(Trouble::from).and_then(|before| {
                self.source.begin_anew()?;
                Ok((before, self.source.commits()?))
            });
            match begun {
                Ok((before, after)) if before == after => {
                    self.state = State::Snapshot(after);
                    return Say::Pinned { locked: false };
                }
                Ok(_) => {}
                Err(trouble) => {
                    self.source.disconnect();
                    return if let Trouble::Busy(words) = trouble { Say::Refused(words) } else { Say::Loose };
                }
            }
        }
        Say::Refused("there was always a commit in between".to_owned())
    }

    /// Whether what is pinned is the present state still.
    fn rests(&self) -> bool {
        match &self.state {
            State::Idle => false,
            State::Snapshot(pinned) => self.source.commits().is_ok_and(|now| now == *pinned),
            State::Made(locked) => locked.is_some(),
        }
    }

    fn back_up(&mut self) -> Result<(), Trouble> {
        let channel = &mut self.channel;
        self.source.back_up(&mut || alive(channel))
    }

    fn copy(&mut self) -> Say {
        self.unlock();
        let made = match std::mem::replace(&mut self.state, State::Idle) {
            State::Made(_) => Ok(Way::Locked),
            State::Snapshot(_) => self.back_up().map(|()| Way::Snapshot),
            State::Idle => self.ladder(),
        };
        self.source.disconnect();
        match made.and_then(|way| self.check(way)) {
            Ok(copied) => Say::Copied(copied),
            Err(trouble) => self.raw(trouble.to_string()),
        }
    }

    /// From the best way to the last but one: by SQLite's own locks, or by the files while they rest. Its owner may come
    /// and go, so both are tried in turn until the time is over.
    fn ladder(&mut self) -> Result<Way, Trouble> {
        let deadline = Instant::now() + Duration::from_millis(self.task.timeout_ms);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let outcome = match self.source.connect(left) {
                Ok(Mode::Wal) => return self.back_up().map(|()| Way::Snapshot),
                Ok(Mode::Rollback) => return self.under_lock().map(|()| Way::Locked),
                Err(Trouble::Files(_)) => {
                    let channel = &mut self.channel;
                    self.source.copy_files(&mut || alive(channel))
                }
                Err(other) => Err(other),
            };
            match outcome {
                Err(Trouble::Busy(_)) if !left.is_zero() => alive(&mut self.channel),
                other => return other,
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn under_lock(&mut self) -> Result<(), Trouble> {
        let made = self.back_up_locked();
        self.source.disconnect();
        made
    }

    /// Backs up while the owner waits.
    fn back_up_locked(&mut self) -> Result<(), Trouble> {
        let since = Instant::now();
        let made = self.back_up();
        self.locked += since.elapsed();
        made
    }

    /// Checks a copy that was made elsewhere. Of a disk that fails SQLite tells as of a broken database: it is one if all of
    /// it can be read, and it is found broken then too.
    fn verify(&mut self) -> Result<Copied, Trouble> {
        match self.check(Way::Raw) {
            Err(Trouble::Broken(_)) => {
                let channel = &mut self.channel;
                self.source.read_copy(&mut || alive(channel))?;
                self.check(Way::Raw)
            }
            other => other,
        }
    }

    fn check(&mut self, way: Way) -> Result<Copied, Trouble> {
        let channel = self.channel.try_clone().map_err(Trouble::from)?;
        let copied = self.source.check(self.task.check, channel)?;
        let locked_us = u64::try_from(self.locked.as_micros()).unwrap_or(u64::MAX);
        Ok(Copied { way, locked_us, ..copied })
    }

    fn raw(&mut self, reason: String) -> Say {
        self.source.disconnect();
        self.state = State::Idle;
        let channel = &mut self.channel;
        match self.source.copy_raw(&mut || alive(channel)) {
            Ok(parts) => Say::Raw { reason, parts },
            Err(trouble) => Say::Failed(format!("{reason}; and then: {trouble}")),
        }
    }
}

/// Tells that there is still somebody at work.
pub(super) fn alive(channel: &mut UnixStream) {
    // Whoever does not hear it is gone, and then so are we.
    let _heard = say(channel, &Say::Working);
}

fn say(channel: &mut UnixStream, said: &Say) -> io::Result<()> {
    let mut text = serde_json::to_vec(said)?;
    text.push(b'\n');
    channel.write_all(&text)
}
