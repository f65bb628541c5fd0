//! The ways in which every command speaks: objects on standard output, complaints on standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::{page, terminal};

/// One object on standard output. `what` it is, is said where it cannot be written.
pub(super) fn json(what: &str, object: &impl Serialize) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, object).map_err(io::Error::from);
    delivered(what, written.and_then(|()| writeln!(out)).and_then(|()| out.flush()));
}

/// A page on standard output, in colours where that shows them.
pub(super) fn page(what: &str, text: impl FnOnce(terminal::Paint) -> String) {
    let out = io::stdout();
    delivered(what, out.lock().write_all(text(terminal::paint(&out)).as_bytes()));
}

/// What nobody reads does not change what was done: the exit code stays.
pub(super) fn delivered(what: &str, written: io::Result<()>) {
    if let Err(error) = written {
        complain(&format!("warning: the {what} could not be written: {error}"));
    }
}

/// Says what should be known, where there is no page to tell it.
pub(super) fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| complain(&format!("warning: {}", page::line(warning))));
}

/// A line on standard error. If that is closed, nobody is left to be told.
pub(super) fn complain(line: &str) {
    let _told = writeln!(io::stderr(), "{line}");
}

/// Says why a command failed, and gives its exit code.
pub(super) fn failed(words: &str, code: u8) -> ExitCode {
    let label = terminal::paint(&io::stderr()).bad("error");
    complain(&format!("{label}: {}", page::line(words)));
    ExitCode::from(code)
}
