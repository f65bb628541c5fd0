//! `clawsnap guard`: a proven archive first, a command second, and the way back if that fails.
#![cfg(feature = "cli")]

mod stage;
mod tool;
mod ward;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use serde_json::Value;
use stage::{Stage, json, text};
use ward::{kept, tree, way_back};

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn the_command_sees_an_archive_under_its_name_that_proves_and_no_link_of_ours() {
    let stage = Stage::new();
    stage.write("source/hot.jsonl", b"{\"n\":1}\n");
    let database = rusqlite::Connection::open(stage.path("source/memory.sqlite")).expect("opens");
    database.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t(n); INSERT INTO t VALUES(1)").expect("has a row");
    let script = r#"
        find . -name '.clawsnap-*' > ../hidden; find source -type f -links +1 > ../links; ls out > ../archives
        clawsnap verify -q out/*.tar.zst && echo proven > ../proven
        clawsnap create source -q -o second/ && echo free > ../free"#;
    let script = script.replace("../", &format!("{}/", stage.path("home").display()));
    fs::create_dir(stage.path("tmp")).expect("makes a directory");
    let output = stage.guard("source -o out/", &script).env("TMPDIR", stage.path("tmp")).output().expect("runs");
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    for name in ["hidden", "links"] {
        assert_eq!(stage.said(&format!("home/{name}")).as_deref(), Some(""), "{name}");
    }
    let archives = stage.said("home/archives").expect("was listed");
    assert!(archives.ends_with(".tar.zst\n") && archives.lines().count() == 1, "{archives}");
    assert_eq!(stage.said("home/proven").as_deref(), Some("proven\n"), "{}", text(&output.stderr));
    assert_eq!(stage.said("home/free").as_deref(), Some("free\n"), "the source is not locked any more");
    stage.assert_clean();
}

#[test]
fn the_exit_code_of_the_command_is_ours() {
    let stage = Stage::new();
    for expected in [0, 1, 2, 7, 42, 255] {
        let output = stage.guarded("source -o out/ -q", &format!("exit {expected}"));
        assert_eq!(code(&output), Some(expected), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr).contains("the way back: clawsnap restore "), expected != 0, "{expected}");
    }
    assert_eq!(stage.archives().len(), 6);
    stage.assert_clean();
}

#[test]
fn a_command_that_a_signal_ended_is_told_as_shells_do_and_one_that_was_asked_to_end_by_the_same_signal() {
    let stage = Stage::new();
    let killed = stage.guarded("source -o out/ -q", "kill -KILL $$");
    assert_eq!((code(&killed), killed.status.signal()), (Some(137), None), "{}", text(&killed.stderr));
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let output = stage.guarded("source -o out/ -q", &format!("kill -{name} $$"));
        assert_eq!((code(&output), output.status.signal()), (None, Some(number)), "{}", text(&output.stderr));
        assert!(way_back(&output).contains("--in-place"), "{name}");
    }
}

#[test]
fn a_program_that_is_not_there_ends_it_before_anything_is_done() {
    let stage = Stage::new();
    for program in ["no-such-program", "/no/such/program", ""] {
        let output = stage.command("guard source -o out/ --").arg(program).output().expect("runs");
        assert_eq!(code(&output), Some(127), "{program}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("nothing was done"), "{}", text(&output.stderr));
        assert_eq!((stage.archives().len(), output.stdout.len()), (0, 0), "{program}");
    }
}

/// With --rollback a mistyped script, which had changed nothing, had the whole state exchanged for that of the archive: a
/// program that could not be started was not told from one that failed with 126 or 127.
#[test]
fn a_program_that_cannot_be_run_is_told_and_nothing_is_brought_back() {
    let stage = Stage::new();
    stage.write("plain", b"#!/bin/sh\nexit 0\n");
    stage.write("lame", b"#!/no/such/interpreter\n");
    fs::set_permissions(stage.path("lame"), fs::Permissions::from_mode(0o755)).expect("sets");
    for (program, expected) in [("./plain", 126), ("./no-such", 127), ("./lame", 127)] {
        for line in ["-q", "--rollback --json"] {
            let output = stage.command(&format!("guard source -o out/ {line} --")).arg(program).output().expect("runs");
            let told = text(&output.stderr);
            assert_eq!(code(&output), Some(expected), "{told}");
            assert!(told.contains(&format!("cannot run {program}: ")), "{told}");
            assert!(told.contains("nothing was brought back, as it has changed nothing\n"), "{told}");
            assert!(!told.contains("the way back: ") && kept(&stage.path("source")).is_empty(), "{told}");
            let ran = if line == "-q" { continue } else { &json(&output)["ran"] };
            assert!(ran["error"].is_string() && ran["rollback"].is_null() && ran["wayBack"].is_null(), "{ran}");
            assert_eq!(ran["exitCode"], expected, "{ran}");
        }
    }
    assert_eq!(stage.archives().len(), 6);
}

#[test]
fn a_command_that_ends_as_if_it_could_not_be_run_is_brought_back_from() {
    let stage = Stage::new();
    for expected in [126, 127] {
        let script = format!("echo new > source/a.txt; exit {expected}");
        let output = stage.guarded("source -o out/ -q --rollback", &script);
        assert_eq!(code(&output), Some(expected), "{}", text(&output.stderr));
        assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"alpha");
    }
}

/// On XFS the root came back with the time of its exchange: a directory that is exchanged with another one is stamped there.
#[test]
fn a_rollback_brings_back_every_byte_mode_and_time_and_keeps_what_the_command_left() {
    let stage = Stage::new();
    fs::set_permissions(stage.path("source/a.txt"), fs::Permissions::from_mode(0o604)).expect("sets");
    fs::set_permissions(stage.path("source/below"), fs::Permissions::from_mode(0o710)).expect("sets");
    std::os::unix::fs::symlink("a.txt", stage.path("source/link")).expect("links");
    let before = tree(&stage.path("source"));
    let script = "rm -r source/below source/link; echo new > source/a.txt; chmod 777 source/a.txt; echo > source/b; \
                  touch -d @1000000000 source/a.txt source/b source; exit 7";
    let output = stage.guarded("source -o out/ --rollback", script);
    assert_eq!(code(&output), Some(7), "{}", text(&output.stderr));
    assert_eq!(tree(&stage.path("source")), before, "{}", text(&output.stderr));
    let kept = kept(&stage.path("source"));
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read(kept[0].join("a.txt")).expect("reads"), b"new\n");
    let names: Vec<_> = tree(&kept[0]).into_keys().collect();
    assert_eq!(names, ["", "a.txt", "b"].map(std::path::PathBuf::from));
    let told = text(&output.stderr);
    assert!(told.contains("brought back: everything is as it was"), "{told}");
    assert!(told.contains(&format!("what it left is kept as {}", kept[0].display())), "{told}");
    assert!(!told.contains("the way back: "), "it was taken: {told}");
    stage.assert_clean();
}

#[test]
fn a_rollback_that_was_not_needed_or_not_asked_for_is_not_made() {
    let stage = Stage::new();
    for (line, script) in [("--rollback", "echo new > source/a.txt"), ("", "echo new > source/a.txt; exit 1")] {
        let output = stage.guarded(&format!("source -o out/ {line}"), script);
        assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"new\n", "{}", text(&output.stderr));
        assert!(kept(&stage.path("source")).is_empty());
    }
}

#[test]
fn a_rollback_that_cannot_be_made_is_told_with_the_way_back_and_the_exit_code_stays() {
    let stage = Stage::new();
    let script = "echo new > source/a.txt; sleep 100 < source/a.txt > /dev/null 2>&1 & echo $! > pid; exit 7";
    let output = stage.guarded("source -o out/ --rollback --json", script);
    let holder = stage.said("pid").expect("was started");
    assert!(Command::new("kill").arg(holder.trim()).status().expect("runs").success(), "it ran all the time");
    let told = text(&output.stderr);
    assert_eq!(code(&output), Some(7), "{told}");
    assert!(told.contains("nothing was brought back: ") && told.contains(holder.trim()), "{told}");
    assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"new\n");
    let ran = &json(&output)["ran"];
    assert_eq!((&ran["rollback"]["done"], &ran["exitCode"]), (&Value::from(false), &Value::from(7)), "{ran}");
    assert_eq!(ran["wayBack"], way_back(&output), "{ran}");
    stage::wait_until(|| !std::path::Path::new("/proc").join(holder.trim()).exists());
    let back = stage.later(&way_back(&output), &stage.path("home"));
    assert_eq!(code(&back), Some(0), "{}", text(&back.stderr));
    assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"alpha");
    stage.assert_clean();
}

#[test]
fn with_json_standard_output_is_one_object_and_the_command_speaks_on_standard_error() {
    let stage = Stage::new();
    let script = "echo on stdout; rm source/a.txt; exit 7";
    let output = stage.guarded("source -o out/ --json --rollback", script);
    let report = json(&output);
    let (ran, told) = (&report["ran"], text(&output.stderr));
    assert!(told.contains("on stdout\n"), "{told}");
    assert_eq!((code(&output), &ran["exitCode"]), (Some(7), &Value::from(7)), "{ran}");
    assert_eq!(ran["rollback"]["done"], true, "{ran}");
    assert!(ran["wayBack"].as_str().is_some_and(|way| way.starts_with("clawsnap restore ")), "{ran}");
    assert_eq!(ran["rollback"]["kept"].as_array().map(Vec::len), Some(1), "{ran}");
    assert!(report["archivePath"].is_string() && report["outcome"] == "complete", "{report}");

    let good = stage.guarded("source -o out/ --json", "echo on stdout");
    let ran = &json(&good)["ran"];
    assert_eq!((&ran["exitCode"], &ran["wayBack"], &ran["rollback"]), (&Value::from(0), &Value::Null, &Value::Null));
}

#[test]
fn without_json_standard_output_belongs_to_the_command() {
    let stage = Stage::new();
    let output = stage.guarded("source -o out/", "echo on stdout; echo on stderr >&2; exit 7");
    assert_eq!(text(&output.stdout), "on stdout\n");
    let told = text(&output.stderr);
    let archive = stage.archives()[0].file_name().expect("has one").to_string_lossy().into_owned();
    let of_archive = told.find(&archive).expect("the archive is told");
    assert!(of_archive < told.find("on stderr").expect("was said"), "before the command starts: {told}");
    let quiet = stage.guarded("source -o out/ -q", "echo on stdout");
    assert_eq!((text(&quiet.stdout), text(&quiet.stderr)), ("on stdout\n".to_owned(), String::new()));
}

/// `guard -q` said nothing, and an upgrade ran with half a backup behind it.
#[test]
fn gaps_are_told_before_the_command_starts_even_if_nothing_else_is() {
    let stage = Stage::new().installed("{agents: {defaults: {workspace: '~/gone'}}}");
    let output = stage.guarded("-o out/ -q", "echo on stderr >&2");
    let told = text(&output.stderr);
    assert!(told.starts_with("warning: ") && told.contains("gone does not exist"), "{told}");
    assert!(told.ends_with("\non stderr\n") && told.lines().count() == 2, "{told}");
}

#[test]
fn the_command_reads_our_standard_input() {
    let stage = Stage::new();
    stage.write("input", b"typed\n");
    let input = fs::File::open(stage.path("input")).expect("opens");
    let output = stage.guard("source -o out/ -q", "cat").stdin(input).output().expect("runs");
    assert_eq!(text(&output.stdout), "typed\n");
}

#[test]
fn older_archives_go_before_the_command_starts_but_not_before_the_new_one_is_there() {
    let stage = Stage::new();
    for day in 0..2 {
        let mut command = stage.command("create source -q -o out/");
        command.env("SOURCE_DATE_EPOCH", (1_700_000_000 + day * 86_400).to_string());
        assert!(command.status().expect("runs").success());
    }
    let old = stage.archives();
    let lock = fs::File::open(stage.path("source")).expect("opens");
    lock.lock().expect("locks");
    assert_eq!(code(&stage.guarded("source -o out/ -q --keep-last 1", "touch ran")), Some(5));
    assert_eq!((stage.archives().len(), stage.path("ran").exists()), (2, false));
    drop(lock);
    let output = stage.guarded("source -o out/ -q --keep-last 1", "ls out > listed");
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let new = stage.archives();
    assert_eq!(new.len(), 1);
    assert!(!old.contains(&new[0]), "{new:?}");
    let name = new[0].file_name().expect("has one").to_string_lossy();
    assert_eq!(stage.said("listed"), Some(format!("{name}\n")));
}

#[test]
fn a_log_has_a_line_and_the_hooks_are_told_how_the_command_ended() {
    let stage = Stage::new();
    let hooks = ["--log", "log", "--on-success", "cat > good.json", "--on-failure", "cat > bad.json"];
    for (script, told, other) in [("exit 0", "good.json", "bad.json"), ("exit 7", "bad.json", "good.json")] {
        let mut command = stage.command("guard source -o out/ -q");
        let output = command.args(hooks).args(["--", "sh", "-c", script]).output().expect("runs");
        let report: Value = serde_json::from_str(&stage.said(told).expect("was told")).expect("is JSON");
        assert_eq!(report["ran"]["exitCode"].as_i64(), code(&output).map(i64::from));
        assert!(!stage.path(other).exists(), "{other}");
        fs::remove_file(stage.path(told)).expect("removes");
    }
    let log = stage.said("log").expect("is there");
    let lines: Vec<_> = log.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines.iter().all(|(_, rest)| rest.starts_with("complete /") && rest.contains(".tar.zst")), "{log}");
}

/// A shell that does nothing but write down which signals it is kept from: dash lets all through as it starts.
const SHELL: &str = r#"#!/usr/bin/env perl
    open(my $status, "<", "/proc/self/status");
    open(my $blocked, ">", "blocked");
    print $blocked grep { /^SigBlk/ } <$status>;
"#;

#[test]
fn a_command_gets_no_signals_held_back_and_a_hook_does_not_either() {
    let stage = Stage::new();
    let mut command = stage.command("guard source -o out/ -q -- grep SigBlk /proc/self/status");
    let none = "SigBlk:\t0000000000000000\n";
    assert_eq!(text(&command.output().expect("runs").stdout), none);
    stage.write("shells/sh", SHELL.as_bytes());
    fs::set_permissions(stage.path("shells/sh"), fs::Permissions::from_mode(0o755)).expect("sets");
    let path = format!("{}:{}", stage.path("shells").display(), stage.search_path());
    for (source, hook) in [("no-such", "--on-failure"), ("source", "--on-success")] {
        let mut command = stage.command(&format!("create {source} -q -o out/ {hook} any"));
        command.env("PATH", &path).output().expect("runs");
        assert_eq!(stage.said("blocked").as_deref(), Some(none), "{hook}");
        fs::remove_file(stage.path("blocked")).expect("removes");
    }
}

/// Whoever looks at all descriptors up to the limit, or waits for them by select(), was handed a million of them.
#[test]
fn a_command_has_the_limit_of_descriptors_that_we_were_given_and_a_hook_has_it_too() {
    let stage = Stage::new();
    for (verb, command) in [
        ("guard source -q -o out/ -- sh -c 'ulimit -Sn > limit'", "guard"),
        ("stage source -q -- sh -c 'ulimit -Sn > ../../limit'", "stage"),
        ("create source -q -o out/ --on-success 'ulimit -Sn > limit'", "--on-success"),
        ("create no-such -q -o out/ --on-failure 'ulimit -Sn > limit'", "--on-failure"),
    ] {
        let mut shell = Command::new("sh");
        let line = format!("ulimit -Sn 128; exec clawsnap {verb}");
        shell.args(["-c", &line]).env("PATH", stage.search_path()).current_dir(stage.top());
        let output = shell.env("HOME", stage.path("home")).output().expect("runs");
        assert_eq!(stage.said("limit").as_deref(), Some("128\n"), "{command}: {}", text(&output.stderr));
        fs::remove_file(stage.path("limit")).expect("removes");
    }
}

/// `guard -q --keep-…` swallowed what `create -q --keep-…` says.
#[test]
fn a_quiet_guard_says_what_a_quiet_create_says_of_older_archives() {
    let stage = Stage::new();
    stage.write("out/clawsnap-20231114T221320Z.tar", b"no archive");
    let expected = text(&stage.run("create source -q -o out/ --keep-last 5").stderr);
    assert!(expected.starts_with("warning: ") && expected.lines().count() == 1, "{expected}");
    let output = stage.guarded("source -o out/ -q --keep-last 5", "echo on stderr >&2");
    assert_eq!((code(&output), text(&output.stderr)), (Some(0), format!("{expected}on stderr\n")));
}

/// Lets names appear in a directory and none go, until it is dropped.
struct Sticky<'a>(&'a Stage);

impl<'a> Sticky<'a> {
    fn new(stage: &'a Stage) -> Option<Self> {
        let able = tool::has("chattr") && Self::is_done("+a", stage);
        if !able {
            eprintln!("skipped: no directory can be kept as it is here");
        }
        able.then_some(Self(stage))
    }

    fn is_done(change: &str, stage: &Stage) -> bool {
        Command::new("chattr").arg(change).arg(stage.top()).output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Sticky<'_> {
    fn drop(&mut self) {
        assert!(Self::is_done("-a", self.0) || std::thread::panicking());
    }
}

/// The command ran although names of ours were left, which OpenClaw's migrations refuse to work on, and nobody was told.
#[test]
fn a_command_is_not_started_while_something_of_ours_is_left_and_a_quiet_run_says_that_it_is() {
    let stage = Stage::new();
    let Some(sticky) = Sticky::new(&stage) else { return };
    let created = stage.run("create source -q -o out/");
    let told = text(&created.stderr);
    assert!(told.starts_with("warning: cannot remove the staging directory ") && told.lines().count() == 1, "{told}");
    assert_eq!(code(&created), Some(0), "the archive is what it should be: {told}");
    for line in ["-q", "--json"] {
        let output = stage.guarded(&format!("source -o out/ {line}"), "touch out/ran");
        let told = text(&output.stderr);
        assert_eq!((code(&output), stage.path("out/ran").exists()), (Some(1), false), "{told}");
        let words = ["the command was not started", "cannot remove the staging directory ", "clawsnap sweep"];
        assert!(words.iter().all(|words| told.contains(words)), "{told}");
        if line == "--json" {
            let report = json(&output);
            assert_eq!(report["leftovers"].as_array().map(Vec::len), Some(1), "{report}");
            assert!(report["verified"] == true && report["ran"].is_null(), "{report}");
        }
    }
    drop(sticky);
    assert_eq!(code(&stage.guarded("source -o out/ -q", "touch out/ran")), Some(0), "it is swept by the next run");
    stage.assert_clean();
}
