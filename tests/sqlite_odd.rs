//! Databases in odd places: under two names, beside what only looks like theirs, too large to be locked twice.

mod owner;
mod scene;
mod support;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawsnap::event::{Event, Observer};
use clawsnap::freeze::{Check, DatabaseOptions};
use clawsnap::gate::Verb;
use clawsnap::report::{Consistency, Report};
use owner::{Habit, Owner, open, put};
use rusqlite::Connection;
use scene::{Scene, at_source, instant, paths};
use support::{Archive, helper, write, write_cold};

/// Started again by the tests here as an owner; does nothing else.
#[test]
fn owner() {
    owner::serve();
}

/// The archived copy, opened.
fn copy_of(scene: &Scene, archive: &Archive, path: &Path) -> Connection {
    let restored = scene.top.path().join("restored.sqlite");
    fs::write(&restored, archive.contents(path).expect("is in the archive")).expect("writes");
    Connection::open(restored).expect("opens")
}

fn number(connection: &Connection, query: &str) -> i64 {
    connection.query_row(query, [], |row| row.get(0)).expect("answers")
}

/// A database with these many rows, which nobody has open.
fn database(path: &Path, rows: i64) {
    let connection = open(path, "delete");
    (1..=rows).for_each(|n| put(&connection, n));
    connection.close().expect("closes");
}

/// A log is found by the name of its database. What was copied by the other name, without the log, had the length and the
/// time of the whole copy, which was archived as a link to it: what was in the log was in no archive, and nothing told so.
#[test]
fn a_database_that_has_a_second_name_is_copied_by_each() {
    for other in ["a.sqlite", "z.sqlite"] {
        let scene = Scene::new();
        let (path, other) = (scene.state().join("owned.sqlite"), scene.state().join(other));
        database(&path, 199);
        let connection = open(&path, "wal");
        connection.execute_batch("UPDATE a SET text = replace(text, 'x', 'o')").expect("writes");
        connection.close().expect("closes");
        fs::hard_link(&path, &other).expect("links");
        let owner = Owner::start(&scene.state(), "wal", Habit::KeepsLog);
        let (report, archive) = scene.play(scene.backup().serving_databases());
        owner.kill();
        assert_eq!((report.exit_code(), instant(&report)), (0, true), "{:?}", report.losses);
        for (path, text) in [(&path, "x"), (&other, "o")] {
            assert_eq!(archive.payload[path].kind, tar::EntryType::Regular);
            let query = format!("SELECT count(*) FROM a WHERE text LIKE '{text}%'");
            assert_eq!(number(&copy_of(&scene, &archive, path), &query), 199, "{}", path.display());
        }
    }
}

/// The index that is copied with a raw database has the times, and the number, of the database itself: where that had two
/// names, and the same length, it was archived as a link to it.
#[test]
fn the_parts_of_a_raw_database_that_has_two_names_are_no_links() {
    let scene = Scene::new();
    let (one, two) = (scene.state().join("memory/one.db"), scene.state().join("memory/two.db"));
    write_cold(&one, [b"SQLite format 3\0".to_vec(), vec![7; 32_752]].concat());
    fs::hard_link(&one, &two).expect("links");
    for (path, byte) in [(&one, 1), (&two, 2)] {
        write_cold(&path.with_extension("db-shm"), [byte; 32_768]);
    }
    let (report, archive) = scene.play(scene.backup().serving_databases());
    assert_eq!((report.exit_code(), report.counts.torn), (3, 4), "{:?}", report.losses);
    for (path, byte) in [(&one, 1), (&two, 2)] {
        assert!(archive.contents(&path.with_extension("db-shm")) == Some(&[byte; 32_768][..]), "{}", path.display());
    }
}

/// It came twice, as it was captured as a file, and copied as a part of the database: every backup ended without an archive.
#[test]
fn what_is_only_named_like_the_log_of_a_broken_database_comes_once() {
    let scene = Scene::new();
    let path = scene.state().join("x.sqlite");
    database(&path, 500);
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xEE);
    fs::write(&path, &bytes).expect("writes");
    let notes = ["x.sqlite-journal", "x.sqlite-wal"].map(|name| scene.state().join(name));
    notes.iter().for_each(|notes| write(notes, "what I did today"));
    // Without a helper its bytes are read by another way.
    for databases in [DatabaseOptions { helper: helper(), ..DatabaseOptions::default() }, instead("exit 3")] {
        let (report, archive) = scene.play(scene.backup().databases(databases));
        assert_eq!((report.exit_code(), paths(&report.losses)), (3, vec![path.clone()]));
        assert!(archive.contents(&path) == Some(&bytes[..]));
        for notes in &notes {
            assert_eq!(archive.contents(notes), Some(&b"what I did today"[..]));
        }
        fs::remove_file(scene.top.path().join("a.tar")).expect("removes");
    }
}

/// Whoever is started instead of a helper.
fn instead(script: &str) -> DatabaseOptions {
    let words: [OsString; 3] = ["/bin/sh".into(), "-c".into(), script.into()];
    let helper = words.into_iter().chain(helper()).collect();
    DatabaseOptions { helper, timeout: Duration::from_secs(1), check: Check::Quick }
}

/// Commits, once, when the tree was found to move.
struct Commits(PathBuf, AtomicU64);

impl Observer for Commits {
    fn on(&self, event: Event) {
        if matches!(event, Event::Settling { .. }) && self.1.fetch_add(1, Ordering::SeqCst) == 0 {
            // It waits for the lock to be gone.
            put(&open(&self.0, "delete"), 1_000);
        }
    }
}

/// A copy that took its owner too long to be made again was told as made after the freeze, with the time of what was
/// committed since.
#[test]
fn a_copy_that_is_too_dear_to_be_made_again_has_the_time_of_what_is_in_it() {
    let scene = Scene::new();
    let path = scene.state().join("large.sqlite");
    database(&path, 20);
    let then = fs::metadata(&path).expect("is there");
    // The first look at the tree, after everything is pinned, finds that it moves.
    let (new, opened) = (scene.session("a", 9), AtomicU64::new(0));
    let gate = at_source(move |step| {
        if step.verb == Verb::OpenDir
            && step.name.ends_with(b"a/sessions")
            && opened.fetch_add(1, Ordering::SeqCst) == 1
        {
            write_cold(&new, "{}\n");
        }
        Ok(())
    });
    let slow = instead("sleep 0.7; exec \"$0\" \"$@\"");
    let backup = scene.backup().databases(slow).settle(Duration::from_secs(2)).gate(gate);
    let (report, archive): (Report, _) = scene.play(backup.observer(Commits(path.clone(), AtomicU64::new(0))));
    assert_ne!(fs::metadata(&path).expect("is there").mtime_nsec(), then.mtime_nsec(), "it was committed to");
    assert_eq!((report.exit_code(), report.consistent), (0, Some(Consistency::Window)), "{:?}", report.losses);
    assert!(report.restless.iter().any(|restless| restless.path.0.ends_with(b"large.sqlite")), "{:?}", report.restless);
    assert_eq!(report.databases[0].way, "locked");
    assert_eq!(number(&copy_of(&scene, &archive, &path), "SELECT max(n) FROM a"), 20);
    assert_eq!(paths(&report.moved), [] as [PathBuf; 0], "it is of the time before the freeze was over");
    let told = archive.inventory.iter().find(|line| !line["database"].is_null()).expect("a line");
    assert_eq!(told["mtime"], format!("{}.{:09}", then.mtime(), then.mtime_nsec()));
}
