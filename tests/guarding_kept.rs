//! The archive that a guarded command can be gone back from stays as long as somebody may want it, whatever rules say.
#![cfg(feature = "cli")]

mod stage;
mod ward;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use stage::{Stage, finished, json, text};
use ward::way_back;

/// Keeps one archive alone, if nobody objects.
const NIGHTLY: &str = "create source -o out/ --json --keep-last 1";

const MARK: &str = "user.clawsnap.wayback";

const DAY: u64 = 24 * 60 * 60;

fn now() -> u64 {
    jiff::Timestamp::now().as_second().cast_unsigned()
}

/// Why the run that made `output` kept the archive at `path`; none where it removed that.
fn stays(output: &Output, path: &Path) -> Option<Value> {
    let report = json(output);
    let judged = report["pruned"]["archives"].as_array().expect("is a list").iter();
    let own = judged.filter(|judged| judged["path"].as_str() == path.to_str()).collect::<Vec<_>>();
    let [own] = own[..] else { panic!("{report}") };
    assert_eq!(own["removed"], Value::from(!path.exists()), "{own}");
    path.exists().then(|| own["stays"].clone())
}

/// Whether extended attributes can be set where archives lie, which is told if not.
fn has_attributes(stage: &Stage) -> bool {
    let mut probe = Command::new("setfattr");
    let able = probe.args(["-n", "user.x", "-v", "x"]).arg(stage.path("out")).status().is_ok_and(|it| it.success());
    if !able {
        eprintln!("skipped: there are no extended attributes here");
    }
    able
}

fn mark(archive: &Path) -> Option<String> {
    let output = Command::new("getfattr").args(["--only-values", "-n", MARK]).arg(archive).output().expect("runs");
    output.status.success().then(|| text(&output.stdout))
}

fn only(archives: &[PathBuf]) -> PathBuf {
    let [archive] = archives else { panic!("{archives:?}") };
    archive.canonicalize().expect("is there")
}

/// A nightly run removed the archive on which a guarded upgrade stood, as it made a newer one of what the upgrade had ruined
/// by then: nothing could be brought back, and nothing was left to bring back.
#[test]
fn a_nightly_run_does_not_remove_the_archive_that_a_guarded_command_stands_on() {
    let stage = Stage::new();
    let script = "echo ruined > source/a.txt; touch ran; while ! test -e go; do sleep 0.02; done; exit 1";
    let guard = stage.begun("source -o out/ --rollback", script);
    stage.wait_for("ran");
    let archive = only(&stage.archives());
    // It is locked as well as marked, and the lock alone is enough where nothing can be marked.
    for expected in if has_attributes(&stage) { &["way back", "in use"][..] } else { &["in use"] } {
        if *expected == "in use" {
            let _unmarked = Command::new("setfattr").args(["-x", MARK]).arg(&archive).output();
        }
        let nightly = stage.run(NIGHTLY);
        assert_eq!(nightly.status.code(), Some(0), "{}", text(&nightly.stderr));
        assert_eq!(text(&nightly.stderr), "", "it is no complaint");
        assert_eq!(stays(&nightly, &archive), Some([*expected].as_slice().into()));
    }
    stage.write("go", b"");
    let output = guard.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"alpha", "{}", text(&output.stderr));
    assert_eq!(stays(&stage.run(NIGHTLY), &archive), None, "everything is back: nobody needs it");
}

/// It went before the printed command was pasted.
#[test]
fn a_nightly_run_does_not_remove_the_archive_that_a_printed_way_back_needs() {
    let stage = Stage::new();
    if !has_attributes(&stage) {
        return;
    }
    let output = stage.guarded("source -o out/ --json", "echo ruined > source/a.txt; exit 1");
    let archive = only(&stage.archives());
    let until: jiff::Timestamp =
        json(&output)["ran"]["wayBackKeptUntil"].as_str().expect("is told").parse().expect("is");
    assert!(until.as_second().abs_diff(now().cast_signed()).abs_diff(30 * DAY) < 60, "{until}");
    for line in [NIGHTLY, "create source -o out/ --json --keep-last 1 --dry-run"] {
        assert_eq!(stays(&stage.run(line), &archive), Some(["way back"].as_slice().into()), "{line}");
    }
    let back = stage.later(&way_back(&output), &stage.path("home"));
    assert_eq!(back.status.code(), Some(0), "{}", text(&back.stderr));
    assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"alpha");
    for (age, expected) in [(29 * DAY, Some(["way back"].as_slice().into())), (31 * DAY, None)] {
        let then = (now() - age).to_string();
        let set = Command::new("setfattr").args(["-n", MARK, "-v", &then]).arg(&archive).status();
        assert!(set.expect("runs").success());
        assert_eq!(stays(&stage.run(NIGHTLY), &archive), expected, "{age}");
    }
}

#[test]
fn an_archive_is_kept_as_the_way_back_only_while_there_is_something_to_go_back_from() {
    let stage = Stage::new();
    if !has_attributes(&stage) {
        return;
    }
    stage.write("plain", b"#!/bin/sh\nexit 0\n");
    for (line, script, is_kept) in
        [("", "exit 0", false), ("", "exit 1", true), ("--rollback", "echo ruined > source/a.txt; exit 1", false)]
    {
        let output = stage.guarded(&format!("source -o out/ -q {line}"), script);
        let archive = only(&stage.archives());
        assert_eq!(mark(&archive).is_some(), is_kept, "{line} {script}: {}", text(&output.stderr));
        fs::remove_file(archive).expect("removes");
    }
    let unstarted = stage.command("guard source -o out/ -q -- ./plain").output().expect("runs");
    assert_eq!((unstarted.status.code(), mark(&only(&stage.archives()))), (Some(126), None), "it changed nothing");
}

/// Whoever is killed while the command runs cannot say that it failed.
#[test]
fn a_guard_that_is_killed_leaves_the_archive_as_the_way_back() {
    let stage = Stage::new();
    if !has_attributes(&stage) {
        return;
    }
    let guard = stage.begun("source -o out/ -q", "echo $$ > pid; exec sleep 100");
    stage.wait_for("pid");
    let archive = only(&stage.archives());
    stage::send(&guard, nix::sys::signal::Signal::SIGKILL);
    finished(guard);
    let pid = stage.said("pid").expect("was said");
    let _ended = Command::new("kill").arg(pid.trim()).status();
    assert_eq!(stays(&stage.run(NIGHTLY), &archive), Some(["way back"].as_slice().into()));
}
