//! The hidden directory that a tree is made in.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::tree;
use crate::gate::{Realm, Unstoppable};
use crate::sys::{self, Dir};

/// A hidden directory of ours. Dropping it removes it.
pub(super) struct Draft {
    host: Dir,
    /// The same, for what must be done even if the run was cancelled.
    clean_up: Dir,
    /// Its name; empty when it is nobody's to remove any more.
    name: Vec<u8>,
    /// Locked as long as it is open: it tells other runs that this one lives.
    _lock: File,
}

impl Draft {
    /// Makes it in `host`.
    ///
    /// # Errors
    /// Those of the kernel; nothing is left behind then.
    pub(super) fn make(host: &Dir, name: String) -> io::Result<Self> {
        let name = name.into_bytes();
        let clean_up = unstoppable(host);
        host.make_dir(&name)?;
        let lock = match host.open_own_dir(&name) {
            Ok(lock) => lock,
            Err(error) => {
                let _left: io::Result<()> = clean_up.remove_dir(&name);
                return Err(error);
            }
        };
        // A filesystem without locks has nobody to tell.
        let _others_are_told = host.lock(&lock);
        Ok(Self { host: host.clone(), clean_up, name, _lock: lock })
    }

    /// The directory.
    pub(super) fn dir(&self) -> io::Result<Dir> {
        self.host.open_dir(&self.name)
    }

    /// Its name in its host.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// It was given another name; until it is let go, it is removed under that one.
    pub(super) fn renamed(&mut self, name: &[u8]) {
        self.name = name.to_vec();
    }

    /// It is nobody's to remove any more.
    pub(super) fn let_go(mut self) {
        self.name.clear();
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Nobody is left to tell; the next run sweeps what stays.
            let _left: io::Result<()> = tree::remove(&self.clean_up, &self.name);
        }
    }
}

/// The same directory for what must be done even if the run was cancelled.
pub(super) fn unstoppable(dir: &Dir) -> Dir {
    dir.guarded(Realm::Output, Arc::new(Unstoppable(Arc::clone(dir.gate()))))
}

/// The lock of a directory of ours whose run is dead; `None` if it lives, or is not ours.
pub(super) fn take_over(host: &Dir, name: &[u8]) -> Option<File> {
    let ours = host.stat(name).is_ok_and(|stat| stat.uid == sys::effective_uid());
    let lock = if ours { host.open_own_dir(name).ok()? } else { return None };
    host.lock(&lock).unwrap_or(false).then_some(lock)
}
