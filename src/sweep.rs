//! Shows and removes what dead runs left.
//!
//! Every backup does so where it works; this does it without one, in all places where a run on the same sources can have
//! left something: beside a source, in it, at the mounts below it, in the directories for archives, and in that for
//! temporary files. What a living run has made is locked, and stays. A restore in place that was interrupted is only
//! shown: to complete it is for the command that began it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::create::plan_behind;
use crate::error::{Error, Result};
use crate::freeze;
use crate::gate::{self, Gate, Realm, Verb};
pub use crate::leftover::Standing;
use crate::output;
use crate::plan::Request;
use crate::report::{PathName, milliseconds_since};
use crate::restore;
use crate::sys::Dir;

/// What completes a restore in place.
const COMPLETES: &str = "clawsnap restore ARCHIVE --in-place";

/// What something was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A directory that holds second names and copies.
    Staging,
    /// An archive, or a tree, that has not got its name.
    Draft,
    /// What a restore in place exchanges.
    Swap,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Where.
    pub path: PathName,
    /// What it was made for.
    pub purpose: Purpose,
    /// How it stands.
    pub standing: Standing,
    /// Why it is stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What completes it, as it was run before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Nothing is left but what others own or is in use.
    Complete,
    /// Something is stuck, or some place could not be looked at.
    #[default]
    Failed,
    /// What was asked for makes no sense.
    Usage,
    /// The run was cancelled.
    Cancelled,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// How it ended.
    pub outcome: Ending,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Nothing was removed.
    pub dry_run: bool,
    /// What was found.
    pub leftovers: Vec<Found>,
    /// Wall time in milliseconds.
    pub elapsed_milliseconds: u64,
}

impl Swept {
    /// The exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Ending::Complete => 0,
            Ending::Failed | Ending::Cancelled => 1,
            Ending::Usage => 2,
        }
    }
}

/// Sweeps where runs on the sources of `request` work, and in `outputs`; with `dry_run` it only looks.
pub fn sweep(request: &Request, outputs: &[PathBuf], dry_run: bool, gate: &Arc<dyn Gate>) -> Swept {
    let begun = Instant::now();
    let mut swept = Swept { dry_run, ..Swept::default() };
    let outcome = run(request, outputs, gate, &mut swept);
    let stuck = swept.leftovers.iter().find(|found| found.standing == Standing::Stuck);
    swept.outcome = match &outcome {
        Ok(()) if stuck.is_none() => Ending::Complete,
        Err(Error::Usage(_)) => Ending::Usage,
        Err(Error::Cancelled) => Ending::Cancelled,
        _ => Ending::Failed,
    };
    swept.error = outcome.err().map(|error| error.to_string());
    swept.elapsed_milliseconds = milliseconds_since(begun);
    swept
}

fn run(request: &Request, outputs: &[PathBuf], gate: &Arc<dyn Gate>, swept: &mut Swept) -> Result<()> {
    let remove = !swept.dry_run;
    for (path, must) in places(request, outputs, gate)? {
        let found = Dir::open(&path, Realm::Staging, Arc::clone(gate)).and_then(|dir| in_place(&dir, &path, remove));
        match found {
            Ok(found) => swept.leftovers.extend(found),
            Err(error) if must || gate::is_cancelled(&error) => {
                return Err(Error::failed("look for leftovers in", path, error));
            }
            // Where we may not look, no run of ours can have left anything either.
            Err(_) => {}
        }
    }
    Ok(())
}

/// All directories to look at, and whether not to be able to is an error.
fn places(request: &Request, outputs: &[PathBuf], gate: &Arc<dyn Gate>) -> Result<BTreeMap<PathBuf, bool>> {
    let mut all = BTreeMap::new();
    let mut add = |path: PathBuf, must| -> Result<()> {
        let failed = |error| Error::failed("look at", &path, error);
        let _step = gate::take_at(&**gate, Verb::Stat, Realm::Staging, &path).map_err(failed)?;
        all.entry(path.canonicalize().unwrap_or(path)).or_insert(must);
        Ok(())
    };
    outputs.iter().try_for_each(|path| add(path.clone(), true))?;
    for root in plan_behind(gate, request)?.roots {
        let is_dir = root.path.is_dir();
        if is_dir {
            restore::mounts_below(&root.path).into_iter().try_for_each(|mount| add(mount, false))?;
        }
        // What is staged of a single file is where it would be for the directory that holds it.
        let mut around = root.path.ancestors().skip(usize::from(!is_dir)).take(2);
        around.try_for_each(|place| add(place.to_owned(), false))?;
    }
    add(std::env::temp_dir(), false)?;
    Ok(all)
}

fn in_place(dir: &Dir, path: &Path, remove: bool) -> std::io::Result<Vec<Found>> {
    let staging = freeze::sweep(dir, remove)?.into_iter().map(|left| (Purpose::Staging, left));
    let archives = output::sweep(dir, remove)?.into_iter().map(|left| (Purpose::Draft, left));
    let trees = restore::sweep_drafts(dir, remove)?.into_iter().map(|left| (Purpose::Draft, left));
    let swaps = restore::look_at_swaps(dir)?.into_iter().map(|left| (Purpose::Swap, left));
    let told = staging.chain(archives).chain(trees).chain(swaps).map(|(purpose, left)| Found {
        path: path.join(OsStr::from_bytes(&left.name)).as_path().into(),
        purpose,
        standing: left.standing,
        reason: left.reason,
        command: (left.standing == Standing::Unfinished).then(|| COMPLETES.to_owned()),
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CancelFlag;
    use crate::plan::Environment;
    use std::fs;

    #[test]
    fn the_exit_code_is_a_function_of_the_ending() {
        let code = |outcome| Swept { outcome, ..Swept::default() }.exit_code();
        let endings = [Ending::Complete, Ending::Failed, Ending::Cancelled, Ending::Usage];
        assert_eq!(endings.map(code), [0, 1, 1, 2]);
    }

    #[test]
    fn a_dry_run_removes_nothing() {
        let top = tempfile::tempdir().expect("a directory");
        let (source, left) = (top.path().join("source"), top.path().join(".clawsnap-20260101T000000Z-00000001"));
        [&source, &left].into_iter().for_each(|dir| fs::create_dir(dir).expect("makes"));
        fs::write(left.join("lock"), b"").expect("writes");
        let request = Request { sources: vec![source], ..Request::new(Environment::default()) };
        let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
        let swept = sweep(&request, &[], true, &gate);
        assert_eq!((swept.outcome, swept.dry_run), (Ending::Complete, true));
        let found = swept.leftovers.iter().find(|found| found.path.as_path() == left).expect("is found");
        assert_eq!(found.standing, Standing::Removable);
        assert!(left.join("lock").exists());
    }
}
