//! The archive as it is on disk, read back while it is still being written.
//!
//! What was written is read anew stretch by stretch, past the page cache: what is proved is what the disk gives back, and at
//! the end only the last stretch is left to prove.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys::DiskReader;

/// Bytes that are written before they are read, while more is being written.
const STRETCH: u64 = 16 * 1024 * 1024;

/// Bytes that are read at a time.
const BLOCK: usize = 1024 * 1024;

/// Stretches end where pages end, so that none is written to after it was read.
const PAGE: u64 = 64 * 1024;

/// How far the writing is, for who reads behind it.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    written: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Writing,
    /// Everything is written and durable.
    Sealed,
    /// It will never be whole.
    GivenUp,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.moved.notify_all();
    }

    /// So many more bytes are written.
    pub(super) fn advance(&self, bytes: u64) {
        self.set(|state| state.written += bytes);
    }

    /// Bytes written up to now.
    pub(super) fn written(&self) -> u64 {
        self.state().written
    }

    /// Everything is written and durable.
    pub(super) fn seal(&self) {
        self.set(|state| state.phase = Phase::Sealed);
    }

    /// Nothing more will be written. Who waits for it need not any more.
    pub(super) fn end(&self) {
        self.set(|state| {
            if state.phase == Phase::Writing {
                state.phase = Phase::GivenUp;
            }
        });
    }

    /// Waits until more than `length` bytes are written, or none will be any more.
    fn beyond(&self, length: u64) -> State {
        let waits = |state: &mut State| state.written <= length && state.phase == Phase::Writing;
        *self.moved.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an archive from the disk, behind the writer. A read waits for what is not yet written.
pub(crate) struct ReadBack {
    reader: DiskReader,
    progress: Arc<Progress>,
    /// Bytes that were read, whether they are handed out already or not.
    offset: u64,
    /// Everything before may be read.
    ready: u64,
    block: Block,
}

impl ReadBack {
    pub(super) fn new(reader: DiskReader, progress: Arc<Progress>) -> Self {
        Self { reader, progress, offset: 0, ready: 0, block: Block::new() }
    }

    /// Waits for the next stretch; at the end there is none.
    fn await_stretch(&mut self) -> io::Result<()> {
        let State { written, phase } = self.progress.beyond(self.ready + STRETCH);
        let end = match phase {
            Phase::Sealed => written,
            Phase::Writing => written - written % PAGE,
            Phase::GivenUp => return Err(io::Error::other("it was given up while it was written")),
        };
        self.reader.expect(self.ready, end - self.ready)?;
        self.ready = end;
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.offset == self.ready {
            self.await_stretch()?;
        }
        let left = usize::try_from(self.ready - self.offset).unwrap_or(usize::MAX);
        let (reader, offset) = (&mut self.reader, self.offset);
        self.offset += self.block.fill(left, |room| reader.read_at(room, offset))? as u64;
        Ok(())
    }
}

impl Read for ReadBack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.left().is_empty() {
            self.fill()?;
        }
        let n = self.block.left().read(buffer)?;
        self.block.at += n;
        Ok(n)
    }
}

/// A buffer that begins where a page does, as disks ask of those that they write into themselves.
struct Block {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

impl Block {
    fn new() -> Self {
        Self { bytes: vec![0; BLOCK + PAGE as usize], at: 0, end: 0 }
    }

    /// What is not yet handed out.
    fn left(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    /// Reads at most `most` bytes anew, and whole pages but at the end of the file.
    fn fill(&mut self, most: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let page = PAGE as usize;
        let start = self.bytes.as_ptr().align_offset(page);
        let room = most.next_multiple_of(page).min(BLOCK);
        let n = read(&mut self.bytes[start..start + room])?.min(most);
        (self.at, self.end) = (start, start + n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CancelFlag;
    use crate::sys::{Dir, Writer};
    use std::io::Write;

    struct Desk {
        _top: tempfile::TempDir,
        file: Writer,
        progress: Arc<Progress>,
    }

    impl Desk {
        fn new() -> (Self, ReadBack) {
            let top = tempfile::tempdir().expect("a directory");
            let gate = Arc::new(CancelFlag::new());
            let dir = Dir::open(top.path(), crate::gate::Realm::Output, gate).expect("opens");
            let file = dir.create(b"f").expect("creates");
            let progress = Arc::<Progress>::default();
            let back = ReadBack::new(file.disk_reader().expect("opens"), Arc::clone(&progress));
            (Self { _top: top, file, progress }, back)
        }

        fn write(&mut self, bytes: &[u8]) {
            self.file.write_all(bytes).expect("writes");
            self.progress.advance(bytes.len() as u64);
        }
    }

    #[test]
    fn what_is_written_is_read_back_to_its_end_while_it_grows() {
        let (mut desk, mut back) = Desk::new();
        let piece: Vec<u8> = (0..1_000_003_u32).map(|number| (number % 251) as u8).collect();
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            back.read_to_end(&mut all).map(|_| all)
        });
        (0..40).for_each(|_| desk.write(&piece));
        desk.progress.seal();
        assert!(read.join().expect("ends").expect("reads") == piece.repeat(40));
    }

    #[test]
    fn a_stretch_is_read_before_the_end_and_no_further_than_its_last_whole_page() {
        let (mut desk, mut back) = Desk::new();
        let length = STRETCH as usize + PAGE as usize + 5;
        desk.write(&vec![7; length]);
        back.read_exact(&mut vec![0; length - 5]).expect("reads");
        assert!(back.block.left().is_empty());
        assert_eq!((back.offset, back.ready), (length as u64 - 5, length as u64 - 5));
    }

    #[test]
    fn who_reads_is_not_kept_waiting_for_what_is_given_up() {
        let (mut desk, mut back) = Desk::new();
        desk.write(b"half");
        desk.progress.end();
        assert!(back.read(&mut [0; 9]).is_err());
    }
}
