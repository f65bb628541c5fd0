//! The end of a run: what is printed, and where.

use std::io::{self, IsTerminal, Write};

use super::intent::Destination;
use super::page;
use super::{dry_run, prune, say, summary, terminal};
use crate::report::{Outcome, Report};

/// A reader of the stream may have taken something for an archive.
const IN_THE_STREAM: &str = "; what may have gone to standard output is no archive";

/// Who wants to see what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    /// One JSON object on standard output.
    pub(super) json: bool,
    /// Nothing, unless something is lost, may be missing or fails.
    pub(super) quiet: bool,
    /// The archive goes to standard output, so the report cannot.
    pub(super) archive_on_stdout: bool,
}

impl Show {
    /// Who wants to see what, given where the archive goes.
    pub(super) fn new(json: bool, quiet: bool, destination: &Destination) -> Self {
        Self { json, quiet, archive_on_stdout: *destination == Destination::Stdout }
    }

    /// Prints what `report` has to say.
    pub(super) fn tell(self, report: &Report) {
        if self.json {
            say::json("report", report);
        }
        match report.outcome {
            Outcome::Complete | Outcome::Lossy | Outcome::Unchanged => self.made(report),
            _ => failed(report, self.quiet),
        }
    }

    fn made(self, report: &Report) {
        match (self.json, self.quiet) {
            (true, false) => {}
            (_, true) => {
                summary::of_losses(report).into_iter().for_each(|line| say::complain(&line));
                reservations(report);
            }
            _ if self.archive_on_stdout => on_stderr(|paint| text(report, paint)),
            _ => print(io::stdout(), |paint| text(report, paint)),
        }
    }
}

/// What must be said even where nobody wants to hear, a line each on standard error, since no exit code tells: why the
/// archive may lack what it should hold, what of ours is left, and what is wrong with older archives.
pub(super) fn reservations(report: &Report) {
    say::warn(&report.gaps);
    say::warn(&report.leftovers);
    barred(report);
    report.pruned.iter().flat_map(prune::complaints).for_each(|line| say::complain(&line));
    let failed = report.pruned.as_ref().and_then(|pruned| pruned.error.as_deref());
    failed.into_iter().for_each(|error| {
        say::complain(&format!("warning: older archives were not pruned: {}", page::line(error)));
    });
}

/// That a command will be started from which nothing can be brought back in place.
pub(super) fn barred(report: &Report) {
    if let Some(why) = &report.barred {
        let told = "if the command fails, nothing can be brought back in place";
        say::complain(&format!("warning: {told}: {}", page::line(why)));
    }
}

/// Says why there is nothing.
pub(super) fn failed(report: &Report, quiet: bool) {
    if !quiet {
        report.warnings.iter().for_each(|warning| say::complain(&format!("warning: {}", page::line(warning))));
    }
    let label = terminal::paint(&io::stderr()).bad("error");
    let reason = report.error.as_deref().unwrap_or("failed");
    let stream = if report.archive_path.as_ref().is_some_and(|path| path.0 == b"-") { IN_THE_STREAM } else { "" };
    say::complain(&format!("{label}: {}{stream}", page::line(reason)));
}

/// A page on standard error, where standard output belongs to somebody else.
pub(super) fn on_stderr(text: impl FnOnce(terminal::Paint) -> String) {
    print(io::stderr(), text);
}

fn text(report: &Report, paint: terminal::Paint) -> String {
    if report.dry_run { dry_run::of(report, paint) } else { summary::of(report, paint) }
}

fn print(mut stream: impl Write + IsTerminal, text: impl FnOnce(terminal::Paint) -> String) {
    let text = text(terminal::paint(&stream));
    say::delivered("report", stream.write_all(text.as_bytes()).and_then(|()| stream.flush()));
}
