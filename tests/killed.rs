//! `kill -9` at every call of the kernel that others can notice: whatever was being done, the source is as it was, what
//! has the name of an archive is whole, and the next run succeeds and leaves nothing behind.
#![cfg(feature = "cli")]

mod place;
mod proof;
mod stage;
mod steps;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use place::contents;
use place::support::patient::verdict;
use place::support::{Looks, differences, snapshot};
use proof::{Promise, proven};
use stage::{Stage, text};
use steps::{count, counted, is_thorough, points, step};

const THEN: u64 = 1_700_000_000;

/// A home with a source that is frozen in every way.
fn scene() -> Stage {
    let stage = Stage::quick().file("source/one", b"linked").file("source/below/c.jsonl", b"{\"cold\":1}\n");
    fs::hard_link(stage.path("source/one"), stage.path("source/two")).expect("links");
    symlink("one", stage.path("source/link")).expect("links");
    stage.write("source/hot.jsonl", b"{\"hot\":1}\n{\"half");
    for journal in ["wal", "delete"] {
        let database = rusqlite::Connection::open(stage.path(&format!("source/{journal}.sqlite"))).expect("opens");
        database.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).expect("has a journal");
        database.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1), (2)").expect("has rows");
    }
    fs::create_dir(stage.path("tmp")).expect("makes a directory");
    stage
}

/// The same, with archives of three days.
fn with_archives() -> Stage {
    let stage = scene();
    for day in 0..3 {
        let mut command = command(&stage, "create source -q -o out/");
        let made = command.env("SOURCE_DATE_EPOCH", (THEN + day * 86_400).to_string()).output().expect("runs");
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    }
    stage
}

fn command(stage: &Stage, line: &str) -> Command {
    let mut command = stage.command(line);
    command.env("TMPDIR", stage.path("tmp"));
    command
}

fn scripted(stage: &Stage, line: &str, script: &str) -> Command {
    let mut command = command(stage, line);
    command.args(["--", "sh", "-c", script]);
    command
}

/// What is found after one kill.
struct Killed {
    stage: Stage,
    before: BTreeMap<PathBuf, Looks>,
    archives: BTreeMap<OsString, Vec<u8>>,
    /// What tells this kill from all others.
    what: String,
}

impl Killed {
    /// The source is as it was, but for second names that are in hidden directories of ours.
    fn assert_untouched(&self) {
        let now = snapshot(&self.stage.path("source"));
        let everywhere = snapshot(self.stage.top());
        let names = |inode| everywhere.values().filter(|looks| looks.is_file() && looks.inode == inode).count() as u64;
        let second = now.values().filter(|looks| looks.is_file()).find(|looks| looks.nlink != names(looks.inode));
        assert_eq!(second, None, "{}: it has a name that is nowhere", self.what);
        let but_links = |looks: &BTreeMap<PathBuf, Looks>| -> BTreeMap<PathBuf, Looks> {
            looks.iter().map(|(path, looks)| (path.clone(), Looks { nlink: 0, ..looks.clone() })).collect()
        };
        self.assert_no_difference(&but_links(&self.before), &but_links(&now));
    }

    fn assert_no_difference(&self, before: &BTreeMap<PathBuf, Looks>, now: &BTreeMap<PathBuf, Looks>) {
        let changes = differences(before, now);
        assert!(changes.is_empty(), "{}: {changes:#?}", self.what);
    }

    /// What has the name of an archive is one; an older one is what it was.
    fn assert_whole(&self) {
        for (name, contents) in archives(&self.stage) {
            let path = self.stage.path("out").join(&name);
            match self.archives.get(&name) {
                Some(before) => assert!(*before == contents, "{}: {name:?} is another one", self.what),
                None => assert_eq!(verdict(&path).exit_code(), 0, "{}: {name:?} is not whole", self.what),
            }
        }
    }

    fn next(&self, line: &str) -> Output {
        self.succeeds(command(&self.stage, line))
    }

    fn succeeds(&self, mut next: Command) -> Output {
        let output = next.output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{}; the next run: {}", self.what, text(&output.stderr));
        output
    }

    /// After the next run the source is as it was, and nothing of ours is left.
    fn assert_clean(&self) {
        assert_eq!(self.stage.leftovers(), [] as [PathBuf; 0], "{}", self.what);
        self.assert_no_difference(&self.before, &snapshot(&self.stage.path("source")));
        assert_eq!(fs::read_dir(self.stage.path("tmp")).expect("lists").count(), 0, "{}", self.what);
        self.assert_whole();
    }
}

/// All that has a name in the directory for archives.
fn archives(stage: &Stage) -> BTreeMap<OsString, Vec<u8>> {
    let named = stage.archives().into_iter().filter(|path| !stage.leftovers().contains(path));
    named.map(|path| (path.file_name().expect("has one").to_owned(), fs::read(&path).expect("reads"))).collect()
}

/// Kills a command at each of its calls, always in a new scene; `judge` sees what is found then. A whole run makes `least`
/// calls or more.
fn killed_everywhere(name: &str, least: u64, scene: fn() -> Stage, command: fn(&Stage) -> Command, judge: fn(&Killed)) {
    let calls = count(&command(&scene()), counted());
    let (mut kills, mut left) = (0, 0);
    for at in points(calls) {
        let stage = scene();
        let (before, archives) = (snapshot(&stage.path("source")), archives(&stage));
        let Some(call) = step(&command(&stage), counted(), at).killed_at else { continue };
        kills += 1;
        left += u64::from(!stage.leftovers().is_empty());
        judge(&Killed { stage, before, archives, what: format!("{name}, killed at call {at} of {calls}, {call}") });
    }
    println!("{name}: killed at {kills} of {calls} calls; {left} left something hidden");
    assert!(calls >= least && is_thorough(kills, calls), "{name}: only {kills} kills, {calls} calls");
    proven(&[Promise::Untouched, Promise::Name], kills, &format!("killed {name}"));
}

#[test]
fn a_backup() {
    let line = |stage: &Stage| command(stage, "create source -q -o out/a.tar.zst");
    // Enough to be written in pieces.
    killed_everywhere(
        "create",
        60,
        || scene().large(),
        line,
        |killed| {
            killed.assert_untouched();
            killed.assert_whole();
            killed.next("create source -q -o out/next.tar.zst");
            killed.assert_clean();
        },
    );
}

#[test]
fn a_backup_that_removes_old_archives() {
    let line = |stage: &Stage| command(stage, "create source -q -o out/ --keep-last 2");
    killed_everywhere("create --keep-last", 60, with_archives, line, |killed| {
        killed.assert_untouched();
        killed.assert_whole();
        assert!(archives(&killed.stage).len() >= 2, "{}", killed.what);
        killed.next("create source -q -o out/ --keep-last 2");
        assert_eq!(archives(&killed.stage).len(), 2, "{}", killed.what);
        killed.assert_clean();
    });
}

#[test]
fn a_prune() {
    killed_everywhere(
        "prune",
        5,
        with_archives,
        |stage| command(stage, "prune out --keep-last 1 -q"),
        |killed| {
            killed.assert_untouched();
            killed.assert_whole();
            let newest = killed.archives.keys().next_back().expect("there are some");
            assert!(archives(&killed.stage).contains_key(newest), "{}", killed.what);
            killed.next("prune out --keep-last 1 -q");
            assert!(archives(&killed.stage).keys().eq([newest]), "{}", killed.what);
            killed.assert_clean();
        },
    );
}

#[test]
fn a_guard() {
    let line = |stage: &Stage| scripted(stage, "guard source -q -o out/a.tar.zst", "echo > ran");
    killed_everywhere("guard", 60, scene, line, |killed| {
        killed.assert_untouched();
        killed.assert_whole();
        let (ran, archive) = (killed.stage.path("ran").exists(), killed.stage.path("out/a.tar.zst").exists());
        assert!(!ran || archive, "{}: the command ran, and there is no archive", killed.what);
        killed.succeeds(scripted(&killed.stage, "guard source -q -o out/next.tar.zst", "exit 0"));
        killed.assert_clean();
    });
}

/// Ruins what is guarded, having said so.
const RUIN: &str = "echo > ran; echo ruined > source/below/c.jsonl; echo > source/below/new; exit 7";

#[test]
fn a_guard_that_goes_back() {
    let line = |stage: &Stage| scripted(stage, "guard source/below -q -o out/a.tar.zst --rollback", RUIN);
    killed_everywhere("guard --rollback", 70, scene, line, |killed| {
        killed.assert_whole();
        let stage = &killed.stage;
        let (ran, archive) = (stage.path("ran").exists(), stage.path("out/a.tar.zst").exists());
        assert!(!ran || archive, "{}: the command ran, and there is no archive", killed.what);
        let is_ruined = contents(stage.top()).contains(&b"ruined\n"[..]);
        // What the guard would have printed as the way back.
        killed.next(if archive {
            "restore out/a.tar.zst --in-place --yes -q"
        } else {
            "create source/below -q -o out/n.tar"
        });
        let below = stage.path("source/below");
        let inside = |looks: &BTreeMap<PathBuf, Looks>| -> BTreeMap<PathBuf, Looks> {
            let inside = looks.iter().filter(|(path, _)| path.starts_with(&below));
            inside.map(|(path, looks)| (path.clone(), Looks { inode: 0, ..looks.clone() })).collect()
        };
        killed.assert_no_difference(&inside(&killed.before), &inside(&snapshot(&below)));
        assert!(!is_ruined || contents(stage.top()).contains(&b"ruined\n"[..]), "{}: something is lost", killed.what);
        assert_eq!(stage.leftovers(), [] as [PathBuf; 0], "{}", killed.what);
        killed.assert_whole();
    });
}

#[test]
fn a_command_in_a_staged_tree() {
    let line = |stage: &Stage| scripted(stage, "stage source -q", "cat below/c.jsonl > \"$HOME/seen\"");
    killed_everywhere("stage", 100, scene, line, |killed| {
        killed.assert_untouched();
        killed.succeeds(scripted(&killed.stage, "stage source -q", "cat hot.jsonl > \"$HOME/seen\""));
        assert_eq!(fs::read(killed.stage.path("home/seen")).expect("was seen"), b"{\"hot\":1}\n", "{}", killed.what);
        killed.assert_clean();
    });
}
