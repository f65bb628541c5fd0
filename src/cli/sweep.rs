//! `clawsnap sweep`, from what was typed to how the process ends.

use std::path::PathBuf;
use std::process::ExitCode;

use super::attend::Lookout;
use super::page::{self, Page};
use super::signals::Signals;
use super::{args, place, say, terminal, verify};
use crate::plan::{Environment, Request};
use crate::sweep::{Ending, Found, Purpose, Standing, Swept, sweep};

/// `clawsnap sweep`.
pub(super) fn run(typed: &args::Sweep) -> ExitCode {
    let lookout = Lookout::new();
    let signals = match verify::watch(&lookout.cancel) {
        Ok(signals) => signals,
        Err(error) => return say::failed(&format!("{error:#}"), 1),
    };
    let environment = Environment::of_process();
    let in_home = |path: &PathBuf| place::with_home(path, environment.home.as_deref());
    let outputs: Vec<PathBuf> = typed.output.iter().map(in_home).collect();
    let request = Request { sources: typed.sources.clone(), ..Request::new(environment) };
    let dry_run = typed.dry_run;
    let (swept, hang) = lookout.over(typed.waiting.patience, move |gate| sweep(&request, &outputs, dry_run, gate));
    let swept = match swept {
        Some(swept) if hang.is_none() || swept.outcome != Ending::Cancelled => swept,
        other => Swept { outcome: Ending::Failed, error: hang, dry_run, ..other.unwrap_or_default() },
    };
    if typed.json {
        say::json("report", &swept);
    }
    tell(&swept, typed);
    if let Some(signal) = signals.first().filter(|_| swept.outcome == Ending::Cancelled) {
        Signals::die_by(signal);
    }
    ExitCode::from(swept.exit_code())
}

fn tell(swept: &Swept, typed: &args::Sweep) {
    if !typed.json && !typed.quiet {
        say::page("report", |paint| of(swept, paint));
    }
    let stuck = swept.leftovers.iter().filter(|found| found.standing == Standing::Stuck);
    let stuck = stuck.map(|found| format!("cannot remove {}", row(found)));
    let error = swept.error.as_deref().map(page::line);
    for words in stuck.chain(error) {
        say::failed(&words, 1);
    }
}

/// The report, for people.
fn of(swept: &Swept, paint: terminal::Paint) -> String {
    let all = &swept.leftovers;
    let count = |standing| all.iter().filter(|found| found.standing == standing).count() as u64;
    let (removed, removable) = (count(Standing::Removed), count(Standing::Removable));
    let heading = match (removed, removable) {
        (0, 0) => "nothing to remove".to_owned(),
        (_, 0) => format!("removed {}", page::many(removed, "leftover")),
        _ => format!("dry run: {} would be removed", page::many(removable, "leftover")),
    };
    let mut page = Page::headed(&paint.good(&heading), paint);
    let rows = |wanted: fn(Standing) -> bool| {
        let found: Vec<String> = all.iter().filter(|found| wanted(found.standing)).map(row).collect();
        found.into_iter()
    };
    let most = all.len();
    page.list("leftover", rows(|standing| matches!(standing, Standing::Removed | Standing::Removable)), most, "");
    page.list("in use", rows(|standing| standing == Standing::Busy), most, "");
    page.list("not ours", rows(|standing| standing == Standing::Foreign), most, "");
    page.list("unfinished", rows(|standing| standing == Standing::Unfinished), most, "");
    if let Some(command) = all.iter().find_map(|found| found.command.as_deref()) {
        page.row("", format!("run that restore again, which completes it: {command}"));
    }
    page.finish()
}

fn row(found: &Found) -> String {
    let purpose = match found.purpose {
        Purpose::Staging => "staging of a backup",
        Purpose::Draft => "an archive or a tree in the making",
        Purpose::Swap => "a restore in place",
    };
    let reason = found.reason.as_deref().map(|reason| format!(": {}", page::line(reason))).unwrap_or_default();
    format!("{} ({purpose}){reason}", page::path(&found.path))
}
