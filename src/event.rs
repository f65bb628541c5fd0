//! What a run tells while it works. Events decorate, results decide: dropping every event changes no result.

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another run on the same source is waited for.
    Waiting {
        /// It has ended.
        over: bool,
    },
    /// The freeze has captured so many names, in so many directories.
    Freezing {
        /// Files, links and the like.
        files: u64,
        /// Directories listed.
        directories: u64,
    },
    /// The tree is being checked for rest.
    Settling {
        /// The round, counted from one.
        round: u32,
        /// Directories that moved in it.
        restless: u64,
    },
    /// The tree rests: the last check of all of it found nothing that had moved.
    Settled {
        /// How long that check took, the pinning of databases included.
        microseconds: u64,
    },
    /// The freeze is over; the databases that it pinned are being copied.
    Copying {
        /// So many are done.
        done: u64,
        /// Of so many.
        all: u64,
    },
    /// Everything that will be archived is held.
    Frozen {
        /// Files, links and the like.
        files: u64,
        /// Bytes of contents.
        bytes: u64,
    },
    /// So many bytes of contents were written to the archive.
    Archived {
        /// Bytes of contents, of those that [`Event::Frozen`] announced.
        bytes: u64,
    },
    /// The archive is written and synced, and will now be read back.
    Sealed {
        /// The archive's length in bytes.
        bytes: u64,
    },
    /// So many bytes of the archive were read back.
    ReadBack {
        /// Bytes of the archive, of those that [`Event::Sealed`] announced.
        bytes: u64,
    },
    /// An archive was read to its end and is what it should be; now it is read once more, to be restored.
    Proven,
    /// The archive has its name.
    Published,
    /// A command of the user's takes over: the terminal is its own until it ends.
    Handed,
}

/// Told of every [`Event`], from any thread.
pub trait Observer: Send + Sync {
    /// Takes note of an event. Called often: keep it cheap.
    fn on(&self, event: Event);
}

/// Sees nothing.
impl Observer for () {
    fn on(&self, _: Event) {}
}

/// Sees nothing where there is none.
impl<T: Observer> Observer for Option<T> {
    fn on(&self, event: Event) {
        self.iter().for_each(|observer| observer.on(event));
    }
}
