//! `--if-changed`: nothing is written when nothing differs, and on any doubt there is a backup.
#![cfg(feature = "cli")]

mod rot;
mod stage;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use rot::rot;
use rusqlite::Connection;
use serde_json::Value;
use stage::{Stage, finished, json, send, text, wait_until};

const LINE: &str = "create source --output out/ --if-changed --json";

impl Stage {
    /// With a link, a directory without files, and databases: closed, and open with a log.
    fn rich() -> (Self, Connection) {
        let stage = Self::new();
        fs::create_dir(stage.path("source/empty")).expect("makes");
        symlink("a.txt", stage.path("source/link")).expect("links");
        let closed = Connection::open(stage.path("source/closed.sqlite")).expect("opens");
        closed.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1)").expect("has rows");
        drop(closed);
        let open = Connection::open(stage.path("source/open.sqlite")).expect("opens");
        open.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).expect("has a log");
        open.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1)").expect("has rows");
        settle();
        (stage, open)
    }

    /// One run; how it ended, and how many archives there are.
    fn outcome(&self, line: &str) -> (String, usize) {
        let output = self.run(line);
        let report = json(&output);
        let outcome = report["outcome"].as_str().expect("is text").to_owned();
        let code = if outcome == "lossy" { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{report}");
        self.assert_clean();
        (outcome, self.archives().len())
    }

    fn stamp(&self, name: &str) -> SystemTime {
        fs::metadata(self.path(name)).and_then(|found| found.modified()).expect("has a time")
    }

    fn set_stamp(&self, name: &str, to: SystemTime) {
        File::options()
            .write(true)
            .open(self.path(name))
            .and_then(|file| file.set_modified(to))
            .expect("sets the time");
    }
}

/// What was just made is too young to be trusted.
fn settle() {
    std::thread::sleep(Duration::from_millis(2_100));
}

fn is(outcome: &str, archives: usize) -> (String, usize) {
    (outcome.to_owned(), archives)
}

/// A broken archive was as good as a new one for ever, since its source had not changed.
#[test]
fn an_archive_that_was_found_broken_is_made_again() {
    let (stage, _open) = Stage::rich();
    assert_eq!(stage.outcome(LINE), is("complete", 1));
    assert_eq!(stage.outcome(LINE), is("unchanged", 1));
    let archive = stage.archives().remove(0);
    rot(&archive);
    assert_eq!(stage.run(&format!("verify --quiet {}", archive.display())).status.code(), Some(4));
    assert_eq!(stage.outcome(LINE), is("complete", 2));
}

#[test]
fn an_unchanged_source_is_not_archived_again() {
    let (stage, _open) = Stage::rich();
    let first = json(&stage.run(LINE));
    assert_eq!(first["outcome"], "complete");
    for _ in 0..3 {
        let report = json(&stage.run(LINE));
        assert_eq!(report["outcome"], "unchanged", "{report}");
        for field in ["archivePath", "archiveBytes", "compression", "consistent"] {
            assert_eq!(report[field], first[field], "{field}");
        }
        for field in ["files", "directories"] {
            assert_eq!(report["counts"][field], first["counts"][field], "{field}");
        }
    }
    assert_eq!(stage.archives().len(), 1);
    let output = stage.run("create source --output out/ --if-changed");
    let said = text(&output.stdout);
    assert!(said.starts_with("unchanged: nothing was written\n  archive    "), "{said}");
    let quiet = stage.run("create source --output out/ --if-changed --quiet");
    assert_eq!((quiet.status.code(), quiet.stdout.len() + quiet.stderr.len()), (Some(0), 0));
    stage.assert_clean();
}

type Change<'a> = (&'static str, Box<dyn Fn() + 'a>);

#[test]
fn every_change_is_seen() {
    let (stage, open) = Stage::rich();
    let path = |name: &str| stage.path(&format!("source/{name}"));
    let changes: Vec<Change<'_>> = vec![
        ("a file grows", Box::new(|| stage.write("source/a.txt", b"alpha and more"))),
        ("the same length, written anew", Box::new(|| stage.write("source/a.txt", b"ALPHA AND MORE"))),
        ("a time alone", Box::new(|| stage.cool("source/a.txt"))),
        ("a new name", Box::new(|| stage.write("source/new", b""))),
        ("another name", Box::new(|| fs::rename(path("new"), path("newer")).expect("renames"))),
        ("a name is gone", Box::new(|| fs::remove_file(path("newer")).expect("removes"))),
        ("a directory is gone", Box::new(|| fs::remove_dir(path("empty")).expect("removes"))),
        (
            "a link leads elsewhere",
            Box::new(|| {
                fs::remove_file(path("link")).and_then(|()| symlink("below", path("link"))).expect("links");
            }),
        ),
        ("a mode", Box::new(|| fs::set_permissions(path("a.txt"), fs::Permissions::from_mode(0o640)).expect("sets"))),
        (
            "another file of the same looks",
            Box::new(|| {
                let time = stage.stamp("source/a.txt");
                fs::copy(path("a.txt"), path("copy"))
                    .and_then(|_| fs::rename(path("copy"), path("a.txt")))
                    .expect("copies");
                stage.set_stamp("source/a.txt", time);
            }),
        ),
        (
            "a row, in the log alone",
            Box::new(|| {
                let time = stage.stamp("source/open.sqlite");
                open.execute_batch("INSERT INTO t VALUES(2)").expect("inserts");
                assert_eq!(stage.stamp("source/open.sqlite"), time, "the file itself was not written to");
            }),
        ),
        (
            "a row of the same length",
            Box::new(|| {
                let time = stage.stamp("source/closed.sqlite");
                let closed = Connection::open(path("closed.sqlite")).expect("opens");
                closed.execute_batch("UPDATE t SET n = 7").expect("updates");
                drop(closed);
                stage.set_stamp("source/closed.sqlite", time);
            }),
        ),
    ];
    assert_eq!(stage.outcome(LINE), is("complete", 1));
    for (number, (what, change)) in changes.iter().enumerate() {
        change();
        settle();
        assert_eq!(stage.outcome(LINE), is("complete", number + 2), "{what}");
        assert_eq!(stage.outcome(LINE), is("unchanged", number + 2), "after: {what}");
    }
}

#[test]
fn what_was_just_written_to_is_archived_again_until_it_is_old_enough_to_tell() {
    let stage = Stage::new();
    stage.write("source/young", b"x");
    assert_eq!(stage.outcome(LINE), is("complete", 1));
    assert_eq!(stage.outcome(LINE), is("complete", 2));
    settle();
    assert_eq!(stage.outcome(LINE), is("complete", 3), "the ones before may have missed something");
    assert_eq!(stage.outcome(LINE), is("unchanged", 3));
    stage.set_stamp("source/young", SystemTime::now() + Duration::from_secs(3600));
    assert_eq!(stage.outcome(LINE), is("complete", 4), "a time to come");
    assert_eq!(stage.outcome(LINE), is("complete", 5), "a time to come proves nothing");
}

#[test]
fn what_was_lost_is_tried_again() {
    let broken = [&b"SQLite format 3\0"[..], &[0xaa; 8192]].concat();
    let stage = Stage::new().file("source/broken.sqlite", &broken);
    assert_eq!(stage.outcome(LINE), is("lossy", 1));
    assert_eq!(stage.outcome(LINE), is("lossy", 2));
}

#[test]
fn another_wish_is_another_archive() {
    let stage = Stage::new();
    stage.write("other/file", b"x");
    stage.cool("other/file");
    let wishes =
        ["", " --exclude nothing-here", " --compress gzip", " --compress zstd:9", " --include-regenerable", " other"];
    for (number, wish) in wishes.iter().enumerate() {
        let line = format!("{LINE}{wish}");
        assert_eq!(stage.outcome(&line), is("complete", number + 1), "{wish}");
        assert_eq!(stage.outcome(&line), is("unchanged", number + 1), "{wish}");
    }
    for wish in wishes {
        assert_eq!(stage.outcome(&format!("{LINE}{wish}")).0, "unchanged", "each has its own newest archive: {wish}");
    }
}

#[test]
fn only_the_newest_archive_of_the_same_counts() {
    let stage = Stage::new();
    let time = stage.stamp("source/a.txt");
    assert_eq!(stage.outcome(LINE), is("complete", 1));
    stage.write("source/a.txt", b"other");
    stage.set_stamp("source/a.txt", time + Duration::from_secs(1));
    assert_eq!(stage.outcome(LINE), is("complete", 2));
    stage.write("source/a.txt", b"alpha");
    stage.set_stamp("source/a.txt", time);
    assert_eq!(stage.outcome(LINE), is("complete", 3), "the oldest one is as it is now, but who would look there?");
}

#[test]
fn an_archive_that_is_not_what_it_was_is_none() {
    let stage = Stage::new();
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("removed", |archive| fs::remove_file(archive).expect("removes")),
        ("cut", |archive| {
            let file = File::options().write(true).open(archive).expect("opens");
            let time = file.metadata().and_then(|found| found.modified()).expect("has a time");
            file.set_len(100).and_then(|()| file.set_modified(time)).expect("cuts");
        }),
        ("written to", |archive| {
            let bytes = fs::read(archive).expect("reads");
            fs::write(archive, bytes).expect("writes");
        }),
        ("renamed", |archive| fs::rename(archive, archive.with_file_name("elsewhere")).expect("renames")),
    ];
    for (what, harm) in harms {
        let archive = json(&stage.run("create source --output out/ --if-changed --json"));
        let path = PathBuf::from(archive["archivePath"].as_str().expect("is text"));
        assert_eq!(stage.outcome(LINE).0, "unchanged", "{what}");
        harm(&path);
        assert_eq!(stage.outcome(LINE).0, "complete", "{what}");
        stage.archives().iter().for_each(|archive| fs::remove_file(archive).expect("removes"));
    }
}

#[test]
fn an_archive_made_without_it_says_nothing_and_changes_nothing() {
    let stage = Stage::new();
    let plain = "create source --output out/ --json";
    assert_eq!(stage.outcome(plain), is("complete", 1));
    assert_eq!(stage.outcome(LINE), is("complete", 2));
    assert_eq!(stage.outcome(plain), is("complete", 3), "who does not ask gets an archive");
    assert_eq!(stage.outcome(LINE), is("unchanged", 3));
}

#[test]
fn only_a_directory_can_be_compared_with() {
    let stage = Stage::new();
    for line in [
        "create source -o out/x.tar --if-changed",
        "create source -o - --if-changed",
        "create source -o out/ --no-verify --if-changed",
    ] {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("--if-changed"), "{line}: {}", text(&output.stderr));
    }
    assert!(stage.archives().is_empty());
}

#[test]
fn where_archives_cannot_be_marked_there_is_a_backup_each_time_and_a_word_on_it() {
    let stage = Stage::new();
    let out = stage.path("out");
    // It knows no extended attributes, and says that nothing is free; what is below ten bytes is tried all the same.
    let mounted = Command::new("mount").args(["-t", "ramfs", "none"]).arg(&out).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: nobody here can mount a filesystem without extended attributes");
        return;
    }
    let line = format!("{LINE} --exclude *.txt");
    let reports: Vec<Value> = (0..2).map(|_| json(&stage.run(&line))).collect();
    let unmounted = Command::new("umount").arg(&out).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    for report in reports {
        assert_eq!(report["outcome"], "complete", "{report}");
        let warnings = report["warnings"].as_array().expect("has warnings");
        assert!(
            warnings.iter().any(|line| line.as_str().is_some_and(|line| line.contains("cannot be marked"))),
            "{report}"
        );
    }
}

#[test]
fn a_run_that_is_interrupted_or_killed_leaves_no_word_behind() {
    let stage = Stage::new().large();
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut command = stage.command(&format!("{LINE} --compress xz:9"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        wait_until(|| !stage.leftovers().is_empty());
        send(&child, signal);
        assert!(!finished(child).success());
        assert!(stage.archives().iter().all(|path| path.extension().is_none_or(|ending| ending == "partial")));
    }
    assert_eq!(stage.outcome(LINE), is("complete", 1));
    assert_eq!(stage.outcome(LINE), is("unchanged", 1));
}

#[test]
fn it_takes_about_as_long_as_the_freeze() {
    let stage = Stage::new();
    for number in 0..3_000 {
        let name = format!("source/sessions/{number}.jsonl");
        stage.write(&name, format!("{{\"n\":{number}}}\n").repeat(400).as_bytes());
        stage.cool(&name);
    }
    let timed = |expected: &str| {
        let begun = Instant::now();
        let report = json(&stage.run(LINE));
        assert_eq!(report["outcome"], expected);
        (begun.elapsed(), report["freezeMicroseconds"].as_u64().expect("is a number"))
    };
    let (whole, _) = timed("complete");
    let (again, freeze) = timed("unchanged");
    println!("3,000 files: archived in {whole:?}, found unchanged in {again:?}, of which the freeze took {freeze} µs");
    assert!(again < whole, "{again:?} is not less than {whole:?}");
}
