//! The helper of one database, seen from the main process: a child process that is asked and answers.
//!
//! SQLite keeps its locks by process: whoever opens and closes a database's file drops the locks that the same process
//! holds on it. So each database has a process of its own, which can also hang or crash without harm to the run.
//!
//! The child is started with the database's directory as its standard input, the channel as its standard output and
//! its private directory in staging as its standard error: no path is resolved, and nothing else is inherited.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::words::{Ask, Say};
use crate::gate::{Gate, Realm, Step, Verb};
use crate::sys::Dir;

/// How often somebody who waits for an answer asks whether the run was cancelled.
const TICK: Duration = Duration::from_millis(100);

/// A helper that says nothing for this long hangs; beyond what it may wait for a lock, and what a disk takes that reads
/// so many bytes a second.
const GRACE: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 10 << 20;

/// How long a helper that was killed is waited for at a time: twice as long each time, until that is a second.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A running helper. Dropping it ends it.
pub(super) struct Helper {
    gate: Arc<dyn Gate>,
    /// The database's path below its root, for the gate.
    path: Vec<u8>,
    child: Child,
    channel: BufReader<UnixStream>,
    /// What came of a line whose end is still to come.
    line: Vec<u8>,
    patience: Duration,
}

impl Helper {
    /// Starts `program` on the database `name` in `source`, with `staging` to write into. A database of `size` bytes takes
    /// its time.
    ///
    /// # Errors
    /// It cannot be started; the cancellation of the run.
    pub(super) fn start(
        program: &[OsString],
        source: &Dir,
        staging: &Dir,
        name: &[u8],
        timeout: Duration,
        size: u64,
    ) -> io::Result<Self> {
        let (gate, path) = (Arc::clone(source.gate()), source.path().join(name).as_bytes().to_vec());
        pass(&*gate, Verb::Spawn, &path)?;
        let (program, arguments) = program.split_first().ok_or_else(|| io::Error::other("no helper is known"))?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(TICK))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::from(source.hand_over()?))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::from(staging.hand_over()?))
            // What the terminal sends is for the main process: a helper that is stopped would keep its lock.
            .process_group(0)
            .spawn()?;
        let patience = timeout + GRACE + Duration::from_secs(size / SLOWEST);
        Ok(Self { gate, path, child, channel: BufReader::new(ours), line: Vec::new(), patience })
    }

    /// Asks, without waiting for the answer.
    ///
    /// # Errors
    /// The helper is gone; the cancellation of the run.
    pub(super) fn send(&mut self, ask: &Ask) -> io::Result<()> {
        pass(&*self.gate, Verb::Ask, &self.path)?;
        let mut text = serde_json::to_vec(ask)?;
        text.push(b'\n');
        self.channel.get_mut().write_all(&text)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The helper is gone, speaks in tongues, or has said nothing for too long; the cancellation of the run.
    pub(super) fn receive(&mut self) -> io::Result<Say> {
        let mut heard = Instant::now();
        loop {
            match self.channel.read_until(b'\n', &mut self.line) {
                Ok(0) => return Err(self.obituary()),
                Ok(_) if self.line.ends_with(b"\n") => {
                    let said = serde_json::from_slice(&std::mem::take(&mut self.line))?;
                    if said != Say::Working {
                        return Ok(said);
                    }
                    heard = Instant::now();
                    pass(&*self.gate, Verb::Ask, &self.path)?;
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    pass(&*self.gate, Verb::Ask, &self.path)?;
                    if heard.elapsed() > self.patience {
                        let seconds = self.patience.as_secs();
                        return Err(io::Error::other(format!("its helper said nothing for {seconds} s")));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Why there is nobody to answer.
    fn obituary(&mut self) -> io::Error {
        // It closed the channel, so it has ended or is about to.
        match self.end() {
            Ok(Some(status)) => io::Error::other(format!("its helper ended early ({status})")),
            Ok(None) => io::Error::other("its helper closed its channel, and hangs"),
            Err(error) => error,
        }
    }

    /// Ends it, so that no zombie stays; says how it ended. One that waits in the kernel for a filesystem that hangs
    /// cannot be ended, and is not waited for.
    fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        // An ended child cannot be killed, and is waited for all the same.
        let _ended = self.child.kill();
        let mut pause = SHORTEST_PAUSE;
        while pause < LONGEST_PAUSE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.child.try_wait()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _reaped = self.end();
    }
}

fn pass(gate: &dyn Gate, verb: Verb, path: &[u8]) -> io::Result<()> {
    gate.pass(&Step { verb, realm: Realm::Source, dir: b"", name: path })
}
