//! Standard output as the place where an archive goes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::gate::{CancelFlag, cancelled};

/// A pipe that is ready takes so many bytes without making us wait (`PIPE_BUF`).
const WITHOUT_WAITING: usize = 4096;

/// How often a writer that waits asks whether the run was cancelled, in milliseconds.
const PATIENCE: u16 = 100;

/// Standard output, unbuffered. A reader that stopped reading does not keep us from being cancelled: signals are held
/// back, so that none would interrupt a `write(2)` that waits.
pub(super) struct Stdout {
    file: File,
    may_wait: bool,
    cancel: CancelFlag,
}

impl Stdout {
    /// Opens it.
    ///
    /// # Errors
    /// It is closed.
    pub(super) fn open(cancel: CancelFlag) -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        let may_wait = kind.is_fifo() || kind.is_socket() || kind.is_char_device();
        Ok(Self { file, may_wait, cancel })
    }

    fn wait_for_room(&self) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            let ready = match poll(&mut fds, PollTimeout::from(PATIENCE)) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            if ready > 0 {
                return Ok(());
            }
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.may_wait {
            return self.file.write(bytes);
        }
        self.wait_for_room()?;
        self.file.write(&bytes[..bytes.len().min(WITHOUT_WAITING)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
