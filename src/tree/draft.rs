//! The hidden directory that a tree is made in.

use std::fs::File;
use std::io;

use crate::entry::Kind;
use crate::gate;
use crate::leftover::Standing;
use crate::sys::{self, Dir, Errno};

/// What only we may enter.
const OURS_ALONE: u32 = 0o700;

/// Has what is made in a directory belong to the directory's group; a directory made in one with it gets it.
const SET_GROUP_ID: u32 = 0o2000;

/// Who else may do what, in the directory and in what is made in it.
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_default", b"system.posix_acl_access"];

/// A hidden directory of ours. Dropping it removes it, unless it was let go.
pub(crate) struct Draft {
    host: Dir,
    name: Vec<u8>,
    dir: Dir,
    is_ours_to_remove: bool,
    /// Locked as long as it is open: it tells other runs that this one lives.
    _lock: File,
}

impl Draft {
    /// Makes it in `host`, whose group and access control lists it does not take over: what is made in it would.
    ///
    /// # Errors
    /// Those of the kernel; nothing is left behind then.
    pub(crate) fn make(host: &Dir, name: String) -> io::Result<Self> {
        let name = name.into_bytes();
        host.make_dir(&name)?;
        let opened = host.open_dir(&name).and_then(|dir| match is_ours(&dir)? {
            true => Ok((File::from(dir.hand_over()?), dir)),
            false => Err(io::Error::other("somebody put another directory in the place of the one that was made")),
        });
        let (lock, dir) = opened.inspect_err(|_| {
            let _left: io::Result<()> = host.unstoppable().remove_dir(&name);
        })?;
        // A filesystem without locks has nobody to tell.
        let _others_are_told = host.lock(&lock);
        let draft = Self { host: host.clone(), name, dir, is_ours_to_remove: true, _lock: lock };
        disinherit(&draft.dir)?;
        Ok(draft)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Its name in its host.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// It was given another name.
    pub(crate) fn renamed(&mut self, name: &[u8]) {
        self.name = name.to_vec();
    }

    /// From now on it stays when this is dropped.
    pub(crate) fn let_go(&mut self) {
        self.is_ours_to_remove = false;
    }

    /// From now on it is removed again when this is dropped.
    pub(crate) fn take_back(&mut self) {
        self.is_ours_to_remove = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_ours_to_remove {
            // Nobody is left to tell; the next run sweeps what stays.
            let _left: io::Result<()> = super::remove(&self.host.unstoppable(), &self.name);
        }
    }
}

/// Whose a hidden directory is.
pub(crate) enum Claim {
    /// Ours, and nobody works on it: we hold its lock now.
    Dead(Dir, File),
    /// Ours, and another run works on it.
    Alive,
    /// Somebody else's, or not what we would have made.
    Foreign,
    /// Nobody's: it is gone.
    Gone,
}

impl Claim {
    /// The same for those who only look.
    ///
    /// # Errors
    /// What is gone.
    pub(crate) fn standing(self) -> io::Result<Standing> {
        match self {
            Self::Dead(..) => Ok(Standing::Removable),
            Self::Alive => Ok(Standing::Busy),
            Self::Foreign => Ok(Standing::Foreign),
            Self::Gone => Err(Errno::NOENT.into()),
        }
    }
}

/// Opens a hidden directory, and says whose it is by what was opened: its name may be bound to another by now.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn claim(host: &Dir, name: &[u8]) -> io::Result<Claim> {
    let dir = match sys::if_there(host.open_dir(name)) {
        Err(error) if matches!(sys::errno(&error), Some(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS)) => {
            return Ok(Claim::Foreign);
        }
        other => other?,
    };
    let Some(dir) = dir else { return Ok(Claim::Gone) };
    if !is_ours(&dir)? {
        return Ok(Claim::Foreign);
    }
    let lock = File::from(dir.hand_over()?);
    match host.lock(&lock) {
        Ok(true) => Ok(Claim::Dead(dir, lock)),
        Err(error) if crate::gate::is_cancelled(&error) => Err(error),
        // A filesystem without locks cannot tell.
        _ => Ok(Claim::Alive),
    }
}

/// Whether it is a directory that we made for ourselves.
pub(crate) fn is_ours(dir: &Dir) -> io::Result<bool> {
    let stat = dir.stat_self()?;
    let is_alone = stat.mode & !SET_GROUP_ID == OURS_ALONE;
    Ok(stat.kind == Kind::Directory && stat.uid == sys::effective_uid() && is_alone)
}

/// Takes from a directory what its parent has handed down to it: what is made in it would get that as well.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn disinherit(dir: &Dir) -> io::Result<()> {
    let has = dir.xattrs()?;
    for list in ACCESS_LISTS.into_iter().filter(|list| has.iter().any(|(name, _)| name == list)) {
        dir.remove_xattr(list)?;
    }
    let stat = dir.stat_self()?;
    if stat.gid != sys::effective_gid() {
        // Some filesystems know one group only.
        gate::tolerate(dir.set_owner(stat.uid, sys::effective_gid()))?;
    }
    if stat.mode == OURS_ALONE { Ok(()) } else { dir.set_mode(OURS_ALONE) }
}
