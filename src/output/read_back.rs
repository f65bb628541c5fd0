//! The archive as it is on disk, read back while it is still being written.
//!
//! What was written is made durable stretch by stretch, dropped from the page cache, and read anew: what is proved is
//! what the disk gives back, and at the end only the last stretch is left to prove.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys::Reader;

/// Bytes that are made durable at a time, while more is being written.
const STRETCH: u64 = 16 * 1024 * 1024;

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
    reader: Reader,
    progress: Arc<Progress>,
    offset: u64,
    /// Everything before is durable, and gone from the page cache.
    durable: u64,
}

impl ReadBack {
    pub(super) fn new(reader: Reader, progress: Arc<Progress>) -> Self {
        Self { reader, progress, offset: 0, durable: 0 }
    }

    /// Makes the next stretch durable; at the end there is none.
    fn secure(&mut self) -> io::Result<()> {
        let State { written, phase } = self.progress.beyond(self.durable + STRETCH);
        let end = match phase {
            Phase::Sealed => written,
            Phase::Writing => {
                self.reader.sync()?;
                written - written % PAGE
            }
            Phase::GivenUp => return Err(io::Error::other("it was given up while it was written")),
        };
        self.reader.forget_cache(self.durable, end - self.durable);
        self.durable = end;
        Ok(())
    }
}

impl Read for ReadBack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.offset == self.durable {
            self.secure()?;
        }
        let left = usize::try_from(self.durable - self.offset).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let n = self.reader.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += n as u64;
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
            let back = ReadBack::new(file.reader().expect("opens"), Arc::clone(&progress));
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
    fn a_stretch_is_read_before_the_end_and_no_further_than_it_is_durable() {
        let (mut desk, mut back) = Desk::new();
        let length = STRETCH as usize + PAGE as usize + 5;
        desk.write(&vec![7; length]);
        let mut first = vec![0; length];
        let read = (0..).map_while(|_| (back.offset < STRETCH).then(|| back.read(&mut first))).map(Result::unwrap);
        assert_eq!(read.sum::<usize>(), length - 5);
    }

    #[test]
    fn who_reads_is_not_kept_waiting_for_what_is_given_up() {
        let (mut desk, mut back) = Desk::new();
        desk.write(b"half");
        desk.progress.end();
        assert!(back.read(&mut [0; 9]).is_err());
    }
}
