//! A command of the user's, run for as long as what it needs is there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::gate::{Gate, Realm, Step, Verb};
use crate::report::{PathName, Ran, milliseconds_since};
use crate::sys::{Dir, Process};

/// How long signals are still meant for a command that has failed.
const LATE: Duration = Duration::from_millis(100);

/// The signal that asks a process to end.
const TERM: i32 = 15;

/// A command, and how it is run.
#[derive(Debug, Default)]
pub struct Errand {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// A program, with arguments, that is told the words and becomes the command; none where it can be started as it is.
    pub launcher: Vec<OsString>,
    /// Where its standard output goes, if not to ours.
    pub output: Option<OwnedFd>,
    /// Who may send it signals.
    pub ward: Ward,
}

/// The way to a command that runs, for those who are told to end meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Ward(Arc<Mutex<Option<Process>>>);

impl Ward {
    /// Whether a command runs, which is to end now instead of us. It is sent `signal`, unless the terminal has done that.
    pub fn take(&self, signal: i32, is_from_terminal: bool) -> bool {
        let running = self.running();
        if let Some(process) = running.as_ref().filter(|_| !is_from_terminal) {
            // It may have ended just now.
            let _sent: io::Result<()> = process.send(signal);
        }
        running.is_some()
    }

    /// From now on, what is sent to us is meant for this child.
    pub(crate) fn hold(&self, child: &Child) {
        *self.running() = Process::of(child).ok();
    }

    fn running(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Errand {
    /// Runs the command to its end: in `directory`, if one is given, and with `variables`.
    ///
    /// # Errors
    /// It cannot be started; the cancellation of the run before it was.
    pub(crate) fn run(
        self,
        directory: Option<&Dir>,
        variables: &[(&str, &Path)],
        gate: &Arc<dyn Gate>,
    ) -> io::Result<Ran> {
        let name = self.words.first().map(|word| word.as_encoded_bytes()).unwrap_or_default();
        let pass = |verb| gate.pass(&Step { verb, realm: Realm::Staging, dir: b"", name });
        pass(Verb::Spawn)?;
        let begun = Instant::now();
        let mut command = self.command()?;
        command.envs(variables.iter().copied());
        if let Some(directory) = directory {
            // By descriptor: its name may be bound to another directory by now.
            command.current_dir(directory.way_in());
        }
        if let Some(output) = self.output {
            command.stdout(Stdio::from(output));
        }
        let mut child = command.spawn()?;
        self.ward.hold(&child);
        // Who cancelled the run just before the command could be sent anything meant the command.
        if pass(Verb::Ask).is_err() {
            self.ward.take(TERM, false);
        }
        let status = child.wait();
        if !status.as_ref().is_ok_and(ExitStatus::success) {
            // Who sent it a signal at a terminal sent us one too, and we may get to know of it only now.
            std::thread::sleep(LATE);
        }
        *self.ward.running() = None;
        let status = status?;
        Ok(Ran {
            command: self.words.iter().map(|word| PathName(word.as_encoded_bytes().to_vec())).collect(),
            exit_code: status.code(),
            signal: status.signal(),
            elapsed_milliseconds: milliseconds_since(begun),
            ..Ran::default()
        })
    }

    fn command(&self) -> io::Result<Command> {
        let mut words = self.launcher.iter().chain(&self.words).map(OsString::as_os_str);
        let program: &OsStr = words.next().ok_or_else(|| io::Error::other("no command is given"))?;
        let mut command = Command::new(program);
        command.args(words);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CancelFlag;

    fn errand(words: &[&str]) -> Errand {
        Errand { words: words.iter().map(OsString::from).collect(), ..Errand::default() }
    }

    fn open() -> Arc<dyn Gate> {
        Arc::new(CancelFlag::new())
    }

    #[test]
    fn a_command_runs_where_it_shall_and_its_end_is_told() {
        let top = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(top.path(), Realm::Staging, open()).expect("opens");
        let moved = top.path().with_extension("moved");
        std::fs::rename(top.path(), &moved).expect("renames");
        let script = r#"test "$(pwd -P)" = "$WHERE" && exit 7"#;
        let ran = errand(&["sh", "-c", script]).run(Some(&dir), &[("WHERE", &moved)], &open()).expect("runs");
        std::fs::rename(&moved, top.path()).expect("renames");
        assert_eq!((ran.exit_code, ran.signal, ran.code()), (Some(7), None, 7));
    }

    #[test]
    fn a_command_that_is_sent_a_signal_dies_of_it_and_nobody_else_does() {
        let errand = errand(&["sleep", "100"]);
        let ward = errand.ward.clone();
        assert!(!ward.take(TERM, false), "nothing runs");
        let sender = std::thread::spawn(move || {
            while !ward.take(TERM, false) {
                std::thread::yield_now();
            }
        });
        let ran = errand.run(None, &[], &open()).expect("runs");
        sender.join().expect("sends");
        assert_eq!((ran.exit_code, ran.signal, ran.code()), (None, Some(TERM), 143));
    }

    #[test]
    fn a_run_that_was_cancelled_starts_no_command() {
        let flag = CancelFlag::new();
        flag.cancel();
        let gate: Arc<dyn Gate> = Arc::new(flag);
        assert!(crate::gate::is_cancelled(&errand(&["true"]).run(None, &[], &gate).expect_err("starts nothing")));
        assert!(errand(&[]).run(None, &[], &open()).is_err());
    }
}
