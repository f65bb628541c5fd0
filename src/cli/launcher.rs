//! `clawsnap` as the process that becomes a command of the user's.
//!
//! A run holds the signals that end it back, and a child has that from its parent, even when it becomes another program.
//! So what becomes the command is this program once more, which lets them through first. It also has as many descriptors as
//! we were given: a run raises that limit for itself, and whoever closes all up to it, or waits for them by `select(2)`, has
//! not reckoned with a million.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{AccessFlags, access};

use super::early::Early;
use super::{args, say, signals};
use crate::command::Errand;
use crate::report::{PathName, Ran};
use crate::sys;

/// The hidden subcommand.
pub(super) const NAME: &str = "__launch";

/// As shells say it.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// What launches a command: this very program, even if another one has its path by now, as after an upgrade. With
/// `bound`, the command is asked to end if we are gone. A file for refusals follows, then the command.
pub(super) fn words(bound: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["/proc/self/exe".into(), NAME.into()];
    if bound {
        words.extend(["--with".into(), std::process::id().to_string().into()]);
    }
    if let Some(limit) = sys::given_descriptor_limit() {
        words.extend(["--descriptors".into(), limit.to_string().into()]);
    }
    words.push("--".into());
    words
}

/// A command of the user's.
///
/// # Errors
/// The end of the run, where there is no such program, or nobody could know how it ends: to find that out when all the work
/// is done is late.
pub(super) fn errand(words: &[OsString], bound: bool, json: bool) -> Result<Errand, Early> {
    if signals::is_ignored(Signal::SIGCHLD) {
        return Err(Early::failed(
            "SIGCHLD is ignored here, so that nobody could know how the command ends: nothing was done; start clawsnap by \
             `env --default-signal=CHLD`"
                .to_owned(),
        ));
    }
    let program = words.first().map(OsString::as_os_str).unwrap_or_default();
    if !is_there(program, std::env::var_os("PATH").as_deref()) {
        let told = format!("there is no command {}: nothing was done", program.to_string_lossy());
        return Err(Early::without_command(told, not_found(words)));
    }
    // Standard output is for the report.
    let output = if json { io::stderr().as_fd().try_clone_to_owned().ok() } else { None::<OwnedFd> };
    Ok(Errand { words: words.to_vec(), launcher: self::words(bound), output, ..Errand::default() })
}

fn not_found(words: &[OsString]) -> Ran {
    let command = words.iter().map(|word| PathName(word.as_encoded_bytes().to_vec())).collect();
    Ran { command, exit_code: Some(NOT_FOUND.into()), error: Some("it is not found".to_owned()), ..Ran::default() }
}

/// Whether a program can be found. One with a relative path is not looked for: it is not known where from.
fn is_there(program: &OsStr, path: Option<&OsStr>) -> bool {
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let program = Path::new(program);
    match program.components().count() {
        _ if program.is_absolute() => runs(program),
        1 if !program.as_os_str().is_empty() => {
            path.is_none_or(|path| std::env::split_paths(path).any(|directory| runs(&directory.join(program))))
        }
        components => components > 1,
    }
}

/// Becomes the command.
pub(super) fn launch(typed: &args::Launch) -> ExitCode {
    if let Some(parent) = typed.with {
        // Where the kernel does not do that, the command goes on alone.
        let _asked: io::Result<()> = sys::end_with_parent();
        if parent_id() != parent {
            return ExitCode::from(NOT_RUN);
        }
    }
    let _as_usual = SigSet::all().thread_unblock();
    // Nobody has lowered the hard limit meanwhile.
    let _given: Option<io::Result<()>> = typed.descriptors.map(sys::set_descriptor_limit);
    let [refusals, program, arguments @ ..] = &typed.words[..] else { return ExitCode::from(NOT_FOUND) };
    let error = Command::new(program).args(arguments).exec();
    let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    // Who waits is told by the exit code, too.
    let _told = refuse(Path::new(refusals), &error);
    say::failed(&format!("cannot run {}: {error}", program.to_string_lossy()), code)
}

/// Tells who waits that there is no command, which its exit code alone does not tell from one that failed.
fn refuse(refusals: &Path, error: &io::Error) -> io::Result<()> {
    File::options().write(true).open(refusals)?.write_all(error.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_where_a_shell_would_look() {
        let path = |text: &'static str| Some(OsStr::new(text));
        for (program, path, expected) in [
            ("sh", path("/nowhere:/bin"), true),
            ("sh", path("/nowhere"), false),
            ("sh", None, true),
            ("/bin/sh", path(""), true),
            ("/bin", path("/"), false),
            ("bin", path("/"), false),
            ("./unknown", path("/bin"), true),
            ("", path("/bin"), false),
        ] {
            assert_eq!(is_there(OsStr::new(program), path), expected, "{program}");
        }
    }
}
