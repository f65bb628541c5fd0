//! What is noted on archives of their proofs, and when that is believed.
#![cfg(feature = "cli")]

mod rot;
mod shelf;

use std::fs;
use std::process::Command;

use rot::rot;
use shelf::{CLAWSNAP, DAY, Stage, THEN, named, text};

#[test]
fn a_proof_is_noted_on_the_archive_and_no_other_file_is_taken_for_it() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    let out = stage.path("out");
    let mut probe = Command::new("setfattr");
    if !probe
        .args(["-n", "user.x", "-v", "x", "out"])
        .current_dir(stage.dir.path())
        .status()
        .is_ok_and(|it| it.success())
    {
        eprintln!("skipped: there are no extended attributes here");
        return;
    }
    let code = |line: &str| stage.run(line).status.code();
    rot(&out.join(named(THEN - DAY)));
    assert_eq!(code("prune out --keep-last 5 --quiet"), Some(0), "it is not read again for thirty days");
    assert_eq!(code("prune out --keep-last 5 --quiet --verify"), Some(4), "unless it shall be");
    let copy = Command::new("cp").args(["-a", "--", &named(THEN - DAY), "copy"]).current_dir(&out).status();
    assert!(copy.expect("runs").success());
    fs::rename(out.join("copy"), out.join(named(THEN - DAY))).expect("renames");
    assert_eq!(code("prune out --keep-last 5 --quiet"), Some(4), "a copy is another file");
    let copy = out.join(named(THEN));
    fs::rename(&copy, out.join("it")).and_then(|()| fs::copy(out.join("it"), &copy)).expect("copies");
    for (line, noted) in [("prune out --keep-last 5 --dry-run", false), ("prune out --keep-last 5", true)] {
        assert_eq!(code(line), Some(4));
        let has = Command::new("getfattr").args(["-n", "user.clawsnap.proof"]).arg(&copy).output().expect("runs");
        assert_eq!(has.status.success(), noted, "{line}: {}", text(&has.stderr));
    }
    assert_eq!(code("status out --verify --quiet"), Some(4));
}

/// `status --verify` found it, the next `status` said that all is well, and `prune` kept the broken one in the place of
/// the last good one.
#[test]
fn an_archive_that_was_found_broken_is_not_believed_again() {
    let newest = format!("out/{}", named(THEN));
    for found in ["status out --verify --quiet".to_owned(), format!("verify {newest}"), format!("list {newest}")] {
        let stage = Stage::new().with(&[THEN - DAY, THEN]);
        let code = |line: &str| stage.run(line).status.code();
        rot(&stage.path(&newest));
        assert_eq!(code(&found), Some(4), "{found}");
        assert_eq!(code("status out --quiet"), Some(4), "after {found}");
        assert_eq!(code("prune out --keep-last 1 --quiet"), Some(4), "after {found}");
        assert_eq!(stage.names().len(), 2, "after {found}");
    }
}

/// A restore to a disk that was full took the proof away from an archive that had nothing to do with it.
#[test]
fn a_restore_that_its_target_fails_says_nothing_about_the_archive() {
    let stage = Stage::new();
    fs::write(stage.path("source/large"), vec![b'x'; 3_000_000]).expect("writes");
    stage.create("source", THEN);
    let archive = format!("out/{}", named(THEN));
    let is_noted = || {
        let mut command = Command::new("getfattr");
        let output = command.args(["-n", "user.clawsnap.proof"]).arg(stage.path(&archive)).output().expect("runs");
        output.status.success()
    };
    if !is_noted() {
        eprintln!("skipped: there are no extended attributes here");
        return;
    }
    let mut shell = Command::new("sh");
    let script = format!("ulimit -f 8; exec {CLAWSNAP} restore {archive} --target back");
    let output = shell.args(["-c", &script]).current_dir(stage.dir.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(is_noted() && !stage.path("back").exists());
}
