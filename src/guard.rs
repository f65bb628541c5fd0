//! A proven archive first, a command of the user's second, and the way back if it fails: an upgrade, a migration.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::Errand;
use crate::create::{Create, Output, create};
use crate::event::{Event, Observer};
use crate::gate::Gate;
use crate::plan::{Environment, STATE_VARIABLE, state_directory};
use crate::relpath::quoted;
use crate::report::{Outcome, PathName, Ran, Report, Rollback};
use crate::restore::{Destination, InPlace, RestoreOptions, Restored, restore};

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
/// run.
///
/// No link of ours is left when the command starts: OpenClaw's migrations refuse files that have two names.
///
/// `announce` is told of the archive just before the command starts.
pub fn guard(guard: Guard, gate: &Arc<dyn Gate>, observer: &dyn Observer, announce: &dyn Fn(&Report)) -> Report {
    let Guard { create: order, errand, despite_losses, rollback } = guard;
    let environment = order.request.environment.clone();
    let to_file = matches!(order.output, Output::Path(_));
    let mut report = create(Create { verify: true, if_changed: false, ..order }, gate, observer);
    let is_whole = report.outcome == Outcome::Complete || report.outcome == Outcome::Lossy && despite_losses;
    let archive = report.archive_path.as_ref().map(|path| path.as_path().to_owned());
    let Some(archive) = archive.filter(|_| is_whole && report.verified && to_file) else {
        if report.outcome == Outcome::Lossy {
            report.error = Some("the command was not started, since names were lost: see them above".to_owned());
        }
        return report;
    };
    observer.on(Event::Handed);
    announce(&report);
    match errand.run(None, &[], gate) {
        Ok(ran) => report.ran = Some(ran),
        Err(error) => {
            report.outcome = Outcome::Failed;
            report.error = Some(format!("cannot run the command, but the archive is made: {error}"));
        }
    }
    if let Some(ran) = report.ran.take() {
        let ran = ended(ran, &archive, rollback, &Back::to(&report, environment), gate, observer);
        report.ran = Some(ran);
    }
    report
}

fn ended(ran: Ran, archive: &Path, rollback: bool, back: &Back, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Ran {
    // What could not be started has changed nothing.
    if ran.code() == 0 || ran.error.is_some() {
        return ran;
    }
    let way_back = Some(back.command(archive));
    let rollback = rollback.then(|| back.take(archive, gate, observer));
    Ran { way_back, rollback, ..ran }
}

/// The way back.
struct Back {
    /// As that of this run, in which OpenClaw's state is what was guarded.
    environment: Environment,
    /// The state directory, where a shell of this run's, or one that knows nothing of it, would look for it elsewhere.
    state: Option<PathBuf>,
}

impl Back {
    fn to(report: &Report, environment: Environment) -> Self {
        let state = report.assets.iter().find(|asset| asset.kind == "state");
        let Some(state) = state.map(|asset| asset.source_path.as_path().to_owned()) else {
            return Self { environment, state: None };
        };
        let bare = Environment { variables: BTreeMap::new(), ..environment.clone() };
        let is_elsewhere = [&bare, &environment].into_iter().any(|other| state_directory(other) != state);
        let environment = environment.with(STATE_VARIABLE, &state);
        Self { environment, state: is_elsewhere.then_some(state) }
    }

    /// As something to be pasted into a shell.
    fn command(&self, archive: &Path) -> String {
        let quoted = |path: &Path| quoted(path.as_os_str().as_bytes());
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
