//! The report on a dry run, for people.

use indicatif::HumanBytes;

use super::page::{self, IN_JSON, Page};
use super::summary;
use super::terminal::Paint;
use crate::report::{Report, SurveyRow};

/// What a backup would hold, and what is in its way.
pub(super) fn of(report: &Report, paint: Paint) -> String {
    let mut page = Page::headed(&heading(report, paint), paint);
    page.row_if("archive", report.archive_path.as_ref().map(page::path));
    page.row_if("space", report.free_bytes.map(|free| format!("{} free there", HumanBytes(free))));
    summary::sources(&mut page, report);
    page.row("contents", summary::amount(&report.counts));
    page.row("freeze", summary::captures(report));
    page.list("kinds", report.survey.iter().map(kind), report.survey.len(), "");
    page.list("mounts", report.mounts.iter().map(page::path), report.mounts.len(), "");
    summary::left_out(&mut page, report);
    summary::refused(&mut page, report);
    summary::pruned(&mut page, report);
    summary::warnings(&mut page, report);
    summary::losses(&mut page, report, IN_JSON);
    page.finish()
}

/// Files of one kind that would be frozen in one way.
fn kind(row: &SurveyRow) -> String {
    format!("{} by {}: {}, {}", row.kind, row.capture, page::many(row.files, "file"), HumanBytes(row.bytes))
}

fn heading(report: &Report, paint: Paint) -> String {
    match report.counts.losses() {
        0 => paint.good("dry run: nothing was written, and nothing would be lost"),
        losses => {
            paint.warn(&format!("dry run: nothing was written; {} would be lost or torn", page::many(losses, "name")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Counts, PathName};

    #[test]
    fn a_dry_run_tells_what_would_be_and_that_nothing_was() {
        let report = Report {
            dry_run: true,
            counts: Counts { files: 2, directories: 1, bytes: 10, ..Counts::default() },
            captures: [("link", 2)].into(),
            free_bytes: Some(1 << 30),
            mounts: vec![PathName(b"/s".to_vec())],
            survey: vec![SurveyRow { kind: "jsonl", capture: "link", files: 2, bytes: 10 }],
            ..Report::default()
        };
        let text = of(&report, Paint { colours: false });
        assert!(text.starts_with("dry run: nothing was written"), "{text}");
        for part in [
            "space      1.00 GiB free there\n",
            "contents   2 files, 1 directory, 10 B\n",
            "freeze     2 linked\n",
            "mounts     /s\n",
            "kinds      jsonl by link: 2 files, 10 B\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
