//! A run on what another program or another machine serves has a process of its own.
//!
//! Whoever waits in the kernel for a FUSE filesystem that does not answer can be ended by nobody, not even by `kill -9`;
//! its process lasts as long, and so does whoever waits for that: a shell, cron. So it is not the process that was
//! started. That one only waits, and ends when its deputy has said what there is to say.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use clap::Parser;
use color_eyre::eyre::{Result, WrapErr};
use nix::sys::signal::{SigSet, Signal};

use super::args::{self, Typed, Verb};
use super::signals::Signals;
use super::{attend, say, signals};
use crate::command::Ward;
use crate::plan::{Environment, STATE_VARIABLE};
use crate::restore::{filesystems_at, is_served};
use crate::sys;

/// The hidden subcommand.
pub(super) const NAME: &str = "__deputy";

/// How often a deputy that does not end is looked at. One that has left so long ago, and is still there, hangs.
const LOOK: Duration = Duration::from_secs(1);

/// Has a deputy do what was typed, if that may hang; says how the process is to end then. Where SIGCHLD is ignored, nobody
/// could know how a deputy ends.
pub(super) fn stands_in(verb: &Verb) -> Option<ExitCode> {
    if signals::is_ignored(Signal::SIGCHLD) {
        return None;
    }
    let places = places(verb, &Environment::of_process());
    if !places.iter().flat_map(|place| filesystems_at(place)).any(|kind| is_served(&kind)) {
        return None;
    }
    Some(match Deputy::start() {
        Ok(deputy) => deputy.outlive(),
        Err(error) => say::failed(&format!("{error:#}"), 1),
    })
}

/// Where is read and written, as it was typed: to resolve a path may hang.
fn places(verb: &Verb, environment: &Environment) -> Vec<PathBuf> {
    let mut places = match verb {
        Verb::Create(typed) => of_backup(&typed.what, typed.archive.output.as_ref(), environment),
        Verb::Guard(typed) => of_backup(&typed.what, typed.archive.output.as_ref(), environment),
        Verb::Stage(typed) => of_backup(&typed.what, None, environment),
        Verb::Status(typed) => typed.metrics.iter().chain([&typed.directory]).cloned().collect(),
        Verb::Prune(typed) => vec![typed.directory.clone()],
        Verb::Verify(typed) => typed.archives.clone(),
        Verb::List(typed) => vec![typed.archive.clone()],
        Verb::Restore(typed) => of_restore(typed),
        Verb::Sweep(typed) => typed.output.iter().cloned().chain(of_sources(&typed.sources, environment)).collect(),
        _ => return Vec::new(),
    };
    places.push(PathBuf::new());
    places.iter().map(|place| lexical(&environment.cwd.join(place))).collect()
}

fn of_backup(what: &args::What, output: Option<&PathBuf>, environment: &Environment) -> Vec<PathBuf> {
    of_sources(&what.sources, environment).into_iter().chain(output.cloned()).collect()
}

fn of_sources(sources: &[PathBuf], environment: &Environment) -> Vec<PathBuf> {
    if !sources.is_empty() {
        return sources.to_vec();
    }
    let told = environment.variables.get(OsStr::new(STATE_VARIABLE)).map(PathBuf::from);
    environment.home.iter().cloned().chain(told).collect()
}

/// Only the archive says where something is restored in place: that may be anywhere.
fn of_restore(typed: &args::Restore) -> Vec<PathBuf> {
    let anywhere = typed.in_place.then(|| PathBuf::from("/"));
    typed.archive.iter().chain(&typed.target).chain(&typed.undo).cloned().chain(anywhere).collect()
}

/// A path without `.` and `..`, as far as that can be told without looking.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

struct Deputy {
    child: Child,
    /// Holds signals back that are meant for the deputy.
    _signals: Signals,
}

impl Deputy {
    fn start() -> Result<Self> {
        let (signals, ward) = (Signals::hold()?, Ward::default());
        // What comes before it is there is meant for it, too.
        ward.claim()?;
        signals.watch(ward.clone(), || {})?;
        let mut command = Command::new("/proc/self/exe");
        command.args([NAME, "--of", &std::process::id().to_string(), "--"]).args(std::env::args_os().skip(1));
        let child = command.spawn().wrap_err("the process that does the work cannot be started")?;
        ward.hold(&child);
        Ok(Self { child, _signals: signals })
    }

    /// Waits until it has ended, or has left and cannot end.
    fn outlive(self) -> ExitCode {
        let Self { mut child, _signals } = self;
        let id = child.id();
        let Ok(work) = attend::begin(move || child.wait()) else { return ExitCode::FAILURE };
        let mut left = false;
        loop {
            match work.within(LOOK) {
                Some(status) => return status.map_or(ExitCode::FAILURE, ended),
                // Its first thread is gone, and others are not: those hang.
                None if left && sys::is_zombie(id) => return left_with(id).map_or(ExitCode::FAILURE, ended),
                None => left = sys::is_zombie(id),
            }
        }
    }
}

/// How a process ended that cannot be waited for yet. The kernel tells 0 also where it does not tell, and a run that was given
/// up has hardly gone well.
fn left_with(id: u32) -> Option<ExitStatus> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let status = stat.rsplit(") ").next()?.split_ascii_whitespace().nth(EXIT_CODE)?.parse().ok()?;
    (status != 0).then(|| ExitStatus::from_raw(status))
}

/// Where in `/proc/PID/stat`, after the name, the status stands: proc(5).
const EXIT_CODE: usize = 52 - 3;

/// Ends as it did.
fn ended(status: ExitStatus) -> ExitCode {
    let signal = status.signal().and_then(|number| Signal::try_from(number).ok());
    if let Some(signal) = signal.filter(|signal| Signals::end(*signal)) {
        Signals::die_by(signal);
    }
    let code = status.code().or(status.signal().map(|number| 128 + number)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Does what was typed, as the deputy of the process that was started.
pub(super) fn deputise(typed: &args::Deputy, act: impl FnOnce(Verb) -> ExitCode) -> ExitCode {
    // Where the kernel does not do that, it goes on alone.
    let _asked: std::io::Result<()> = sys::end_with_parent();
    if parent_id() != typed.of {
        return ExitCode::FAILURE;
    }
    let _as_usual = SigSet::all().thread_unblock();
    let words = [OsString::from("clawsnap")].into_iter().chain(typed.words.iter().cloned());
    let code = act(Typed::parse_from(words).verb);
    // A thread that hangs keeps everything open, and whoever reads what we print waits for its end.
    sys::close_streams();
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guarded command's exit code was told as 1 where its rollback hung.
    #[test]
    fn how_a_process_ended_is_told_before_it_is_waited_for() {
        for (script, code, signal) in [("exit 7", Some(7), None), ("kill -KILL $$", None, Some(9))] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().expect("starts");
            while !sys::is_zombie(child.id()) {
                std::thread::yield_now();
            }
            let status = left_with(child.id()).expect("is told");
            assert_eq!((status.code(), status.signal()), (code, signal));
            assert_eq!(status, child.wait().expect("ends"));
        }
    }

    #[test]
    fn the_places_are_what_was_typed_and_where_it_was_started() {
        let environment = Environment { home: Some("/home/u".into()), cwd: "/work".into(), ..Environment::default() };
        let environment = environment.with(STATE_VARIABLE, "/srv/claw");
        for (words, expected) in [
            ("create a ../b/./c -o /out", vec!["/work/a", "/b/c", "/out", "/work"]),
            ("create", vec!["/home/u", "/srv/claw", "/work"]),
            ("sweep -o /b", vec!["/b", "/home/u", "/srv/claw", "/work"]),
            ("sweep s", vec!["/work/s", "/work"]),
            ("restore a -t /t", vec!["/work/a", "/t", "/work"]),
            ("restore /a --in-place", vec!["/a", "/", "/work"]),
            ("restore --undo k", vec!["/work/k", "/work"]),
            ("guard x -- true", vec!["/work/x", "/work"]),
            ("stage /x -- true", vec!["/x", "/work"]),
            ("status /b --metrics m", vec!["/work/m", "/b", "/work"]),
            ("prune /b --keep-last 1", vec!["/b", "/work"]),
            ("verify a /b", vec!["/work/a", "/b", "/work"]),
            ("list a", vec!["/work/a", "/work"]),
            ("man", vec![]),
        ] {
            let typed = Typed::parse_from(format!("clawsnap {words}").split(' '));
            let places = places(&typed.verb, &environment);
            assert_eq!(places, expected.into_iter().map(PathBuf::from).collect::<Vec<_>>(), "{words}");
        }
    }
}
