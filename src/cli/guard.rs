//! `clawsnap guard`, from what was typed to how the process ends.

use std::path::Path;
use std::process::ExitCode;

use color_eyre::eyre::Result;

use super::args;
use super::early::Early;
use super::run::{self, Run, Undone};
use super::{intent, launcher, ran, say, show};
use crate::command::Errand;
use crate::guard::{Guard, guard};
use crate::plan::Environment;
use crate::report::{Outcome, Report};
use crate::{Create, Output};

const NOTHING: Undone =
    Undone { made: "the command was not started", followed: "the archive is made, but the command was not started" };

/// `clawsnap guard`.
pub(super) fn run(typed: &args::Guard) -> ExitCode {
    let after = match run::prepared(&typed.unattended) {
        Ok(after) => after,
        Err(code) => return code,
    };
    match meant(typed) {
        Ok((create, errand)) => run::conclude(reported(typed, create, errand), |report| tell(report, typed), after),
        Err(early) => early.end(after),
    }
}

/// What the typed words mean, as far as it is there.
fn meant(typed: &args::Guard) -> Result<(Create, Errand), Early> {
    let errand = launcher::errand(&typed.command, false, typed.unattended.json)?;
    let words = typed.clone();
    let order = move || order(&words, Environment::of_process());
    Ok((run::meant("guard", typed.freezing.waiting.patience, order)?, errand))
}

/// What archive they mean.
fn order(typed: &args::Guard, environment: Environment) -> Result<Create, String> {
    if typed.archive.output.as_deref() == Some(Path::new("-")) {
        return Err("guard wants an archive that can be read back: --output - is none".to_owned());
    }
    let created_at = intent::source_date(&environment)?;
    let request = intent::request(&typed.what, environment)?;
    Ok(Create {
        output: Output::Path(intent::output(typed.archive.output.as_deref(), &request)),
        request,
        compression: typed.archive.compress,
        freeze: typed.freezing.options(),
        verify: true,
        if_changed: false,
        wait: typed.unattended.wait,
        created_at,
        retention: typed.keep.retention(false, false),
    })
}

fn reported(typed: &args::Guard, create: Create, errand: Errand) -> Result<Report> {
    let run = Run::begin(run::bars(typed.unattended.quiet, "freezing", "archiving"), errand.ward.clone())?;
    let gate = run.gate();
    let (despite_losses, rollback) = (typed.despite_losses, typed.rollback);
    let order = Guard { create, errand, despite_losses, rollback };
    // Whoever sees the command fail shall know by then what there is.
    let (quiet, json) = (typed.unattended.quiet, typed.unattended.json);
    let announce = move |report: &Report| match (quiet, json) {
        (true, _) => show::reservations(report),
        (false, true) => show::barred(report),
        (false, false) => {
            show::on_stderr(|paint| super::summary::of(report, paint));
            show::barred(report);
        }
    };
    let patience = typed.freezing.waiting.patience;
    run.report(patience, NOTHING, move |observer, so_far| guard(order, &gate, observer, &announce, so_far))
}

fn tell(report: &Report, typed: &args::Guard) {
    if typed.unattended.json {
        say::json("report", report);
    }
    match (&report.ran, report.outcome) {
        (Some(_), _) => ran::complaints(report),
        (None, Outcome::Lossy) => {
            show::on_stderr(|paint| super::summary::of(report, paint));
            show::failed(report, true);
        }
        _ => show::failed(report, typed.unattended.quiet),
    }
}
