//! `clawsnap restore`, from what was typed to how the process ends.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::HumanBytes;

use super::bars::Bars;
use super::page::{self, Page};
use super::signals::Signals;
use super::{args, list, say, terminal};
use crate::event::Observer;
use crate::restore::{Ending, Remark, RestoreOptions, Restored};

/// Remarks of one sort that are shown.
const MOST_REMARKS: usize = 20;

const IN_JSON: &str = "; --json names all";

/// `clawsnap restore`.
pub(super) fn restore(typed: &args::Restore) -> ExitCode {
    let (signals, wanted, gate) = match list::prepared(&typed.patterns) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let options = RestoreOptions { target: typed.target.clone(), wanted, tails: typed.tails };
    let bars = Bars::of_reading(typed.quiet, "restoring");
    let observer: &dyn Observer = bars.as_ref().map_or(&(), |bars| bars);
    let restored = crate::restore::restore(&typed.archive, &options, &gate, observer);
    bars.iter().for_each(Bars::end);
    if typed.json {
        say::json("verdict", &restored);
    }
    tell(&restored, typed);
    if let Some(signal) = signals.first().filter(|_| restored.outcome == Ending::Cancelled) {
        Signals::die_by(signal);
    }
    ExitCode::from(restored.exit_code())
}

fn tell(restored: &Restored, typed: &args::Restore) {
    match restored.outcome {
        Ending::Complete | Ending::Different if typed.json => {}
        Ending::Complete if typed.quiet => {}
        Ending::Different if typed.quiet => {
            let remarks = restored.flagged.iter().chain(&restored.differences);
            remarks.for_each(|remark| say::complain(&format!("warning: {}", said(remark))));
        }
        Ending::Complete | Ending::Different => {
            let out = io::stdout();
            say::delivered("verdict", out.lock().write_all(of(restored, terminal::paint(&out)).as_bytes()));
        }
        _ => drop(say::failed(restored.error.as_deref().unwrap_or("failed"), restored.exit_code())),
    }
}

fn of(restored: &Restored, paint: terminal::Paint) -> String {
    let heading = match restored.outcome {
        Ending::Complete => paint.good("restored, and proven"),
        _ => paint.warn("restored, and proven to be what was archived; but see below"),
    };
    let mut page = Page::headed(&heading, paint);
    page.row("target", page::path(&restored.target));
    page.row("archive", page::path(&restored.archive_path));
    let (files, directories) =
        (page::many(restored.files, "file"), page::plural(restored.directories, "directory", "directories"));
    page.row("contents", format!("{files}, {directories}, {}", HumanBytes(restored.bytes)));
    page.list("flagged", restored.flagged.iter().map(said), MOST_REMARKS, IN_JSON);
    page.list("different", restored.differences.iter().map(said), MOST_REMARKS, IN_JSON);
    page.row_if("owners", owners(restored));
    page.finish()
}

fn owners(restored: &Restored) -> Option<String> {
    let names = page::many(restored.owners_not_kept, "name");
    (restored.owners_not_kept > 0)
        .then(|| format!("{names} belonged to others, and are yours now: only root gives away"))
}

fn said(remark: &Remark) -> String {
    format!("{} ({})", page::path(&remark.path), page::line(&remark.what))
}
