//! `clawsnap stage`, from what was typed to how the process ends.

use std::process::ExitCode;

use color_eyre::eyre::Result;

use super::args;
use super::early::Early;
use super::page::{self, IN_JSON, Page};
use super::run::{self, Run, Undone};
use super::terminal::Paint;
use super::{intent, launcher, ran, say, show, summary};
use crate::command::Errand;
use crate::plan::{Environment, Request};
use crate::report::{Consistency, Outcome, Report};
use crate::stage::{Stage, stage_telling};

const NOTHING: Undone = Undone { made: "the command was not started", followed: "the command was not started" };

/// `clawsnap stage`.
pub(super) fn run(typed: &args::Stage) -> ExitCode {
    let after = match run::prepared(&typed.unattended) {
        Ok(after) => after,
        Err(code) => return code,
    };
    run::give_way(typed.priority);
    match meant(typed) {
        Ok((request, errand)) => run::conclude(reported(typed, request, errand), |report| tell(report, typed), after),
        Err(early) => early.end(after),
    }
}

/// What the typed words mean, as far as it is there.
fn meant(typed: &args::Stage) -> Result<(Request, Errand), Early> {
    let errand = launcher::errand(&typed.command, true, typed.unattended.json)?;
    let what = typed.what.clone();
    let request = move || intent::request(&what, Environment::of_process());
    Ok((run::meant("stage", typed.freezing.waiting.patience, request)?, errand))
}

fn reported(typed: &args::Stage, request: Request, errand: Errand) -> Result<Report> {
    let run = Run::begin(run::bars(typed.unattended.quiet, "freezing", "laying out"), errand.ward.clone())?;
    let gate = run.gate();
    let (freeze, wait) = (typed.freezing.options(), typed.unattended.wait);
    let order = Stage { request, freeze, wait, errand };
    let patience = typed.freezing.waiting.patience;
    run.report(patience, NOTHING, move |observer, so_far| stage_telling(order, &gate, observer, so_far))
}

/// On standard error: standard output is the command's.
fn tell(report: &Report, typed: &args::Stage) {
    if typed.unattended.json {
        say::json("report", report);
    }
    match report.outcome {
        Outcome::Complete | Outcome::Lossy if typed.unattended.quiet => {
            show::reservations(report);
            ran::complaints(report);
        }
        Outcome::Complete | Outcome::Lossy if typed.unattended.json => {}
        Outcome::Complete | Outcome::Lossy => show::on_stderr(|paint| of(report, paint)),
        _ => show::failed(report, typed.unattended.quiet),
    }
}

/// The report, for people.
fn of(report: &Report, paint: Paint) -> String {
    let mut page = Page::headed(&heading(report, paint), paint);
    page.row_if("staged at", report.ran.as_ref().and_then(|ran| ran.directory.as_ref()).map(page::path));
    summary::sources(&mut page, report);
    page.row("contents", summary::amount(&report.counts));
    summary::frozen(&mut page, report, IN_JSON);
    summary::left_out(&mut page, report);
    summary::warnings(&mut page, report);
    ran::rows(&mut page, report);
    summary::losses(&mut page, report, IN_JSON);
    page.finish()
}

fn heading(report: &Report, paint: Paint) -> String {
    let touched = report.ran.as_ref().map_or(0, |ran| ran.touched.len() as u64);
    match (report.outcome, report.consistent) {
        (Outcome::Complete, Some(Consistency::Instant)) => paint.good("staged, and of one instant"),
        (Outcome::Complete, _) => paint.warn("staged, but not of one instant"),
        _ if report.counts.losses() > 0 => {
            paint.bad(&format!("staged, with {}", page::plural(report.counts.losses(), "loss", "losses")))
        }
        _ => {
            paint.warn(&format!("staged, but {} written to meanwhile", page::plural(touched, "file was", "files were")))
        }
    }
}
