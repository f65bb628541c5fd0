//! A proven archive first, a command of the user's second, and the way back if it fails: an upgrade, a migration.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::Errand;
use crate::create::{Create, create_telling};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::gate::Gate;
use crate::plan::{Environment, STATE_VARIABLE, state_directory};
use crate::relpath::quoted;
use crate::report::{Outcome, PathName, Report, Rollback, SoFar};
use crate::restore::{Destination, InPlace, RestoreOptions, Restored, barred, restore};
use crate::way_back::WayBack;

/// What shall be done, and from what one may go back.
pub struct Guard {
    /// The archive that is made first. It is read back, whatever this says, and goes to a file.
    pub create: Create,
    /// What is run when that has its name.
    pub errand: Errand,
    /// Whether the command is run although names were lost.
    pub despite_losses: bool,
    /// Whether what was there is brought back at once if the command was started and fails.
    pub rollback: bool,
}

/// Makes an archive, and runs a command if that is proven and whole. If the command was started and fails, the report
/// tells the way back, which is taken where that was asked for. [`Report::exit_code`] is that of the command, if it was
/// run. Where it is known before that nothing could be brought back in place, a command that was to be brought back from
/// is not started.
///
/// No link of ours is left when the command starts: OpenClaw's migrations refuse files that have two names. Nothing
/// removes the archive by rules while the command runs, nor, if it failed and nothing was brought back, for thirty days.
///
/// `announce` is told of the archive just before the command starts, and `so_far` of all that is done.
pub fn guard(
    guard: Guard,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    announce: &dyn Fn(&Report),
    so_far: &SoFar<'_>,
) -> Report {
    let Guard { create: order, errand, despite_losses, rollback } = guard;
    let environment = order.request.environment.clone();
    let order = Create { verify: true, if_changed: false, ..order };
    let mut report = create_telling(order, gate, observer, so_far);
    let Some(archive) = stands_on(&mut report, despite_losses) else { return report };
    report.barred = report.assets.iter().find_map(|asset| barred(asset.source_path.as_path()));
    if let Some(why) = report.barred.as_ref().filter(|_| rollback) {
        let told = format!("the command was not started, as nothing could be brought back from it in place: {why}");
        return not_started(report, &format!("{told}; without --rollback it is started all the same"));
    }
    let held = match WayBack::hold(&archive, gate) {
        Ok(held) => held,
        Err(error) => {
            let told = Error::failed("hold the archive", &archive, error);
            return not_started(report, &format!("the command was not started: {told}"));
        }
    };
    observer.on(Event::Handed);
    announce(&report);
    match errand.run(None, &[], gate) {
        Ok(ran) => {
            let back = Back::to(&report, environment);
            report.ran = Some(ran);
            let going = Going { archive: &archive, held, back, rollback };
            going.on(&mut report, gate, observer, so_far);
            report
        }
        Err(error) => {
            held.let_go();
            not_started(report, &format!("cannot run the command, but the archive is made: {error}"))
        }
    }
}

/// The archive that a command may stand on; none where it may not, and the report says why.
fn stands_on(report: &mut Report, despite_losses: bool) -> Option<PathBuf> {
    let is_made = matches!(report.outcome, Outcome::Complete | Outcome::Lossy) && report.verified;
    let archive = report.archive_path.as_ref().filter(|_| is_made)?.as_path().to_owned();
    if report.outcome == Outcome::Lossy && !despite_losses {
        report.error = Some("the command was not started, since names were lost: see them above".to_owned());
        return None;
    }
    if let Some(leftover) = report.leftovers.first() {
        report.error = Some(format!(
            "the command was not started, since something of ours is left beside the source, and files may have a second \
             name there: {leftover}; see to that, then to `clawsnap sweep`"
        ));
        report.outcome = Outcome::Failed;
        return None;
    }
    Some(archive)
}

fn not_started(mut report: Report, why: &str) -> Report {
    report.outcome = Outcome::Failed;
    report.error = Some(why.to_owned());
    report
}

/// What follows when a command has ended.
struct Going<'a> {
    archive: &'a Path,
    held: WayBack,
    back: Back,
    rollback: bool,
}

impl Going<'_> {
    /// Goes back if the command failed and that is wanted, or tells how.
    fn on(self, report: &mut Report, gate: &Arc<dyn Gate>, observer: &dyn Observer, so_far: &SoFar<'_>) {
        let Self { archive, held, back, rollback } = self;
        let Some(ran) = &mut report.ran else { return };
        // What could not be started has changed nothing.
        let is_well = ran.code() == 0 || ran.error.is_some();
        if !is_well {
            ran.way_back = Some(back.command(archive));
            ran.way_back_kept_until = held.kept_until();
            // Until it has come to its end, that is what there is to say of it.
            ran.rollback = rollback.then(|| Rollback { error: Some("it broke off".to_owned()), ..Rollback::default() });
        }
        so_far(report);
        let Some(ran) = &mut report.ran else { return };
        if let Some(rollback) = &mut ran.rollback {
            *rollback = back.take(archive, gate, observer);
        }
        if is_well || ran.rollback.as_ref().is_some_and(|rollback| rollback.done) {
            ran.way_back_kept_until = None;
            held.let_go();
        }
    }
}

/// The way back.
struct Back {
    /// As that of this run, in which OpenClaw's state is what was guarded.
    environment: Environment,
    /// The state directory, where a shell of this run's, or one that knows nothing of it, would look for it elsewhere.
    state: Option<PathBuf>,
    /// It leads to a new directory, as nothing can be brought back in place.
    is_barred: bool,
}

impl Back {
    fn to(report: &Report, environment: Environment) -> Self {
        let (state, is_barred) = (report.assets.iter().find(|asset| asset.kind == "state"), report.barred.is_some());
        let Some(state) = state.map(|asset| asset.source_path.as_path().to_owned()) else {
            return Self { environment, state: None, is_barred };
        };
        let bare = Environment { variables: BTreeMap::new(), ..environment.clone() };
        let is_elsewhere = [&bare, &environment].into_iter().any(|other| state_directory(other) != state);
        let environment = environment.with(STATE_VARIABLE, &state);
        Self { environment, state: is_elsewhere.then_some(state), is_barred }
    }

    /// As something to be pasted into a shell.
    fn command(&self, archive: &Path) -> String {
        let quoted = |path: &Path| quoted(path.as_os_str().as_bytes());
        if self.is_barred {
            let mut beside = archive.as_os_str().to_owned();
            beside.push(".restored");
            return format!("clawsnap restore {} --target {}", quoted(archive), quoted(Path::new(&beside)));
        }
        let state = self.state.as_deref().map(|state| format!("{STATE_VARIABLE}={} ", quoted(state)));
        format!("{}clawsnap restore {} --in-place", state.unwrap_or_default(), quoted(archive))
    }

    fn take(&self, archive: &Path, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Rollback {
        let ways = InPlace { environment: self.environment.clone(), force: false };
        let options = RestoreOptions::to(Destination::InPlace(ways));
        // What is not whole in the archive was told of before the command was started.
        told(restore(archive, &options, gate, observer, &|_| true))
    }
}

fn told(restored: Restored) -> Rollback {
    let differences = restored.differences.iter().chain(&restored.flagged);
    let differences = differences.map(|remark| format!("{}: {}", crate::relpath::shown(&remark.path.0), remark.what));
    let kept: Vec<PathName> = restored.places.into_iter().filter_map(|place| place.kept).collect();
    Rollback {
        done: restored.error.is_none(),
        error: restored.error,
        kept,
        warnings: restored.warnings.iter().cloned().chain(differences).collect(),
    }
}
