//! `clawsnap status`, from what was typed to how the process ends.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::HumanBytes;

use super::attend::Lookout;
use super::bars::Bars;
use super::chart::{Ink, chart, ink};
use super::page::{self, Page};
use super::signals::Signals;
use super::terminal::Paint;
use super::{args, say, terminal, verify, when};
use crate::status::{Made, SourceStatus, State, Status};

/// `clawsnap status`.
pub(super) fn status(typed: &args::Status) -> ExitCode {
    let lookout = Lookout::new();
    let signals = match verify::watch(&lookout.cancel) {
        Ok(signals) => signals,
        Err(error) => return say::failed(&format!("{error:#}"), 1),
    };
    let status = looked(typed, &lookout);
    if let Some(signal) = signals.first() {
        // Nobody knows how it is: metrics of an earlier run stay.
        Signals::die_by(signal);
    }
    tell(typed, &status);
    match typed.metrics.as_ref().map_or(Ok(()), |file| written(file.clone(), &status, typed.waiting.patience)) {
        Ok(()) => ExitCode::from(status.state.exit_code()),
        Err(words) => say::failed(&words, 1),
    }
}

/// How it is; where a filesystem hangs, nobody could look.
fn looked(typed: &args::Status, lookout: &Lookout) -> Status {
    let bars = Bars::of_reading(typed.quiet, ["reading"; 2]);
    let asked = typed.clone();
    let (status, hang) = lookout.shown(typed.waiting.patience, bars, move |gate, bars| {
        crate::status::status(&asked.directory, asked.max_age, asked.verify, gate, bars)
    });
    match status {
        Some(status) if hang.is_none() || status.error.is_none() => status,
        _ => Status { error: hang, ..Status::unseen(&typed.directory, typed.max_age) },
    }
}

/// Writes the metrics, which may lie elsewhere than what hangs.
fn written(file: PathBuf, status: &Status, patience: Duration) -> Result<(), String> {
    let text = crate::status::metrics(status);
    let (written, hang) = Lookout::new().over(patience, move |gate| crate::status::write_metrics(&file, &text, gate));
    match (written, hang) {
        (Some(Ok(())), _) => Ok(()),
        (_, Some(words)) => Err(format!("the metrics were not written: {words}")),
        (Some(Err(error)), None) => Err(error.to_string()),
        (None, None) => Err("the metrics were not written".to_owned()),
    }
}

fn tell(typed: &args::Status, status: &Status) {
    if typed.json {
        say::json("status", status);
    }
    if let Some(error) = &status.error {
        let label = terminal::paint(&io::stderr()).bad("error");
        say::complain(&format!("{label}: {}", page::line(error)));
    } else if typed.quiet && status.state != State::Fresh {
        say::complain(&in_a_line(status));
    } else if !typed.json && !typed.quiet {
        let out = io::stdout();
        let text = of(status, terminal::paint(&out), ink(&out));
        say::delivered("status", out.lock().write_all(text.as_bytes()));
    }
}

/// What is wrong, for those who want to hear of that alone.
fn in_a_line(status: &Status) -> String {
    let bad = status.sources.iter().filter(|source| source.state != State::Fresh);
    let bad = bad.map(|source| format!("{}: {}", name(source), verdict(source, status.max_age_seconds)));
    let doubted = status.unproven.iter().map(|it| format!("{}: {}", page::path(&it.path), page::line(&it.error)));
    let none = status.sources.is_empty().then(|| "no archive is proven".to_owned());
    let told: Vec<String> = none.into_iter().chain(bad).chain(doubted).collect();
    format!("warning: {}: {}", page::path(&status.directory), told.join("; "))
}

fn name(source: &SourceStatus) -> String {
    page::line(&source.sources.join(", "))
}

/// How it is, for people.
fn of(status: &Status, paint: Paint, ink: Ink) -> String {
    let word = status.state.as_str();
    let heading = match status.state {
        State::Fresh => paint.good(word),
        State::Lossy => paint.warn(word),
        _ => paint.bad(word),
    };
    let mut page = Page::headed(&format!("{heading}: {}", page::path(&status.directory)), paint);
    status.sources.iter().for_each(|source| of_source(&mut page, source, status.max_age_seconds, ink));
    if status.sources.is_empty() {
        page.row("newest", "no archive is proven");
    }
    for doubted in &status.unproven {
        page.row("warning", format!("{}: {}", page::path(&doubted.path), page::line(&doubted.error)));
    }
    page.finish()
}

fn of_source(page: &mut Page, source: &SourceStatus, max_age: Option<u64>, ink: Ink) {
    let newest = &source.newest;
    page.row("source", name(source));
    page.row("newest", page::path(&newest.path));
    page.row("made", format!("{}, {} ago", when::local_iso(&newest.created_at), when::age(newest.age_seconds)));
    page.row("verdict", verdict(source, max_age));
    let number = page::many(source.archives.len() as u64, "archive");
    page.row("size", format!("{}; {} in {number}", HumanBytes(newest.bytes), HumanBytes(total(&source.archives))));
    let sizes: Vec<u64> = source.archives.iter().map(|made| made.bytes).collect();
    page.row_if("sizes", trend(&sizes, ink, |bytes| HumanBytes(bytes).to_string()));
    let durations: Vec<u64> = source.archives.iter().filter_map(|made| made.elapsed_milliseconds).collect();
    page.row_if("durations", trend(&durations, ink, |milliseconds| when::span(milliseconds.saturating_mul(1_000))));
}

fn total(archives: &[Made]) -> u64 {
    archives.iter().map(|made| made.bytes).sum()
}

fn verdict(source: &SourceStatus, max_age: Option<u64>) -> String {
    let newest = &source.newest;
    let losses = match (newest.losses, newest.consistent.as_str()) {
        (0, "instant") => "complete, and of one instant".to_owned(),
        (0, _) => "complete, but not of one instant".to_owned(),
        (losses, _) => page::plural(losses, "loss", "losses"),
    };
    match max_age.filter(|_| source.state == State::Old) {
        Some(max) => {
            format!("too old: {}, and at most {} is wanted; {losses}", when::age(newest.age_seconds), when::age(max))
        }
        None => losses,
    }
}

/// Bars from the oldest to the newest, and between what they move; one archive is no trend.
fn trend(numbers: &[u64], ink: Ink, shown: impl Fn(u64) -> String) -> Option<String> {
    let (least, most) = (numbers.iter().min()?, numbers.iter().max()?);
    (numbers.len() > 1).then(|| format!("{}  {} to {}", chart(numbers, ink), shown(*least), shown(*most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PathName;

    #[test]
    fn what_is_wrong_is_told_in_a_line() {
        let newest = Made { age_seconds: 90_000, consistent: "instant".to_owned(), ..Made::default() };
        let source = SourceStatus {
            sources: vec!["/s".to_owned()],
            state: State::Old,
            newest: newest.clone(),
            archives: vec![newest],
        };
        let directory = PathName(b"/b".to_vec());
        let status = Status { directory, sources: vec![source], max_age_seconds: Some(3_600), ..Status::default() };
        let expected =
            "warning: /b: /s: too old: 1 d 1 h, and at most 1 h 0 min is wanted; complete, and of one instant";
        assert_eq!(in_a_line(&status), expected);
        let page = of(&status, Paint { colours: false }, Ink::Plain);
        assert!(page.contains("  size       0 B; 0 B in 1 archive\n") && !page.contains("sizes"), "{page}");
    }
}
