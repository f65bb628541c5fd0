//! `clawsnap list`, from what was typed to how the process ends.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::HumanBytes;
use serde::Serialize;

use super::attend::Lookout;
use super::signals::Signals;
use super::{args, page, say, sessions, verify, when};
use crate::error::Error;
use crate::gate::Gate;
use crate::list::{Listed, ToldLoss, Wanted};
use crate::report::PathName;

/// A listing, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    archive_path: PathName,
    entries: Vec<Listed>,
    losses: Vec<ToldLoss>,
    /// Whether the archive was proven by the end of it.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `clawsnap list`.
pub(super) fn list(typed: &args::List) -> ExitCode {
    let (signals, wanted, lookout) = match prepared(&typed.patterns) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let asked = typed.clone();
    let (code, hang) = lookout.over(typed.waiting.patience, move |gate| match (asked.sessions, asked.json) {
        (true, _) => sessions::show(&asked, &wanted, gate),
        (false, true) => as_json(&asked, &wanted, gate),
        (false, false) => as_text(&asked, &wanted, gate),
    });
    let hung = hang.map(|words| say::failed(&words, 1));
    let code = hung.or(code).unwrap_or(ExitCode::FAILURE);
    if let Some(signal) = signals.first() {
        Signals::die_by(signal);
    }
    code
}

/// What a command needs that picks names out of an archive; or how it ends, where that cannot be had.
pub(super) fn prepared(patterns: &[String]) -> Result<(Signals, Wanted, Lookout), ExitCode> {
    let lookout = Lookout::new();
    let signals = verify::watch(&lookout.cancel).map_err(|error| say::failed(&format!("{error:#}"), 1))?;
    let wanted = Wanted::parse(patterns).map_err(|error| say::failed(&error.to_string(), 2))?;
    Ok((signals, wanted, lookout))
}

fn as_text(typed: &args::List, wanted: &Wanted, gate: &Arc<dyn Gate>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = crate::list::list(&typed.archive, wanted, gate, &(), &mut |listed| {
        if typed.losses { Ok(()) } else { out.write_all(row(&listed).as_bytes()) }
    });
    let outcome = outcome.and_then(|losses| {
        let told = losses.iter().filter(|loss| typed.losses && wanted.fits(loss.path.as_bytes()));
        let text: String = told.map(loss).collect();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| Error::failed("write", "the list", error))
    });
    let _told_so_far = out.flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say::failed(&error.to_string(), code_of(&error)),
    }
}

fn as_json(typed: &args::List, wanted: &Wanted, gate: &Arc<dyn Gate>) -> ExitCode {
    let mut entries = Vec::new();
    let outcome = crate::list::list(&typed.archive, wanted, gate, &(), &mut |listed| {
        if !typed.losses {
            entries.push(listed);
        }
        Ok(())
    });
    let (losses, error) = match outcome {
        Ok(losses) => (losses, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let code = error.as_ref().map_or(0, code_of);
    let (verified, error) = (error.is_none(), error.map(|error| error.to_string()));
    say::json("verdict", &Listing { archive_path: typed.archive.as_path().into(), entries, losses, verified, error });
    ExitCode::from(code)
}

/// An archive that is not proven says so by the code of `verify`.
pub(super) fn code_of(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => 2,
        Error::Unproven(_) => 4,
        Error::Failed { .. } | Error::Locked(_) | Error::Cancelled => 1,
    }
}

/// One name, much as `ls -l` shows it.
fn row(listed: &Listed) -> String {
    let time = when::local(&listed.mtime).unwrap_or_else(|| listed.mtime.clone());
    let time = time.get(..19).unwrap_or(&time);
    let size = HumanBytes(listed.size).to_string();
    let link = listed.link.as_ref().map(|link| format!(" -> {}", page::path(link))).unwrap_or_default();
    let fate = match (listed.fate.as_str(), listed.kind.as_str(), &listed.reason) {
        (_, "tail", _) => "  (half-written, set aside)".to_owned(),
        ("kept", _, _) => String::new(),
        (fate, _, Some(reason)) => format!("  ({fate}: {})", page::line(reason)),
        (fate, _, None) => format!("  ({fate})"),
    };
    format!("{} {size:>11} {time} {}{link}{fate}\n", permissions(listed), page::path(&listed.path))
}

fn loss(loss: &ToldLoss) -> String {
    format!("{} ({}: {})\n", page::line(&loss.path), page::line(&loss.fate), page::line(&loss.reason))
}

/// `drwxr-s--t`, as `ls` has it.
fn permissions(listed: &Listed) -> String {
    let kind = match listed.kind.as_str() {
        "directory" => 'd',
        "symlink" => 'l',
        "hardlink" => 'h',
        _ => '-',
    };
    let bit = |mask: u32, letter: char| if listed.mode & mask != 0 { letter } else { '-' };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(bit(0o4 << shift, 'r'));
        text.push(bit(0o2 << shift, 'w'));
        let runs = bit(0o1 << shift, 'x');
        text.push(match (listed.mode & special != 0, runs) {
            (false, runs) => runs,
            (true, 'x') => letter,
            (true, _) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(kind: &str, mode: u32, fate: &str) -> Listed {
        Listed {
            path: PathName(b"/s/a\nb".to_vec()),
            kind: kind.to_owned(),
            size: 1536,
            mode,
            uid: 0,
            gid: 0,
            mtime: "1700000000.000000000".to_owned(),
            link: None,
            fate: fate.to_owned(),
            reason: (fate == "torn").then(|| "short".to_owned()),
        }
    }

    #[test]
    fn a_name_is_shown_as_ls_would_and_cannot_speak_to_the_terminal() {
        let text = row(&listed("file", 0o640, "torn"));
        assert!(text.starts_with("-rw-r-----    1.50 KiB 2023-11-1"), "{text}");
        assert!(text.ends_with(" /s/a\\nb  (torn: short)\n"), "{text}");
        assert!(row(&listed("file", 0o640, "kept")).ends_with("/s/a\\nb\n"));
    }

    #[test]
    fn permissions_are_spelled_as_ls_spells_them() {
        for (kind, mode, text) in [
            ("directory", 0o755, "drwxr-xr-x"),
            ("file", 0o4755, "-rwsr-xr-x"),
            ("file", 0o2644, "-rw-r-Sr--"),
            ("directory", 0o1777, "drwxrwxrwt"),
            ("symlink", 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(permissions(&listed(kind, mode, "kept")), text);
        }
    }
}
