//! Whose fault it is when copying fails: the reader's, or the writer's.

use std::io::{self, Read};

/// Tells afterwards whether it was the reading that failed.
pub(crate) struct Noting<'a> {
    inner: &'a mut dyn Read,
    /// It was.
    pub(crate) failed: bool,
}

impl<'a> Noting<'a> {
    /// Reads from `inner`.
    pub(crate) fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, failed: false }
    }
}

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|_| self.failed = true)
    }
}
