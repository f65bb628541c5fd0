//! `clawsnap restore`, from what was typed to how the process ends.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::HumanBytes;

use super::attend::Lookout;
use super::bars::Bars;
use super::page::{self, IN_JSON, Page};
use super::signals::Signals;
use super::{args, list, place, say, terminal};
use crate::error::{Error, Result};
use crate::list::Wanted;
use crate::plan::Environment;
use crate::relpath::quoted;
use crate::report::PathName;
use crate::restore::{BroughtBack, Destination, Ending, InPlace, Mapping, Place, Remark, RestoreOptions, Restored};

/// Remarks of one sort that are shown.
const MOST_REMARKS: usize = 20;

/// `clawsnap restore`.
pub(super) fn restore(typed: &args::Restore) -> ExitCode {
    let (signals, wanted, lookout) = match list::prepared(&typed.patterns) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let (outcome, code) = match &typed.archive {
        Some(archive) => match options(typed, wanted) {
            Ok(options) => from_archive(archive, options, typed, (&signals, &lookout)),
            Err(error) => return say::failed(&error.to_string(), 2),
        },
        None => undo(typed, &lookout),
    };
    if let Some(signal) = signals.first().filter(|_| outcome == Ending::Cancelled) {
        Signals::die_by(signal);
    }
    ExitCode::from(code)
}

fn from_archive(
    archive: &Path,
    options: RestoreOptions,
    typed: &args::Restore,
    (signals, lookout): (&Signals, &Lookout),
) -> (Ending, u8) {
    let reading = if typed.in_place { ["verifying", "restoring"] } else { ["restoring"; 2] };
    let bars = Bars::of_reading(typed.quiet, reading);
    let asks = !typed.yes && !typed.json && io::stdin().is_terminal() && io::stderr().is_terminal();
    let (path, signals) = (archive.to_owned(), signals.clone());
    let (restored, hang) = lookout.shown(typed.waiting.patience, bars, move |gate, bars| {
        let consent = |flagged: &[Remark]| !asks || suspended(bars.as_ref(), || agrees(flagged, &signals));
        crate::restore::restore(&path, &options, gate, bars, &consent)
    });
    let restored = match restored {
        Some(restored) if hang.is_none() || restored.outcome != Ending::Cancelled => restored,
        other => Restored {
            archive_path: archive.into(),
            target: typed.target.as_deref().map(PathName::from),
            outcome: Ending::Failed,
            error: hang.map(|words| unfinished(&words, typed)),
            ..other.unwrap_or_default()
        },
    };
    if typed.json {
        say::json("verdict", &restored);
    }
    tell(&restored, typed);
    (restored.outcome, restored.exit_code())
}

/// Why a restore was given up, and what to do where it may have begun to exchange.
fn unfinished(words: &str, typed: &args::Restore) -> String {
    match &typed.target {
        Some(_) => words.to_owned(),
        None => format!("{words}; what it had begun is completed when the same command is run again"),
    }
}

fn undo(typed: &args::Restore, lookout: &Lookout) -> (Ending, u8) {
    let ways = InPlace { environment: Environment::of_process(), force: typed.force };
    let kept = typed.undo.clone();
    let (back, hang) = lookout.over(typed.waiting.patience, move |gate| crate::restore::bring_back(&kept, &ways, gate));
    let back = match back {
        Some(back) if hang.is_none() || back.outcome != Ending::Cancelled => back,
        other => BroughtBack {
            outcome: Ending::Failed,
            error: hang.map(|words| unfinished(&words, typed)),
            ..other.unwrap_or_default()
        },
    };
    if typed.json {
        say::json("verdict", &back);
    }
    let is_silent = typed.json || (typed.quiet && back.error.is_none());
    if !is_silent && !back.places.is_empty() {
        say::page("verdict", |paint| of_way_back(&back, paint));
    } else if !typed.json {
        say::warn(&back.warnings);
    }
    if let Some(error) = &back.error {
        say::failed(error, back.exit_code());
    }
    (back.outcome, back.exit_code())
}

/// What the typed words mean.
fn options(typed: &args::Restore, wanted: Wanted) -> Result<RestoreOptions> {
    let environment = Environment::of_process();
    let mapping = typed.map.iter().try_fold(Mapping::default(), |mapping, pair| {
        let (old, new) = pair_of(pair, environment.home.as_deref())?;
        mapping.and(&old, &new)
    })?;
    let destination = match &typed.target {
        Some(target) => Destination::Target(target.clone()),
        None => Destination::InPlace(InPlace { environment, force: typed.force }),
    };
    Ok(RestoreOptions { destination, wanted, mapping, tails: typed.tails, sync: !typed.no_sync })
}

/// `OLD=NEW`, each with the home directory for a `~`.
fn pair_of(pair: &OsString, home: Option<&Path>) -> Result<(PathBuf, PathBuf)> {
    let bytes = pair.as_bytes();
    let Some(at) = bytes.iter().position(|&c| c == b'=') else {
        return Err(Error::Usage(format!("--map {} is not of the form OLD=NEW", pair.display())));
    };
    let path = |bytes: &[u8]| place::with_home(Path::new(OsStr::from_bytes(bytes)), home);
    Ok((path(&bytes[..at]), path(&bytes[at + 1..])))
}

/// Without a line that redraws itself over what is asked.
fn suspended(bars: Option<&Bars>, ask: impl FnOnce() -> bool) -> bool {
    match bars {
        Some(bars) => bars.suspended(ask),
        None => ask(),
    }
}

/// Asks at the terminal whether to go on; no answer is a no.
fn agrees(flagged: &[Remark], signals: &Signals) -> bool {
    say::complain(&format!(
        "The archive says that {} not whole:",
        page::plural(flagged.len() as u64, "name is", "names are")
    ));
    flagged.iter().take(MOST_REMARKS).for_each(|remark| say::complain(&format!("  {}", said(remark))));
    if flagged.len() > MOST_REMARKS {
        say::complain(&format!("  and {} more", flagged.len() - MOST_REMARKS));
    }
    // Without a line's end, so that the answer stands beside it.
    let _asked = write!(io::stderr(), "Restore all the same? [y/N] ").and_then(|()| io::stderr().flush());
    let mut answer = String::new();
    if !answer_is_there(signals) {
        say::complain("");
        return false;
    }
    let answered = io::stdin().lock().read_line(&mut answer).is_ok();
    answered && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Waits for an answer; `false` if a signal came instead, which is held back and would not end the reading.
fn answer_is_there(signals: &Signals) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let stdin = io::stdin();
    loop {
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(100_u8)) {
            _ if signals.first().is_some() => return false,
            Ok(0) => {}
            other => return other.is_ok(),
        }
    }
}

fn tell(restored: &Restored, typed: &args::Restore) {
    match restored.outcome {
        Ending::Complete | Ending::Different if typed.json => {}
        Ending::Complete | Ending::Different if typed.quiet => {
            let remarks = restored.flagged.iter().chain(&restored.differences);
            remarks.for_each(|remark| say::complain(&format!("warning: {}", said(remark))));
            say::warn(&restored.warnings);
        }
        Ending::Complete | Ending::Different => {
            say::page("verdict", |paint| of(restored, paint));
        }
        _ => {
            if !typed.json {
                say::warn(&restored.warnings);
            }
            say::failed(restored.error.as_deref().unwrap_or("failed"), restored.exit_code());
        }
    }
}

fn of(restored: &Restored, paint: terminal::Paint) -> String {
    let heading = match restored.outcome {
        Ending::Complete => paint.good("restored, and proven"),
        _ => paint.warn("restored, and proven to be what was archived; but see below"),
    };
    let mut page = Page::headed(&heading, paint);
    page.row_if("target", restored.target.as_ref().map(page::path));
    page.list("place", restored.places.iter().map(moved), MOST_REMARKS, IN_JSON);
    page.row("archive", page::path(&restored.archive_path));
    let (files, directories) =
        (page::many(restored.files, "file"), page::plural(restored.directories, "directory", "directories"));
    page.row("contents", format!("{files}, {directories}, {}", HumanBytes(restored.bytes)));
    page.list("flagged", restored.flagged.iter().map(said), MOST_REMARKS, IN_JSON);
    page.list("different", restored.differences.iter().map(said), MOST_REMARKS, IN_JSON);
    page.row_if("owners", owners(restored));
    restored.warnings.iter().for_each(|warning| page.row("warning", page::line(warning)));
    let kept: Vec<PathName> = restored.places.iter().filter_map(|place| place.kept.clone()).collect();
    page.list("kept", kept.iter().map(page::path), MOST_REMARKS, IN_JSON);
    page.row_if("way back", way_back(&kept));
    page.finish()
}

fn of_way_back(back: &BroughtBack, paint: terminal::Paint) -> String {
    let heading = match &back.error {
        None => paint.good("brought back what was there before"),
        Some(_) => paint.warn("brought back in part: see the error"),
    };
    let mut page = Page::headed(&heading, paint);
    page.list("place", back.places.iter().map(|place| page::path(&place.restored_to)), MOST_REMARKS, IN_JSON);
    back.warnings.iter().for_each(|warning| page.row("warning", page::line(warning)));
    let kept: Vec<PathName> = back.places.iter().filter_map(|place| place.kept.clone()).collect();
    page.list("kept", kept.iter().map(page::path), MOST_REMARKS, IN_JSON);
    page.row_if("way back", way_back(&kept));
    page.finish()
}

/// The command that goes back.
fn way_back(kept: &[PathName]) -> Option<String> {
    let words: Vec<String> = kept.iter().map(|path| quoted(&path.0)).collect();
    (!words.is_empty()).then(|| format!("clawsnap restore --undo {}", words.join(" ")))
}

fn moved(place: &Place) -> String {
    let (from, to) = (page::path(&place.path), page::path(&place.restored_to));
    if from == to { to } else { format!("{to} (was {from})") }
}

fn owners(restored: &Restored) -> Option<String> {
    let names = page::many(restored.owners_not_kept, "name");
    (restored.owners_not_kept > 0).then(|| format!("{names} belonged to others, and cannot be given to them here"))
}

fn said(remark: &Remark) -> String {
    format!("{} ({})", page::path(&remark.path), page::line(&remark.what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_can_be_pasted_into_a_shell_whatever_the_names_are() {
        let names: [&[u8]; 4] = [b"/a/.b-1_2", b"/with space/it's", b"/two\nlines", b"/no\xfftext"];
        let script = format!("printf '%s|' {}", names.map(quoted).join(" "));
        let output = std::process::Command::new("bash").args(["-c", &script]).output().expect("runs");
        assert_eq!(output.stdout, [names.join(&b'|'), b"|".to_vec()].concat());
        assert_eq!(way_back(&[]), None);
    }

    #[test]
    fn a_mapping_is_two_paths_with_an_equals_sign_between() {
        let pair = |text: &str| pair_of(&text.into(), Some(Path::new("/h")));
        assert_eq!(pair("/a=~/b").expect("is one"), ("/a".into(), "/h/b".into()));
        assert!(pair("/a").is_err());
    }
}
