//! Restoring to where it came from, or to where the caller has the like.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ground::Ground;
use super::holders::holder;
use super::journal::TREE;
use super::mapping::Mapping;
use super::moves::{Asked, Extent};
use super::restorer::{Restorer, Site};
use super::survey::{Root, Survey};
use super::swap::{Keep, Swap, Watch, exchange};
use super::{Consent, InPlace, Place, Remark, RestoreOptions, Restored, nothing_fits};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::gate::{self, Gate, Realm, Taking, Verb};
use crate::list::Wanted;
use crate::plan::{gateway_at, state_directory};
use crate::relpath::{joined, shown};
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
    check_readable_twice(archive, gate)?;
    let survey = Survey::of(archive, (&options.wanted, &options.mapping), gate, observer)?;
    if survey.roots.is_empty() {
        return Err(Error::Usage(nothing_fits()));
    }
    let extent = if options.wanted.is_all() { Extent::Whole } else { Extent::Part };
    let lost = if extent == Extent::Whole { survey.lost } else { Vec::new() };
    super::agree(consent, &[&survey.flagged[..], &lost[..]].concat())?;
    let places = destinations(&survey.roots, options, ways, gate)?;
    places.iter().try_for_each(|place| ways.check_free(place, gate))?;
    let mut watch = Watcher { ways, gate, warnings: &mut restored.warnings };
    let grounds = grounds(&survey.roots, &places, extent, gate, &mut watch)?;
    let swaps = make_ready(&survey.roots, grounds, &options.wanted)?;
    if !ways.force {
        check_room(&swaps, &survey.roots)?;
    }
    observer.on(Event::Proven);
    let sites = swaps.iter().zip(&survey.roots).map(|((swap, _), root)| site(swap, root)).collect();
    let mut restorer = Restorer::new(sites, Mapping::default(), options, restored);
    let outcome = read_ours(archive, gate, observer, &mut restorer);
    if restorer.finish(outcome, false)? != survey.proof {
        return Err(Error::Unproven(format!("{} was replaced while it was read", archive.display())));
    }
    restored.flagged.extend(lost);
    restored.differences.extend(differences(&swaps, &survey.roots)?);
    let kept = exchange(made(swaps)?, &|place| ways.check_free(place, gate))?;
    tell(restored, &survey.roots, &places, &kept);
    if extent == Extent::Whole && survey.left_out > 0 {
        restored.warnings.push(left_out(survey.left_out));
    }
    Ok(())
}

/// Collects what people should know.
struct Watcher<'a> {
    ways: &'a InPlace,
    gate: &'a Arc<dyn Gate>,
    warnings: &'a mut Vec<String>,
}

impl Watch for Watcher<'_> {
    fn check_free(&self, root: &Path) -> Result<()> {
        self.ways.check_free(root, self.gate)
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}

fn make_ready(roots: &[Root], grounds: Vec<(Ground, Extent)>, wanted: &Wanted) -> Result<Vec<(Swap, Extent)>> {
    let begin =
        |(root, (ground, extent)): (&Root, _)| Ok((Swap::begin(ground, Asked::of(&root.path, wanted))?, extent));
    roots.iter().zip(grounds).map(begin).collect()
}

/// That there is room for all, filesystem by filesystem.
fn check_room(swaps: &[(Swap, Extent)], roots: &[Root]) -> Result<()> {
    let mut needs: BTreeMap<u64, u64> = BTreeMap::new();
    for ((swap, _), root) in swaps.iter().zip(roots) {
        let (free, filesystem) = swap.free_space().map_err(|error| Error::failed("look at", swap.path(), error))?;
        let wanted = needs.entry(filesystem).or_default();
        *wanted += root.bytes;
        if *wanted > free {
            let failed = Error::failed("restore into the place of", swap.path(), io::ErrorKind::StorageFull.into());
            let cure = "--force tries it all the same, as where the filesystem compresses";
            return Err(failed.remedy(format!("{wanted} bytes are wanted beside it, {free} are free; {cure}")));
        }
    }
    Ok(())
}

/// Where each root is, cleared of what dead runs left.
fn grounds(
    roots: &[Root],
    places: &[PathBuf],
    extent: Extent,
    gate: &Arc<dyn Gate>,
    watch: &mut Watcher<'_>,
) -> Result<Vec<(Ground, Extent)>> {
    let ground = |(root, place): (&Root, &PathBuf)| {
        let (ground, extent) = match root.is_directory {
            true => (Ground::of_directory(place, extent, gate)?, extent),
            false => (Ground::of_file(place, gate)?, Extent::Part),
        };
        Swap::clear(&ground, watch).map(|()| (ground, extent))
    };
    roots.iter().zip(places).map(ground).collect()
}

/// That the second reading would find what the first has found: a pipe is empty by then.
fn check_readable_twice(archive: &Path, gate: &Arc<dyn Gate>) -> Result<()> {
    let _step = looking_at(archive, gate)?;
    match archive.metadata() {
        Ok(found) if found.file_type().is_fifo() || found.file_type().is_socket() => {
            let (archive, cure) = (archive.display(), "store it in a file first, or restore into a --target");
            Err(Error::Usage(format!("{archive} is a pipe, and in place an archive is read twice: {cure}")))
        }
        // What cannot be looked at is told of by who opens it.
        _ => Ok(()),
    }
}

/// The part of the archive that becomes a root; a file comes to lie in a directory of its own.
fn site(swap: &Swap, root: &Root) -> Site {
    let name = swap.path().file_name().unwrap_or_default().as_bytes();
    let to = if root.is_directory { TREE.to_vec() } else { joined(TREE, name) };
    Site::new(&root.path, swap.dir().clone(), to, swap.path())
}

fn differences(swaps: &[(Swap, Extent)], roots: &[Root]) -> Result<Vec<Remark>> {
    let mut found = Vec::new();
    for ((swap, _), root) in swaps.iter().zip(roots).filter(|((_, extent), _)| *extent == Extent::Whole) {
        let what = swap.difference().map_err(|error| Error::failed("look at", swap.path(), error))?;
        found.extend(what.map(|what| Remark { path: PathName(root.path.clone()), what }));
    }
    Ok(found)
}

/// Those for which anything was made: all that was wanted of the others could not be restored, and they stay what they are.
fn made(swaps: Vec<(Swap, Extent)>) -> Result<Vec<(Swap, Extent)>> {
    let if_made = |swap: (Swap, Extent)| swap.0.is_made().map(|is_made| is_made.then_some(swap)).transpose();
    swaps.into_iter().filter_map(if_made).collect()
}

fn tell(restored: &mut Restored, roots: &[Root], places: &[PathBuf], kept: &[Keep]) {
    for (root, at) in roots.iter().zip(places) {
        let Some(keep) = kept.iter().find(|keep| keep.place == *at) else { continue };
        if let (Some(path), Some(trouble)) = (&keep.path, &keep.trouble) {
            let path = path.display();
            restored
                .warnings
                .push(format!("{path} could not be given its name, which the next restore does: {trouble}"));
        }
        let (path, kept) = (PathName(root.path.clone()), keep.path.as_deref().map(PathName::from));
        restored.places.push(Place { path, restored_to: at.as_path().into(), kept });
    }
}

fn left_out(names: u64) -> String {
    format!("what rules had left out of the archive is with what was kept now, and nowhere else (names: {names})")
}

/// Where each root goes: where the caller says, else the state directory to the caller's, else to where it was.
fn destinations(
    roots: &[Root],
    options: &RestoreOptions,
    ways: &InPlace,
    gate: &Arc<dyn Gate>,
) -> Result<Vec<PathBuf>> {
    let mut places: Vec<PathBuf> = Vec::new();
    for root in roots {
        if let Some(inside) = options.mapping.inside(&root.path) {
            let (inside, root) = (shown(inside), shown(&root.path));
            return Err(Error::Usage(format!("{inside} lies in {root}, which is exchanged as a whole: map that")));
        }
        let place = match options.mapping.mapped(&root.path) {
            None if root.is_state => ways.state_directory(gate)?,
            mapped => PathBuf::from(OsStr::from_bytes(mapped.as_deref().unwrap_or(&root.path))),
        };
        let place = resolved(&place, gate)?;
        if let Some(other) = places.iter().find(|other| place.starts_with(other) || other.starts_with(&place)) {
            let (place, other) = (place.display(), other.display());
            return Err(Error::Usage(format!("{place} and {other} lie in each other: say --map OLD=NEW")));
        }
        places.push(place);
    }
    Ok(places)
}

/// The path without symbolic links, of which the last name may be missing.
///
/// # Errors
/// A link that leads nowhere, as to a disk that is not mounted: what was restored would take its place on this one.
fn resolved(path: &Path, gate: &Arc<dyn Gate>) -> Result<PathBuf> {
    let _step = looking_at(path, gate)?;
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    match (path.canonicalize(), path.read_link()) {
        (Ok(real), _) => Ok(real),
        (Err(_), Ok(to)) => {
            let (link, to) = (path.display(), to.display());
            let cure = "mount it, make it, or say --map OLD=NEW for another place";
            Err(Error::Usage(format!("{link} is a symbolic link to {to}, which is not there: {cure}")))
        }
        _ => Ok(parent().unwrap_or_else(|| path.to_owned())),
    }
}

/// To whoever watches for what hangs, all that is looked at there is one step.
fn looking_at<'a>(path: &Path, gate: &'a Arc<dyn Gate>) -> Result<Taking<'a>> {
    let step = gate::take_at(&**gate, Verb::Stat, Realm::Output, path);
    step.map_err(|error| Error::failed("look at", path, error))
}

impl InPlace {
    /// Where the caller's state is.
    fn state_directory(&self, gate: &Arc<dyn Gate>) -> Result<PathBuf> {
        let _step = looking_at(self.environment.home.as_deref().unwrap_or(Path::new("/")), gate)?;
        Ok(state_directory(&self.environment))
    }

    /// Sees that nobody works there, unless that is of no concern.
    pub(super) fn check_free(&self, place: &Path, gate: &Arc<dyn Gate>) -> Result<()> {
        let _step = looking_at(place, gate)?;
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

    /// Brings back what was kept.
    ///
    /// # Errors
    /// The first that cannot be brought back; `done` is told each that is, and where that is kept which was there.
    pub(super) fn bring_back(
        &self,
        kept: Vec<super::undo::WayBack>,
        gate: &Arc<dyn Gate>,
        warnings: &mut Vec<String>,
        done: &mut dyn FnMut(&Path, &Path),
    ) -> Result<()> {
        let mut watch = Watcher { ways: self, gate, warnings };
        let named: Result<Vec<_>> = kept.into_iter().map(|way| way.named(&mut watch)).collect();
        named?.into_iter().try_for_each(|way| {
            let root = way.root().to_owned();
            way.take(&mut watch).map(|kept| done(&root, &kept))
        })
    }
}
