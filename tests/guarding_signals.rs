//! Signals while the command of `clawsnap guard` runs: they are the command's.
#![cfg(feature = "cli")]

mod stage;
mod ward;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::Signal;
use stage::{Stage, send, text, wait_until};
use ward::way_back;

/// Waits for a signal that it writes down, and ends with `code`.
fn trapping(code: i32) -> String {
    format!(
        "for name in INT TERM HUP; do trap \"echo $name >> got; sleep 0.3; echo > done; exit {code}\" $name; done; \
         echo > up; while :; do sleep 0.02; done"
    )
}

#[test]
fn a_signal_for_us_alone_reaches_the_command_and_its_end_is_waited_for() {
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP")] {
        for code in [0, 9] {
            let stage = Stage::new();
            let child = stage.begun("source -o out/ -q", &trapping(code));
            stage.wait_for("up");
            send(&child, signal);
            let output = child.wait_with_output().expect("ends");
            assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output.stderr));
            assert_eq!(stage.said("got"), Some(format!("{name}\n")), "{name}");
            assert!(stage.path("done").exists(), "{name}: it was waited for");
            match code {
                0 => assert_eq!(text(&output.stderr), "", "{name}"),
                _ => assert!(way_back(&output).starts_with("clawsnap restore "), "{name}"),
            }
            stage.assert_clean();
        }
    }
}

#[test]
fn every_signal_reaches_the_command_and_none_of_them_ends_us() {
    let stage = Stage::new();
    let script = "trap 'echo T >> got' TERM; echo > up; until test -e enough; do sleep 0.02; done; exit 4";
    let child = stage.begun("source -o out/ -q", script);
    stage.wait_for("up");
    for count in 1..=3 {
        send(&child, Signal::SIGTERM);
        wait_until(|| stage.said("got").is_some_and(|got| got.lines().count() == count));
    }
    stage.write("enough", b"");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}

#[test]
fn a_command_that_does_not_care_dies_of_the_signal_and_we_do_with_the_way_back() {
    let stage = Stage::new();
    let child = stage.begun("source -o out/ -q", "echo > up; exec sleep 100");
    stage.wait_for("up");
    send(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.signal(), Some(15), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("was ended by signal 15"), "{}", text(&output.stderr));
    assert!(way_back(&output).contains("--in-place"));
}

#[test]
fn an_interrupted_command_is_rolled_back_where_that_was_asked_for() {
    let stage = Stage::new();
    let before = ward::tree(&stage.path("source"));
    let child = stage.begun("source -o out/ -q --rollback", "rm source/a.txt; echo > up; exec sleep 100");
    stage.wait_for("up");
    send(&child, Signal::SIGINT);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.signal(), Some(2), "{}", text(&output.stderr));
    assert_eq!(ward::tree(&stage.path("source")), before, "{}", text(&output.stderr));
}

/// Counts SIGINTs, each as it comes, and ends with exit code 3 a while after the first.
const COUNTER: &str = r#"
    $SIG{INT} = sub { open(my $f, ">>", "ints"); print $f "int\n"; close $f };
    open(my $up, ">", "up"); close $up;
    select(undef, undef, undef, 0.05) until -e "ints";
    select(undef, undef, undef, 0.05) for 1 .. 10;
    exit 3;
"#;

/// `clawsnap guard` at a terminal of its own, with its bars, and the terminal's keyboard.
fn at_a_terminal(stage: &Stage, line: &str) -> Option<(Child, ChildStdin)> {
    let has_script = Command::new("script").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_script {
        eprintln!("skipped: there is no script(1)");
        return None;
    }
    let line = format!("exec {} guard source -o out/ {line}", env!("CARGO_BIN_EXE_clawsnap"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "typescript"]).current_dir(stage.top()).env("HOME", stage.path("home"));
    script.env("TERM", "xterm");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    let keyboard = child.stdin.take().expect("is piped");
    Some((child, keyboard))
}

#[test]
fn what_is_typed_at_a_terminal_reaches_the_command_once() {
    let stage = Stage::new();
    stage.write("count.pl", COUNTER.as_bytes());
    let Some((child, mut keyboard)) = at_a_terminal(&stage, "-- perl count.pl") else { return };
    stage.wait_for("up");
    keyboard.write_all(b"\x03").expect("types");
    let output = child.wait_with_output().expect("ends");
    drop(keyboard);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    assert_eq!(stage.said("ints").as_deref(), Some("int\n"));
    assert!(text(&output.stdout).contains("the way back: "), "{}", text(&output.stdout));
}

/// The thread that draws the bars must not be the one that a signal comes to.
#[test]
fn what_is_typed_at_a_terminal_while_the_archive_is_made_ends_in_a_clean_up() {
    let stage = Stage::new().large();
    let Some((child, mut keyboard)) = at_a_terminal(&stage, "--compress xz:9 -- touch ran") else { return };
    wait_until(|| !stage.leftovers().is_empty());
    keyboard.write_all(b"\x03").expect("types");
    let output = child.wait_with_output().expect("ends");
    drop(keyboard);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stdout));
    assert!(!stage.path("ran").exists() && stage.archives().is_empty());
    assert!(text(&output.stdout).contains("cancelled by SIGINT"), "{}", text(&output.stdout));
    stage.assert_clean();
}
