//! What an errno means for one name: a pure table. An errno is an answer before it is an error.

use std::io;

use crate::sys::Errno;

use crate::gate::{self, Verb};
use crate::sys;

/// What the kernel's refusal means for the name that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The name is not there (any more), or is bound to something else by now. Departure itself is proved by a
    /// listing alone.
    Vanished,
    /// This way of capturing cannot take this file: try the next one.
    Unsuited,
    /// We may not look; another way might be allowed.
    Denied,
    /// The source is there and cannot be read.
    Unreadable,
    /// The run was cancelled.
    Cancelled,
}

/// Reads the answer that `verb` got.
pub(crate) fn meaning(verb: Verb, error: &io::Error) -> Meaning {
    if gate::is_cancelled(error) {
        return Meaning::Cancelled;
    }
    let Some(errno) = sys::errno(error) else { return Meaning::Unreadable };
    match (verb, errno) {
        // Gone; or a component of its path is no directory, or a symbolic link, by now; or an NFS handle went stale.
        (_, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Meaning::Vanished,
        // A symbolic link became something else between listing and reading.
        (Verb::ReadLink, Errno::INVAL) => Meaning::Vanished,
        // A socket or an unconnected device took the name.
        (Verb::Open, Errno::NXIO | Errno::NODEV) => Meaning::Vanished,
        // Other mount, too many names, immutable, `fs.protected_hardlinks`, a filesystem without links; a full or
        // read-only staging: each of them leaves the next capture a chance.
        (Verb::Link | Verb::Clone | Verb::Create | Verb::Spawn, _) => Meaning::Unsuited,
        // Out of descriptors or memory.
        (Verb::Open, Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Meaning::Unsuited,
        (_, Errno::ACCESS | Errno::PERM) => Meaning::Denied,
        _ => Meaning::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_means_for_a_name_what_the_table_says() {
        for (verb, errno, expected) in [
            (Verb::Stat, Errno::NOENT, Meaning::Vanished),
            (Verb::Link, Errno::NOENT, Meaning::Vanished),
            (Verb::OpenDir, Errno::LOOP, Meaning::Vanished),
            (Verb::OpenDir, Errno::NOTDIR, Meaning::Vanished),
            (Verb::Open, Errno::NXIO, Meaning::Vanished),
            (Verb::ReadLink, Errno::INVAL, Meaning::Vanished),
            (Verb::Link, Errno::XDEV, Meaning::Unsuited),
            (Verb::Link, Errno::MLINK, Meaning::Unsuited),
            (Verb::Link, Errno::PERM, Meaning::Unsuited),
            (Verb::Link, Errno::ACCESS, Meaning::Unsuited),
            (Verb::Link, Errno::NOSPC, Meaning::Unsuited),
            (Verb::Clone, Errno::OPNOTSUPP, Meaning::Unsuited),
            (Verb::Open, Errno::MFILE, Meaning::Unsuited),
            (Verb::Open, Errno::ACCESS, Meaning::Denied),
            (Verb::OpenDir, Errno::ACCESS, Meaning::Denied),
            (Verb::List, Errno::IO, Meaning::Unreadable),
            (Verb::Read, Errno::IO, Meaning::Unreadable),
            (Verb::Open, Errno::IO, Meaning::Unreadable),
        ] {
            assert_eq!(meaning(verb, &io::Error::from(errno)), expected, "{verb:?} {errno:?}");
        }
        assert_eq!(meaning(Verb::Link, &gate::cancelled()), Meaning::Cancelled);
    }
}
