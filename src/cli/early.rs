//! Runs that end before they begin. They end as others do: a log has a line of them, and `--on-failure` is told.

use std::process::ExitCode;

use super::after::After;
use super::args::misuse;
use super::run;
use super::say;
use crate::report::{Outcome, Ran, Report};

/// The end of a run that did not begin. On the terminal it is told already.
pub(super) struct Early(Box<Report>);

impl Early {
    /// What was typed after `verb` makes no sense: `reason`, as clap says it.
    pub(super) fn usage(verb: &str, reason: String) -> Self {
        // If standard error is closed, nobody is left to be told.
        let _told = misuse(verb, &reason).print();
        Self(Box::new(Report { outcome: Outcome::Usage, ..run::failed(reason) }))
    }

    /// It failed, for a reason in words.
    pub(super) fn failed(words: String) -> Self {
        Self::told(run::failed(words))
    }

    /// The command that it is for cannot be started, as `ran` says.
    pub(super) fn without_command(words: String, ran: Ran) -> Self {
        Self::told(Report { ran: Some(ran), ..run::failed(words) })
    }

    fn told(report: Report) -> Self {
        say::failed(report.error.as_deref().unwrap_or_default(), report.exit_code());
        Self(Box::new(report))
    }

    /// What is to follow is done, and the process ends.
    pub(super) fn end(self, after: After) -> ExitCode {
        run::follow(&self.0, after)
    }
}
