//! A process that we started, held so that what is sent to it never reaches another one, and heard.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A child process.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// Holds a child that was not waited for yet.
    ///
    /// # Errors
    /// Those of `pidfd_open(2)`.
    pub(crate) fn of(child: &Child) -> io::Result<Self> {
        Ok(Self(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?))
    }

    /// Sends it a signal, by number.
    ///
    /// # Errors
    /// It has ended; no such signal; those of the kernel.
    pub(crate) fn send(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.0, signal)?)
    }
}

/// The longest word that is taken in.
const LONGEST: u64 = 4096;

/// Where a process that we start can leave word for us. What it becomes has not inherited it.
#[derive(Debug)]
pub(crate) struct Letterbox {
    slot: PipeWriter,
    inside: PipeReader,
}

impl Letterbox {
    /// An empty one.
    ///
    /// # Errors
    /// Those of `pipe2(2)`.
    pub(crate) fn new() -> io::Result<Self> {
        let (inside, slot) = io::pipe()?;
        Ok(Self { slot, inside })
    }

    /// A path that leads to it, as long as it is, for processes with our rights.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub(crate) fn path(&self) -> io::Result<PathBuf> {
        // Our number there may be another one than we know: that of a namespace further out.
        Ok(std::fs::canonicalize("/proc/self/fd")?.join(self.slot.as_raw_fd().to_string()))
    }

    /// The word that was left, if there is one, once whoever could leave one has ended.
    pub(crate) fn word(self) -> Option<String> {
        drop(self.slot);
        let mut word = Vec::new();
        self.inside.take(LONGEST).read_to_end(&mut word).ok()?;
        Some(String::from_utf8_lossy(&word).into_owned()).filter(|word| !word.is_empty())
    }
}

/// Has the kernel ask this process to end (`SIGTERM`) when the thread that started it does.
///
/// # Errors
/// Those of `prctl(2)`.
#[cfg(feature = "cli")]
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?)
}

/// Whether the first thread of a process is gone, while the process is still there.
#[cfg(feature = "cli")]
pub(crate) fn is_zombie(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Its second field is the program's name, which may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Lets go of the standard streams, for all threads.
#[cfg(feature = "cli")]
pub(crate) fn close_streams() {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    let Ok(nothing) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    let _replaced = (dup2_stdin(&nothing), dup2_stdout(&nothing), dup2_stderr(&nothing));
}
