//! From an archive back to a tree.
//!
//! The tree is made in a hidden directory beside its target, while the archive is read and proven. It gets its name when
//! the archive is proven to its last byte, and not before: what is restored is what was backed up, or nothing.

mod tree;

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::archive::{Line, PAYLOAD, TAILS};
use crate::error::{Error, Result};
use crate::event::Observer;
use crate::gate::{self, Gate, Realm, Unstoppable};
use crate::list::Wanted;
use crate::naming::{is_partial_name, partial_name};
use crate::relpath::shown;
use crate::report::PathName;
use crate::sys::{self, Dir, Errno};
use crate::verify::{Guest, Met, Noting, read_ours};
use tree::{Meta, Tree};

/// What shall be restored, and where to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The directory that shall hold what is restored, each name below it by its absolute path. It must not exist, or be
    /// empty.
    pub target: PathBuf,
    /// Which names.
    pub wanted: Wanted,
    /// Whether half-written records that were set aside are restored as well, as `<file>.tail`.
    pub tails: bool,
}

/// How a restore ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Everything that was asked for is there, as it was.
    Complete,
    /// It is there, but for what `differences` and `flagged` name.
    Different,
    /// Nothing was restored; `error` says why.
    #[default]
    Failed,
    /// What was asked for makes no sense; nothing was touched.
    Usage,
    /// The archive is not what it should be: nothing was restored.
    Unproven,
    /// The run was cancelled: nothing was restored.
    Cancelled,
}

/// A name with a remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Its absolute path where it was backed up.
    pub path: PathName,
    /// What is to be said of it.
    pub what: String,
}

/// What a restore did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The archive.
    pub archive_path: PathName,
    /// Where it was restored to.
    pub target: PathName,
    /// How it ended.
    pub outcome: Ending,
    /// Why nothing was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Files, links among them.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// Names that belong to the caller now, as only root can give files away.
    pub owners_not_kept: u64,
    /// What is not as it was.
    pub differences: Vec<Remark>,
    /// Names that are not whole in the archive already: torn or hollow.
    pub flagged: Vec<Remark>,
    /// Wall time in milliseconds.
    pub elapsed_milliseconds: u64,
}

impl Restored {
    /// The exit code: 0 complete, 1 failed, 2 usage, 3 with differences, 4 not proven.
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Ending::Complete => 0,
            Ending::Failed | Ending::Cancelled => 1,
            Ending::Usage => 2,
            Ending::Different => 3,
            Ending::Unproven => 4,
        }
    }
}

/// Restores what is wanted of an archive.
pub fn restore(archive: &Path, options: &RestoreOptions, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Restored {
    let begun = Instant::now();
    let name = |path: &Path| PathName(path.as_os_str().as_bytes().to_vec());
    let mut restored = Restored { archive_path: name(archive), target: name(&options.target), ..Restored::default() };
    let outcome = run(archive, options, gate, observer, &mut restored);
    if outcome.is_err() {
        // Whatever was made is gone again.
        restored = Restored { archive_path: restored.archive_path, target: restored.target, ..Restored::default() };
    }
    restored.outcome = match &outcome {
        Ok(()) if restored.differences.is_empty() && restored.flagged.is_empty() => Ending::Complete,
        Ok(()) => Ending::Different,
        Err(Error::Usage(_)) => Ending::Usage,
        Err(Error::Unproven(_)) => Ending::Unproven,
        Err(Error::Cancelled) => Ending::Cancelled,
        Err(Error::Failed { .. }) => Ending::Failed,
    };
    restored.error = outcome.err().map(|error| error.to_string());
    restored.elapsed_milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    restored
}

fn run(
    archive: &Path,
    options: &RestoreOptions,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    restored: &mut Restored,
) -> Result<()> {
    let draft = Draft::begin(&options.target, gate)?;
    let mut restorer = Restorer { options, tree: Tree::new(draft.tree()?), restored, failed: None };
    let outcome = read_ours(archive, gate, observer, &mut restorer);
    // Trouble with the target is no fault of the archive.
    if let Some(failed) = restorer.failed.take() {
        return Err(failed);
    }
    outcome?;
    let Restorer { mut tree, restored, .. } = restorer;
    if restored.files + restored.directories == 0 {
        let first = tree.differences.first();
        let why = first.map(|difference| format!("/{}: {}", shown(&difference.path), difference.what));
        let nothing = || "nothing in the archive fits: `clawsnap list` shows what is in it".to_owned();
        return Err(Error::Usage(why.unwrap_or_else(nothing)));
    }
    tree.finish().map_err(|error| Error::failed("restore into", &options.target, error))?;
    let told = tree.differences.into_iter();
    let path = |below: &[u8]| PathName([b"/", below].concat());
    restored.differences.extend(told.map(|difference| Remark { path: path(&difference.path), what: difference.what }));
    draft.publish()
}

/// Puts into the tree what an archive holds, as it comes.
struct Restorer<'a> {
    options: &'a RestoreOptions,
    tree: Tree,
    restored: &'a mut Restored,
    failed: Option<Error>,
}

impl Restorer<'_> {
    /// Where an entry goes, below the tree; `None` if it is not wanted.
    fn place(&self, met: &Met<'_>) -> Option<Vec<u8>> {
        let (place, ending) = if met.kind == "tail" { (TAILS, &b".tail"[..]) } else { (PAYLOAD, &b""[..]) };
        let below = met.path.strip_prefix(place)?.strip_prefix(b"/")?;
        let wanted = self.options.wanted.fits(&[b"/", below].concat());
        let wanted = wanted && (met.kind != "tail" || self.options.tails);
        wanted.then(|| [below, ending].concat())
    }

    fn put(&mut self, met: &Met<'_>, path: &[u8], contents: &mut dyn Read) -> io::Result<()> {
        let meta = Meta { mode: met.mode, uid: met.uid, gid: met.gid, mtime: met.mtime, xattrs: met.xattrs.clone() };
        let link = met.link.unwrap_or_default();
        match met.kind {
            "directory" => self.tree.directory(path, meta)?,
            "symlink" => self.tree.symlink(path, &meta, link)?,
            "hardlink" => {
                let target = link.strip_prefix(PAYLOAD).and_then(|below| below.strip_prefix(b"/")).unwrap_or(link);
                if !self.tree.hard_link(path, target)? {
                    return Ok(());
                }
            }
            _ => self.restored.bytes += self.tree.file(path, &meta, contents)?,
        }
        if met.kind == "directory" {
            self.restored.directories += 1;
        } else {
            self.restored.files += 1;
        }
        let ours = (met.uid, met.gid) == (sys::effective_uid(), sys::effective_gid());
        self.restored.owners_not_kept += u64::from(sys::effective_uid() != 0 && !ours);
        Ok(())
    }
}

impl Guest for Restorer<'_> {
    fn entry(&mut self, met: Met<'_>, contents: &mut dyn Read) -> io::Result<()> {
        let Some(path) = self.place(&met) else { return Ok(()) };
        let mut reading = Noting::new(contents);
        let outcome = self.put(&met, &path, &mut reading);
        match outcome {
            // What the archive's reader says is about the archive.
            Err(error) if reading.failed || gate::is_cancelled(&error) => Err(error),
            Err(error) => {
                let at = self.options.target.join(Path::new(std::ffi::OsStr::from_bytes(&path)));
                let full = error.kind() == io::ErrorKind::StorageFull;
                let failed = Error::failed("restore", at, error);
                self.failed =
                    Some(if full { failed.remedy("free space there, or choose another --target") } else { failed });
                Err(io::Error::other("the target cannot take it"))
            }
            Ok(()) => Ok(()),
        }
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        let below = line.path.bytes().unwrap_or_default();
        let path = below.strip_prefix(PAYLOAD).unwrap_or(&below).to_vec();
        let flagged = (line.fate == "torn" || line.fate == "hollow") && self.options.wanted.fits(&path);
        if flagged {
            let reason = line.reason.as_deref().unwrap_or_default();
            self.restored.flagged.push(Remark { path: PathName(path), what: format!("{}: {reason}", line.fate) });
        }
        Ok(())
    }
}

/// The hidden directory that a tree is made in. Dropping it removes it.
struct Draft {
    parent: Dir,
    clean_up: Dir,
    /// Its name; empty when it is nobody's to remove any more.
    name: Vec<u8>,
    target: PathBuf,
    target_name: Vec<u8>,
    /// Locked as long as it is open: it tells other runs that this one lives.
    lock: Option<std::fs::File>,
}

impl Draft {
    fn begin(target: &Path, gate: &Arc<dyn Gate>) -> Result<Self> {
        let absolute = std::path::absolute(target).map_err(|error| Error::failed("resolve", target, error))?;
        let name =
            absolute.file_name().ok_or_else(|| Error::Usage(format!("{} names no directory", target.display())))?;
        let parent = absolute.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(|error| Error::failed("make the directory", parent, error))?;
        let parent_path = parent.canonicalize().map_err(|error| Error::failed("resolve", parent, error))?;
        let fail = |error| Error::failed("restore into", parent, error);
        let dir = Dir::open(&parent_path, Realm::Output, Arc::clone(gate)).map_err(fail)?;
        check_free(&dir, name.as_bytes(), target)?;
        let clean_up = dir.guarded(Realm::Output, Arc::new(Unstoppable(Arc::clone(gate))));
        sweep(&clean_up);
        let hidden = partial_name(sys::now()).map_err(fail)?.into_bytes();
        dir.make_dir(&hidden).map_err(fail)?;
        let (target, target_name) = (target.to_owned(), name.as_bytes().to_vec());
        let mut draft = Self { parent: dir, clean_up, name: hidden, target, target_name, lock: None };
        let lock = draft.parent.open_own_dir(&draft.name).map_err(fail)?;
        // A filesystem without locks has nobody to tell.
        let _others_are_told = draft.parent.lock(&lock);
        draft.lock = Some(lock);
        Ok(draft)
    }

    fn tree(&self) -> Result<Dir> {
        self.parent.open_dir(&self.name).map_err(|error| Error::failed("restore into", &self.target, error))
    }

    /// Makes it durable, and gives it its name.
    fn publish(mut self) -> Result<()> {
        let fail = |error| Error::failed("publish what was restored as", &self.target, error);
        self.parent.open_dir(&self.name).and_then(|dir| dir.sync_filesystem()).map_err(fail)?;
        // Over an empty directory, or nothing: the kernel refuses everything else.
        let _was_empty = self.parent.remove_dir(&self.target_name);
        self.parent.rename_noreplace(&self.name, &self.target_name).map_err(fail)?;
        // A name that may not survive a power cut goes again, with the draft.
        self.name.clone_from(&self.target_name);
        self.parent.sync().map_err(fail)?;
        self.name.clear();
        Ok(())
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

fn check_free(dir: &Dir, name: &[u8], target: &Path) -> Result<()> {
    let taken = || {
        let text = format!(
            "{} exists, and is no empty directory: choose another --target; nothing is ever overwritten",
            target.display()
        );
        Err(Error::Usage(text))
    };
    match dir.stat(name) {
        Err(error) if sys::errno(&error) == Some(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::failed("look at", target, error)),
        Ok(_) => match dir.open_dir(name).and_then(|dir| dir.list()) {
            Ok(listing) if listing.names.is_empty() && listing.trouble.is_none() => Ok(()),
            _ => taken(),
        },
    }
}

/// Removes what dead runs left.
fn sweep(dir: &Dir) {
    let names = dir.list().map(|listing| listing.names).unwrap_or_default();
    for found in names.iter().filter(|found| is_partial_name(&found.name)) {
        let ours = dir.stat(&found.name).is_ok_and(|stat| stat.uid == sys::effective_uid());
        let dead = ours && dir.open_own_dir(&found.name).and_then(|lock| dir.lock(&lock)).unwrap_or(false);
        if dead {
            let _left: io::Result<()> = tree::remove(dir, &found.name);
        }
    }
}
