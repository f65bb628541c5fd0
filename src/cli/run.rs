//! What all commands that back up have in common: signals watched, progress shown, a report whatever happens.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use color_eyre::eyre::{Result, WrapErr};
use nix::sys::signal::Signal;

use super::after::After;
use super::args::{Priority, Unattended};
use super::attend;
use super::bars::Bars;
use super::early::Early;
use super::say;
use super::signals::Signals;
use super::terminal;
use crate::command::Ward;
use crate::event::Observer;
use crate::gate::{CancelFlag, Gate, Watched};
use crate::report::{FORMAT_VERSION, Outcome, Report, SoFar};
use crate::sys;

/// What is done when all is over.
///
/// # Errors
/// The exit code, where something that is to be written cannot be; that is told, and `--on-failure` is run.
pub(super) fn prepared(typed: &Unattended) -> Result<After, ExitCode> {
    After::prepare(typed).map_err(|words| Early::failed(words).end(After::without_log(typed)))
}

/// Lets others go first. Before there are other threads: each has a priority of its own, which it hands on.
pub(super) fn give_way(priority: Priority) {
    if priority.nice {
        sys::be_nice();
    }
    if priority.ionice
        && let Err(words) = be_idle()
    {
        say::complain(&format!("warning: ionice(1) {words}: the disk is used as usual"));
    }
}

fn be_idle() -> Result<(), String> {
    let mut ionice = Command::new("ionice");
    ionice.args(["-c", "3", "-p", &std::process::id().to_string()]).stdin(Stdio::null());
    let status = ionice.status().map_err(|error| format!("cannot be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

/// What the words mean that were typed after `verb`. To find that out, sources may have to be looked at, which takes no
/// longer than `patience`.
///
/// # Errors
/// The end of the run, where it takes longer, or the words have no meaning.
pub(super) fn meant<T: Send + 'static>(
    verb: &str,
    patience: Duration,
    meaning: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Early> {
    let meant = attend::begin(meaning).map(|work| work.within(patience));
    match meant {
        Ok(Some(Ok(meant))) => Ok(meant),
        Ok(Some(Err(reason))) => Err(Early::usage(verb, reason)),
        Ok(None) => Err(Early::failed(attend::hangs("looking at", "the source", patience))),
        Err(error) => Err(Early::failed(format!("cannot start a thread: {error}"))),
    }
}

/// A line that shows progress, where somebody would see it.
pub(super) fn bars(quiet: bool, verb: &'static str, writing: &'static str) -> Option<Bars> {
    let stderr = io::stderr();
    (!quiet && terminal::is_lively(&stderr)).then(|| Bars::writing(verb, writing, terminal::paint(&stderr)))
}

/// How a run is cancelled, and who watches it.
pub(super) struct Run {
    bars: Option<Bars>,
    signals: Signals,
    /// Closed by the first signal that no command takes, and by a filesystem that hangs.
    pub(super) cancel: CancelFlag,
    watched: Watched,
}

impl Run {
    /// Watches signals from now on. What `ward` leads to, takes them while it runs.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn begin(bars: Option<Bars>, ward: Ward) -> Result<Self> {
        let (signals, cancel) = (Signals::hold()?, CancelFlag::new());
        bars.iter().for_each(Bars::start);
        signals.watch(ward, on_first_signal(cancel.clone(), bars.clone()))?;
        let watched = Watched::new(Arc::new(cancel.clone()));
        Ok(Self { bars, signals, cancel, watched })
    }

    /// What the steps of the work are to pass.
    pub(super) fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(self.watched.clone())
    }

    /// Does the work, as long as none of its steps takes longer than `patience`; `nothing` is said of a run that was
    /// cancelled. The work tells the report as it is when something is done that stays: that is all there is of work that
    /// does not come back.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn report(
        self,
        patience: Duration,
        nothing: Undone,
        work: impl FnOnce(&dyn Observer, &SoFar<'_>) -> Report + Send + 'static,
    ) -> Result<Report> {
        let (bars, done) = (self.bars.clone(), Done::default());
        let telling = done.clone();
        let so_far = move |report: &Report| telling.tell(report);
        let work = attend::begin(move || caught(|| work(&bars, &so_far)));
        let work = work.wrap_err("cannot start a thread")?;
        let (report, hang) = work.attended(patience, &self.watched, &self.cancel);
        self.bars.iter().for_each(Bars::end);
        let is_whole = report.is_some();
        let report = report.or_else(|| done.take()).unwrap_or_else(|| failed(BROKE_OFF.to_owned()));
        Ok(match hang.or_else(|| (!is_whole).then(|| BROKE_OFF.to_owned())) {
            Some(words) => hung(report, is_whole, nothing, &words),
            None => blamed(report, nothing.made, &self.signals),
        })
    }
}

/// What is said of work that ended without a word.
const BROKE_OFF: &str = "the run broke off";

/// What a run that ends early has not done.
#[derive(Clone, Copy)]
pub(super) struct Undone {
    /// Where there is no archive.
    pub(super) made: &'static str,
    /// Where there is one.
    pub(super) followed: &'static str,
}

/// What is done by now, told by the thread that does it.
#[derive(Clone, Default)]
struct Done(Arc<Mutex<Option<Report>>>);

impl Done {
    fn tell(&self, report: &Report) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
    }

    fn take(&self) -> Option<Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A run that was given up failed, unless it was finished all the same. What was done before is told. A report that is not
/// whole is what was told so far.
fn hung(mut report: Report, is_whole: bool, nothing: Undone, words: &str) -> Report {
    let is_finished = is_whole && !matches!(report.outcome, Outcome::Cancelled | Outcome::Failed);
    let is_made = report.verified || !is_whole && report.archive_path.is_some();
    let rollback = report.ran.as_mut().and_then(|ran| ran.rollback.as_mut());
    if let Some(rollback) = rollback.filter(|rollback| !rollback.done) {
        rollback.error = Some(words.to_owned());
    } else if !is_finished {
        report.outcome = Outcome::Failed;
        let undone = match &report.ran {
            Some(_) => "the command has run, but what follows was not done",
            None if is_made => nothing.followed,
            None => nothing.made,
        };
        report.error = Some(format!("{undone}: {words}"));
    }
    report
}

fn on_first_signal(cancel: CancelFlag, bars: Option<Bars>) -> impl FnOnce() + Send + 'static {
    move || {
        cancel.cancel();
        bars.iter().for_each(Bars::stopping);
    }
}

/// Even a bug ends in a report. What it left, the destructors have removed on the way here.
fn caught(run: impl FnOnce() -> Report) -> Report {
    // Nothing that was in the hands of the run is used after it.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| failed(format!("a bug: {}", words_of(&*panic))))
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

/// A report on a run that could not begin.
pub(super) fn failed(error: String) -> Report {
    Report {
        created_at: format!("{:.3}", jiff::Timestamp::now()),
        version: env!("CARGO_PKG_VERSION"),
        format_version: FORMAT_VERSION,
        outcome: Outcome::Failed,
        error: Some(error),
        ..Report::default()
    }
}

/// Names the signal that a run fell to. A pipe that broke after Ctrl-C broke because of it; an archive that was
/// finished all the same is finished.
fn blamed(mut report: Report, nothing: &str, signals: &Signals) -> Report {
    if let (Some(signal), Outcome::Cancelled | Outcome::Failed) = (signals.first(), report.outcome) {
        report.outcome = Outcome::Cancelled;
        report.signal = Some(signal as i32);
        report.error = Some(format!("cancelled by {}: {nothing}", signal.as_str()));
    }
    report
}

/// The end of a run that could begin, or could not: it is told, what is to follow is done, and the process ends.
pub(super) fn conclude(report: Result<Report>, tell: impl FnOnce(&Report), after: After) -> ExitCode {
    let report = report.unwrap_or_else(|error| failed(format!("{error:#}")));
    tell(&report);
    follow(&report, after)
}

/// What follows when a run has ended and that is told.
pub(super) fn follow(report: &Report, after: After) -> ExitCode {
    after.run(report);
    end(report)
}

/// How the process ends: as the run did, or as the command did that it was for.
fn end(report: &Report) -> ExitCode {
    let signal = report.signal.or_else(|| report.ran.as_ref().and_then(|ran| ran.signal));
    if let Some(signal) = signal.and_then(|number| Signal::try_from(number).ok()).filter(|signal| Signals::end(*signal))
    {
        Signals::die_by(signal);
    }
    ExitCode::from(report.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Undone = Undone { made: "no archive", followed: "an archive, and no more" };

    /// It was said that no archive was made, or that the command was not started.
    #[test]
    fn a_run_that_hangs_tells_what_it_has_done() {
        let made = Report {
            outcome: Outcome::Complete,
            verified: true,
            archive_path: Some(crate::report::PathName(b"/a".to_vec())),
            ..Report::default()
        };
        let ran = |exit_code| crate::report::Ran { exit_code: Some(exit_code), ..Default::default() };
        let staged = |exit_code| crate::report::Ran { directory: Some(Default::default()), ..ran(exit_code) };
        let with = |ran| Report { ran: Some(ran), ..made.clone() };
        for (report, is_whole, code, error) in [
            (failed("x".to_owned()), false, 1, Some("no archive: it hangs")),
            (Report { outcome: Outcome::Cancelled, ..Report::default() }, true, 1, Some("no archive: it hangs")),
            (made.clone(), false, 1, Some("an archive, and no more: it hangs")),
            (Report { verified: false, ..made.clone() }, false, 1, Some("an archive, and no more: it hangs")),
            (made.clone(), true, 0, None),
            (with(ran(7)), false, 7, Some("the command has run, but what follows was not done: it hangs")),
            (with(staged(0)), false, 1, Some("the command has run, but what follows was not done: it hangs")),
        ] {
            let told = hung(report, is_whole, NOTHING, "it hangs");
            assert_eq!((told.exit_code(), told.error.as_deref()), (code, error), "{told:?}");
        }
    }

    #[test]
    fn a_rollback_that_hangs_is_what_failed() {
        let rollback = |done| Some(crate::report::Rollback { done, ..Default::default() });
        for is_whole in [true, false] {
            let ran = crate::report::Ran { exit_code: Some(7), rollback: rollback(false), ..Default::default() };
            let report = Report { outcome: Outcome::Complete, verified: true, ran: Some(ran), ..Report::default() };
            let told = hung(report, is_whole, NOTHING, "it hangs");
            let rollback = told.ran.as_ref().and_then(|ran| ran.rollback.as_ref()).expect("is there");
            assert_eq!(
                (told.exit_code(), told.error.as_deref(), rollback.error.as_deref()),
                (7, None, Some("it hangs"))
            );
        }
    }

    #[test]
    fn a_bug_ends_in_a_report_too() {
        let report = caught(|| panic!("lost my way"));
        assert_eq!((report.exit_code(), report.error.as_deref()), (1, Some("a bug: lost my way")));
        let time = report.created_at;
        assert!(time.ends_with('Z') && time.len() == "2026-11-23T23:54:01.123Z".len(), "{time}");
    }
}
