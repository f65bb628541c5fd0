//! `clawsnap` as the helper of itself that copies one database: a process of its own, started by the main one.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::signal::SigSet;

use crate::freeze;

/// The hidden subcommand.
pub(super) const NAME: &str = "__database";

/// This very program, even if another one has its path by now, as after an upgrade.
pub(super) fn command() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), NAME.into()]
}

/// Serves until nobody asks any more.
pub(super) fn serve() -> ExitCode {
    // The main process holds back the signals that end it, and a child has that from its parent.
    let _as_usual = SigSet::all().thread_unblock();
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
    let descriptors = || -> io::Result<[OwnedFd; 3]> {
        Ok([own(io::stdin().as_fd())?, own(io::stderr().as_fd())?, own(io::stdout().as_fd())?])
    };
    match descriptors().and_then(|[source, staging, channel]| freeze::serve(source, staging, channel)) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is there to be told: the standard streams are not what they seem.
        Err(_) => ExitCode::FAILURE,
    }
}
