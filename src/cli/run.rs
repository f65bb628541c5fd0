//! One run of `clawsnap create`, from what was typed to how the process ends.

use std::any::Any;
use std::io::{self, IsTerminal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use color_eyre::eyre::{Result, WrapErr};
use nix::sys::signal::Signal;

use super::after::After;
use super::args::{self, misuse};
use super::bars::Bars;
use super::intent::{Destination, Intent};
use super::show::Show;
use super::signals::Signals;
use super::stdout::Stdout;
use super::{say, terminal};
use crate::event::Observer;
use crate::gate::{CancelFlag, Gate};
use crate::plan::Environment;
use crate::report::{FORMAT_VERSION, Outcome, Report};
use crate::{Create, Output, sys};

/// `clawsnap create`.
pub(super) fn create(typed: args::Create) -> ExitCode {
    let (json, quiet) = (typed.json, typed.quiet);
    let after = match After::prepare(typed.log.as_deref(), typed.on_success.clone(), typed.on_failure.clone()) {
        Ok(after) => after,
        Err(words) => return say::failed(&words, 1),
    };
    if typed.nice {
        // Before there are other threads: each has a priority of its own, which it hands on.
        sys::be_nice();
    }
    let intent = match Intent::of(typed, Environment::of_process(), io::stdout().is_terminal()) {
        Ok(intent) => intent,
        Err(reason) => misuse(&reason).exit(),
    };
    let show = Show::new(json, quiet, &intent.destination);
    let report = watched(intent, quiet).unwrap_or_else(|error| failed(format!("{error:#}")));
    show.tell(&report);
    after.run(&report);
    end(&report)
}

/// How the process ends.
fn end(report: &Report) -> ExitCode {
    if let Some(signal) = report.signal.and_then(|number| Signal::try_from(number).ok()) {
        Signals::die_by(signal);
    }
    ExitCode::from(report.exit_code())
}

/// Runs with signals watched and progress shown.
fn watched(intent: Intent, quiet: bool) -> Result<Report> {
    let signals = Signals::hold()?;
    let cancel = CancelFlag::new();
    let bars = bars(&intent, quiet);
    signals.watch(on_first_signal(cancel.clone(), bars.clone()))?;
    let out = output(&intent.destination, &cancel)?;
    let observer: &dyn Observer = bars.as_ref().map_or(&(), |bars| bars);
    let gate: Arc<dyn Gate> = Arc::new(cancel);
    let report = caught(|| execute(intent, out, &gate, observer));
    bars.iter().for_each(Bars::end);
    Ok(blamed(report, &signals))
}

fn bars(intent: &Intent, quiet: bool) -> Option<Bars> {
    let stderr = io::stderr();
    let verb = if intent.dry_run { "looking at" } else { "freezing" };
    (!quiet && terminal::is_lively(&stderr)).then(|| Bars::begin(verb, terminal::paint(&stderr)))
}

fn on_first_signal(cancel: CancelFlag, bars: Option<Bars>) -> impl FnOnce() + Send + 'static {
    move || {
        cancel.cancel();
        bars.iter().for_each(Bars::stopping);
    }
}

fn output(destination: &Destination, cancel: &CancelFlag) -> Result<Output> {
    Ok(match destination {
        Destination::Path(path) => Output::Path(path.clone()),
        Destination::Stdout => {
            Output::Stream(Box::new(Stdout::open(cancel.clone()).wrap_err("cannot open standard output")?))
        }
    })
}

fn execute(intent: Intent, output: Output, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    let dry_run = intent.dry_run;
    let Intent { request, compression, freeze, verify, if_changed, wait, created_at, retention, .. } = intent;
    let create = Create { request, output, compression, freeze, verify, if_changed, wait, created_at, retention };
    if dry_run { crate::survey(&create, gate, observer) } else { crate::create(create, gate, observer) }
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

fn failed(error: String) -> Report {
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
fn blamed(mut report: Report, signals: &Signals) -> Report {
    if let (Some(signal), Outcome::Cancelled | Outcome::Failed) = (signals.first(), report.outcome) {
        report.outcome = Outcome::Cancelled;
        report.signal = Some(signal as i32);
        report.error = Some(format!("cancelled by {}: no archive was made", signal.as_str()));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_ends_in_a_report_too() {
        let report = caught(|| panic!("lost my way"));
        assert_eq!((report.exit_code(), report.error.as_deref()), (1, Some("a bug: lost my way")));
        let time = report.created_at;
        assert!(time.ends_with('Z') && time.len() == "2026-11-23T23:54:01.123Z".len(), "{time}");
    }
}
