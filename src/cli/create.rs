//! `clawsnap create`, from what was typed to how the process ends.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::{Result, WrapErr};

use super::args;
use super::intent::{Destination, Intent};
use super::run::{self, Run};
use super::show::Show;
use super::stdout::Stdout;
use crate::command::Ward;
use crate::event::Observer;
use crate::gate::{CancelFlag, Gate};
use crate::plan::Environment;
use crate::report::Report;
use crate::{Create, Output};

/// `clawsnap create`.
pub(super) fn create(typed: args::Create) -> ExitCode {
    let (json, quiet) = (typed.unattended.json, typed.unattended.quiet);
    let after = match run::prepared(&typed.unattended) {
        Ok(after) => after,
        Err(code) => return code,
    };
    run::give_way(typed.priority);
    let (patience, terminal) = (typed.freezing.patience, io::stdout().is_terminal());
    let intent = match run::meant("create", patience, move || Intent::of(typed, Environment::of_process(), terminal)) {
        Ok(intent) => intent,
        Err(early) => return early.end(after),
    };
    let show = Show::new(json, quiet, &intent.destination);
    run::conclude(reported(intent, quiet, patience), |report| show.tell(report), after)
}

fn reported(intent: Intent, quiet: bool, patience: Duration) -> Result<Report> {
    let verb = if intent.dry_run { "looking at" } else { "freezing" };
    let run = Run::begin(run::bars(quiet, verb, "archiving"), Ward::default())?;
    let out = output(&intent.destination, &run.cancel)?;
    let gate = run.gate();
    run.report(patience, "no archive was made", move |observer| execute(intent, out, &gate, observer))
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
