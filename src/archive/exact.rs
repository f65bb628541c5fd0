//! A reader that yields exactly the bytes that were promised, whatever the file does meanwhile.
//!
//! A tar header tells the length before the contents follow. A file that grows, shrinks or fails under the reader
//! would tear everything after it; this one cuts what is too much, fills what is missing with zeros, and says so.

use std::io::{self, Read};

use crate::freeze::{Meaning, meaning};
use crate::gate::Verb;
use crate::sys::Reader;

/// Exactly `length` bytes of a file.
pub(crate) struct Exact<'a> {
    reader: &'a Reader,
    length: u64,
    offset: u64,
    shortfall: Option<Shortfall>,
}

/// Why bytes had to be made up.
#[derive(Debug)]
pub(crate) struct Shortfall {
    /// Bytes that the file did have.
    pub(crate) had: u64,
    /// The error that ended the reading, if it was not the end of the file.
    pub(crate) error: Option<io::Error>,
}

impl Shortfall {
    /// The shortfall in words, as the reason of a fate.
    pub(crate) fn reason(&self, promised: u64) -> Box<str> {
        let had = self.had;
        match &self.error {
            Some(error) => format!("{error} after {had} of {promised} bytes").into(),
            None => format!("ended after {had} of {promised} bytes").into(),
        }
    }
}

impl<'a> Exact<'a> {
    /// Promises the first `length` bytes.
    pub(crate) fn new(reader: &'a Reader, length: u64) -> Self {
        Self { reader, length, offset: 0, shortfall: None }
    }

    /// What was missing, once everything was read.
    pub(crate) fn shortfall(self) -> Option<Shortfall> {
        self.shortfall
    }

    fn fall_short(&mut self, error: Option<io::Error>) {
        self.shortfall = Some(Shortfall { had: self.offset, error });
    }
}

impl Read for Exact<'_> {
    /// Fails only when the run is cancelled: trouble with the source is kept for [`Exact::shortfall`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = &mut buffer[..wanted];
        if self.shortfall.is_none() && wanted > 0 {
            match self.reader.read_at(buffer, self.offset) {
                Ok(0) => self.fall_short(None),
                Ok(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(error) if meaning(Verb::Read, &error) == Meaning::Cancelled => return Err(error),
                Err(error) => self.fall_short(Some(error)),
            }
        }
        buffer.fill(0);
        self.offset += wanted as u64;
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{CancelFlag, Gate, Realm, Step, cancelled};
    use crate::sys::Dir;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn open(file: &Path, gate: Arc<dyn Gate>) -> Reader {
        let dir = Dir::open(file.parent().expect("a parent"), Realm::Source, gate).expect("opens");
        dir.open_file(file.file_name().expect("a name").as_encoded_bytes()).expect("opens")
    }

    /// Lets so many reads pass, then does something for real, or answers for the kernel.
    struct At(AtomicU32, Box<dyn Fn() -> io::Result<()> + Send + Sync>);

    impl Gate for At {
        fn pass(&self, step: &Step<'_>) -> io::Result<()> {
            if step.verb == Verb::Read && self.0.fetch_sub(1, Ordering::Relaxed) == 0 { (self.1)() } else { Ok(()) }
        }
    }

    fn read_all(file: &Path, gate: Arc<dyn Gate>, length: u64) -> (io::Result<Vec<u8>>, Option<Shortfall>) {
        let reader = open(file, gate);
        let mut exact = Exact::new(&reader, length);
        let mut all = Vec::new();
        let mut buffer = [0; 4];
        loop {
            match exact.read(&mut buffer) {
                Ok(0) => return (Ok(all), exact.shortfall()),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) => return (Err(error), exact.shortfall()),
            }
        }
    }

    fn file_of(contents: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().expect("a directory");
        let file = top.path().join("f");
        std::fs::write(&file, contents).expect("writes");
        (top, file)
    }

    #[test]
    fn a_file_that_grew_yields_no_byte_more_than_promised() {
        let (_top, file) = file_of(b"0123456789");
        let (bytes, shortfall) = read_all(&file, Arc::new(CancelFlag::new()), 6);
        assert_eq!(bytes.expect("reads"), b"012345");
        assert!(shortfall.is_none());
    }

    #[test]
    fn a_file_that_shrinks_under_the_reader_is_filled_with_zeros_and_named() {
        let (_top, file) = file_of(b"0123456789");
        let shrunk = file.clone();
        let shrink = move || std::fs::OpenOptions::new().write(true).open(&shrunk)?.set_len(5);
        let (bytes, shortfall) = read_all(&file, Arc::new(At(AtomicU32::new(1), Box::new(shrink))), 10);
        assert_eq!(bytes.expect("reads"), b"01234\0\0\0\0\0");
        let shortfall = shortfall.expect("is short");
        assert_eq!((shortfall.had, shortfall.error.is_none()), (5, true));
    }

    #[test]
    fn a_read_error_is_kept_for_the_fate_and_does_not_tear_the_archive() {
        let (_top, file) = file_of(b"0123456789");
        let eio = || Err(io::Error::from_raw_os_error(5));
        let (bytes, shortfall) = read_all(&file, Arc::new(At(AtomicU32::new(1), Box::new(eio))), 10);
        assert_eq!(bytes.expect("reads"), b"0123\0\0\0\0\0\0");
        assert_eq!(shortfall.expect("is short").error.expect("has one").raw_os_error(), Some(5));
    }

    #[test]
    fn only_a_cancellation_ends_the_reading() {
        let (_top, file) = file_of(b"0123456789");
        let (bytes, _) = read_all(&file, Arc::new(At(AtomicU32::new(1), Box::new(|| Err(cancelled())))), 10);
        assert!(bytes.is_err());
    }
}
