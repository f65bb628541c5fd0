//! How the command of a run ended, for people.

use super::page::{self, IN_JSON, Page};
use super::{say, summary, terminal, when};
use crate::report::{Ran, Report, Rollback};

/// Files that are named.
const MOST: usize = 20;

/// Rows about the command.
pub(super) fn rows(page: &mut Page, report: &Report) {
    let Some(ran) = &report.ran else { return };
    let took = when::span(ran.elapsed_milliseconds.saturating_mul(1_000));
    page.row("command", format!("{} {} after {took}", words(ran), ending(ran)));
    page.list("touched", ran.touched.iter().map(page::fated), MOST, IN_JSON);
    page.list("different", ran.differences.iter().map(page::fated), MOST, IN_JSON);
}

/// What somebody should look at, a line each on standard error: nothing, if all went well.
pub(super) fn complaints(report: &Report) {
    let Some(ran) = &report.ran else { return };
    summary::of_losses(report).into_iter().for_each(|line| say::complain(&line));
    if let Some(first) = ran.touched.first() {
        let all = page::plural(ran.touched.len() as u64, "file was", "files were");
        say::complain(&format!("warning: {all} written to while the command ran: {}{IN_JSON}", page::fated(first)));
    }
    if let Some(error) = &report.error {
        say::failed(error, ran.code());
    }
    if ran.code() == 0 {
        return;
    }
    say::failed(&format!("{} {}", words(ran), ending(ran)), ran.code());
    if ran.error.is_some() && ran.directory.is_none() {
        say::complain("nothing was brought back, as it has changed nothing");
    }
    match &ran.rollback {
        Some(rollback) if rollback.done => tell_rollback(rollback),
        Some(rollback) => {
            let error = rollback.error.as_deref().unwrap_or("failed");
            say::failed(&format!("nothing was brought back: {error}"), ran.code());
            tell_warnings(rollback);
            tell_way_back(ran);
        }
        None => tell_way_back(ran),
    }
    if let (Some(why), Some(_)) = (&report.barred, &ran.way_back) {
        say::complain(&format!("that makes it beside the archive, to be copied from there: {}", page::line(why)));
    }
}

fn tell_way_back(ran: &Ran) {
    let Some(way_back) = &ran.way_back else { return };
    say::complain(&format!("the way back: {way_back}"));
    if ran.way_back_kept_until.is_none() {
        say::complain("warning: nothing marks that archive, as attributes cannot be set there: --keep-… may remove it");
    }
}

fn tell_rollback(rollback: &Rollback) {
    let label = terminal::paint(&std::io::stderr()).good("brought back");
    say::complain(&format!("{label}: everything is as it was before the command"));
    rollback.kept.iter().for_each(|kept| say::complain(&format!("  what it left is kept as {}", page::path(kept))));
    tell_warnings(rollback);
}

fn tell_warnings(rollback: &Rollback) {
    rollback.warnings.iter().for_each(|warning| say::complain(&format!("  warning: {}", page::line(warning))));
}

fn words(ran: &Ran) -> String {
    let words: Vec<String> = ran.command.iter().map(|word| page::line(&crate::relpath::quoted(&word.0))).collect();
    words.join(" ")
}

fn ending(ran: &Ran) -> String {
    match (ran.exit_code, ran.signal) {
        _ if ran.error.is_some() => "could not be started".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended, and nobody knows how".to_owned(),
    }
}
