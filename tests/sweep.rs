//! What killed runs leave, and who removes it.
#![cfg(feature = "cli")]

mod proof;
mod stage;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clawsnap::gate::{Gate, Step, Verb};
use clawsnap::plan::{Environment, Request};
use clawsnap::sweep::Standing;
use nix::sys::signal::Signal;
use proof::{Promise, proven};
use serde_json::Value;
use stage::{Stage, finished, json, send, text, wait_until};
use support::{Backup, Script};

const STAGING: &str = ".clawsnap-20260101T000000Z-00000001";
const DRAFT: &str = ".clawsnap-20260101T000000Z-00000002.partial";
const TREE: &str = ".clawsnap-20260101T000000Z-00000003.partial";
const SWAP: &str = ".clawsnap-20260101T000000Z-00000004.swap";
const EMPTY: &str = ".clawsnap-20260101T000000Z-00000005";

impl Stage {
    /// As if runs had died in every way.
    fn littered() -> Self {
        let stage = Self::new();
        stage.write(&format!("{STAGING}/lock"), b"");
        stage.write(&format!("{STAGING}/0/0"), b"copy");
        fs::hard_link(stage.path("source/a.txt"), stage.path(&format!("{STAGING}/0/1"))).expect("links");
        stage.write(&format!("source/{STAGING}/lock"), b"");
        stage.write(&format!("out/{DRAFT}"), b"half an archive");
        stage.write(&format!("out/{TREE}/below/file"), b"half a tree");
        stage.write(&format!("{SWAP}/tree/file"), b"precious");
        fs::create_dir(stage.path(&format!("out/{EMPTY}"))).expect("makes");
        for ours in [format!("out/{TREE}"), SWAP.to_owned()] {
            fs::set_permissions(stage.path(&ours), fs::Permissions::from_mode(0o700)).expect("sets");
        }
        stage
    }

    /// A run that has frozen its source and can go no further.
    fn stuck(&self) -> Child {
        let mut command = self.command("create source --output - --compress none");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
        wait_until(|| !self.leftovers().is_empty());
        child
    }
}

/// What was found, as `purpose standing` by name.
fn told(report: &Value) -> Vec<String> {
    let found = report["leftovers"].as_array().expect("is a list");
    let word = |found: &Value, field: &str| found[field].as_str().expect("is text").to_owned();
    let name = |path: &str| {
        path.rsplit('/').next().expect("has a name").trim_start_matches(".clawsnap-20260101T000000Z-0000000").to_owned()
    };
    let mut told: Vec<String> = found
        .iter()
        .map(|found| format!("{} {} {}", name(&word(found, "path")), word(found, "purpose"), word(found, "standing")))
        .collect();
    told.sort();
    told
}

#[test]
fn a_sweep_removes_what_dead_runs_left_and_shows_an_unfinished_restore() {
    let stage = Stage::littered();
    let output = stage.run("sweep source --output out --json");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    let expected = [
        "1 staging removed",
        "1 staging removed",
        "2.partial draft removed",
        "3.partial draft removed",
        "4.swap swap unfinished",
        "5 staging removed",
    ];
    assert_eq!(told(&report), expected);
    assert_eq!(stage.leftovers(), [stage.path(SWAP)]);
    assert_eq!(fs::read(stage.path(&format!("{SWAP}/tree/file"))).expect("is there"), b"precious");
    let commands = report["leftovers"].as_array().expect("a list").iter().filter_map(|found| found["command"].as_str());
    assert_eq!(commands.collect::<Vec<_>>(), ["clawsnap restore ARCHIVE --in-place"]);
    let again = stage.run("sweep source --output out");
    let said = text(&again.stdout);
    assert!(said.starts_with("nothing to remove\n  unfinished ") && said.contains("--in-place"), "{said}");
}

#[test]
fn a_dry_run_shows_what_is_left_and_removes_nothing() {
    let stage = Stage::littered();
    let before = stage.leftovers();
    let output = stage.run("sweep source --output out --dry-run --json");
    let told = told(&json(&output));
    assert_eq!(told.iter().filter(|line| line.ends_with("removable")).count(), 5, "{told:?}");
    let said = text(&stage.run("sweep source --output out --dry-run").stdout);
    assert!(said.starts_with("dry run: 5 leftovers would be removed\n"), "{said}");
    assert_eq!(stage.leftovers(), before);
}

/// A staging directory is made beside whichever root is met first, or in it. The next run swept only where it made its
/// own: with two roots, second names stayed beside the other one for good.
#[test]
fn a_run_removes_what_dead_ones_left_beside_any_of_its_sources() {
    for sources in ["homes/one/a homes/two/b", "homes/two/b/file homes/one/a"] {
        let stage = Stage::new().file("homes/one/a/file", b"first").file("homes/two/b/file", b"second");
        let places = ["homes/one", "homes/two", "homes/one/a", "homes/two/b", "out"];
        for place in places {
            stage.write(&format!("{place}/{STAGING}/lock"), b"");
            fs::create_dir(stage.path(&format!("{place}/{STAGING}/0"))).expect("makes");
        }
        for (name, place) in [("homes/one/a/file", "homes/one"), ("homes/two/b/file", "homes/two")] {
            fs::hard_link(stage.path(name), stage.path(&format!("{place}/{STAGING}/0/0"))).expect("links");
        }
        let output = stage.run(&format!("create {sources} -q -o out/"));
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{sources}");
        assert_eq!(stage.leftovers(), [] as [PathBuf; 0], "{sources}");
        for name in ["homes/one/a/file", "homes/two/b/file"] {
            assert_eq!(fs::metadata(stage.path(name)).expect("is there").nlink(), 1, "{sources}: {name}");
        }
    }
}

/// A single file is staged where its directory is: beside that, where no sweep looked.
#[test]
fn what_a_run_on_a_single_file_left_is_found() {
    let stage = Stage::new().large();
    let mut command = stage.command("create source/large --output - --compress none");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
    wait_until(|| !stage.leftovers().is_empty());
    send(&child, Signal::SIGKILL);
    finished(child);
    let said = text(&stage.run("sweep source/large").stdout);
    assert!(said.starts_with("removed 1 leftover\n"), "{said}");
    stage.assert_clean();
}

#[test]
fn what_a_living_run_has_made_stays() {
    let stage = Stage::new().large();
    let living = stage.stuck();
    let output = stage.run("sweep source --output out --json");
    let report = json(&output);
    assert_eq!((output.status.code(), report["outcome"].as_str()), (Some(0), Some("complete")));
    assert!(told(&report)[0].ends_with(" staging busy"), "{report}");
    assert!(!stage.leftovers().is_empty());
    send(&living, Signal::SIGKILL);
    finished(living);
    let said = text(&stage.run("sweep source").stdout);
    assert!(said.starts_with("removed 1 leftover\n"), "{said}");
    stage.assert_clean();
}

#[test]
fn what_only_looks_like_ours_stays() {
    let stage = Stage::new();
    stage.write("precious/file", b"x");
    std::os::unix::fs::symlink(stage.path("precious"), stage.path(STAGING)).expect("links");
    std::os::unix::fs::symlink(stage.path("precious/file"), stage.path(&format!("out/{DRAFT}"))).expect("links");
    stage.write(&format!("{EMPTY}/0/0"), b"no lock, and not empty");
    stage.write(".clawsnap-notes", b"another name");
    let output = stage.run("sweep source --output out --json");
    let expected = ["1 staging foreign", "2.partial draft foreign", "5 staging foreign"];
    assert_eq!((output.status.code(), told(&json(&output))), (Some(0), expected.map(str::to_owned).to_vec()));
    assert_eq!(fs::read(stage.path("precious/file")).expect("is there"), b"x");
    assert_eq!(stage.leftovers().len(), 4);
}

#[test]
fn what_cannot_be_done_is_said() {
    let stage = Stage::new();
    for (line, code, words) in [
        ("sweep no-such", 2, "there is no such file or directory"),
        ("sweep source --output no-such", 1, "cannot look for leftovers in"),
        ("sweep --frobnicate", 2, "--frobnicate"),
    ] {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(text(&output.stderr).contains(words), "{line}: {}", text(&output.stderr));
    }
}

#[test]
fn a_leftover_that_cannot_be_removed_is_named_and_the_rest_goes() {
    let stage = Stage::littered();
    let chattr = |flag: &str| Command::new("chattr").args([flag]).arg(stage.path(&format!("{STAGING}/0/0"))).output();
    if !chattr("+i").is_ok_and(|output| output.status.success()) {
        println!("skipped: nobody here can make a file immutable");
        return;
    }
    let output = stage.run("sweep source --output out --json");
    chattr("-i").expect("runs");
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), json(&output)["outcome"].as_str()), (Some(1), Some("failed")));
    assert!(said.contains("cannot remove") && said.contains(STAGING) && said.contains("not permitted"), "{said}");
    assert_eq!(stage.leftovers().len(), 2, "{:?}", stage.leftovers());
}

/// A quick and dirty random number: it only spreads the kills.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// How many runs are killed.
fn kills() -> u64 {
    std::env::var("CLAWSNAP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(120)
}

/// A source with all sorts of files: linked, held, and databases with and without a log.
fn lively() -> Stage {
    let stage = Stage::new();
    for number in 0..300 {
        let name = format!("source/sessions/{number}.jsonl");
        stage.write(&name, b"{\"a\":1}\n");
        if number % 10 > 0 {
            stage.cool(&name);
        }
    }
    for journal in ["wal", "delete"] {
        let database = rusqlite::Connection::open(stage.path(&format!("source/{journal}.sqlite"))).expect("opens");
        database.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).expect("has a journal");
        database.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1), (2)").expect("has rows");
    }
    stage
}

/// In microseconds.
fn time_of_a_run(stage: &Stage) -> u64 {
    let begun = Instant::now();
    assert!(stage.run("create source --output out/ -q").status.success());
    let time = u64::try_from(begun.elapsed().as_micros()).expect("is short");
    stage.archives().iter().for_each(|archive| fs::remove_file(archive).expect("removes"));
    time
}

/// The next run takes the lock, sweeps and succeeds, wherever the one before was killed.
#[test]
fn a_run_that_is_killed_at_any_point_is_no_hindrance_to_the_next() {
    let stage = lively();
    let usual = (0..5).map(|_| time_of_a_run(&stage)).min().expect("ran");
    let (mut dice, begun) = (Dice(0x9e37_79b9_7f4a_7c15), Instant::now());
    let (mut left, mut ended, mut published) = (0, 0, 0);
    for number in 0..kills() {
        let mut child = stage.command("create source --output out/ -q").spawn().expect("runs");
        sleep(Duration::from_micros(dice.below(usual)));
        ended += u64::from(child.try_wait().expect("looks").is_some());
        child.kill().and_then(|()| child.wait()).expect("ends");
        left += u64::from(!stage.leftovers().is_empty());
        for archive in stage.archives() {
            published += 1;
            let proven = stage.command("verify -q").arg(&archive).output().expect("runs");
            assert_eq!(proven.status.code(), Some(0), "what kill {number} left with a name is no whole archive");
        }
        let next = stage.run("create source --output out/next.tar.zst -q");
        assert_eq!((next.status.code(), text(&next.stderr)), (Some(0), String::new()), "after kill {number}");
        stage.assert_clean();
        let linked = fs::read_dir(stage.path("source/sessions")).expect("lists").filter(|entry| {
            use std::os::unix::fs::MetadataExt;
            entry.as_ref().is_ok_and(|entry| entry.metadata().is_ok_and(|found| found.nlink() > 1))
        });
        assert_eq!(linked.count(), 0, "after kill {number}");
        stage.archives().iter().for_each(|archive| fs::remove_file(archive).expect("removes"));
    }
    println!(
        "{} runs killed within {usual} µs: {ended} had ended before, {published} had published, {left} left something; \
         each next run took the lock, swept and succeeded, in {:?}",
        kills(),
        begun.elapsed()
    );
    assert!(left > 0, "no kill left anything: nothing was tried");
    proven(&[Promise::Untouched], kills(), "killed at random");
    proven(&[Promise::Name], published, "killed at random");
}

/// Answers as NFS and many a FUSE do, where what is unlinked while it is open stays in its directory under a hidden name: a
/// staging directory cannot be removed while we have an unlinked file in it open.
fn hiding(top: &Path) -> impl Gate + use<> {
    const ENOTEMPTY: i32 = 39;
    let top = top.to_owned();
    let is_unlinked = move |path: PathBuf| path.starts_with(&top) && path.ends_with("lock (deleted)");
    Script::new(move |_, step: &Step<'_>| {
        let is_leaving = step.verb == Verb::RemoveDir && step.name.starts_with(b".clawsnap-");
        let mut open = fs::read_dir("/proc/self/fd")?.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        if is_leaving && open.any(&is_unlinked) { Err(io::Error::from_raw_os_error(ENOTEMPTY)) } else { Ok(()) }
    })
}

/// The lock of a staging directory was open while that was removed. Where that keeps a hidden name in it, each run left its
/// own behind, no sweep removed it, and `guard` started no command.
#[test]
fn nothing_is_left_where_an_open_file_keeps_a_hidden_name() {
    let stage = Stage::new();
    let source = stage.path("source");
    let report = Backup::of(&source).gate(hiding(stage.top())).to(&stage.path("out/a.tar"));
    assert_eq!((report.exit_code(), report.leftovers.len()), (0, 0), "{:?}", report.leftovers);
    stage.write(&format!("{STAGING}/lock"), b"");
    stage.write(&format!("{STAGING}/0/0"), b"copy");
    let environment = Environment { home: None, cwd: "/".into(), variables: BTreeMap::new() };
    let request = Request { sources: vec![source], ..Request::new(environment) };
    let gate: Arc<dyn Gate> = Arc::new(hiding(stage.top()));
    let swept = clawsnap::sweep::sweep(&request, &[], false, &gate);
    let standings: Vec<Standing> = swept.leftovers.iter().map(|found| found.standing).collect();
    assert_eq!((swept.exit_code(), &standings[..]), (0, &[Standing::Removed][..]), "{swept:?}");
    assert_eq!(stage.leftovers(), [] as [PathBuf; 0]);
}
