//! Restoring to where it came from, or to where the caller has the like.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::holders::holder;
use super::journal::{Extent, TREE};
use super::mapping::Mapping;
use super::restorer::{Restorer, Site};
use super::survey::{Root, Survey};
use super::swap::{Swap, exchange};
use super::{Consent, InPlace, Place, RestoreOptions, Restored, nothing_fits};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::gate::Gate;
use crate::plan::{gateway_at, state_directory};
use crate::relpath::shown;
use crate::report::PathName;
use crate::verify::read_ours;

/// Reads the archive twice: what it holds, and that it is proven, is known before anything is written.
pub(super) fn run(
    archive: &Path,
    options: &RestoreOptions,
    ways: &InPlace,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    consent: Consent<'_>,
    restored: &mut Restored,
) -> Result<()> {
    let survey = Survey::of(archive, &options.wanted, gate, observer)?;
    if survey.roots.is_empty() {
        return Err(Error::Usage(nothing_fits()));
    }
    super::agree(consent, &survey.flagged)?;
    let places = destinations(&survey.roots, options, ways)?;
    places.iter().try_for_each(|place| ways.check_free(place))?;
    observer.on(Event::Proven);
    let begin = |(place, root): (&PathBuf, &Root)| Swap::begin(place, gate).and_then(|swap| has_room(swap, root));
    let swaps: Vec<Swap> = places.iter().zip(&survey.roots).map(begin).collect::<Result<_>>()?;
    let sites = swaps.iter().zip(&survey.roots).map(|(swap, root)| site(swap, root)).collect();
    let mut restorer = Restorer::new(sites, Mapping::default(), options, restored);
    let outcome = read_ours(archive, gate, observer, &mut restorer);
    if restorer.finish(outcome)? != survey.proof {
        return Err(Error::Unproven(format!("{} was replaced while it was read", archive.display())));
    }
    places.iter().try_for_each(|place| ways.check_free(place))?;
    let extent = if options.wanted.is_all() { Extent::Whole } else { Extent::Part };
    let kept = exchange(swaps, extent)?;
    restored.places =
        survey.roots.iter().zip(places).zip(kept).map(|((root, at), kept)| told(root, &at, kept)).collect();
    if extent == Extent::Whole && survey.left_out > 0 {
        restored.warnings.push(left_out(survey.left_out));
    }
    Ok(())
}

fn left_out(names: u64) -> String {
    format!(
        "{names} names had been left out when the archive was made, as clawsnap or OpenClaw can do without them: they \
         are with what was kept"
    )
}

fn told(root: &Root, at: &Path, kept: Option<PathBuf>) -> Place {
    let name = |path: &Path| PathName(path.as_os_str().as_bytes().to_vec());
    Place { path: PathName(root.path.clone()), restored_to: name(at), kept: kept.as_deref().map(name) }
}

fn site(swap: &Swap, root: &Root) -> Site {
    Site::new(&root.path, swap.dir().clone(), TREE, swap.path())
}

/// Where each root goes: where the caller says, else the state directory to the caller's, else to where it was.
fn destinations(roots: &[Root], options: &RestoreOptions, ways: &InPlace) -> Result<Vec<PathBuf>> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let mut places: Vec<PathBuf> = Vec::new();
    for root in roots {
        if let Some(inside) = options.mapping.inside(&root.path) {
            let (inside, root) = (shown(inside), shown(&root.path));
            return Err(Error::Usage(format!("{inside} lies in {root}, which is exchanged as a whole: map that")));
        }
        let mapped = options.mapping.apply(&root.path);
        let place = match state_directory(&ways.environment) {
            state if root.is_state && mapped == root.path => state,
            _ => path(&mapped),
        };
        let place = resolved(&place);
        if let Some(other) = places.iter().find(|other| place.starts_with(other) || other.starts_with(&place)) {
            let (place, other) = (place.display(), other.display());
            return Err(Error::Usage(format!("{place} and {other} lie in each other: say --map OLD=NEW")));
        }
        places.push(place);
    }
    Ok(places)
}

/// The path without symbolic links, of which the last name may be missing.
fn resolved(path: &Path) -> PathBuf {
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(parent).unwrap_or_else(|| path.to_owned())
}

fn has_room(swap: Swap, root: &Root) -> Result<Swap> {
    let free = swap.free_space().map_err(|error| Error::failed("look at", swap.path(), error))?;
    if root.bytes <= free {
        return Ok(swap);
    }
    let cause = io::Error::from(io::ErrorKind::StorageFull);
    let failed = Error::failed("restore into the place of", swap.path(), cause);
    Err(failed.remedy(format!("{} bytes are wanted beside it, {free} are free", root.bytes)))
}

impl InPlace {
    /// Sees that nobody works there, unless that is of no concern.
    pub(super) fn check_free(&self, place: &Path) -> Result<()> {
        let open = || {
            let held = holder(place)?;
            Some(format!("process {} ({}) has {} open", held.process, held.command, held.file.display()))
        };
        match gateway_at(place, &self.environment).or_else(open) {
            Some(who) if !self.force => Err(Error::Failed {
                operation: "restore into the place of".to_owned(),
                path: place.to_owned(),
                cause: io::Error::other(who),
                remedy: Some(
                    "stop it first, as by `openclaw gateway stop`; --force goes ahead all the same".to_owned(),
                ),
            }),
            _ => Ok(()),
        }
    }
}
