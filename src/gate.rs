//! The seam: every step that touches the outside asks [`Gate::pass`] first.
//!
//! In production the gate is a [`CancelFlag`], so a cancelled run stops at its next step. In tests it is a script
//! that unlinks, renames, truncates or appends for real between two of our calls, or answers with an errno that
//! the kernel will not give on demand.

mod watched;

pub use watched::{UnderWay, Watched};

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a step is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Open a directory.
    OpenDir,
    /// Read the names in a directory.
    List,
    /// Stat a name or a descriptor.
    Stat,
    /// Open a file for reading.
    Open,
    /// Read bytes.
    Read,
    /// Read a symbolic link's target.
    ReadLink,
    /// Read extended attributes.
    Xattr,
    /// Give a file a second name.
    Link,
    /// Share a file's extents with a new file.
    Clone,
    /// Make a directory.
    MakeDir,
    /// Create a file.
    Create,
    /// Write bytes.
    Write,
    /// Take an advisory lock.
    Lock,
    /// Make bytes or names durable.
    Sync,
    /// Rename a file.
    Rename,
    /// Remove a file's name.
    Unlink,
    /// Remove a directory.
    RemoveDir,
    /// Start the helper process of a database.
    Spawn,
    /// Ask a helper process, or go on waiting for its answer.
    Ask,
}

/// Whose territory a step touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Realm {
    /// The live tree: read only, but for the second names that `Link` gives.
    Source,
    /// Our private staging directories.
    Staging,
    /// The directory where the archive is published.
    Output,
}

/// One step, told to the gate just before it is taken.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What is about to be done.
    pub verb: Verb,
    /// Where.
    pub realm: Realm,
    /// The directory, relative to its root; empty for the root itself.
    pub dir: &'a [u8],
    /// The name in that directory; empty where the step is about the directory itself.
    pub name: &'a [u8],
}

/// What a step's name is to be looked for beneath, by a descriptor that is open as long as the step lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Nothing: it is a path.
    Nowhere,
    /// This directory.
    Dir(RawFd),
    /// This is the file itself.
    File(RawFd),
}

/// Asked before every step.
pub trait Gate: Send + Sync {
    /// Lets the step pass, or answers in the kernel's stead.
    ///
    /// # Errors
    /// Whatever the step shall fail with: an errno, or [`cancelled`].
    fn pass(&self, step: &Step<'_>) -> io::Result<()>;

    /// A step that has passed is taken now, by this thread. One that may last is told; one that only asks is not.
    fn begun(&self, _: &Step<'_>, _: At) {}

    /// The step that this thread took is over. A thread takes one step at a time.
    fn ended(&self) {}
}

/// A step that is being taken; it is over when this is dropped.
#[must_use]
pub(crate) struct Taking<'a>(&'a dyn Gate);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Takes a step, if it may pass.
///
/// # Errors
/// Those of [`Gate::pass`].
pub(crate) fn take<'a>(gate: &'a dyn Gate, step: &Step<'_>, at: At) -> io::Result<Taking<'a>> {
    gate.pass(step)?;
    gate.begun(step, at);
    Ok(Taking(gate))
}

/// The same about a path, where nothing is open yet that leads there.
///
/// # Errors
/// Those of [`Gate::pass`].
pub(crate) fn take_at<'a>(gate: &'a dyn Gate, verb: Verb, realm: Realm, path: &Path) -> io::Result<Taking<'a>> {
    take(gate, &Step { verb, realm, dir: b"", name: path.as_os_str().as_encoded_bytes() }, At::Nowhere)
}

/// The payload of the error by which a cancelled run unwinds.
#[derive(Debug)]
struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// The error by which a cancelled run unwinds.
///
/// Its kind is `Other`: readers and writers of the standard library would retry `Interrupted`.
pub fn cancelled() -> io::Error {
    io::Error::other(Cancelled)
}

/// Whether `error` means that the run was cancelled, as opposed to a fault of the outside.
pub fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
}

/// Trouble is an answer; a cancelled run is not.
///
/// # Errors
/// Only the cancellation.
pub(crate) fn tolerate<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if is_cancelled(&error) => Err(error),
        other => Ok(other.ok()),
    }
}

/// The production gate: open until somebody cancels the run.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// An open gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes the gate: every later step fails with [`cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the gate was closed.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gate for CancelFlag {
    fn pass(&self, _: &Step<'_>) -> io::Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

/// The gate for clean-up: a cancelled run still removes what it made.
pub(crate) struct Unstoppable(pub(crate) Arc<dyn Gate>);

impl Gate for Unstoppable {
    fn pass(&self, step: &Step<'_>) -> io::Result<()> {
        match self.0.pass(step) {
            Err(error) if is_cancelled(&error) => Ok(()),
            other => other,
        }
    }

    fn begun(&self, step: &Step<'_>, at: At) {
        self.0.begun(step, at);
    }

    fn ended(&self) {
        self.0.ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step<'_> = Step { verb: Verb::Unlink, realm: Realm::Staging, dir: b"", name: b"x" };

    #[test]
    fn a_cancelled_gate_stops_every_step_but_those_of_the_clean_up() {
        let flag = CancelFlag::new();
        assert!(flag.pass(&STEP).is_ok());
        flag.cancel();
        assert!(is_cancelled(&flag.pass(&STEP).expect_err("closed")));
        assert!(Unstoppable(Arc::new(flag)).pass(&STEP).is_ok());
    }

    #[test]
    fn a_fault_of_the_outside_is_not_a_cancellation() {
        assert!(!is_cancelled(&io::Error::from_raw_os_error(5)));
        assert!(!is_cancelled(&io::Error::other("something else")));
    }
}
