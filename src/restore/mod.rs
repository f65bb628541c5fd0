//! From an archive back to a tree.
//!
//! Into a new directory: the tree is made in a hidden directory beside its target, while the archive is read and proven,
//! and gets its name when it is proven to its last byte. In place: it is made beside what is there, and the two are
//! exchanged when it is proven; what was there is kept. Either way, what is restored is what was backed up, or nothing.

mod barred;
mod ground;
mod holders;
mod in_place;
mod journal;
mod mapping;
mod mark;
mod mounts;
mod moves;
mod restorer;
mod sidecars;
mod survey;
mod swap;
mod target;
mod undo;

pub use mapping::Mapping;

pub(crate) use barred::barred;
pub(crate) use mounts::mounts_below;
#[cfg(feature = "cli")]
pub(crate) use mounts::{filesystems_at, is_served};
pub(crate) use swap::look_at as look_at_swaps;
pub(crate) use target::sweep as sweep_drafts;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::archive::{Line, PAYLOAD};
use crate::error::{Error, Result};
use crate::event::Observer;
use crate::gate::Gate;
use crate::list::Wanted;
use crate::naming::kept_at;
use crate::plan::Environment;
use crate::report::{PathName, milliseconds_since};
use crate::verify::read_ours;
use restorer::{Restorer, Site};
use target::Target;
use undo::WayBack;

/// What shall be restored, and where to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Where to.
    pub destination: Destination,
    /// Which names.
    pub wanted: Wanted,
    /// What goes elsewhere than to where it was.
    pub mapping: Mapping,
    /// Whether half-written records that were set aside are restored as well, as `<file>.tail`.
    pub tails: bool,
    /// Whether a new directory gets its name only when everything is on disk, so that it survives a power cut. In place
    /// nothing is ever exchanged before that.
    pub sync: bool,
}

impl RestoreOptions {
    /// Everything but what was set aside, to this destination.
    pub fn to(destination: Destination) -> Self {
        Self { destination, wanted: Wanted::default(), mapping: Mapping::default(), tails: false, sync: true }
    }

    /// The same, into a new directory.
    pub fn into_new(target: impl Into<PathBuf>) -> Self {
        Self::to(Destination::Target(target.into()))
    }
}

/// Where to restore to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A directory that shall hold what is restored, each name below it by its absolute path. It must not exist, or be
    /// empty.
    Target(PathBuf),
    /// Each source takes the place of what is there now; OpenClaw's state that of the caller's.
    InPlace(InPlace),
}

/// How to restore in place.
#[derive(Clone, Debug)]
pub struct InPlace {
    /// Says where the caller's state directory is.
    pub environment: Environment,
    /// Whether it is of no concern who works there, nor how much room there seems to be.
    pub force: bool,
}

/// Asked whether to go on although the archive says that these are not whole.
pub type Consent<'a> = &'a dyn Fn(&[Remark]) -> bool;

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

/// A source that was restored in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Its absolute path where it was backed up.
    pub path: PathName,
    /// Where it is now.
    pub restored_to: PathName,
    /// Where that lies which was there before, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathName>,
}

/// What a restore did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The archive.
    pub archive_path: PathName,
    /// The directory that it was restored into; none for one in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<PathName>,
    /// What was restored in place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
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
    /// Names that do not belong to those whom they belonged to: who is not root may not give files away, nor may root
    /// everywhere.
    pub owners_not_kept: u64,
    /// What is not as it was.
    pub differences: Vec<Remark>,
    /// Names that are not whole in the archive already: torn or hollow.
    pub flagged: Vec<Remark>,
    /// What should be known, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Wall time in milliseconds.
    pub elapsed_milliseconds: u64,
}

impl Restored {
    /// The exit code: 0 complete, 1 failed, 2 usage, 3 with differences, 4 not proven.
    pub fn exit_code(&self) -> u8 {
        self.outcome.exit_code()
    }
}

impl Ending {
    fn exit_code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Failed | Self::Cancelled => 1,
            Self::Usage => 2,
            Self::Different => 3,
            Self::Unproven => 4,
        }
    }

    fn of(outcome: &Result<()>) -> Self {
        match outcome {
            Ok(()) => Self::Complete,
            Err(Error::Usage(_)) => Self::Usage,
            Err(Error::Unproven(_)) => Self::Unproven,
            Err(Error::Cancelled) => Self::Cancelled,
            Err(Error::Failed { .. } | Error::Locked(_)) => Self::Failed,
        }
    }
}

/// Restores what is wanted of an archive.
pub fn restore(
    archive: &Path,
    options: &RestoreOptions,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    consent: Consent<'_>,
) -> Restored {
    let begun = Instant::now();
    let target = match &options.destination {
        Destination::Target(target) => Some(PathName::from(target.as_path())),
        Destination::InPlace(_) => None,
    };
    let fresh = || Restored { archive_path: PathName::from(archive), target: target.clone(), ..Restored::default() };
    let mut restored = fresh();
    let outcome = run(archive, options, gate, observer, consent, &mut restored);
    if outcome.is_err() {
        // Whatever was made is gone again. What an earlier run had begun, and this one has completed, is not.
        restored = Restored { warnings: restored.warnings, ..fresh() };
    }
    restored.outcome = match Ending::of(&outcome) {
        Ending::Complete if !restored.differences.is_empty() || !restored.flagged.is_empty() => Ending::Different,
        other => other,
    };
    restored.error = outcome.err().map(|error| error.to_string());
    restored.elapsed_milliseconds = milliseconds_since(begun);
    restored
}

fn run(
    archive: &Path,
    options: &RestoreOptions,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    consent: Consent<'_>,
    restored: &mut Restored,
) -> Result<()> {
    let target = match &options.destination {
        Destination::InPlace(ways) => return in_place::run(archive, options, ways, gate, observer, consent, restored),
        Destination::Target(target) => target,
    };
    let draft = Target::begin(target, gate)?;
    let site = Site::new(b"/", draft.tree(), Vec::new(), target);
    let mut restorer = Restorer::new(vec![site], options.mapping.clone(), options, restored);
    let outcome = read_ours(archive, gate, observer, &mut restorer);
    restorer.finish(outcome, options.sync)?;
    agree(consent, &restored.flagged)?;
    draft.publish(options.sync)
}

/// Asks, where there is something to ask about.
fn agree(consent: Consent<'_>, flagged: &[Remark]) -> Result<()> {
    if flagged.is_empty() || consent(flagged) { Ok(()) } else { Err(Error::Cancelled) }
}

/// What the archive says of a name that is wanted and not whole.
fn flagged(line: &Line, wanted: &Wanted) -> Option<Remark> {
    let below = line.path.bytes().unwrap_or_default();
    let path = below.strip_prefix(PAYLOAD)?;
    let flagged = (line.fate == "torn" || line.fate == "hollow") && wanted.fits(path);
    let what = || format!("{}: {}", line.fate, line.reason.as_deref().unwrap_or_default());
    flagged.then(|| Remark { path: PathName(path.to_vec()), what: what() })
}

fn nothing_fits() -> String {
    "nothing in the archive fits: `clawsnap list` shows what is in it".to_owned()
}

/// What bringing back did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BroughtBack {
    /// How it ended: complete, or the outcome of the first that could not be brought back.
    pub outcome: Ending,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is back, also where another could not be; and what was there instead until now, by the path under which it
    /// is kept.
    pub places: Vec<Place>,
    /// What should be known, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Wall time in milliseconds.
    pub elapsed_milliseconds: u64,
}

impl BroughtBack {
    /// The exit code, as that of a restore.
    pub fn exit_code(&self) -> u8 {
        self.outcome.exit_code()
    }
}

/// Brings back what restores in place have kept, and keeps what is there now. Done twice it is not done.
pub fn bring_back(kept: &[PathBuf], ways: &InPlace, gate: &Arc<dyn Gate>) -> BroughtBack {
    let begun = Instant::now();
    let mut back = BroughtBack::default();
    // The latest first: each was kept from what the one before had made.
    let mut kept: Vec<&PathBuf> = kept.iter().collect();
    kept.sort_by_key(|path| std::cmp::Reverse(path.file_name().and_then(|name| kept_at(name.as_bytes()))));
    let found: Result<Vec<WayBack>> = kept.iter().map(|path| WayBack::find(path, gate)).collect();
    let outcome = found.and_then(|found| {
        found.iter().try_for_each(|way| ways.check_free(way.root(), gate))?;
        ways.bring_back(found, gate, &mut back.warnings, &mut |root, kept| {
            let kept = Some(PathName::from(kept));
            back.places.push(Place { path: PathName::from(root), restored_to: PathName::from(root), kept });
        })
    });
    back.outcome = Ending::of(&outcome);
    back.error = outcome.err().map(|error| error.to_string());
    back.elapsed_milliseconds = milliseconds_since(begun);
    back
}
