//! A mark beside what was kept of a root, as long as that is on its way back: it says which inode shall be at the root's side.
//!
//! The two look alike before and after their exchange. Who finds the mark of a way back that was killed, or has failed, knows
//! by it which of the two this is.

use std::io::{self, Read};

use super::ground::Ground;
use crate::sys::{self, Dir};

/// What ends its name, after that of what was kept. A name that can be kept leaves room for it, as for `.parts`.
const ENDING: &[u8] = b".undo";

/// Longest number that is read.
const LONGEST: u64 = 20;

/// Whether a name is that of a mark.
pub(super) fn is_mark(name: &[u8]) -> bool {
    name.ends_with(ENDING)
}

/// The mark of one way back, whether it is there or not. What was begun is dealt with to the end, though a signal comes.
pub(super) struct Mark {
    host: Dir,
    name: Vec<u8>,
}

impl Mark {
    /// That of what is `kept` beside a root.
    pub(super) fn of(ground: &Ground, kept: &[u8]) -> Self {
        Self { host: ground.host().unstoppable(), name: [kept, ENDING].concat() }
    }

    /// The inode that shall be at the root's side; none if no way back was begun. One that was not written to its end, or by
    /// somebody else, says nothing.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn read(&self) -> io::Result<Option<u64>> {
        let Some(file) = sys::if_there(self.host.open_file(&self.name))? else { return Ok(None) };
        let is_ours = file.stat()?.uid == sys::effective_uid();
        let mut text = String::new();
        file.into_file().take(LONGEST).read_to_string(&mut text)?;
        Ok(text.parse().ok().filter(|_| is_ours))
    }

    /// Writes it, durably: what it says is about to be done.
    ///
    /// # Errors
    /// Nothing that could be brought back; those of the kernel.
    pub(super) fn set(&self, inode: Option<u64>) -> io::Result<()> {
        let inode = inode.ok_or_else(|| io::Error::other("it is gone"))?;
        sys::if_there(self.host.unlink(&self.name))?;
        let file = self.host.create(&self.name)?;
        file.write_all_at(inode.to_string().as_bytes(), 0)?;
        file.sync()?;
        self.host.sync()
    }

    /// Removes it: what it says was done, and may be undone from now on.
    ///
    /// # Errors
    /// Those of the kernel; it is still there then.
    pub(super) fn clear(&self) -> io::Result<()> {
        sys::if_there(self.host.unlink(&self.name))?;
        // Should it be there again after a power cut, what it says is true.
        let _later: io::Result<()> = self.host.sync();
        Ok(())
    }
}
