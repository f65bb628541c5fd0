//! What the main process and the helper of one database say to each other: a line of JSON each.

use serde::{Deserialize, Serialize};

use super::Check;
use crate::relpath::{hex, unhex};
use crate::transcript::Stored;

/// What a helper is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// Which database it serves; the first line. It answers with the next ones only.
    Serve(Task),
    /// Hold the database as it is now.
    Pin {
        /// There is room for a copy, where only that can hold it.
        room: bool,
    },
    /// Tell whether what is pinned is the present state still.
    Check,
    /// Let go of a lock that its owner waits for.
    Release,
    /// Copy what is pinned; or, if nothing is, what there is.
    Copy,
    /// Check a copy that is there already.
    Verify,
    /// Tell of the sessions in a copy that is there already: each by itself, then that there are no more.
    Sessions,
    /// Copy the bytes as they are, since nothing better was possible for this reason.
    Raw(String),
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    /// Its name in the source directory, in hexadecimal.
    name: String,
    /// Device and inode: what has the name by now may be something else.
    pub(super) id: (u64, u64),
    /// How long a lock is waited for, in milliseconds.
    pub(super) timeout_ms: u64,
    /// How the copy is checked.
    pub(super) check: Check,
}

impl Task {
    pub(super) fn new(name: &[u8], id: (u64, u64), timeout_ms: u64, check: Check) -> Self {
        Self { name: hex(name), id, timeout_ms, check }
    }

    /// The database's name.
    pub(super) fn name(&self) -> Vec<u8> {
        unhex(&self.name).unwrap_or_default()
    }
}

/// What a helper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Say {
    /// No answer yet, but at work.
    Working,
    /// The state at this moment is held, and will be copied whatever its owner does. Where `locked`, it was copied at
    /// once, and its owner cannot commit until the lock is released.
    Pinned {
        /// The owner has to wait.
        locked: bool,
    },
    /// Whether nothing was committed since it was pinned.
    Rests(bool),
    /// Nobody has it open, or it cannot be opened without writing: its files are copied while they rest.
    Loose,
    /// It cannot be pinned now, for this reason.
    Refused(String),
    /// The lock is gone.
    Released,
    /// The copy is made and checked.
    Copied(Copied),
    /// Only the bytes could be had, for this reason.
    Raw {
        /// Why.
        reason: String,
        /// Which of the database's other files were copied too, as numbers in [`SIDECARS`](super::SIDECARS).
        parts: Vec<usize>,
    },
    /// A session.
    Session(Box<Stored>),
    /// All of them were told.
    NoMore,
    /// Not even the bytes could be had; or a copy that was to be checked is broken.
    Failed(String),
    /// A copy could not be checked, for a reason that says nothing about it.
    Unable(String),
}

/// What a copy was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// What a read transaction saw, while its owner went on.
    Snapshot,
    /// The same, while its owner could not commit.
    Locked,
    /// Its files, which nobody had open.
    Closed,
    /// The same; what a crash had left was recovered in the copy.
    Recovered,
    /// Its bytes, which prove nothing.
    #[default]
    Raw,
}

impl Way {
    /// All of them, best first.
    pub const ALL: [Self; 5] = [Self::Snapshot, Self::Locked, Self::Closed, Self::Recovered, Self::Raw];

    /// The way's name, as the inventory and the report write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Locked => "locked",
            Self::Closed => "closed",
            Self::Recovered => "recovered",
            Self::Raw => "raw",
        }
    }
}

/// How a database was copied, and what the copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Copied {
    /// What it was made from.
    pub(crate) way: Way,
    /// `wal` or `rollback`.
    pub(crate) journal: String,
    /// Bytes of a page.
    pub(crate) page_size: u64,
    /// Pages.
    pub(crate) pages: u64,
    /// The application's own number.
    pub(crate) user_version: i64,
    /// `ok`, `off`, or SQLite's words on why it could not be checked or what is wrong.
    pub(crate) check: String,
    /// For how long its owner could not commit, in microseconds.
    pub(crate) locked_us: u64,
}
