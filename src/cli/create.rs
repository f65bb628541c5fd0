//! `clawsnap create`, from what was typed to how the process ends.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::{Result, WrapErr};

use super::args;
use super::intent::{Destination, Intent};
use super::run::{self, Run, Undone};
use super::show::Show;
use super::stdout::Stdout;
use crate::command::Ward;
use crate::create::create_telling;
use crate::event::Observer;
use crate::gate::{CancelFlag, Gate};
use crate::plan::Environment;
use crate::report::{Report, SoFar};
use crate::{Create, Output};

const NOTHING: Undone =
    Undone { made: "no archive was made", followed: "the archive is made, but what follows was not done" };

/// `clawsnap create`.
pub(super) fn create(typed: args::Create) -> ExitCode {
    let (json, quiet) = (typed.unattended.json, typed.unattended.quiet);
    let after = match run::prepared(&typed.unattended) {
        Ok(after) => after,
        Err(code) => return code,
    };
    run::give_way(typed.priority);
    let (patience, terminal) = (typed.freezing.waiting.patience, io::stdout().is_terminal());
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
    run.report(patience, NOTHING, move |observer, so_far| execute(intent, out, &gate, observer, so_far))
}

fn output(destination: &Destination, cancel: &CancelFlag) -> Result<Output> {
    Ok(match destination {
        Destination::Path(path) => Output::Path(path.clone()),
        Destination::Stdout => {
            Output::Stream(Box::new(Stdout::open(cancel.clone()).wrap_err("cannot open standard output")?))
        }
    })
}

fn execute(
    intent: Intent,
    output: Output,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    so_far: &SoFar<'_>,
) -> Report {
    let dry_run = intent.dry_run;
    let Intent { request, compression, freeze, verify, if_changed, wait, created_at, retention, .. } = intent;
    let create = Create { request, output, compression, freeze, verify, if_changed, wait, created_at, retention };
    if dry_run { crate::survey(&create, gate, observer) } else { create_telling(create, gate, observer, so_far) }
}
