//! The proof of an archive, in a thread of its own that follows the writing.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::output::ReadBack;
use crate::verify::{Proof, prove, unproven};

/// Whether everything is written: only then the reading back is what is left to be told of.
#[derive(Default)]
pub(super) struct AllWritten(AtomicBool);

/// A proof under way.
pub(super) struct Prover<'scope> {
    thread: ScopedJoinHandle<'scope, Result<Proof>>,
    all_written: &'scope AllWritten,
}

impl<'scope> Prover<'scope> {
    /// Begins to prove what is read back.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        back: ReadBack,
        all_written: &'scope AllWritten,
        observer: &'scope dyn Observer,
    ) -> Result<Self> {
        let telling = Telling { inner: back, read: 0, all_written, observer };
        let thread = thread::Builder::new()
            .name("prover".to_owned())
            .spawn_scoped(scope, move || prove(telling))
            .map_err(|error| Error::failed("start a thread", "prover", error))?;
        Ok(Self { thread, all_written })
    }

    /// Everything is written: waits for the end of the proof.
    ///
    /// # Errors
    /// What is wrong with the archive; that it is another one than was written, by its inventory.
    pub(super) fn conclude(self, inventory: &str, entries: Option<u64>) -> Result<()> {
        self.all_written.0.store(true, Relaxed);
        let proof = self.thread.join().unwrap_or_else(|_| Err(unproven("its proof broke off")))?;
        if proof.inventory == inventory && Some(proof.entries) == entries {
            return Ok(());
        }
        Err(unproven("its inventory is not the one that was written"))
    }
}

/// Tells the observer how far the reading back is.
struct Telling<'a> {
    inner: ReadBack,
    read: u64,
    all_written: &'a AllWritten,
    observer: &'a dyn Observer,
}

impl Read for Telling<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        if self.all_written.0.load(Relaxed) {
            self.observer.on(Event::ReadBack { bytes: self.read });
        }
        Ok(n)
    }
}
