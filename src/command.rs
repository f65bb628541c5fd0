//! A command of the user's, run for as long as what it needs is there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::gate::{Gate, Realm, Step, Verb, cancelled};
use crate::report::{PathName, Ran, milliseconds_since};
use crate::sys::{Dir, Letterbox, Process};

/// How long signals are still meant for a command that has failed.
const LATE: Duration = Duration::from_millis(100);

/// A command, and how it is run.
#[derive(Debug, Default)]
pub struct Errand {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// A program, with arguments, that becomes the command; none where that can be started as it is. It is told a file, in
    /// which it writes why if it cannot become it, and the words.
    pub launcher: Vec<OsString>,
    /// Where its standard output goes, if not to ours.
    pub output: Option<OwnedFd>,
    /// Who may send it signals.
    pub ward: Ward,
}

/// The way to a command that runs, for those who are told to end meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Ward(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    /// Who is told to end is told that it is them.
    #[default]
    Idle,
    /// Somebody was told to end before a command could start: none will.
    Closed,
    /// A command starts, and is sent these as soon as it can be.
    Starting(Vec<i32>),
    Running(Process),
}

impl Ward {
    /// Whether a command runs, which is to end now instead of us. It is sent `signal`, unless the terminal has done that.
    pub fn take(&self, signal: i32, is_from_terminal: bool) -> bool {
        let mut state = self.state();
        match &mut *state {
            State::Idle => *state = State::Closed,
            State::Closed => {}
            // The terminal reaches it only if it was there already, which nobody knows: better twice than never.
            State::Starting(missed) => missed.push(signal),
            State::Running(process) if !is_from_terminal => hand_over(process, signal),
            State::Running(_) => {}
        }
        matches!(*state, State::Starting(_) | State::Running(_))
    }

    /// From now on, what is sent to us is meant for the child that we start.
    ///
    /// # Errors
    /// We were told to end before: as a cancelled run unwinds.
    pub(crate) fn claim(&self) -> io::Result<()> {
        let mut state = self.state();
        if matches!(*state, State::Closed) {
            return Err(cancelled());
        }
        *state = State::Starting(Vec::new());
        Ok(())
    }

    /// This is the child. What came since the claim is sent to it.
    pub(crate) fn hold(&self, child: &Child) {
        let mut state = self.state();
        let running = Process::of(child).map_or(State::Idle, State::Running);
        if let (State::Starting(missed), State::Running(process)) = (mem::replace(&mut *state, running), &*state) {
            missed.into_iter().for_each(|signal| hand_over(process, signal));
        }
    }

    /// There is no child any more.
    fn release(&self) {
        *self.state() = State::Idle;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hand_over(process: &Process, signal: i32) {
    // It may have ended just now.
    let _sent: io::Result<()> = process.send(signal);
}

impl Errand {
    /// Runs the command to its end: in `directory`, if one is given, and with `variables`.
    ///
    /// One that was started and of which nobody knows how it ended has neither an exit code nor a signal.
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
        gate.pass(&Step { verb: Verb::Spawn, realm: Realm::Staging, dir: b"", name })?;
        let begun = Instant::now();
        let refusals = Letterbox::new()?;
        let mut command = self.command(&refusals)?;
        command.envs(variables.iter().copied());
        if let Some(directory) = directory {
            // By descriptor: its name may be bound to another directory by now.
            command.current_dir(directory.way_in());
        }
        if let Some(output) = self.output {
            command.stdout(Stdio::from(output));
        }
        self.ward.claim()?;
        let mut child = command.spawn().inspect_err(|_| self.ward.release())?;
        self.ward.hold(&child);
        // Where SIGCHLD is ignored, the kernel tells nobody. That is no command that could not be started.
        let status = child.wait().ok();
        if !status.as_ref().is_some_and(ExitStatus::success) {
            // Who sent it a signal at a terminal sent us one too, and we may get to know of it only now.
            std::thread::sleep(LATE);
        }
        self.ward.release();
        Ok(Ran {
            command: self.words.iter().map(|word| PathName(word.as_encoded_bytes().to_vec())).collect(),
            exit_code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            error: refusals.word(),
            elapsed_milliseconds: milliseconds_since(begun),
            ..Ran::default()
        })
    }

    fn command(&self, refusals: &Letterbox) -> io::Result<Command> {
        let refusals = if self.launcher.is_empty() { None } else { Some(refusals.path()?.into_os_string()) };
        let mut words = self.launcher.iter().chain(&refusals).chain(&self.words).map(OsString::as_os_str);
        let program: &OsStr = words.next().ok_or_else(|| io::Error::other("no command is given"))?;
        let mut command = Command::new(program);
        command.args(words);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::gate::{CancelFlag, is_cancelled};

    const INT: i32 = 2;
    const TERM: i32 = 15;

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
    fn a_command_that_its_launcher_could_not_become_was_not_started() {
        for (script, expected) in [("shift; exec \"$@\"", None), ("echo no > \"$1\"; exit 126", Some("no\n"))] {
            let launcher = ["sh", "-c", script, "sh"].map(OsString::from).to_vec();
            let ran = Errand { launcher, ..errand(&["sh", "-c", "exit 126"]) }.run(None, &[], &open()).expect("runs");
            assert_eq!((ran.exit_code, ran.error.as_deref()), (Some(126), expected), "{script}");
        }
    }

    #[test]
    fn a_command_that_is_sent_a_signal_dies_of_it_and_nobody_else_does() {
        let errand = errand(&["sleep", "100"]);
        let ward = errand.ward.clone();
        let sender = std::thread::spawn(move || {
            while matches!(*ward.state(), State::Idle) {
                std::thread::yield_now();
            }
            assert!(ward.take(TERM, false), "it starts, or runs");
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
        assert!(is_cancelled(&errand(&["true"]).run(None, &[], &gate).expect_err("starts nothing")));
        assert!(errand(&[]).run(None, &[], &open()).is_err());
    }

    /// A signal between the start of a command and the moment when it could be sent one cancelled the run, and the command
    /// got SIGTERM, whatever had been sent.
    #[test]
    fn a_command_is_sent_what_came_while_it_was_started() {
        let ward = Ward::default();
        ward.claim().expect("nobody was told to end");
        assert!(ward.take(INT, true), "it is the command's");
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap 'got=INT' INT; trap 'got=TERM' TERM; echo; read line; echo $got"]);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let mut said = [0];
        child.stdout.as_mut().expect("piped").read_exact(&mut said).expect("its traps are set");
        ward.hold(&child);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "INT\n");
    }

    #[test]
    fn who_was_told_to_end_starts_no_command() {
        let errand = errand(&["true"]);
        assert!(!errand.ward.take(INT, false), "nothing runs");
        assert!(is_cancelled(&errand.run(None, &[], &open()).expect_err("starts nothing")));
    }

    #[test]
    fn what_cannot_be_started_takes_no_signals() {
        let errand = errand(&["/nonexistent/program"]);
        let ward = errand.ward.clone();
        assert!(errand.run(None, &[], &open()).is_err());
        assert!(!ward.take(INT, false));
    }
}
