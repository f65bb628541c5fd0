//! Backups that nobody watches: a log, a lower priority, and commands that are told how it ended.
#![cfg(feature = "cli")]

mod stage;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use stage::{Stage, finished, json, send, text, wait_until};

impl Stage {
    fn with(&self, line: &str, more: &[&str]) -> std::process::Output {
        self.command(line).args(more).output().expect("runs")
    }

    fn said(&self, name: &str) -> Option<Value> {
        let bytes = fs::read(self.path(name)).ok()?;
        Some(serde_json::from_slice(&bytes).expect("is JSON"))
    }
}

const HOOKS: [&str; 4] = ["--on-success", "cat > good.json", "--on-failure", "cat > bad.json"];

#[test]
fn the_command_for_success_gets_the_report() {
    let stage = Stage::new();
    let output = stage.with("create source -o out/ --json", &HOOKS);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((stage.said("good.json"), stage.said("bad.json")), (Some(json(&output)), None));
    let again = stage.with("create source -o out/ --if-changed -q", &HOOKS);
    assert_eq!((again.status.code(), again.stderr.len()), (Some(0), 0));
    stage.assert_clean();
}

/// With a broken config, or its disk away, `create -q --keep-last 1` removed the only archive that held the workspace, with
/// exit code 0 and without a word.
#[test]
fn a_quiet_run_tells_of_gaps_and_does_not_remove_what_was_made_without_any() {
    const CONFIG: &str = "{agents: {defaults: {workspace: '~/ws'}}}";
    for (config, workspace, word) in [("{", "home/ws", "cannot be understood"), (CONFIG, "home/away", "does not exist")]
    {
        let stage = Stage::new().installed(CONFIG);
        let create = |line: &str| {
            let output = stage.run(&format!("create -q -o out/ {line}"));
            assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
            text(&output.stderr)
        };
        assert_eq!(create(""), "");
        stage.write("home/.openclaw/openclaw.json", config.as_bytes());
        fs::rename(stage.path("home/ws"), stage.path(workspace)).expect("renames");
        let rehearsed = json(&stage.run("create -o out/ --keep-last 1 --dry-run --json"));
        assert_eq!(rehearsed["pruned"]["archives"][0]["stays"][0], "newest without loss", "{rehearsed}");
        for _ in 0..2 {
            let told = create("--keep-last 1");
            assert!(told.starts_with("warning: ") && told.contains(word) && told.lines().count() == 1, "{told}");
            assert_eq!(stage.archives().len(), 2, "{word}");
        }
        stage.write("home/.openclaw/openclaw.json", CONFIG.as_bytes());
        fs::rename(stage.path(workspace), stage.path("home/ws")).expect("renames");
        assert_eq!(create("--keep-last 1"), "");
        assert_eq!(stage.archives().len(), 1, "{word}");
    }
}

/// A disk that is away leaves its mount point. Three such nights of `create -q --keep-last 3` removed every archive that held
/// anything, with exit code 0 and without a word.
#[test]
fn a_quiet_run_tells_of_an_empty_mount_point_and_does_not_remove_what_was_made_of_the_disk() {
    for away in ["home/.openclaw", "home/ws"] {
        let stage = Stage::new().installed("{agents: {defaults: {workspace: '~/ws'}}}");
        let create = || {
            let output = stage.run("create -q -o out/ --keep-last 1");
            assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
            text(&output.stderr)
        };
        assert_eq!(create(), "");
        let [whole] = &stage.archives()[..] else { panic!("{:?}", stage.archives()) };
        fs::rename(stage.path(away), stage.path("disk")).expect("renames");
        fs::create_dir(stage.path(away)).expect("makes a directory");
        for _ in 0..3 {
            let told = create();
            assert!(told.starts_with("warning: The ") && told.lines().count() == 1, "{told}");
            assert!(told.ends_with(&format!("{away} holds nothing: is its disk mounted?\n")), "{told}");
            assert!(whole.exists() && stage.archives().len() == 2, "{away}");
        }
        fs::remove_dir(stage.path(away)).expect("removes");
        fs::rename(stage.path("disk"), stage.path(away)).expect("renames");
        assert_eq!(create(), "");
        assert!(!whole.exists() && stage.archives().len() == 1, "{away}");
    }
}

#[test]
fn a_workspace_that_nothing_names_and_nobody_needed_yet_is_no_gap() {
    let stage = Stage::new().installed("{agents: {list: [{id: 'a'}, {id: 'b'}]}}");
    let output = stage.run("create -o out/ --json");
    let report = json(&output);
    assert_eq!((&report["gaps"], report["warnings"].as_array().map(Vec::len)), (&Value::Null, Some(2)), "{report}");
    let quiet = stage.run("create -q -o out/");
    assert_eq!((quiet.status.code(), text(&quiet.stderr)), (Some(0), String::new()));
}

#[test]
fn the_command_for_failure_is_told_of_everything_but_a_whole_archive() {
    let broken = [&b"SQLite format 3\0"[..], &[0xaa; 8192]].concat();
    let stage = Stage::new().file("source/broken.sqlite", &broken);
    let lock = fs::File::open(stage.path("home")).expect("opens");
    lock.lock().expect("locks");
    for (line, code, outcome) in [
        ("create source -o out/ -q", 3, "lossy"),
        ("create no-such -q", 2, "usage"),
        ("create home -o out/ -q", 5, "locked"),
        ("create source -o /proc/no/such/ -q", 1, "failed"),
    ] {
        let output = stage.with(line, &HOOKS);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
        assert_eq!(stage.said("bad.json").expect("was told")["outcome"], outcome, "{line}");
        assert_eq!(stage.said("good.json"), None, "{line}");
        fs::remove_file(stage.path("bad.json")).expect("removes");
    }
}

/// From cron, whose PATH is short, a `stage -- restic` that was not found ended with 127 and told nobody: the log and the
/// commands came only after the words that were typed had been understood.
#[test]
fn the_command_for_failure_and_the_log_are_told_of_a_run_that_could_not_begin() {
    let stage = Stage::new();
    nix::unistd::mkfifo(&stage.path("silent"), nix::sys::stat::Mode::S_IRWXU).expect("makes");
    for (line, more, code, outcome) in [
        ("stage source", "-- no-such-program --flag", 127, "failed"),
        ("guard source -o out/", "-- no-such-program", 127, "failed"),
        ("create source -o out/ --exclude-from gone", "", 2, "usage"),
        ("guard source -o -", "-- true", 2, "usage"),
        ("stage source --exclude-from gone", "-- true", 2, "usage"),
        ("create source -o out/ --exclude-from silent --patience 1s", "", 1, "failed"),
        ("stage source --exclude-from silent --patience 1s", "-- true", 1, "failed"),
    ] {
        let mut command = stage.command(line);
        let output = command.args(HOOKS).args(["--log", "log"]).args(more.split_whitespace()).output().expect("runs");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{line}: {}", text(&output.stderr));
        let told = stage.said("bad.json").expect("was told");
        let ran = (code == 127).then_some(127);
        assert_eq!((told["outcome"].as_str(), told["ran"]["exitCode"].as_i64()), (Some(outcome), ran), "{line}");
        let log = fs::read_to_string(stage.path("log")).expect("is there");
        let error = told["error"].as_str().expect("has a reason");
        assert!(log.ends_with(&format!(" {outcome}: {error}\n")) && log.lines().count() == 1, "{line}: {log}");
        assert!(text(&output.stderr).contains(error), "{line}: {}", text(&output.stderr));
        assert_eq!(stage.said("good.json"), None, "{line}");
        ["bad.json", "log"].iter().for_each(|name| fs::remove_file(stage.path(name)).expect("removes"));
    }
    assert!(stage.archives().is_empty());
}

#[test]
fn a_run_that_is_interrupted_tells_that_and_dies_by_its_signal_all_the_same() {
    let stage = Stage::new().large();
    let mut command = stage.command("create source -o - --compress none --log log");
    let child = command.args(HOOKS).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
    wait_until(|| !stage.leftovers().is_empty());
    send(&child, Signal::SIGTERM);
    assert_eq!(finished(child).signal(), Some(15));
    let told = stage.said("bad.json").expect("was told");
    assert_eq!((&told["outcome"], &told["signal"]), (&Value::from("cancelled"), &Value::from(15)));
    let log = fs::read_to_string(stage.path("log")).expect("is there");
    assert!(log.contains(" cancelled: cancelled by SIGTERM: no archive was made\n"), "{log}");
    stage.assert_clean();
}

#[test]
fn a_command_that_fails_or_does_not_read_is_a_warning_and_changes_nothing() {
    let stage = Stage::new();
    let output = stage.with("create source -o out/ -q --json", &["--on-success", "echo loud; exit 7"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["outcome"], "complete");
    assert_eq!(text(&output.stderr), "loud\nwarning: the --on-success command ended with exit status: 7\n");
    let silent = stage.with("create source -o out/ -q", &["--on-success", "exec <&-; true"]);
    assert_eq!((silent.status.code(), silent.stderr.len()), (Some(0), 0));
}

#[test]
fn a_log_grows_by_a_line_a_run_with_the_time() {
    let stage = Stage::new();
    for line in ["create source -o out/a.tar", "create source -o out/a.tar", "create source -o out/ --if-changed"] {
        stage.with(line, &["--log", "~/log", "-q"]);
    }
    let log = fs::read_to_string(stage.path("home/log")).expect("is there");
    let lines: Vec<(&str, &str)> = log.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for (time, _) in &lines {
        assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{time}");
    }
    assert!(lines[0].1.starts_with("complete /") && lines[0].1.contains("a.tar: 2 files, 13 B in "), "{log}");
    assert!(lines[1].1.starts_with("failed: cannot publish the archive as "), "{log}");
    let mode = fs::metadata(stage.path("home/log")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_log_that_cannot_be_written_to_ends_it_before_anything_is_done() {
    let stage = Stage::new();
    let output = stage.with("create source -o out/ --log no/such/log", &HOOKS);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("error: cannot write to the log no/such/log: "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(stage.said("bad.json").expect("was told")["outcome"], "failed");
    assert!(stage.archives().is_empty());
}

#[test]
fn a_nice_run_lets_others_go_first_in_all_of_its_threads() {
    let stage = Stage::new().large();
    let mut command = stage.command("create source -o - --compress zstd --nice");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
    wait_until(|| !stage.leftovers().is_empty());
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("lists");
    let nice = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(16)?.parse::<i32>().ok()
    };
    let all: Vec<i32> = tasks.filter_map(|task| nice(task.ok()?)).collect();
    send(&child, Signal::SIGKILL);
    finished(child);
    let before = fs::read_to_string("/proc/self/stat").expect("is there");
    let before: i32 = before
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.split(' ').nth(16))
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(all.len() > 1 && all.iter().all(|nice| *nice == (before + 10).min(19)), "{all:?}");
}
