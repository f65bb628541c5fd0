//! What is frozen, laid out as a plain directory for a command that reads it: a backup program that has a repository of
//! its own.
//!
//! Everything lies in the staging directory, which has the same name in every run, so that such a program finds each
//! file under the path that it had before:
//!
//! ```text
//! .clawsnap-stage-<8 hex>/
//!   <name>/        the deepest directory that holds all sources: CLAWSNAP_ROOT, where the command runs;
//!                  <name>.d/ where something else here may have its name
//!   tails/         half-written records that were cut off, by their absolute paths
//!   report.json    what the freeze saw: CLAWSNAP_REPORT
//! ```

mod layout;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::archive::Payload;
use crate::command::Errand;
use crate::create::{Order, blank, conclude, fill, locked, planned, release};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::freeze::{self, Base, Frozen, Mode, Node, Quarters, Staging};
use crate::gate::Gate;
use crate::naming::stage_name;
use crate::plan::{Plan, Request};
use crate::relpath::{joined, shown};
use crate::report::{PathName, Ran, Report, SoFar};
use crate::sys::{self, Dir};
use layout::{Layout, TAILS};

const REPORT: &[u8] = b"report.json";

/// What shall be laid out, and for whom.
pub struct Stage {
    /// What is frozen.
    pub request: Request,
    /// How.
    pub freeze: freeze::Options,
    /// How long another run on the same source is waited for.
    pub wait: Duration,
    /// What reads it.
    pub errand: Errand,
}

/// Freezes, lays the frozen tree out, runs a command in it, and lets go of it again. The report tells how it went, and
/// [`Report::exit_code`] sums that up: 3 if something was lost, or moved while the command ran.
pub fn stage(stage: Stage, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    stage_telling(stage, gate, observer, &|_| {})
}

/// The same, which tells `so_far` that the command has ended.
pub(crate) fn stage_telling(stage: Stage, gate: &Arc<dyn Gate>, observer: &dyn Observer, so_far: &SoFar<'_>) -> Report {
    let begun = Instant::now();
    let mut report = blank(&stage.request, sys::now());
    let outcome = run(stage, &mut report, gate, observer, so_far);
    conclude(&mut report, outcome, begun);
    report
}

fn run(
    stage: Stage,
    report: &mut Report,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    so_far: &SoFar<'_>,
) -> Result<()> {
    let Stage { request, freeze: options, wait, errand } = stage;
    let (only_links, options) = (options.mode == Mode::Link, sharing(options));
    let plan = planned(&request, report, gate)?;
    let (plan, _locks) = locked(plan, &Order { request: &request, wait, dated: None }, report, gate, observer)?;
    let top = top(&plan);
    let name = stage_name(top.as_os_str().as_bytes(), sys::effective_uid());
    let quarters = Quarters { spool: &std::env::temp_dir(), name: Some(&name) };
    let mut frozen = freeze::freeze(&plan, &options, &quarters, gate, observer)?;
    let stand = Stand::in_staging_of(&frozen, top, only_links)?;
    let laid = stand.lay_out(&mut frozen, &plan, report, observer)?;
    observer.on(Event::Handed);
    let ran = stand.hand_over(errand, gate).map_err(|error| Error::failed("run the command in", &stand.path, error))?;
    report.ran = Some(ran.clone());
    so_far(report);
    let touched = laid.touched(&frozen).map_err(|error| Error::failed("look at", &stand.path, error))?;
    report.ran = Some(Ran { touched, differences: laid.differences, ..ran });
    release(frozen, report);
    Ok(())
}

/// Where extents can be shared, nothing is linked: that freezes contents too, and costs the command nothing.
fn sharing(options: freeze::Options) -> freeze::Options {
    let mode = if options.mode == Mode::Auto { Mode::Clone } else { options.mode };
    freeze::Options { mode, ..options }
}

/// The deepest directory that holds all sources: a source itself, if it is a directory and the only one.
fn top(plan: &Plan) -> PathBuf {
    let directory =
        |path: &Path| if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() };
    let mut all = plan.roots.iter().map(|root| directory(&root.path));
    let first = all.next().unwrap_or_default();
    all.fold(first, |top, other| {
        top.ancestors().find(|above| other.starts_with(above)).unwrap_or(Path::new("/")).to_owned()
    })
}

/// The name of the tree that stands for `top`: the same, unless something else may lie under that in the staging directory.
fn tree_name(top: &Path) -> OsString {
    let mut name = top.file_name().unwrap_or(OsStr::new("root")).to_owned();
    if freeze::is_of_staging(name.as_bytes()) || [REPORT, TAILS].contains(&name.as_bytes()) {
        name.push(".d");
    }
    name
}

/// Where the tree is laid out.
struct Stand {
    staging: Arc<Staging>,
    /// The staging directory's path, for those who resolve paths.
    path: PathBuf,
    /// The directory that the tree's own stands for.
    top: PathBuf,
    /// The name of the tree.
    name: OsString,
    /// Whatever is linked stays so, however small it is.
    only_links: bool,
}

impl Stand {
    fn in_staging_of(frozen: &Frozen, top: PathBuf, only_links: bool) -> Result<Self> {
        let found = frozen.nodes.iter().find_map(|node| node.place.staging.clone());
        let nowhere = || std::io::Error::other("there is no directory beside or in it that could be written to");
        let failed = |error| Error::failed("lay out what was frozen of", &top, error);
        let staging = found.ok_or_else(|| failed(nowhere()))?;
        let path = staging.dir().real_path().map_err(failed)?;
        let name = tree_name(&top);
        Ok(Self { staging, path, top, name, only_links })
    }

    /// Where something of a source lies in the staging directory.
    fn place(&self, absolute: &[u8]) -> Vec<u8> {
        let path = Path::new(OsStr::from_bytes(absolute));
        let below = path.strip_prefix(&self.top).unwrap_or(Path::new(""));
        joined(self.name.as_bytes(), below.as_os_str().as_bytes())
    }

    /// Where a directory lies there.
    fn directory(&self, base: &Base, node: &Node) -> Vec<u8> {
        joined(&self.place(&base.prefix), node.path.as_bytes())
    }

    /// What something in the staging directory is a copy, or another name, of.
    fn origin(&self, path: &[u8]) -> PathName {
        let path = Path::new(OsStr::from_bytes(path));
        let origin = match path.strip_prefix(&self.name) {
            Ok(below) => self.top.join(below),
            Err(_) => self.path.join(path),
        };
        PathName::from(origin.as_path())
    }

    fn lay_out<'a>(
        &'a self,
        frozen: &mut Frozen,
        plan: &Plan,
        report: &mut Report,
        observer: &'a dyn Observer,
    ) -> Result<layout::Laid<'a>> {
        let failed = |error: std::io::Error| {
            let failed = Error::failed("lay out what was frozen in", &self.path, error);
            failed.if_full("what cannot be linked is copied there: free space")
        };
        let laid = Layout::new(self, frozen.ablation, observer).of(frozen).map_err(failed)?;
        fill(report, plan, frozen, Payload { counts: laid.counts, external: Vec::new() });
        self.describe(report);
        self.write_report(report).map_err(failed)?;
        Ok(laid)
    }

    /// There is no archive: what the report says of one is said of the tree.
    fn describe(&self, report: &mut Report) {
        report.archive_root = shown(self.name.as_bytes());
        for asset in &mut report.assets {
            asset.archive_path = PathName(self.place(&asset.source_path.0));
        }
    }

    fn write_report(&self, report: &Report) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(report)?;
        self.staging.dir().create(REPORT)?.write_all(&text)
    }

    /// Runs the command in the tree.
    fn hand_over(&self, errand: Errand, gate: &Arc<dyn Gate>) -> std::io::Result<Ran> {
        let root = self.path.join(&self.name);
        let directory: Dir = self.staging.dir().open_dir(self.name.as_bytes())?;
        let report = self.path.join(OsStr::from_bytes(REPORT));
        let variables: [(&str, &Path); 3] =
            [("CLAWSNAP_ROOT", &root), ("CLAWSNAP_REPORT", &report), ("CLAWSNAP_SOURCE", &self.top)];
        let ran = errand.run(Some(&directory), &variables, gate)?;
        Ok(Ran { directory: Some(root.as_path().into()), ..ran })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Environment, plan};

    #[test]
    fn the_tree_stands_for_the_deepest_directory_that_holds_all_sources() {
        let above = tempfile::tempdir().expect("a directory");
        let above = above.path().canonicalize().expect("resolves");
        for dir in ["a/b", "a/c/d"] {
            std::fs::create_dir_all(above.join(dir)).expect("makes");
        }
        std::fs::write(above.join("a/c/file"), "x").expect("writes");
        for (sources, expected) in [
            (&["a/b"][..], "a/b"),
            (&["a/c/file"], "a/c"),
            (&["a/b", "a/c/d"], "a"),
            (&["a/c/file", "a/c/d"], "a/c"),
            (&["a/b", "/etc/hostname"], "/"),
        ] {
            let sources = sources.iter().map(|source| above.join(source)).collect();
            let plan = plan(&Request { sources, ..Request::new(Environment::default()) }).expect("plans");
            assert_eq!(top(&plan), above.join(expected), "{expected}");
        }
    }
}
