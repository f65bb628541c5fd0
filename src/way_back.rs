//! The archive that a command can be gone back from: no rule removes it as long as somebody may want it.
//!
//! While the command runs, a shared `flock(2)` is held on the archive, and whoever removes archives asks for an exclusive
//! one first. For the time after that the archive is marked: an extended attribute says when the command was started. It
//! is set before that, since whoever is killed cannot set it any more, and taken away when there is nothing to go back
//! from: the command went well, or everything was brought back. Where there are no attributes, the lock works alone; where
//! there are no locks (some network filesystems), the mark does.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::gate::{self, Gate, Realm};
use crate::naming::WAY_BACK;
use crate::sys::{self, Dir, Reader};

/// Seconds for which a mark keeps an archive.
const KEPT_FOR: u64 = 30 * 24 * 60 * 60;

/// An archive that is held. Dropping this lets go of the lock, and leaves the mark.
pub(crate) struct WayBack {
    file: Reader,
    /// When it was marked, in seconds since the epoch, if it could be.
    marked: Option<i64>,
}

impl WayBack {
    /// Holds the archive at `path`, and marks it.
    ///
    /// # Errors
    /// It is not there any more, or is about to be removed; a cancelled run.
    pub(crate) fn hold(path: &Path, gate: &Arc<dyn Gate>) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        // Whoever is cancelled still takes the mark away.
        let dir = Dir::open(parent, Realm::Output, Arc::clone(gate))?.unstoppable();
        let name = name.as_encoded_bytes();
        let file = dir.open_file(name)?;
        let is_locked = gate::tolerate(file.lock_shared())?.unwrap_or(true);
        // Whoever has the other lock is about to remove it, or has done so while we opened it.
        if !is_locked || dir.stat(name)?.id() != file.stat()?.id() {
            return Err(io::Error::other("another run removes it"));
        }
        let now = sys::now().seconds;
        // A power cut while the command runs is when the mark is wanted most.
        let marked = file.set_xattr(WAY_BACK, now.to_string().as_bytes()).and_then(|()| file.sync());
        Ok(Self { file, marked: marked.is_ok().then_some(now) })
    }

    /// Until when the mark keeps the archive: ISO 8601, UTC; none where it could not be marked.
    pub(crate) fn kept_until(&self) -> Option<String> {
        let until = self.marked?.checked_add_unsigned(KEPT_FOR)?;
        jiff::Timestamp::from_second(until).ok().map(|until| until.to_string())
    }

    /// There is nothing to go back from. A mark that cannot be taken away ends by itself.
    pub(crate) fn let_go(self) {
        self.file.remove_xattr(WAY_BACK).unwrap_or_default();
    }
}

/// Whether an archive is marked, and not too long ago. A clock that was wrong keeps none for ever.
///
/// # Errors
/// The attributes cannot be read, though there are some; a cancelled run.
pub(crate) fn is_marked(archive: &Reader) -> io::Result<bool> {
    let xattrs = archive.xattrs()?;
    let mark = xattrs.iter().find(|(name, _)| name == WAY_BACK);
    let at = mark.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
    Ok(at.is_some_and(|at| at.abs_diff(sys::now().seconds) <= KEPT_FOR))
}
