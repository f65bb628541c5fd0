//! Snapshot-consistent backups of a live state directory: freeze first, archive at leisure.
//!
//! `clawsnap` backs up a directory **while the program that owns it keeps running**. The freeze takes well under a
//! second: every session file gets a second name (a hard link) in a private staging directory, so that a concurrent
//! unlink, rename-over or clean-up can no longer take it away. The archive is then written from the frozen set.
//!
//! # The promise
//!
//! 1. **One instant.** When the report says `consistent: instant`, there was a moment during the freeze at which the
//!    source held exactly the names that the archive holds, each bound to the inode that was archived. When the tree
//!    would not rest, the report says `window` and names what moved.
//! 2. **Whole contents.** A session is archived as the bytes it had at the freeze, cut at a record boundary. Anything
//!    that could not be had whole is in the archive as well as it could be had, flagged, and counted in the verdict.
//! 3. **Every name meets exactly one fate.** A name that any listing ever yielded is archived, or the report says by
//!    name what became of it. Nothing is dropped in silence.
//! 4. **The source is untouched.** No byte, no mode, no directory entry of it changes. When the command returns, by
//!    success, error or signal, no link of ours remains. After `kill -9` the next run removes what was left.
//! 5. **A name is a proof.** An archive has its final name only when it is complete, synced to disk, read back and
//!    equal to its inventory. Until then nothing has that name, and nothing that had it was overwritten.
//!
//! # The way of a backup
//!
//! ```text
//!         alive: trouble is data                        still: trouble is an error
//! Request ─► Plan ─► Staging ═══freeze═══► Frozen ─► Draft ══archive══► Sealed ─► Verified ─► Published
//! ```
//!
//! [`plan`] says what is backed up, `freeze` makes it still, [`archive`] turns it into bytes, `output` publishes them,
//! `verify` proves them. [`create()`] leads through all of it, and always returns a [`Report`](report::Report).
//!
//! Every step that touches the outside asks a [`Gate`](gate::Gate) first, which is how a run is cancelled, and how the
//! tests play races for real.

pub mod archive;
#[doc(hidden)]
pub mod benching;
pub mod command;
mod create;
pub mod entry;
pub mod error;
pub mod event;
pub mod fate;
pub mod freeze;
pub mod gate;
pub mod guard;
pub mod keep;
mod leftover;
mod lines;
pub mod list;
mod lock;
mod naming;
mod output;
pub mod plan;
pub mod prune;
pub mod relpath;
pub mod report;
pub mod restore;
mod seen;
pub mod sessions;
mod shelf;
pub mod stage;
pub mod status;
mod survey;
pub mod sweep;
mod sys;
pub mod transcript;
mod tree;
pub mod verify;
mod way_back;

pub use create::{Create, Output, create, rehearse};
pub use survey::survey;

#[cfg(feature = "cli")]
pub mod cli;
