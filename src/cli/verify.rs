//! `clawsnap verify`, from what was typed to how the process ends.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde::Serialize;

use super::attend::Lookout;
use super::bars::Bars;
use super::page::{self, Page};
use super::signals::Signals;
use super::{args, helper, say, terminal, when};
use crate::command::Ward;
use crate::freeze::DatabaseOptions;
use crate::gate::CancelFlag;
use crate::verify::{Origin, Trust, Verdict, VerifyOptions};

/// All verdicts, as JSON.
#[derive(Serialize)]
struct Verdicts<'a> {
    archives: &'a [Verdict],
}

/// `clawsnap verify`.
pub(super) fn verify(typed: &args::Verify) -> ExitCode {
    let lookout = Lookout::new();
    let signals = match watch(&lookout.cancel) {
        Ok(signals) => signals,
        Err(error) => return say::failed(&format!("{error:#}"), 1),
    };
    let mut verdicts = Vec::new();
    for archive in &typed.archives {
        if lookout.cancel.is_cancelled() {
            break;
        }
        let verdict = judged(archive, typed, &lookout);
        if !typed.json {
            tell(&verdict, typed.quiet);
        }
        verdicts.push(verdict);
    }
    if typed.json {
        say::json("verdict", &Verdicts { archives: &verdicts });
    }
    if let Some(signal) = signals.first() {
        Signals::die_by(signal);
    }
    ExitCode::from(exit_code(&verdicts))
}

/// The verdict on an archive; where a filesystem hangs, it cannot be read.
fn judged(archive: &Path, typed: &args::Verify, lookout: &Lookout) -> Verdict {
    let bars = Bars::of_reading(typed.quiet, ["verifying"; 2]);
    let (path, options) = (archive.to_owned(), options(typed));
    let (verdict, hang) = lookout
        .shown(typed.waiting.patience, bars, move |gate, bars| crate::verify::verify(&path, &options, gate, bars));
    match verdict {
        Some(verdict) if hang.is_none() || verdict.trust != Trust::Cancelled => verdict,
        _ => Verdict { archive_path: archive.into(), error: hang, ..Verdict::default() },
    }
}

/// Has the first signal cancel.
///
/// # Errors
/// Those of the kernel.
pub(super) fn watch(cancel: &CancelFlag) -> color_eyre::eyre::Result<Signals> {
    let signals = Signals::hold()?;
    let cancel = cancel.clone();
    signals.watch(Ward::default(), move || cancel.cancel())?;
    Ok(signals)
}

fn options(typed: &args::Verify) -> VerifyOptions {
    let databases =
        DatabaseOptions { helper: helper::command(), check: typed.sqlite_check, ..DatabaseOptions::default() };
    VerifyOptions { databases, any_ratio: typed.any_ratio }
}

/// The worst of them: an archive that is not proven outweighs one that cannot be read.
fn exit_code(verdicts: &[Verdict]) -> u8 {
    verdicts.iter().map(Verdict::exit_code).max().unwrap_or(1)
}

fn tell(verdict: &Verdict, quiet: bool) {
    match verdict.trust {
        Trust::Proven if quiet => {}
        Trust::Proven => {
            say::page("verdict", |paint| of(verdict, paint));
        }
        _ => {
            let label = terminal::paint(&io::stderr()).bad("error");
            let (path, error) = (page::path(&verdict.archive_path), verdict.error.as_deref().unwrap_or("failed"));
            say::complain(&format!("{label}: {path}: {}", page::line(error)));
        }
    }
}

/// The verdict on an archive that is proven.
fn of(verdict: &Verdict, paint: terminal::Paint) -> String {
    let heading = match verdict.origin {
        Some(Origin::Openclaw) => paint.warn("well-formed, but without an inventory"),
        _ => paint.good("proven: complete, and equal to its inventory"),
    };
    let mut page = Page::headed(&heading, paint);
    page.row("archive", page::path(&verdict.archive_path));
    page.row_if("made", verdict.created_at.as_deref().map(page::line));
    page.row("contents", contents(verdict));
    match verdict.instant.as_deref().and_then(when::local) {
        Some(instant) => page.row("instant", instant),
        None => page.row_if("window", verdict.consistent.as_ref().map(|_| "it is not of one instant".to_owned())),
    }
    page.row_if("databases", (verdict.databases > 0).then(|| format!("{} sound", page::count(verdict.databases))));
    page.row_if("losses", losses(verdict));
    verdict.warnings.iter().for_each(|warning| page.row("warning", page::line(warning)));
    page.finish()
}

fn contents(verdict: &Verdict) -> String {
    let entries = page::plural(verdict.entries, "entry", "entries");
    let bytes = if verdict.bytes > 0 { format!(", {}", HumanBytes(verdict.bytes)) } else { String::new() };
    format!("{entries}{bytes}; {} in the archive", HumanBytes(verdict.archive_bytes))
}

/// What was lost when it was made: it is no fault of the archive.
fn losses(verdict: &Verdict) -> Option<String> {
    let (losses, flagged) = (page::plural(verdict.losses, "loss", "losses"), page::count(verdict.flagged));
    (verdict.losses > 0).then(|| format!("{losses} when it was made, of which {flagged} are in it and flagged"))
}
