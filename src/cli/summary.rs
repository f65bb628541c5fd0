//! The report on a backup, for people.

use std::collections::BTreeMap;

use indicatif::HumanBytes;

use super::page::{self, Page, count, many, plural};
use super::terminal::Paint;
use super::{prune, when};
use crate::report::{Consistency, CopiedDatabase, Counts, Fated, Judged, Outcome, Report};

/// Losses that are named.
const MOST_LOSSES: usize = 20;

/// Names of any other sort that are named.
const MOST_NAMES: usize = 5;

const IN_THE_ARCHIVE: &str = "; see report.json in the archive for all";

/// The report on an archive that was made.
pub(super) fn of(report: &Report, paint: Paint) -> String {
    let mut page = Page::headed(&heading(report, paint), paint);
    page.row_if("archive", archive(report));
    page.row_if("", proof(report));
    sources(&mut page, report);
    contents(&mut page, report);
    frozen(&mut page, report, IN_THE_ARCHIVE);
    left_out(&mut page, report);
    refused(&mut page, report);
    pruned(&mut page, report);
    warnings(&mut page, report);
    losses(&mut page, report, IN_THE_ARCHIVE);
    page.finish()
}

/// The report in one line, for those who want to hear of losses alone.
pub(super) fn of_losses(report: &Report) -> Option<String> {
    let first = report.losses.first()?;
    let all = report.counts.losses();
    let rest = if all > 1 { format!(", and {} more{IN_THE_ARCHIVE}", count(all - 1)) } else { String::new() };
    Some(format!("warning: {}: {}{rest}", plural(all, "loss", "losses"), page::fated(first)))
}

fn heading(report: &Report, paint: Paint) -> String {
    match (report.outcome, report.consistent) {
        (Outcome::Unchanged, _) => paint.good("unchanged: nothing was written"),
        (Outcome::Complete, Some(Consistency::Window)) => paint.warn("complete, but not of one instant"),
        (Outcome::Complete, _) => paint.good("complete, and of one instant"),
        _ => paint.bad(&format!("made, with {}", plural(report.counts.losses(), "loss", "losses"))),
    }
}

fn archive(report: &Report) -> Option<String> {
    let place = report.archive_path.as_ref()?;
    Some(if place.0 == b"-" { "written to standard output".to_owned() } else { page::path(place) })
}

fn proof(report: &Report) -> Option<String> {
    if report.outcome == Outcome::Unchanged {
        return Some("made earlier, of the same".to_owned());
    }
    let text = if report.verified { "read back from disk and equal to its inventory" } else { "NOT read back" };
    Some(text.to_owned())
}

/// Where it all comes from.
pub(super) fn sources(page: &mut Page, report: &Report) {
    let assets = report.assets.iter().map(|asset| format!("{} ({})", page::path(&asset.display_path), asset.kind));
    page.list("source", assets, MOST_NAMES, "");
}

fn contents(page: &mut Page, report: &Report) {
    page.row("contents", amount(&report.counts));
    let Some(packed) = report.archive_bytes else { return };
    let ratio = report.counts.bytes as f64 / packed.max(1) as f64;
    let codec = report.compression.as_deref().unwrap_or_default();
    page.row("", format!("{} in the archive, {ratio:.1} to 1 ({codec})", HumanBytes(packed)));
}

/// Files, directories and bytes.
pub(super) fn amount(counts: &Counts) -> String {
    let (files, directories) = (many(counts.files, "file"), plural(counts.directories, "directory", "directories"));
    format!("{files}, {directories}, {}", HumanBytes(counts.bytes))
}

/// What the freeze was, and what moved meanwhile; all names are to be looked up `elsewhere`.
pub(super) fn frozen(page: &mut Page, report: &Report, elsewhere: &str) {
    consistency(page, report, elsewhere);
    page.row("freeze", freeze(report));
    page.row_if("databases", databases(&report.databases));
    page.row_if("moved", moved(&report.counts));
    page.row_if("vanished", vanished(report));
}

fn consistency(page: &mut Page, report: &Report, elsewhere: &str) {
    let width = when::span(report.freeze_microseconds);
    match report.instant.as_deref().and_then(when::local) {
        Some(instant) => page.row("instant", instant),
        None => page.row("window", format!("{width}: the tree would not rest, these moved to the last")),
    }
    let restless = report.restless.iter().map(|restless| format!("{} ({})", page::path(&restless.path), restless.why));
    page.list("", restless, MOST_NAMES, elsewhere);
}

fn freeze(report: &Report) -> String {
    let (files, width) = (many(report.counts.files, "file"), when::span(report.freeze_microseconds));
    let rounds = plural(report.rounds.into(), "round", "rounds");
    format!("froze {files} in {width}, {rounds}: {}", captures(report))
}

/// How many were captured how.
pub(super) fn captures(report: &Report) -> String {
    let word = |capture| match capture {
        "link" => "linked",
        "clone" => "cloned",
        "hold" => "held in memory",
        "pin" => "held open",
        "copy" => "copied",
        "database" => "copied by SQLite",
        other => other,
    };
    let mut all: Vec<_> = report.captures.iter().map(|(capture, number)| (*number, word(*capture))).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    let all: Vec<String> = all.into_iter().map(|(number, word)| format!("{} {word}", count(number))).collect();
    if all.is_empty() { "nothing to hold".to_owned() } else { all.join(", ") }
}

/// How the databases were copied, and for how long an owner was kept from committing at most.
fn databases(all: &[CopiedDatabase]) -> Option<String> {
    let ways = [
        ("snapshot", "from a snapshot"),
        ("locked", "under a lock"),
        ("closed", "that nobody had open"),
        ("recovered", "recovered after a crash of its owner"),
        ("raw", "as raw bytes"),
    ];
    let count_of = |way: &str| all.iter().filter(|database| database.way == way).count() as u64;
    let told = ways.into_iter().map(|(way, words)| (count_of(way), words)).filter(|(number, _)| *number > 0);
    let told: Vec<String> = told.map(|(number, words)| format!("{} {words}", count(number))).collect();
    let checked = all.iter().filter(|database| database.check == "ok").count() as u64;
    let waited = all.iter().map(|database| database.locked_microseconds).max().unwrap_or(0);
    let waited =
        if waited > 0 { format!("; an owner could not commit for {}", when::span(waited)) } else { String::new() };
    (!told.is_empty()).then(|| format!("{}; {} checked{waited}", told.join(", "), count(checked)))
}

fn moved(counts: &Counts) -> Option<String> {
    let told = [
        (counts.prefix, "grew after the freeze (archived as they were)"),
        (counts.later, "read again after the freeze (whole, but later)"),
        (counts.tails, "ended half-written (cut there; the rest is beside, under tails)"),
    ];
    let told: Vec<String> = told
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(number)))
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn vanished(report: &Report) -> Option<String> {
    let first = report.departed.first()?;
    let names = many(report.counts.departed, "name");
    Some(format!("{names} left while the freeze ran, e.g. {}", page::path(&first.path)))
}

/// Names that were left out, counted by the rule that did it.
pub(super) fn left_out(page: &mut Page, report: &Report) {
    let rules = by_rule(&report.excluded);
    let told = rules.into_iter().map(|(rule, number)| format!("{} by {}", many(number, "name"), page::line(rule)));
    page.list("left out", told, MOST_NAMES, " rules");
}

/// The rules that left something out, the greediest first.
fn by_rule(excluded: &[Fated]) -> Vec<(&str, u64)> {
    let mut rules: BTreeMap<&str, u64> = BTreeMap::new();
    for name in excluded {
        *rules.entry(name.reason.as_deref().unwrap_or("a rule")).or_default() += 1;
    }
    let mut rules: Vec<_> = rules.into_iter().collect();
    rules.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    rules
}

/// Names that OpenClaw's restore would not take.
pub(super) fn refused(page: &mut Page, report: &Report) {
    let names = report.refused_names.iter().map(|refused| page::line(&refused.why));
    page.list("names", names, MOST_NAMES, " names that OpenClaw's restore would not take as they are");
}

/// What became of older archives, or would: what went, the oldest first, and what stays, the newest first.
pub(super) fn pruned(page: &mut Page, report: &Report) {
    let Some(pruned) = &report.pruned else { return };
    let is_gone = |judged: &&Judged| if pruned.dry_run { judged.stays.is_empty() } else { judged.removed };
    let (gone, stay): (Vec<&Judged>, Vec<&Judged>) = pruned.archives.iter().partition(is_gone);
    let verb = if pruned.dry_run { "would go" } else { "removed" };
    page.row("pruned", format!("{} {verb}, {} of this source there", many(gone.len() as u64, "archive"), stay.len()));
    page.list("", gone.into_iter().map(prune::row), MOST_NAMES, page::IN_JSON);
    page.list("", stay.into_iter().rev().map(prune::row), MOST_LOSSES, page::IN_JSON);
}

/// What the library warns of.
pub(super) fn warnings(page: &mut Page, report: &Report) {
    report.warnings.iter().for_each(|warning| page.row("warning", page::line(warning)));
}

/// What counts against the run, by name.
pub(super) fn losses(page: &mut Page, report: &Report, elsewhere: &str) {
    page.list("losses", report.losses.iter().map(page::fated), MOST_LOSSES, elsewhere);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PathName;

    const PLAIN: Paint = Paint { colours: false };

    fn fated(path: &str, fate: &'static str, reason: &str) -> Fated {
        Fated { path: PathName(path.into()), fate, reason: Some(reason.to_owned()) }
    }

    fn report() -> Report {
        Report {
            outcome: Outcome::Complete,
            consistent: Some(Consistency::Instant),
            instant: Some("1700000000.123456789".to_owned()),
            archive_path: Some(PathName(b"/b/x.tar.zst".to_vec())),
            archive_bytes: Some(1024),
            compression: Some("zstd".to_owned()),
            verified: true,
            rounds: 1,
            freeze_microseconds: 83_000,
            counts: Counts { files: 10_000, directories: 12, bytes: 4096, ..Counts::default() },
            captures: [("link", 9_990), ("pin", 10)].into(),
            ..Report::default()
        }
    }

    #[test]
    fn a_good_run_is_told_in_a_few_lines() {
        let text = of(&report(), PLAIN);
        for line in [
            "complete, and of one instant\n",
            "  archive    /b/x.tar.zst\n             read back from disk and equal to its inventory\n",
            "  contents   10,000 files, 12 directories, 4.00 KiB\n             1.00 KiB in the archive, 4.0 to 1 (zstd)\n",
            "  freeze     froze 10,000 files in 83 ms, 1 round: 9,990 linked, 10 held open\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(text.contains("  instant    2023-11-1"), "{text}");
        assert_eq!(text.lines().count(), 7, "{text}");
    }

    #[test]
    fn the_first_twenty_losses_are_named_and_the_rest_counted() {
        let mut report = Report { outcome: Outcome::Lossy, ..report() };
        report.counts.torn = 23;
        report.losses = (0..23).map(|n| fated(&format!("/s/{n}"), "torn", "raw database")).collect();
        let text = of(&report, PLAIN);
        assert!(text.starts_with("made, with 23 losses\n"), "{text}");
        assert!(text.contains("/s/19 (torn: raw database)\n") && !text.contains("/s/20 "), "{text}");
        assert!(text.ends_with("and 3 more; see report.json in the archive for all\n"), "{text}");
        let line = of_losses(&report).expect("has losses");
        let expected =
            "warning: 23 losses: /s/0 (torn: raw database), and 22 more; see report.json in the archive for all";
        assert_eq!(line, expected);
        assert_eq!(of_losses(&self::report()), None);
    }

    #[test]
    fn a_window_names_what_would_not_rest() {
        let path = PathName(b"/s/agents".to_vec());
        let restless = vec![crate::report::RestlessPath { path, why: "names" }];
        let report = Report { consistent: Some(Consistency::Window), instant: None, restless, ..report() };
        let text = of(&report, PLAIN);
        assert!(text.starts_with("complete, but not of one instant\n"), "{text}");
        assert!(text.contains("window     83 ms: ") && text.contains("/s/agents (names)\n"), "{text}");
    }

    #[test]
    fn databases_are_told_by_the_way_that_they_were_copied() {
        let copied = |way, check: &str, locked_microseconds| CopiedDatabase {
            path: PathName(b"/s/x".to_vec()),
            way,
            journal: "wal".to_owned(),
            page_size: 4096,
            pages: 2,
            user_version: 0,
            check: check.to_owned(),
            locked_microseconds,
        };
        let databases = vec![
            copied("snapshot", "ok", 0),
            copied("snapshot", "ok", 0),
            copied("locked", "ok", 2_100),
            copied("raw", "off", 0),
        ];
        let text = of(&Report { databases, ..report() }, PLAIN);
        let row = "databases  2 from a snapshot, 1 under a lock, 1 as raw bytes; 3 checked; an owner could not commit for 2.1 ms\n";
        assert!(text.contains(row), "{text}");
        assert!(!of(&report(), PLAIN).contains("databases"));
    }

    #[test]
    fn what_is_no_loss_is_a_note() {
        let mut report = report();
        report.counts = Counts { departed: 3, prefix: 2, later: 1, excluded: 3, ..report.counts };
        report.departed = vec![fated("/s/gone.jsonl", "departed", "")];
        report.excluded =
            vec![fated("/a", "excluded", "tmp"), fated("/b", "excluded", "git"), fated("/c", "excluded", "git")];
        let text = of(&report, PLAIN);
        for line in [
            "vanished   3 names left while the freeze ran, e.g. /s/gone.jsonl\n",
            "moved      2 grew after the freeze (archived as they were), 1 read again after the freeze (whole, but later)\n",
            "left out   2 names by git\n             1 name by tmp\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
