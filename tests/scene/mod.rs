//! The stage of the races: a state, and the cues at which a script changes it between two of our calls.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clawsnap::event::{Event, Observer};
use clawsnap::gate::{Gate, Realm, Step, Verb};
use clawsnap::report::{Consistency, Fated, Report};

use crate::support::{Archive, Backup, LINKED, Script, leftovers, write_cold};

/// A state with two agents, and a place for the archive beside it.
pub struct Scene {
    pub top: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        let scene = Self { top: tempfile::tempdir().expect("a directory") };
        for agent in ["a", "b"] {
            for number in 0..3 {
                write_cold(&scene.session(agent, number), format!("{{\"agent\":\"{agent}\",\"n\":{number}}}\n"));
            }
        }
        write_cold(&scene.state().join("openclaw.json"), LINKED);
        scene
    }

    pub fn state(&self) -> PathBuf {
        self.top.path().join("state")
    }

    pub fn session(&self, agent: &str, number: u32) -> PathBuf {
        self.state().join(format!("agents/{agent}/sessions/{number}.jsonl"))
    }

    pub fn backup(&self) -> Backup {
        Backup::of(&self.state())
    }

    /// Makes the backup, reads it, and sees that nothing of ours is left.
    pub fn play(&self, backup: Backup) -> (Report, Archive) {
        let path = self.top.path().join("a.tar");
        let report = backup.to(&path);
        assert!(matches!(report.exit_code(), 0 | 3), "{:?}", report.error);
        assert_eq!(leftovers(self.top.path()), [] as [PathBuf; 0]);
        (report, Archive::read(&path))
    }
}

/// Plays something once, at the first step that it is meant for.
pub fn once(
    meant: impl Fn(&Step<'_>) -> bool + Send + Sync + 'static,
    play: impl Fn() + Send + Sync + 'static,
) -> impl Gate + 'static {
    let played = AtomicBool::new(false);
    Script::new(move |_, step| {
        if meant(step) && !played.swap(true, Ordering::SeqCst) {
            play();
        }
        Ok(())
    })
}

/// The step that takes hold of a name: by link, or by opening it.
pub fn takes(verb: Verb, name: &'static str) -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    move |step| step.realm == Realm::Source && step.verb == verb && step.name.ends_with(name.as_bytes())
}

/// A step that is about a session of agent `a`, whose directory is listed by then.
pub fn at_of_a(verb: Verb, name: &'static str) -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    move |step| step.verb == verb && step.dir == b"agents/a/sessions" && step.name == name.as_bytes()
}

pub fn links_of_a(name: &'static str) -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    at_of_a(Verb::Link, name)
}

/// Plays something when the freeze is over, and before anything is archived.
pub struct Frozen<F: Fn() + Send + Sync>(pub F);

impl<F: Fn() + Send + Sync> Observer for Frozen<F> {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) {
            (self.0)();
        }
    }
}

pub fn paths(list: &[Fated]) -> Vec<PathBuf> {
    list.iter().map(|fated| PathBuf::from(String::from_utf8_lossy(&fated.path.0).into_owned())).collect()
}

pub fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).expect("opens");
    file.write_all(text.as_bytes()).expect("appends");
}

pub fn instant(report: &Report) -> bool {
    report.consistent == Some(Consistency::Instant)
}

/// A gate that answers for the kernel, or does something before it lets a step of the source pass.
pub fn at_source(play: impl Fn(&Step<'_>) -> io::Result<()> + Send + Sync + 'static) -> impl Gate + 'static {
    Script::new(move |_, step| if step.realm == Realm::Source { play(step) } else { Ok(()) })
}
