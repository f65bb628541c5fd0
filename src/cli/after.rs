//! What is done when a backup is over: a line in a log, and a command.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::HumanBytes;

use super::args::Unattended;
use super::{launcher, page, place, say};
use crate::plan::Environment;
use crate::report::{Outcome, Ran, Report};

/// What shall be done.
#[derive(Default)]
pub(super) struct After {
    log: Option<(PathBuf, File)>,
    on_success: Option<String>,
    on_failure: Option<String>,
}

impl After {
    /// Opens the log at once: it is no use to find out at the end that nothing can be written there.
    ///
    /// # Errors
    /// In a sentence: a log that cannot be opened.
    pub(super) fn prepare(typed: &Unattended) -> Result<Self, String> {
        let home = Environment::of_process().home;
        let open = |path: &Path| {
            let path = place::with_home(path, home.as_deref());
            match File::options().append(true).create(true).mode(0o600).open(&path) {
                Ok(file) => Ok((path, file)),
                Err(error) => Err(format!("cannot write to the log {}: {error}", path.display())),
            }
        };
        Ok(Self { log: typed.log.as_deref().map(open).transpose()?, ..Self::without_log(typed) })
    }

    /// The commands alone.
    pub(super) fn without_log(typed: &Unattended) -> Self {
        let Unattended { on_success, on_failure, .. } = typed.clone();
        Self { log: None, on_success, on_failure }
    }

    /// Does it. What goes wrong is told, and changes nothing of what was done.
    pub(super) fn run(self, report: &Report) {
        if let Some((path, mut file)) = self.log
            && let Err(error) = file.write_all(lines(report, &now()).as_bytes())
        {
            say::complain(&format!("warning: cannot write to the log {}: {error}", path.display()));
        }
        let (name, command) = match report.exit_code() {
            0 => ("--on-success", self.on_success),
            _ => ("--on-failure", self.on_failure),
        };
        if let Some(Err(words)) = command.map(|command| tell(&command, report)) {
            say::complain(&format!("warning: the {name} command {words}"));
        }
    }
}

/// Has a shell run `command`, with the report on its standard input. What it prints goes to standard error: the standard
/// output may be a report already, or an archive.
fn tell(command: &str, report: &Report) -> Result<(), String> {
    let words = launcher::words(false);
    let mut shell = Command::new(&words[0]);
    shell.args(&words[1..]).args(["/dev/null", "sh", "-c", command]);
    let child = shell.stdin(Stdio::piped()).stdout(io::stderr()).spawn();
    let mut child = child.map_err(|error| format!("cannot be run: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        // Who does not read it need not.
        let _read = serde_json::to_writer(io::BufWriter::new(&mut input), report);
    }
    let status = child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// The run in one line, and one for each thing that somebody should look at, all with the time.
fn lines(report: &Report, time: &str) -> String {
    let outcome = outcome(report.outcome);
    let archive = report.archive_path.as_ref().map(|path| format!(" {}", page::path(path))).unwrap_or_default();
    let seconds = report.elapsed_milliseconds.unwrap_or(0) as f64 / 1000.0;
    let (files, bytes) = (page::many(report.counts.files, "file"), HumanBytes(report.counts.bytes));
    let first = match &report.error {
        Some(error) => format!("{outcome}: {}", page::line(error)),
        None => format!("{outcome}{archive}: {files}, {bytes} in {seconds:.1} s{}", command(report)),
    };
    let warnings = report.warnings.iter().map(|warning| format!("warning: {}", page::line(warning)));
    let losses = report.losses.iter().map(|loss| format!("loss: {}", page::fated(loss)));
    std::iter::once(first).chain(warnings).chain(losses).map(|line| format!("{time} {line}\n")).collect()
}

/// How the command of the run failed, if it did.
fn command(report: &Report) -> String {
    match report.ran.as_ref().map_or(0, Ran::code) {
        0 => String::new(),
        code => format!("; the command failed with {code}"),
    }
}

fn outcome(outcome: Outcome) -> String {
    let word = serde_json::to_value(outcome).ok();
    word.as_ref().and_then(serde_json::Value::as_str).unwrap_or("ended").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Counts, Fated, PathName};

    #[test]
    fn a_log_has_a_line_for_the_run_and_one_for_each_thing_to_look_at() {
        let report = Report {
            outcome: Outcome::Lossy,
            archive_path: Some(PathName(b"/b/x.tar".to_vec())),
            counts: Counts { files: 1, bytes: 2048, ..Counts::default() },
            elapsed_milliseconds: Some(1_234),
            warnings: vec!["Beware\nof this.".to_owned()],
            losses: vec![Fated { path: PathName(b"/s/y".to_vec()), fate: "torn", reason: None }],
            ..Report::default()
        };
        assert_eq!(
            lines(&report, "T"),
            "T lossy /b/x.tar: 1 file, 2.00 KiB in 1.2 s\nT warning: Beware\\nof this.\nT loss: /s/y (torn)\n"
        );
        let ran = Some(Ran { exit_code: Some(7), ..Ran::default() });
        let first = lines(&Report { ran, outcome: Outcome::Complete, ..Report::default() }, "T");
        assert_eq!(first, "T complete: 0 files, 0 B in 0.0 s; the command failed with 7\n");
        let failed = Report { error: Some("no\nroom".to_owned()), ..Report::default() };
        assert_eq!(lines(&failed, "T"), "T failed: no\\nroom\n");
    }
}
