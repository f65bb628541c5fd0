//! The command as whoever types it meets it: exit codes, streams, signals, terminals.
#![cfg(feature = "cli")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const CLAWSNAP: &str = env!("CARGO_BIN_EXE_clawsnap");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home with a directory to back up and a directory for archives.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().expect("makes a directory") };
        for name in ["home", "source/below", "out"] {
            fs::create_dir_all(stage.path(name)).expect("makes a directory");
        }
        stage.file("source/a.txt", b"alpha").file("source/below/b.jsonl", b"{\"n\":1}\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that nobody wrote to for an hour, so that it is linked.
    fn file(self, name: &str, contents: &[u8]) -> Self {
        fs::write(self.path(name), contents).expect("writes");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let file = File::options().write(true).open(self.path(name)).expect("opens");
        file.set_modified(hour_ago).expect("sets the time");
        self
    }

    /// More than a pipe or two hold, and nothing that compresses.
    fn large(self) -> Self {
        let mut noise = vec![0; 4 << 20];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut noise)).expect("reads noise");
        self.file("source/large", &noise)
    }

    /// A file that takes long to read, though there is nothing in it.
    fn endless(self) -> Self {
        let stage = self.file("source/endless", b"");
        let file = File::options().write(true).open(stage.path("source/endless")).expect("opens");
        let modified = file.metadata().and_then(|found| found.modified()).expect("has a time");
        file.set_len(16 << 30).and_then(|()| file.set_modified(modified)).expect("grows");
        stage
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(CLAWSNAP);
        command.args(line.split_whitespace());
        self.at_home(command)
    }

    /// The same by way of a shell, which sees `$CLAWSNAP`.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("CLAWSNAP", CLAWSNAP);
        self.at_home(command)
    }

    fn at_home(&self, mut command: Command) -> Command {
        let home = self.path("home");
        for name in ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_HOME", "NO_COLOR", "SOURCE_DATE_EPOCH"] {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).env("HOME", home).env("TERM", "xterm").stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("runs")
    }

    fn archives(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(self.path("out")).expect("lists");
        found.map(|entry| entry.expect("lists").path()).collect()
    }

    /// Nothing was published, and nothing of ours is left anywhere.
    fn assert_untouched(&self) {
        assert_eq!(self.archives(), Vec::<PathBuf>::new());
        for name in ["source/a.txt", "source/below/b.jsonl"] {
            assert_eq!(fs::metadata(self.path(name)).expect("is there").nlink(), 1, "{name}");
        }
        let found = Command::new("find").arg(self.dir.path()).args(["-name", ".clawsnap-*"]).output().expect("runs");
        assert_eq!(text(&found.stdout), "");
    }

    /// Waits until a file is frozen: it has a second name.
    fn wait_for_second_name(&self, name: &str) {
        wait_until(|| fs::metadata(self.path(name)).is_ok_and(|found| found.nlink() > 1));
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("sends");
}

fn wait(mut child: Child) -> std::process::ExitStatus {
    let mut status = None;
    wait_until(|| {
        status = child.try_wait().expect("waits");
        status.is_some()
    });
    status.expect("has ended")
}

fn is_installed(tool: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().is_ok_and(|it| it.status.success());
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

#[test]
fn help_shows_examples_and_version_shows_the_version() {
    let stage = Stage::new();
    for line in ["--help", "create --help", "help create"] {
        let output = stage.run(line);
        assert!(output.status.success(), "{line}");
        assert!(text(&output.stdout).contains("clawsnap create --dry-run"), "{line}");
    }
    let version = stage.run("--version");
    assert_eq!(text(&version.stdout), format!("clawsnap {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_nobody_understands_is_a_usage_error() {
    let stage = Stage::new();
    for line in
        ["", "create --frobnicate", "creat", "create source --json --output -", "create --exclude-from /no/such"]
    {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty() && text(&output.stderr).contains("Usage: clawsnap"), "{line}");
    }
}

#[test]
fn a_missing_source_is_refused_before_anything_is_touched() {
    let stage = Stage::new();
    let output = stage.run("create no-such --output out/");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "error: cannot back up no-such: there is no such file or directory. Check the path.\n"
    );
    stage.assert_untouched();
}

#[test]
fn an_output_that_exists_stays_as_it_was() {
    let stage = Stage::new().file("out/old.tar", b"precious");
    let output = stage.run("create source --output out/old.tar");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: cannot publish the archive as "), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert_eq!(fs::read(stage.path("out/old.tar")).expect("is there"), b"precious");
}

#[test]
fn an_output_inside_the_source_is_refused() {
    let stage = Stage::new();
    let output = stage.run("create source --output source/below/");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("lies inside the source"), "{}", text(&output.stderr));
    stage.assert_untouched();
}

#[test]
fn a_good_run_tells_people_what_they_have() {
    let stage = Stage::new();
    let output = stage.run("create source --output out/");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("complete, and of one instant\n"), "{said}");
    for part in ["2 files, 2 directories, 13 B", "froze 2 files in ", "equal to its inventory", "out/clawsnap-2"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_quiet_run_says_nothing_when_all_is_well() {
    let stage = Stage::new();
    let output = stage.run("create source --output out/ --quiet");
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(0), 0, 0));
    assert_eq!(stage.archives().len(), 1);
}

#[test]
fn a_quiet_run_still_says_why_it_failed() {
    let output = Stage::new().run("create no-such -q");
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn the_json_report_is_one_object_and_the_archive_is_private() {
    let stage = Stage::new();
    let output = stage.run("create source --output out/x.tar.gz --json");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let report = json(&output);
    for (field, value) in [
        ("outcome", Value::from("complete")),
        ("consistent", "instant".into()),
        ("verified", true.into()),
        ("dryRun", false.into()),
        ("compression", "gzip".into()),
        ("formatVersion", 1.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
    ] {
        assert_eq!(report[field], value, "{field}");
    }
    for field in
        ["createdAt", "archiveRoot", "assets", "skipped", "counts", "captures", "losses", "departed", "instant"]
    {
        assert!(!report[field].is_null(), "{field}");
    }
    let archive = Path::new(report["archivePath"].as_str().expect("is text")).to_owned();
    assert_eq!(archive, stage.path("out").canonicalize().expect("resolves").join("x.tar.gz"));
    let found = fs::metadata(&archive).expect("is there");
    assert_eq!((found.permissions().mode() & 0o7777, report["archiveBytes"].as_u64()), (0o600, Some(found.len())));
}

#[test]
fn the_json_report_is_printed_of_a_failure_too() {
    let stage = Stage::new().file("out/old.tar", b"precious");
    for (line, code, outcome) in [
        ("create no-such --json", 2, "usage"),
        ("create source --json --output out/old.tar", 1, "failed"),
        ("create source --json --output source/", 2, "usage"),
    ] {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        let report = json(&output);
        assert_eq!(report["outcome"], outcome, "{line}");
        let error = format!("error: {}\n", report["error"].as_str().expect("is text"));
        assert_eq!(text(&output.stderr), error, "{line}");
    }
}

#[test]
fn without_an_output_the_archive_goes_where_it_is_not_backed_up() {
    let stage = Stage::new();
    let place = |cwd: &str| {
        let mut command = stage.command("create --json");
        command.arg(stage.path("source")).current_dir(stage.path(cwd));
        let report = json(&command.output().expect("runs"));
        let path = Path::new(report["archivePath"].as_str().expect("is text")).to_owned();
        path.parent().expect("has a parent").to_owned()
    };
    assert_eq!(place("out"), stage.path("out").canonicalize().expect("resolves"));
    assert_eq!(place("source/below"), stage.path("home").canonicalize().expect("resolves"));
}

#[test]
fn a_quoted_tilde_is_the_home_directory() {
    let stage = Stage::new();
    let output = stage.run("create source --output=~/new/x.tar -q");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(stage.path("home/new/x.tar").is_file());
}

#[test]
fn a_dry_run_writes_nothing() {
    let stage = Stage::new();
    let output = stage.run("create source --output out/ --dry-run --exclude *.txt");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("dry run: nothing was written") && said.contains("1 name by "), "{said}");
    stage.assert_untouched();
    let report = json(&stage.run("create source --output out/ --dry-run --json"));
    assert_eq!((&report["dryRun"], &report["counts"]["files"]), (&true.into(), &2.into()));
}

#[test]
fn the_date_of_the_source_makes_archives_comparable() {
    let stage = Stage::new();
    let mut command = stage.command("create source --output out/ --json");
    let report = json(&command.env("SOURCE_DATE_EPOCH", "1700000000").output().expect("runs"));
    assert_eq!(report["createdAt"], "2023-11-14T22:13:20.000Z");
    let refused = stage.command("create source").env("SOURCE_DATE_EPOCH", "today").output().expect("runs");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_stream_unpacks_with_stock_tar_and_the_report_goes_beside_it() {
    let stage = Stage::new().large();
    let output =
        stage.shell("\"$CLAWSNAP\" create source --output - --compress none | tar -xC out").output().expect("runs");
    let said = text(&output.stderr);
    assert!(said.contains("written to standard output") && said.contains("NOT read back"), "{said}");
    let unpacked = stage.archives().pop().expect("has unpacked");
    let root = unpacked
        .join("payload/posix")
        .join(stage.path("source").canonicalize().expect("resolves").strip_prefix("/").expect("is absolute"));
    for name in ["a.txt", "below/b.jsonl", "large"] {
        let (was, is) = (fs::read(stage.path("source").join(name)), fs::read(root.join(name)));
        assert!(was.expect("reads") == is.expect("reads"), "{name}");
    }
}

#[test]
fn a_reader_that_goes_away_is_an_error_and_no_panic() {
    let stage = Stage::new().large();
    let mut child = stage.command("create source --output - --compress none");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("waits");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Broken pipe") && said.contains("is no archive") && !said.contains("panic"), "{said}");
    stage.assert_untouched();
}

#[test]
fn a_report_that_nobody_can_read_changes_nothing_and_is_no_panic() {
    let stage = Stage::new();
    for flag in ["--json", "--settle=1s"] {
        let script = format!("\"$CLAWSNAP\" create source --output out/ {flag} >/dev/full");
        let output = stage.shell(&script).output().expect("runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.starts_with("warning: the report could not be written"), "{said}");
    }
    assert_eq!(stage.archives().len(), 2);
}

#[test]
fn where_there_is_no_terminal_there_is_no_escape() {
    let stage = Stage::new().large();
    for line in ["create source --output out/", "create source --dry-run", "create no-such", "create --frobnicate"] {
        let output = stage.run(line);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{line}");
        assert!(!output.stdout.contains(&b'\r') && !output.stderr.contains(&b'\r'), "{line}");
    }
}

/// What a terminal would be sent, and how the command ended.
fn on_a_terminal(stage: &Stage, line: &str, no_color: bool) -> (String, Option<i32>) {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{CLAWSNAP} {line}"), "/dev/null"]);
    let mut script = stage.at_home(script);
    if no_color {
        script.env("NO_COLOR", "1");
    }
    let output = script.output().expect("runs");
    (text(&output.stdout), output.status.code())
}

/// `ESC [ … m`, which colours; other escapes move the cursor.
fn has_colours(sent: &str) -> bool {
    sent.split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[test]
fn an_archive_is_not_for_a_terminal() {
    if !is_installed("script") {
        return;
    }
    let stage = Stage::new();
    let (sent, code) = on_a_terminal(&stage, "create source --output -", true);
    assert_eq!(code, Some(2), "{sent}");
    assert!(sent.contains("an archive is not for a terminal") && sent.contains("--output"), "{sent}");
    stage.assert_untouched();
}

#[test]
fn a_terminal_is_shown_bars_and_colours_unless_declined() {
    if !is_installed("script") {
        return;
    }
    let stage = Stage::new().large();
    let (sent, code) = on_a_terminal(&stage, "create source --output out/", false);
    assert_eq!(code, Some(0), "{sent}");
    assert!(has_colours(&sent) && sent.contains("archiving ["), "{sent:?}");
    let (sent, _) = on_a_terminal(&stage, "create source --output out/", true);
    assert!(!has_colours(&sent) && sent.contains("archiving ["), "{sent:?}");
    let (sent, _) = on_a_terminal(&stage, "create source --output out/ --quiet", false);
    assert_eq!(sent, "");
}

/// Whether a signal is ignored here, as SIGHUP is under `nohup`, and so in all that we start.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("reads");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("has a mask");
    u64::from_str_radix(mask.trim(), 16).expect("is hexadecimal") >> (signal as i32 - 1) & 1 == 1
}

#[test]
fn a_terminated_run_cleans_up_and_dies_by_the_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        if is_ignored(signal) {
            eprintln!("skipped: {signal} is ignored where these tests run");
            continue;
        }
        let stage = Stage::new().large();
        let mut command = stage.command("create source --output - --compress none");
        // Nobody reads the pipe: the run waits for ever.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        stage.wait_for_second_name("source/large");
        send(&child, signal);
        let mut said = child.stderr.take().expect("is piped");
        let unread = child.stdout.take();
        assert_eq!(wait(child).signal(), Some(signal as i32));
        drop(unread);
        let mut stderr = String::new();
        said.read_to_string(&mut stderr).expect("reads");
        assert!(stderr.starts_with(&format!("error: cancelled by {signal}: no archive was made")), "{stderr}");
        stage.assert_untouched();
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let stage = Stage::new().endless();
    let child = stage.command("create source --output out/").stderr(Stdio::null()).spawn().expect("runs");
    stage.wait_for_second_name("source/endless");
    send(&child, Signal::SIGKILL);
    assert_eq!(wait(child).signal(), Some(9));
    assert_eq!(stage.archives(), Vec::<PathBuf>::new(), "a draft has no name");
    assert_eq!(fs::metadata(stage.path("source/endless")).expect("is there").nlink(), 2, "nobody could clean up");
    let next = stage.run("create source --exclude endless --output out/next.tar -q");
    assert_eq!((next.status.code(), text(&next.stderr)), (Some(0), String::new()));
    fs::remove_file(stage.path("out/next.tar")).expect("removes");
    assert_eq!(fs::metadata(stage.path("source/endless")).expect("is there").nlink(), 1);
    stage.assert_untouched();
}

#[test]
fn a_cancelled_run_reports_before_it_dies() {
    let stage = Stage::new().endless();
    let mut command = stage.command("create source --json --output out/");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
    stage.wait_for_second_name("source/endless");
    send(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("waits");
    assert_eq!(output.status.signal(), Some(15));
    let report = json(&output);
    assert_eq!((&report["outcome"], &report["signal"]), (&"cancelled".into(), &15.into()));
    stage.assert_untouched();
}

/// timeout(1) sends its signal to the process, and then to its group; logind sends SIGHUP right behind SIGTERM to all that a
/// session has. The second one could cut the clean-up short.
#[test]
fn signals_that_come_within_a_moment_leave_time_to_clean_up() {
    let same = [0, 1, 5].map(|pause| (Signal::SIGTERM, Signal::SIGTERM, pause));
    let other = [
        (Signal::SIGTERM, Signal::SIGHUP, 0),
        (Signal::SIGHUP, Signal::SIGTERM, 0),
        (Signal::SIGINT, Signal::SIGTERM, 1),
    ];
    for (first, second, pause) in same.into_iter().chain(other) {
        let stage = Stage::new().large();
        let mut command = stage.command("create source --output - --compress none");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
        stage.wait_for_second_name("source/large");
        send(&child, first);
        sleep(Duration::from_millis(pause));
        send(&child, second);
        let unread = child.stdout.take();
        // Two that wait at the same time are taken in the order of their numbers.
        let died_of = wait(child).signal();
        assert!([first, second].map(|signal| Some(signal as i32)).contains(&died_of), "{first}, {second}: {died_of:?}");
        drop(unread);
        stage.assert_untouched();
    }
}

#[test]
fn a_second_signal_leaves_at_once() {
    let mut stage = Stage::new();
    // The run ends, but its report is longer than a pipe holds and nobody reads it.
    for number in 0..1_000 {
        stage = stage.file(&format!("source/excluded-{number}"), b"");
    }
    let mut command = stage.command("create source --output out/ --json --exclude excluded-*");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
    wait_until(|| stage.archives().len() == 1);
    sleep(Duration::from_millis(200));
    send(&child, Signal::SIGTERM);
    sleep(Duration::from_millis(200));
    send(&child, Signal::SIGTERM);
    let mut child = child;
    let unread = child.stdout.take();
    assert_eq!(wait(child).code(), Some(128 + 15));
    drop(unread);
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let stage = Stage::new().large();
    let mut command = stage.shell("trap '' HUP; exec \"$CLAWSNAP\" create source --output - --compress none");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    stage.wait_for_second_name("source/large");
    send(&child, Signal::SIGHUP);
    sleep(Duration::from_millis(300));
    let output = child.wait_with_output().expect("waits");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout.len() > 4 << 20);
}
