//! `clawsnap prune`, from what was typed to how the process ends.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::HumanBytes;

use super::attend::Lookout;
use super::bars::Bars;
use super::signals::Signals;
use super::{args, page, say, terminal, verify, when};
use crate::prune::Retention;
use crate::relpath::shown;
use crate::report::{Judged, Pruned};

/// `clawsnap prune`.
pub(super) fn prune(typed: &args::Prune) -> ExitCode {
    let lookout = Lookout::new();
    let signals = match verify::watch(&lookout.cancel) {
        Ok(signals) => signals,
        Err(error) => return say::failed(&format!("{error:#}"), 1),
    };
    // clap does not let it be without a rule.
    let Some(retention) = typed.keep.retention(typed.dry_run, typed.verify) else {
        return say::failed("no rule says what stays", 2);
    };
    let pruned = judged(typed, retention, &lookout);
    tell(typed, &pruned);
    if let Some(signal) = signals.first() {
        Signals::die_by(signal);
    }
    ExitCode::from(pruned.exit_code())
}

/// What became of the archives; where a filesystem hangs, as far as that is known.
fn judged(typed: &args::Prune, retention: Retention, lookout: &Lookout) -> Pruned {
    let bars = Bars::of_reading(typed.quiet, ["reading"; 2]);
    let directory = typed.directory.clone();
    let (pruned, hang) = lookout.shown(typed.waiting.patience, bars, move |gate, bars| {
        crate::prune::prune(&directory, &retention, None, gate, bars)
    });
    match pruned {
        Some(pruned) if hang.is_none() || pruned.error.is_none() => pruned,
        Some(pruned) => Pruned { error: hang, ..pruned },
        None => {
            let directory = typed.directory.as_path().into();
            Pruned { directory, dry_run: typed.dry_run, error: hang, ..Pruned::default() }
        }
    }
}

fn tell(typed: &args::Prune, pruned: &Pruned) {
    match (typed.json, typed.quiet) {
        (true, _) => say::json("report", pruned),
        (false, true) => {}
        (false, false) if pruned.error.is_some() && pruned.archives.is_empty() => {}
        (false, false) => say::delivered("report", io::stdout().write_all(text(pruned).as_bytes())),
    }
    complaints(pruned).for_each(|line| say::complain(&line));
    if let Some(error) = &pruned.error {
        let label = terminal::paint(&io::stderr()).bad("error");
        say::complain(&format!("{label}: {}", page::line(error)));
    }
}

/// What must be said even where nobody wants to hear: which archives are not proven, or could not be removed.
pub(super) fn complaints(pruned: &Pruned) -> impl Iterator<Item = String> {
    let of = |judged: &Judged| {
        let error = judged.error.as_deref()?;
        Some(format!("warning: {}: {}", page::path(&judged.path), page::line(error)))
    };
    pruned.archives.iter().filter_map(of)
}

/// The table, source by source.
fn text(pruned: &Pruned) -> String {
    let mut sources: Vec<&[String]> = pruned.archives.iter().map(|judged| &*judged.sources).collect();
    sources.sort_unstable();
    sources.dedup();
    let mut text = String::new();
    for source in sources {
        let own: Vec<&Judged> = pruned.archives.iter().filter(|judged| judged.sources == source).collect();
        let name = if source.is_empty() { "not proven".to_owned() } else { page::line(&source.join(", ")) };
        text.push_str(&format!("{name}: {}\n", page::many(own.len() as u64, "archive")));
        own.into_iter().for_each(|judged| text.push_str(&format!("  {}\n", row(judged))));
    }
    text + &conclusion(pruned)
}

/// One archive, and why it stays or goes.
pub(super) fn row(judged: &Judged) -> String {
    let name = judged.path.0.rsplit(|c| *c == b'/').next().unwrap_or(&judged.path.0);
    let fate = match (judged.removed, judged.stays.is_empty(), &judged.error) {
        (true, _, _) => "removed",
        (false, true, Some(_)) => "stuck",
        (false, true, None) => "goes",
        (false, false, _) => "stays",
    };
    let time = judged.created_at.as_deref().map_or_else(|| "-".to_owned(), when::local_iso);
    let plural = |n: u64, one, many| if n > 0 { page::plural(n, one, many) } else { String::new() };
    let (losses, gaps) = (plural(judged.losses, "loss", "losses"), plural(judged.gaps, "gap", "gaps"));
    let notes = [judged.stays.join(", "), losses, gaps].into_iter().filter(|note| !note.is_empty());
    let notes = notes.collect::<Vec<_>>().join("; ");
    let size = HumanBytes(judged.bytes).to_string();
    format!("{fate:<7} {time:<19} {size:>11} {}  {notes}", shown(name)).trim_end().to_owned()
}

fn conclusion(pruned: &Pruned) -> String {
    let goes = pruned.archives.iter().filter(|judged| judged.stays.is_empty()).count() as u64;
    let gone = pruned.archives.iter().filter(|judged| judged.removed);
    let (number, bytes) = gone.fold((0_u64, 0_u64), |(number, bytes), judged| (number + 1, bytes + judged.bytes));
    let stay = page::count((pruned.archives.len() as u64).saturating_sub(if pruned.dry_run { goes } else { number }));
    match pruned.dry_run {
        true => format!("dry run: {} would go, {stay} would stay\n", page::count(goes)),
        false => format!("{} removed ({}), {stay} stay\n", page::count(number), HumanBytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PathName;

    #[test]
    fn a_row_tells_why() {
        let judged = Judged {
            path: PathName(b"/b/clawsnap-20231114T221320Z.tar".to_vec()),
            bytes: 1536,
            proven: true,
            created_at: Some("2023-11-14T22:13:20.000Z".to_owned()),
            losses: 2,
            stays: vec!["newest".to_owned(), "daily".to_owned()],
            ..Judged::default()
        };
        let text = row(&judged);
        assert!(text.starts_with("stays   2023-11-1"), "{text}");
        assert!(text.ends_with("   1.50 KiB clawsnap-20231114T221320Z.tar  newest, daily; 2 losses"), "{text}");
        let gone = row(&Judged { removed: true, stays: Vec::new(), losses: 0, ..judged.clone() });
        assert!(gone.starts_with("removed ") && gone.ends_with("Z.tar"), "{gone}");
        let stuck = Judged { stays: Vec::new(), error: Some("denied".to_owned()), ..judged };
        assert!(row(&stuck).starts_with("stuck   "));
    }
}
