//! `clawsnap stage`: a command in the frozen tree, and what is left when it has ended.
#![cfg(feature = "cli")]

mod stage;
mod tool;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use stage::{Stage, finished, json, send, text, wait_until};
use tool::{differing, sh, view};

/// More than what is copied because it is small.
const LARGE: usize = (1 << 20) + 1;

impl Stage {
    fn staged(&self, line: &str, script: &str) -> Output {
        let mut command = self.command(line);
        command.args(["--", "sh", "-ec", script]).env("TOP", self.top());
        command.output().expect("runs")
    }

    /// What the command says when it runs well.
    fn told(&self, line: &str, script: &str) -> String {
        let output = self.staged(line, script);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A command that runs until something is written to the file `go`.
    fn waiting(&self, script: &str) -> Child {
        let mut command = self.command("stage source -q --");
        let child = command.args(["sh", "-c", script]).env("TOP", self.top()).stderr(Stdio::piped()).spawn();
        let child = child.expect("runs");
        wait_until(|| self.path("started").exists());
        child
    }
}

#[test]
fn the_command_sees_what_the_source_holds_in_a_directory_of_its_own() {
    let stage = Stage::new().file("source/large", &vec![7; LARGE]);
    symlink("nowhere", stage.path("source/link")).expect("links");
    fs::hard_link(stage.path("source/a.txt"), stage.path("source/z.txt")).expect("links");
    fs::set_permissions(stage.path("source/below"), fs::Permissions::from_mode(0o750)).expect("sets");
    fs::set_permissions(stage.path("source/a.txt"), fs::Permissions::from_mode(0o640)).expect("sets");
    let before = view(&stage.path("source"));
    let said = stage.told("stage source", r#"cp -a . "$TOP/seen"; stat -c %a ..; pwd -P; echo "$CLAWSNAP_ROOT""#);
    let wrong = differing(&before, &view(&stage.path("seen")), |was, is| was == is);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[1]), ("700", lines[2]), "{said}");
    assert!(lines[1].ends_with("/source") && lines[1].contains("/.clawsnap-stage-"), "{said}");
    let wrong = differing(&before, &view(&stage.path("source")), |was, is| was == is);
    assert!(wrong.is_empty(), "the source has changed: {wrong:#?}");
    assert_eq!(stage.leftovers(), [] as [PathBuf; 0]);
}

#[test]
fn the_directory_is_the_same_in_every_run_and_another_for_another_source() {
    let stage = Stage::new().file("other/x", b"x");
    let at = |source: &str| stage.told(&format!("stage {source} -q"), "pwd -P");
    assert_eq!(at("source"), at("source"));
    assert_ne!(at("source"), at("other"));
    assert_eq!(at("source/a.txt"), at("source"), "a file is shown in its directory");
    assert_eq!(stage.told("stage source/a.txt -q", "ls -A"), "a.txt\n");
}

#[test]
fn several_sources_lie_as_they_lie_to_each_other() {
    let stage = Stage::new().file("more/deep/x", b"x");
    let said = stage.told("stage source/below more -q", r#"find . -type f | sort; echo "$CLAWSNAP_SOURCE""#);
    let top = stage.top().canonicalize().expect("resolves");
    assert_eq!(said, format!("./more/deep/x\n./source/below/b.jsonl\n{}\n", top.display()));
}

#[test]
fn the_report_can_be_read_while_the_command_runs_and_tells_of_it_afterwards() {
    let stage = Stage::new();
    let output = stage.staged("stage source --json", r#"cat "$CLAWSNAP_REPORT" > "$TOP/report"; echo loud; exit 9"#);
    let (during, after) = (fs::read(stage.path("report")).expect("is there"), json(&output));
    let during: Value = serde_json::from_slice(&during).expect("is JSON");
    assert_eq!((during["counts"]["files"].as_u64(), &during["ran"]), (Some(2), &Value::Null));
    assert_eq!((output.status.code(), after["ran"]["exitCode"].as_i64()), (Some(9), Some(9)));
    assert_eq!(after["assets"][0]["archivePath"], "source");
    assert!(text(&output.stderr).contains("loud"), "standard output is the report's: {}", text(&output.stderr));
}

#[test]
fn a_database_is_its_consistent_copy_and_its_log_is_in_it() {
    let stage = Stage::new();
    let live = rusqlite::Connection::open(stage.path("source/live.db")).expect("opens");
    live.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t(n); INSERT INTO t VALUES(1), (2)").expect("has rows");
    let said = stage.told("stage source -q", r#"ls; cp live.db "$TOP/copy.db""#);
    assert_eq!(said, "a.txt\nbelow\nlive.db\n");
    let copy = rusqlite::Connection::open(stage.path("copy.db")).expect("opens");
    let rows: i64 = copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("is sound");
    assert_eq!(rows, 2);
}

#[test]
fn a_half_written_record_is_cut_off_and_lies_beside_the_tree() {
    let stage = Stage::new();
    stage.write("source/hot.jsonl", b"{\"n\":1}\n{\"n\":");
    let said = stage.told("stage source -q", r#"cat hot.jsonl; echo --; cat "../tails$CLAWSNAP_SOURCE/hot.jsonl""#);
    assert_eq!(said, "{\"n\":1}\n--\n{\"n\":");
}

#[test]
fn what_is_small_cannot_move_any_more_and_what_is_large_and_moves_is_named() {
    let stage = Stage::new().file("source/large", &vec![7; LARGE]);
    let script = r#"echo more >> "$TOP/source/a.txt"; echo more >> "$TOP/source/large"; cat a.txt; wc -c < large"#;
    let output = stage.staged("stage source --json", script);
    let report = json(&output);
    if report["captures"]["clone"].is_u64() {
        assert_eq!(output.status.code(), Some(0), "{report}");
        return;
    }
    assert_eq!((output.status.code(), report["outcome"].as_str()), (Some(3), Some("lossy")), "{report}");
    let touched = report["ran"]["touched"].as_array().expect("is a list");
    assert_eq!(touched.len(), 1, "{report}");
    let path = touched[0]["path"].as_str().expect("is text");
    assert!(path.ends_with("/source/large"), "{report}");
    assert_eq!(touched[0]["reason"], format!("written to, {LARGE} bytes before, {} after", LARGE + 5));
    stage.cool("source/large");
    let quiet = stage.staged("stage source -q", "sleep 0.01; : > \"$TOP/source/large\"");
    let said = text(&quiet.stderr);
    assert!(said.starts_with("warning: 1 file was written to while the command ran: "), "{said}");
}

#[test]
fn copies_do_not_move_and_links_are_what_one_asks_for() {
    let stage = Stage::new().file("source/large", &vec![7; LARGE]);
    let grow = r#"echo more >> "$TOP/source/a.txt"; echo more >> "$TOP/source/large""#;
    let output = stage.staged("stage source -q --freeze copy", grow);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    stage.cool("source/a.txt");
    let said = stage.told("stage source -q --freeze link", "stat -c %h a.txt");
    assert_eq!(said, "2\n");
    assert_eq!(fs::metadata(stage.path("source/a.txt")).expect("is there").nlink(), 1);
}

#[test]
fn the_exit_code_is_that_of_the_command_and_a_loss_counts_only_after_it() {
    let broken = [&b"SQLite format 3\0"[..], &[0xaa; 8192]].concat();
    let stage = Stage::new().file("source/broken.sqlite", &broken);
    for (script, code) in [("exit 0", 3), ("exit 7", 7), ("kill -KILL $$", 137)] {
        assert_eq!(stage.staged("stage source -q", script).status.code(), Some(code), "{script}");
    }
    assert_eq!(stage.staged("stage source -q", "kill -TERM $$").status.signal(), Some(15));
}

#[test]
fn nothing_is_frozen_for_a_command_that_is_not_there() {
    let stage = Stage::new();
    let output = stage.run("stage source -- no-such-program --flag");
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(text(&output.stderr), "error: there is no command no-such-program: nothing was done\n");
    let output = stage.run("stage source");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let output = stage.run("stage no-such -- true");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let output = stage.run("stage source --output x -- true");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn another_run_waits_until_the_command_has_ended() {
    let stage = Stage::new();
    let child = stage.waiting(r#"touch "$TOP/started"; while ! test -e "$TOP/go"; do sleep 0.01; done"#);
    let output = stage.run("create source -q -o out/");
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    let output = stage.run("sweep source --json");
    assert_eq!(json(&output)["leftovers"][0]["standing"], "busy");
    stage.write("go", b"");
    assert_eq!(finished(child).code(), Some(0));
    assert_eq!(stage.run("create source -q -o out/").status.code(), Some(0));
    stage.assert_clean();
}

#[test]
fn a_signal_is_for_the_command_and_the_tree_goes_when_that_has_ended() {
    let stage = Stage::new();
    let trap = r#"trap 'echo told > "$TOP/told"; exit 5' TERM; touch "$TOP/started"; while :; do sleep 0.01; done"#;
    let child = stage.waiting(trap);
    send(&child, Signal::SIGTERM);
    assert_eq!(finished(child).code(), Some(5));
    assert!(stage.path("told").exists());
    stage.assert_clean();
}

#[test]
fn a_killed_run_takes_its_command_along_and_the_next_one_sweeps() {
    let stage = Stage::new().file("source/large", &vec![7; LARGE]);
    let trap = r#"trap 'echo told > "$TOP/told"; exit 5' TERM; touch "$TOP/started"; while :; do sleep 0.01; done"#;
    let child = stage.waiting(trap);
    send(&child, Signal::SIGKILL);
    assert_eq!(finished(child).signal(), Some(9));
    wait_until(|| stage.path("told").exists());
    assert_eq!(stage.leftovers().len(), 1);
    let links = || fs::metadata(stage.path("source/large")).expect("is there").nlink();
    assert!(links() == 2 || links() == 1, "{}", links());
    assert_eq!(stage.run("create source -q -o out/").status.code(), Some(0));
    assert_eq!(links(), 1);
    stage.assert_clean();
}

#[test]
fn what_the_command_makes_or_breaks_in_the_tree_is_gone_with_it() {
    let stage = Stage::new();
    let script = "mkdir -p new/deep; echo x > new/deep/x; chmod 0 new; rm -rf below; ln -s / root; mkfifo pipe";
    stage.told("stage source -q", script);
    stage.assert_clean();
}

#[test]
fn what_somebody_mounted_in_the_tree_is_not_removed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    let stage = Stage::new().file("treasure/gold", b"gold");
    let script = r#"mkdir here; mount --bind "$TOP/treasure" here"#;
    let output = stage.staged("stage source", script);
    let said = text(&output.stderr);
    let mounted = stage.leftovers().pop().expect("is still there").join("source/here");
    sh(r#"umount "$AT""#, stage.top(), &[("AT", &mounted)]);
    assert!(said.contains("cannot remove the staging directory"), "{said}");
    assert_eq!(fs::read(stage.path("treasure/gold")).expect("is there"), b"gold");
    assert_eq!(stage.run("sweep source").status.code(), Some(0));
    stage.assert_clean();
}

/// A small filesystem in memory, gone when dropped.
struct Small(PathBuf);

impl Small {
    fn of(at: &Path, size: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can mount a small filesystem");
            return None;
        }
        sh(&format!(r#"mount -t tmpfs -o size={size} tmpfs "$AT""#), Path::new("/"), &[("AT", at)]);
        Some(Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        sh(r#"umount "$AT""#, Path::new("/"), &[("AT", &self.0)]);
    }
}

#[test]
fn a_tree_that_does_not_fit_is_not_begun_with_and_leaves_nothing() {
    let stage = Stage::new();
    let Some(_small) = Small::of(&stage.path("out"), "8m") else { return };
    for number in 0..10 {
        stage.write(&format!("out/state/file-{number}"), &vec![number; 500_000]);
    }
    let output = stage.staged("stage out/state", r#"touch "$TOP/started""#);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left") && said.contains("free space"), "{said}");
    assert!(!stage.path("started").exists());
    assert_eq!(stage.leftovers(), [] as [PathBuf; 0]);
    let files = fs::read_dir(stage.path("out/state")).expect("lists");
    assert!(files.map(|file| file.expect("lists").metadata().expect("is there")).all(|meta| meta.len() == 500_000));
}

#[test]
fn a_command_is_not_kept_from_the_signals_that_we_hold_back() {
    let stage = Stage::new();
    let said = stage.told("stage source -q", "grep SigBlk /proc/self/status");
    assert_eq!(said.split_whitespace().last(), Some("0000000000000000"), "{said}");
}

#[test]
fn a_run_that_gives_way_has_its_command_give_way_too() {
    let stage = Stage::new();
    let said = stage.told("stage source -q --nice --ionice", "nice; ionice");
    let before: i32 = text(&sh("nice", stage.top(), &[]).stdout).trim().parse().expect("a number");
    assert_eq!(said, format!("{}\nidle\n", (before + 10).min(19)));
    assert!(File::open(stage.path("source")).is_ok());
}

/// A share whose directories hand their group and a list of those who may read down to all that is made in them: a command took
/// both for the source's, and bob could have read what was restored from its repository.
#[test]
fn what_the_directory_above_hands_down_is_not_taken_over() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give away");
        return;
    }
    const LOOKS: &str = r"find . -printf '%m %G %p\n' | sort";
    for heirloom in ["setfacl -d -m u:1234:rwx .", "chown :4242 . && chmod 2770 ."] {
        let stage = Stage::new().file("source/large", &vec![7; LARGE]);
        stage.write("source/hot.jsonl", b"{\"n\":1}\n{\"n\":");
        sh(heirloom, stage.top(), &[]);
        let looks = text(&sh(LOOKS, &stage.path("source"), &[]).stdout);
        let time = || fs::metadata(stage.top()).expect("is there").modified().expect("has a time");
        let before = time();
        let said = stage.told("stage source -q", &format!("getfacl -R -s -n -p ..; stat -c '%a %g' ..; {LOOKS}"));
        assert_eq!(said, format!("700 0\n{looks}"), "{heirloom}");
        assert_eq!(time(), before, "{heirloom}: the directory above shows that something was made in it");
    }
}

/// The tree of a source that was called like something else in the staging directory was laid out in that, or not at all.
#[test]
fn a_source_may_be_called_like_something_of_ours() {
    for (name, shown) in [
        ("lock", "lock.d"),
        ("report.json", "report.json.d"),
        ("tails", "tails.d"),
        ("0", "0.d"),
        ("17", "17.d"),
        ("lock.d", "lock.d"),
        ("2024-01", "2024-01"),
    ] {
        let stage = Stage::new().file(&format!("states/{name}/large"), &vec![7; LARGE]);
        stage.write(&format!("states/{name}/hot.jsonl"), b"{\"n\":1}\n{\"n\":");
        let script = r#"{ ls -A; ls -A "../tails$CLAWSNAP_SOURCE"; basename "$PWD"; } > "$TOP/said"
            echo more >> "$CLAWSNAP_SOURCE/large""#;
        let output = stage.staged(&format!("stage states/{name} --json --freeze link"), script);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(3), "{name}: {report}");
        let said = fs::read_to_string(stage.path("said")).expect("is there");
        assert_eq!(said, format!("hot.jsonl\nlarge\nhot.jsonl\n{shown}\n"), "{name}");
        let touched = report["ran"]["touched"][0]["path"].as_str().expect("is text");
        assert!(touched.ends_with(&format!("/states/{name}/large")), "{touched}");
        assert_eq!(report["assets"][0]["archivePath"], shown, "{name}");
        assert_eq!(stage.leftovers(), [] as [PathBuf; 0], "{name}");
    }
}
