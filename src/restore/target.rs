//! A new directory as the place to restore to: it gets its name when what is in it is proven.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::entry::Kind;
use crate::error::{Error, Result};
use crate::gate::{Gate, Realm};
use crate::leftover::{Leftover, Standing};
use crate::naming::{is_partial_name, partial_name};
use crate::output::made_directory;
use crate::sys::{self, Dir, Listing};
use crate::tree::{self, Claim, Draft, claim};

/// The directory that shall be made, and what is made of it so far.
pub(super) struct Target {
    host: Dir,
    path: PathBuf,
    name: Vec<u8>,
    draft: Draft,
}

impl Target {
    /// Begins a hidden directory beside `path`, which must be free.
    ///
    /// # Errors
    /// A name that is taken by more than an empty directory, or by a mount; those of the kernel.
    pub(super) fn begin(path: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let absolute = std::path::absolute(path).map_err(|error| Error::failed("resolve", path, error))?;
        let name =
            absolute.file_name().ok_or_else(|| Error::Usage(format!("{} names no directory", path.display())))?;
        let parent = absolute.parent().unwrap_or(Path::new("/"));
        let canonical = made_directory(parent, gate)?;
        let fail = |error| Error::failed("restore into", parent, error);
        let host = Dir::open_canonical(&canonical, Realm::Output, Arc::clone(gate)).map_err(fail)?;
        check_free(&host, name.as_bytes(), path)?;
        // What cannot be swept now is tried again by the next run.
        let _swept = sweep(&host.unstoppable(), true);
        let draft = partial_name(sys::now()).and_then(|hidden| Draft::make(&host, hidden)).map_err(fail)?;
        Ok(Self { host, path: path.to_owned(), name: name.as_bytes().to_vec(), draft })
    }

    /// The directory as it is so far.
    pub(super) fn tree(&self) -> Dir {
        self.draft.dir().clone()
    }

    /// Gives it its name, and makes that durable unless that was declined.
    ///
    /// # Errors
    /// A name that was taken meanwhile; those of the kernel. Nothing is left then.
    pub(super) fn publish(mut self, sync: bool) -> Result<()> {
        let fail = |error| Error::failed("publish what was restored as", &self.path, error);
        // An empty subvolume goes only when it is asked to; what came there meanwhile stays, whatever it is.
        let _was_empty = self.host.remove_dir(&self.name);
        self.host.move_dir_to(self.draft.name(), &self.host, &self.name).map_err(fail)?;
        // A name that may not survive a power cut goes again, with what has it.
        self.draft.renamed(&self.name);
        if sync {
            self.host.sync().map_err(fail)?;
        }
        self.draft.let_go();
        Ok(())
    }
}

fn check_free(dir: &Dir, name: &[u8], target: &Path) -> Result<()> {
    let taken = || {
        let text = format!(
            "{} exists, and is no empty directory: choose another --target; nothing is ever overwritten",
            target.display()
        );
        Err(Error::Usage(text))
    };
    let fail = |error| Error::failed("look at", target, error);
    match sys::if_there(dir.stat(name)).map_err(fail)? {
        None => Ok(()),
        Some(_) => {
            let Ok(there) = dir.open_dir(name) else { return taken() };
            // The tree would be made on the other side of the mount, and could never take its place.
            if there.mount().and_then(|mount| Ok(mount != dir.mount()?)).map_err(fail)? {
                let (target, within) = (target.display(), target.join("restored"));
                let text = format!("{target} is a mount of its own: name a directory in it, as {}", within.display());
                return Err(Error::Usage(text));
            }
            match there.list().and_then(Listing::whole) {
                Ok(names) if names.is_empty() => Ok(()),
                _ => taken(),
            }
        }
    }
}

/// What trees in the making there are in `host`. Those that dead runs left are removed, if they shall be.
///
/// # Errors
/// Only the cancellation of the run.
pub(crate) fn sweep(host: &Dir, remove: bool) -> io::Result<Vec<Leftover>> {
    let names = host.list().map(|listing| listing.names).unwrap_or_default();
    let drafts = names.iter().filter(|found| is_partial_name(&found.name));
    let looked = drafts.map(|found| match host.stat(&found.name) {
        Ok(stat) if stat.kind == Kind::Directory => Leftover::of(&found.name, standing(host, &found.name, remove)),
        // An archive in the making.
        _ => Ok(None),
    });
    looked.filter_map(io::Result::transpose).collect()
}

fn standing(host: &Dir, name: &[u8], remove: bool) -> io::Result<Standing> {
    match claim(host, name)? {
        Claim::Dead(_, _lock) if remove => tree::remove(&host.unstoppable(), name).map(|()| Standing::Removed),
        other => other.standing(),
    }
}
