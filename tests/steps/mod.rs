//! A command that runs under a tracer, which counts what all its threads ask of the kernel and kills it at one of these
//! calls, just before the kernel does what it was asked.
//!
//! Every step that a run takes through its gate is one of these calls, or lies between two of them. What the helpers of
//! databases ask counts too, though it is the command that dies then; the commands of people are left alone.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// What others can notice: names, contents, locks, processes.
    Changing,
    /// Everything.
    All,
}

/// At how many calls a command is killed, of whatever kind they are; else at each that others can notice.
fn wanted() -> Option<u64> {
    std::env::var("CLAWSNAP_CALLS").ok().map(|calls| calls.parse().expect("CLAWSNAP_CALLS is a number"))
}

/// What is counted.
pub fn counted() -> Calls {
    wanted().map_or(Calls::Changing, |_| Calls::All)
}

/// The calls, of so many that a whole run makes, at which it is to be killed.
pub fn points(calls: u64) -> impl Iterator<Item = u64> {
    let wanted = wanted().unwrap_or(calls).clamp(1, calls);
    (0..wanted).map(move |number| number * calls / wanted)
}

/// Whether so many kills are nearly all that were tried: threads do not always make the same calls, and who waits makes as
/// many as it takes.
pub fn is_thorough(kills: u64, calls: u64) -> bool {
    let tried = points(calls).count() as u64;
    let percent = if counted() == Calls::All { 75 } else { 95 };
    kills > 0 && (kills + 2 >= tried || kills * 100 >= tried * percent)
}

/// How a command ended.
#[derive(Debug)]
pub struct Stepped {
    /// How many calls it made.
    pub calls: u64,
    /// The call at which it was killed; `None` where it ended before.
    pub killed_at: Option<String>,
    /// Its exit code, where it ended by itself.
    pub code: Option<i32>,
    /// All that it and what it started said, until the last of them had ended.
    pub said: String,
}

/// Runs it to its end.
pub fn count(command: &Command, calls: Calls) -> u64 {
    let stepped = step(command, calls, u64::MAX);
    assert_eq!(stepped.killed_at, None);
    stepped.calls
}

/// Runs it until it is about to make this call, counted from zero.
pub fn step(command: &Command, calls: Calls, at: u64) -> Stepped {
    let (process, said) = begin(command);
    let mut tracer = Tracer { process, calls, at, seen: 0, counts: false, killed_at: None };
    let code = tracer.run();
    let said = io::read_to_string(said.take(1 << 20)).expect("says text");
    Stepped { calls: tracer.seen, killed_at: tracer.killed_at, code, said }
}

/// Starts a shell that waits until it is traced, and becomes the command then.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
fn begin(command: &Command) -> (Pid, PipeReader) {
    let (reader, writer) = io::pipe().expect("makes a pipe");
    let mut shell = Command::new("sh");
    shell.args(["-c", "read -r _; exec \"$@\" </dev/null", "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    command.get_current_dir().map(|dir| shell.current_dir(dir));
    shell.stdin(Stdio::piped()).stdout(writer.try_clone().expect("is a pipe")).stderr(writer);
    let mut child = shell.spawn().expect("runs");
    let process = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(process, options).expect("a child may be traced");
    ptrace::interrupt(process).expect("stops");
    child.stdin.take().expect("is a pipe").write_all(b"\n").expect("waits for a line");
    (process, reader)
}

struct Tracer {
    process: Pid,
    calls: Calls,
    at: u64,
    seen: u64,
    /// Not while it is still a shell.
    counts: bool,
    killed_at: Option<String>,
}

impl Tracer {
    /// The exit code; `None` where it was killed.
    fn run(&mut self) -> Option<i32> {
        let mut code = None;
        loop {
            // Only what this thread traces: other tests have children of their own.
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::ECHILD) => return code,
                Ok(WaitStatus::Exited(who, with)) if who == self.process => code = Some(with),
                Ok(WaitStatus::PtraceSyscall(thread)) => self.look_at(thread),
                Ok(WaitStatus::PtraceEvent(process, _, libc::PTRACE_EVENT_EXEC)) => self.becomes(process),
                Ok(WaitStatus::PtraceEvent(thread, ..)) => go_on(thread, None),
                Ok(WaitStatus::Stopped(thread, signal)) => go_on(thread, Some(signal)),
                Ok(_) => {}
                Err(error) => panic!("cannot wait: {error}"),
            }
        }
    }

    /// The shell has become the command; what that starts is the same program, or none of ours.
    fn becomes(&mut self, process: Pid) {
        let program = |process: Pid| fs::read_link(format!("/proc/{process}/exe")).ok();
        self.counts = true;
        if process == self.process || program(process) == program(self.process) {
            return go_on(process, None);
        }
        assert!(matches!(ptrace::detach(process, None), Ok(()) | Err(Errno::ESRCH)), "cannot let go");
    }

    fn look_at(&mut self, thread: Pid) {
        if let Some(call) = self.counted(thread) {
            if self.seen == self.at {
                self.killed_at = Some(call.to_string());
                kill(self.process, Signal::SIGKILL).expect("is there");
            }
            self.seen += 1;
        }
        // A helper goes on, and finds out; the command itself does not even begin with that call.
        go_on(thread, None);
    }

    /// What a stopped thread is about to do, where that counts.
    fn counted(&self, thread: Pid) -> Option<Call> {
        if !self.counts || self.killed_at.is_some() {
            return None;
        }
        let info = ptrace::syscall_info(thread).ok()?;
        let call = (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(|| Call::of(thread))??;
        (self.calls == Calls::All || call.changes(thread)).then_some(call)
    }
}

/// One that was killed meanwhile does not.
fn go_on(thread: Pid, signal: Option<Signal>) {
    assert!(matches!(ptrace::syscall(thread, signal), Ok(()) | Err(Errno::ESRCH)), "cannot go on");
}

/// What is asked of the kernel.
struct Call {
    number: c_long,
    arguments: Vec<u64>,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match name(self.number) {
            Some(name) => f.write_str(name),
            None => write!(f, "call {}", self.number),
        }
    }
}

impl Call {
    /// `None` for a thread that is gone.
    fn of(thread: Pid) -> Option<Self> {
        let told = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        let mut words = told.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        Some(Self { number, arguments: words.filter_map(hex).collect() })
    }

    fn changes(&self, thread: Pid) -> bool {
        let argument = |index: usize| self.arguments.get(index).copied().unwrap_or_default();
        const MAKES: i32 = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
        let makes = |flags: u64| flags & u64::from(MAKES.cast_unsigned()) != 0;
        match self.number {
            libc::SYS_openat => makes(argument(2)),
            // The flags come first in what is pointed to.
            libc::SYS_openat2 => {
                let how = ptrace::read(thread, std::ptr::with_exposed_provenance_mut(argument(2) as usize));
                makes(how.unwrap_or_default().cast_unsigned())
            }
            number => name(number).is_some(),
        }
    }
}

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// Names, contents, modes, times, attributes; what makes them last; locks, processes and signals; the end.
const CHANGING: &[(&str, c_long)] = calls! {
    SYS_openat SYS_openat2 SYS_write SYS_pwrite64 SYS_writev SYS_pwritev SYS_pwritev2 SYS_sendfile SYS_splice
    SYS_copy_file_range SYS_ioctl SYS_ftruncate SYS_truncate SYS_fallocate
    SYS_fsync SYS_fdatasync SYS_sync SYS_syncfs SYS_sync_file_range
    SYS_linkat SYS_symlinkat SYS_renameat SYS_renameat2 SYS_unlinkat SYS_mkdirat SYS_mknodat
    SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_flock SYS_clone SYS_clone3 SYS_execve SYS_kill SYS_pidfd_send_signal SYS_exit_group
};

/// Those of old, which not every machine has.
#[cfg(target_arch = "x86_64")]
const OLD: &[(&str, c_long)] = calls! {
    SYS_open SYS_creat SYS_link SYS_symlink SYS_rename SYS_unlink SYS_mkdir SYS_rmdir SYS_mknod SYS_chmod SYS_chown
    SYS_fork SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(&str, c_long)] = &[];

fn name(number: c_long) -> Option<&'static str> {
    [CHANGING, OLD].concat().iter().find(|(_, other)| *other == number).map(|(name, _)| *name)
}
