//! Gives what is made to whom it belonged, as far as we may.
//!
//! Everybody tries, and the kernel decides: a user may give a file to one of his groups; root may give away nothing in a
//! namespace that has no such owner, without the capability, on a share that makes root a nobody, or on FAT.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::{self, Errno};

/// The kernel's words for what may not be given away, or not to him, or not here.
const REFUSALS: [Errno; 5] = [Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS, Errno::ACCESS];

/// Counts what could not be given, in all the threads that make files of one tree.
#[derive(Clone, Default)]
pub(super) struct Giver {
    refused: Arc<AtomicU64>,
}

impl Giver {
    /// Whether what was tried to be given has been.
    ///
    /// # Errors
    /// What is no refusal.
    pub(super) fn gives(&self, given: io::Result<()>) -> io::Result<bool> {
        match given {
            Err(error) if sys::errno(&error).is_some_and(|errno| REFUSALS.contains(&errno)) => {
                self.count(true);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Another name of something, which was not given if it is `refused`.
    pub(super) fn count(&self, refused: bool) {
        self.refused.fetch_add(u64::from(refused), Ordering::Relaxed);
    }

    /// Names that could not be given.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
