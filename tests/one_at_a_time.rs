//! Two runs on one source: the second waits, or says that it does not.
#![cfg(feature = "cli")]

mod stage;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::statfs::BTRFS_SUPER_MAGIC;
use stage::{Stage, finished, json, send, text, wait_until};

impl Stage {
    /// A run that has frozen its source and can go no further: nobody reads what it writes.
    fn stuck(&self) -> Child {
        let mut command = self.command("create source --output - --compress none");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
        wait_until(|| self.is_locked("source"));
        child
    }

    fn is_locked(&self, name: &str) -> bool {
        let dir = File::open(self.path(name)).expect("opens");
        dir.try_lock().is_err()
    }

    fn names(&self, name: &str) -> Vec<String> {
        let found = fs::read_dir(self.path(name)).expect("lists");
        let mut names: Vec<_> =
            found.map(|entry| entry.expect("lists").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

fn kill(child: Child) {
    send(&child, Signal::SIGKILL);
    assert_eq!(finished(child).signal(), Some(9));
}

#[test]
fn a_second_run_says_what_is_locked_and_what_to_do_and_touches_nothing() {
    let stage = Stage::new().large();
    let first = stage.stuck();
    let output = stage.run("create source --output out/ --json");
    let report = json(&output);
    assert_eq!((output.status.code(), report["outcome"].as_str()), (Some(5), Some("locked")), "{report}");
    let source = stage.path("source").canonicalize().expect("resolves");
    let expected = format!(
        "error: another run (process {}) still backs up {}: let that one end, or wait longer with --wait, as in --wait 10m\n",
        first.id(),
        source.display()
    );
    // The kernel's table of locks has another number for the device than btrfs shows: whose lock it is cannot be told.
    let numberless = expected.replace(&format!(" (process {})", first.id()), "");
    let is_btrfs = nix::sys::statfs::statfs(&source).expect("is there").filesystem_type() == BTRFS_SUPER_MAGIC;
    assert_eq!(text(&output.stderr), if is_btrfs { numberless } else { expected });
    assert!(stage.archives().is_empty());
    kill(first);
}

#[test]
fn a_short_wait_ends_as_none_does() {
    let stage = Stage::new().large();
    let first = stage.stuck();
    let begun = Instant::now();
    let output = stage.run("create source --output out/ --json --wait 100ms");
    assert_eq!((output.status.code(), json(&output)["outcome"].as_str()), (Some(5), Some("locked")));
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(text(&output.stderr).contains("after 100 ms"), "{}", text(&output.stderr));
    kill(first);
}

#[test]
fn a_run_that_waits_begins_when_the_other_has_ended() {
    let stage = Stage::new().large();
    let first = stage.stuck();
    let mut second = stage.command("create source --output out/ --json --wait 50s");
    let second = second.stdout(Stdio::piped()).spawn().expect("runs");
    sleep(Duration::from_millis(300));
    let released = jiff::Timestamp::now();
    send(&first, Signal::SIGTERM);
    assert_eq!(finished(first).signal(), Some(15));
    let output = second.wait_with_output().expect("ends");
    let report = json(&output);
    assert_eq!((output.status.code(), report["outcome"].as_str()), (Some(0), Some("complete")), "{report}");
    let created: jiff::Timestamp = report["createdAt"].as_str().expect("is text").parse().expect("is a time");
    assert!(created.as_millisecond() >= released.as_millisecond(), "{created} is before {released}");
    assert_eq!(stage.archives().len(), 1);
    stage.assert_clean();
}

/// A run that had waited for an hour kept the plan of before, and left out a workspace that its own archived config names.
#[test]
fn a_run_that_waited_backs_up_what_the_config_names_by_then() {
    let stage = Stage::new().file("home/.openclaw/openclaw.json", b"{}");
    let state = File::open(stage.path("home/.openclaw")).expect("opens");
    state.lock().expect("locks");
    let mut second = stage.command("create --output out/ --json --wait 50s");
    let second = second.stdout(Stdio::piped()).spawn().expect("runs");
    sleep(Duration::from_millis(500));
    let workspace = stage.path("home/work");
    let config = format!("{{ agents: {{ defaults: {{ workspace: {workspace:?} }} }} }}");
    stage.write("home/work/notes.md", b"# notes");
    stage.write("home/.openclaw/openclaw.json", config.as_bytes());
    drop(state);
    let output = second.wait_with_output().expect("ends");
    let report = json(&output);
    assert_eq!((output.status.code(), report["outcome"].as_str()), (Some(0), Some("complete")), "{report}");
    let sources: Vec<_> = report["assets"].as_array().into_iter().flatten().map(|asset| &asset["sourcePath"]).collect();
    let workspace = workspace.canonicalize().expect("resolves");
    assert!(sources.iter().any(|source| **source == *workspace.to_string_lossy()), "{sources:?}");
    assert_eq!(sources.len(), 2, "{sources:?}");
}

#[test]
fn a_run_that_was_killed_leaves_no_lock() {
    let stage = Stage::new().large();
    for _ in 0..5 {
        kill(stage.stuck());
        let output = stage.run("create source --output out/ --quiet");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    }
    stage.assert_clean();
}

#[test]
fn a_run_that_waits_can_be_interrupted() {
    let stage = Stage::new().large();
    let first = stage.stuck();
    let mut second = stage.command("create source --output out/ --wait 50s");
    let second = second.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    sleep(Duration::from_millis(200));
    let begun = Instant::now();
    send(&second, Signal::SIGINT);
    assert_eq!(finished(second).signal(), Some(2));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(stage.archives().is_empty());
    kill(first);
}

#[test]
fn the_lock_is_one_that_others_can_hold_and_makes_nothing() {
    let stage = Stage::new();
    let before = stage.names("source");
    let mtime = fs::metadata(stage.path("source")).and_then(|found| found.modified()).expect("has a time");
    let dir = File::open(stage.path("source")).expect("opens");
    dir.lock().expect("locks");
    assert_eq!(stage.run("create source --output out/").status.code(), Some(5));
    assert_eq!(stage.run("create source --output out/ --dry-run").status.code(), Some(0), "a dry run asks for no lock");
    assert_eq!(stage.run("create home --output out/").status.code(), Some(0), "another source is not locked");
    drop(dir);
    assert_eq!(stage.run("create source --output out/").status.code(), Some(0));
    assert_eq!(stage.names("source"), before);
    let now = fs::metadata(stage.path("source")).and_then(|found| found.modified()).expect("has a time");
    assert_eq!(now, mtime);
}

#[test]
fn runs_that_name_the_same_sources_in_any_order_never_wait_for_each_other_in_a_circle() {
    let stage = Stage::new();
    let run = |line: &str| {
        let mut command = stage.command(line);
        command.stdout(Stdio::null()).spawn().expect("runs")
    };
    let lines = ["create source home -o out/ --wait 50s", "create home source -o out/ --wait 50s"];
    let children: Vec<Child> = (0..6).map(|number| run(lines[number % 2])).collect();
    for child in children {
        assert_eq!(finished(child).code(), Some(0));
    }
    assert_eq!(stage.archives().len(), 6);
    stage.assert_clean();
}

#[test]
fn a_single_file_is_locked_by_its_directory_and_stays_free_for_its_owner() {
    let stage = Stage::new();
    let file = File::open(stage.path("source/a.txt")).expect("opens");
    file.lock().expect("is its owner's to lock");
    assert_eq!(stage.run("create source/a.txt --output out/").status.code(), Some(0));
    let dir = File::open(stage.path("source")).expect("opens");
    dir.lock().expect("locks");
    assert_eq!(stage.run("create source/a.txt --output out/").status.code(), Some(5));
}
