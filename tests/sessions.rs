//! The sessions in an archive, as `clawsnap list --sessions` shows them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::{Backup, write, write_cold};

/// An archive of a state whose agents keep their sessions in files.
struct Scene {
    top: tempfile::TempDir,
}

impl Scene {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self::with(files, |_| {})
    }

    /// And what is done to the directory of agents before it is backed up.
    fn with(files: &[(&str, Vec<u8>)], further: impl FnOnce(&Path)) -> Self {
        let scene = Self { top: tempfile::tempdir().expect("a directory") };
        write_cold(&scene.state().join("openclaw.json"), "{}");
        for (path, contents) in files {
            write_cold(&scene.state().join("agents").join(path), contents);
        }
        further(&scene.state().join("agents"));
        let report = Backup::of(&scene.state()).serving_databases().to(&scene.archive());
        assert!(matches!(report.exit_code(), 0 | 3), "{:?}", report.error);
        scene
    }

    fn state(&self) -> PathBuf {
        self.top.path().join("state")
    }

    fn archive(&self) -> PathBuf {
        self.top.path().join("a.tar")
    }

    fn list(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        command.args(["list", "--sessions"]).arg(self.archive()).args(arguments).env("TZ", "UTC");
        command.output().expect("clawsnap runs")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let listed = self.list(&[&["--json"], arguments].concat());
        assert_eq!(listed.status.code(), Some(0), "{listed:?}");
        serde_json::from_slice(&listed.stdout).expect("JSON")
    }
}

fn session(message: &str, minute: u32) -> Vec<u8> {
    let time = format!("2026-11-25T02:{minute:02}:00.000Z");
    let message = serde_json::json!({
        "type": "message", "timestamp": time, "message": { "role": "user", "content": [{ "type": "text", "text": message }] },
    });
    format!("{{\"type\":\"session\",\"id\":\"x\",\"timestamp\":\"2026-11-25T02:00:00.000Z\"}}\n{message}\n")
        .into_bytes()
}

/// Half a record, bytes that are no text, a line that is longer than any record, and then a session.
fn broken() -> Vec<u8> {
    let huge = [b"{\"type\":\"message\",\"x\":\"".to_vec(), vec![b'x'; 17 << 20], b"\"}\n".to_vec()].concat();
    [b"{\"type\":\n\xff\xfe\n".to_vec(), huge, session("after \u{1b}[31mall", 7)].concat()
}

fn told(listed: &Value) -> Vec<[&str; 4]> {
    let all = listed["sessions"].as_array().expect("sessions").iter();
    all.map(|session| ["agent", "id", "state", "firstMessage"].map(|field| session[field].as_str().unwrap_or("-")))
        .collect()
}

/// `cp -al agents before` before an upgrade hid each session from the list: its file was a second name then.
#[test]
fn a_session_is_listed_by_each_of_its_files_names() {
    let scene = Scene::with(&[("main/sessions/aaaa.jsonl", session("hello", 1))], |agents| {
        fs::create_dir_all(agents.join("before/sessions")).expect("makes");
        fs::hard_link(agents.join("main/sessions/aaaa.jsonl"), agents.join("before/sessions/bbbb.jsonl"))
            .expect("links");
    });
    let found = told(&scene.json(&[])).into_iter().map(|told| told.map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(found, [["before", "bbbb", "current", "hello"], ["main", "aaaa", "current", "hello"]]);
    let one = scene.list(&["*/main/sessions/*"]);
    let said = String::from_utf8_lossy(&one.stdout).into_owned() + &String::from_utf8_lossy(&one.stderr);
    assert!(said.contains("must be named too") && said.contains("before/sessions/bbbb.jsonl"), "{said}");
}

#[test]
fn sessions_are_listed_agent_by_agent_the_latest_last_whatever_is_broken_in_them() {
    let scene = Scene::new(&[
        ("main/sessions/late.jsonl", session("later", 9)),
        ("main/sessions/early.jsonl", session("earlier", 1)),
        ("main/sessions/gone.jsonl.deleted.2026-11-25T02-05-00.000Z", session("gone", 5)),
        ("main/sessions/anew.jsonl.reset.1", session("anew", 6)),
        ("main/sessions/sessions.json", b"{}".to_vec()),
        ("helper/sessions/broken.jsonl", broken()),
        ("helper/sessions/mute.jsonl", b"{\"type\":\"session\",\"timestamp\":\"2026-11-25T02:00:00Z\"}\n".to_vec()),
    ]);

    let listed = scene.json(&[]);
    assert_eq!(
        told(&listed),
        [
            ["helper", "mute", "current", "-"],
            ["helper", "broken", "current", "after \u{1b}[31mall"],
            ["main", "early", "current", "earlier"],
            ["main", "gone", "deleted", "gone"],
            ["main", "anew", "reset", "anew"],
            ["main", "late", "current", "later"],
        ]
    );
    let broken = &listed["sessions"][1];
    assert_eq!((&broken["records"], &broken["unparsed"]), (&2.into(), &3.into()), "{broken}");
    assert_eq!(broken["lastTime"], "1795572420.000000000");
    assert_eq!(broken["path"], scene.state().join("agents/helper/sessions/broken.jsonl").to_str().expect("UTF-8"));
    assert_eq!((&listed["verified"], &listed["warnings"]), (&true.into(), &Value::Array(Vec::new())));

    let text = String::from_utf8(scene.list(&[]).stdout).expect("UTF-8");
    assert!(text.starts_with("helper: 2 sessions\n"), "{text}");
    assert!(
        text.contains("  2026-11-25 02:07:00  broken  2 records  (3 not understood)\n    after \\u{1b}[31mall\n"),
        "{text}"
    );
    assert!(text.contains("\n\nmain: 4 sessions\n") && text.ends_with("late  2 records\n    later\n"), "{text}");
}

#[test]
fn a_pattern_fits_the_file_or_the_id() {
    let scene = Scene::new(&[
        ("main/sessions/4f1c-aa.jsonl", session("one", 1)),
        ("main/sessions/77aa.jsonl", session("two", 2)),
        ("helper/sessions/4f1c-bb.jsonl", session("three", 3)),
    ]);
    for (patterns, expected) in [
        (&["4f1c*"][..], &["4f1c-bb", "4f1c-aa"][..]),
        (&["77aa"], &["77aa"]),
        (&["agents/helper", "77aa.jsonl"], &["4f1c-bb", "77aa"]),
        (&["nobody"], &[]),
    ] {
        let ids: Vec<_> = told(&scene.json(patterns)).iter().map(|told| told[1].to_owned()).collect();
        assert_eq!(ids, expected, "{patterns:?}");
    }
}

#[test]
fn a_database_of_no_known_version_is_warned_of_by_name() {
    let scene = Scene::new(&[
        ("main/sessions/a.jsonl", session("in a file", 1)),
        ("main/agent/openclaw-agent.sqlite", b"not a database".to_vec()),
    ]);
    let database = scene.state().join("agents/other/agent/openclaw-agent.sqlite");
    fs::create_dir_all(database.parent().expect("a parent")).expect("a directory");
    let made = rusqlite::Connection::open(&database).and_then(|made| made.execute_batch("CREATE TABLE x (y)"));
    made.expect("a database");
    fs::remove_file(scene.archive()).expect("the archive removed");
    assert_eq!(Backup::of(&scene.state()).serving_databases().to(&scene.archive()).exit_code(), 0);

    let listed = scene.json(&[]);
    assert_eq!(told(&listed), [["main", "a", "current", "in a file"]]);
    let warned = |part: &str, why: &str| {
        let warnings = listed["warnings"].as_array().expect("warnings").iter().filter_map(Value::as_str);
        warnings.filter(|text| text.contains(part) && text.contains(why)).count() == 1
    };
    assert!(warned("agents/main/agent/openclaw-agent.sqlite", "no database"), "{listed:#}");
    assert!(warned("agents/other/agent/openclaw-agent.sqlite", "version"), "{listed:#}");
    let said = String::from_utf8(scene.list(&[]).stderr).expect("UTF-8");
    assert_eq!(said.lines().filter(|line| line.starts_with("warning: the sessions in /")).count(), 2, "{said}");
}

#[test]
fn sessions_of_an_archive_that_is_not_proven_end_with_4() {
    let scene = Scene::new(&[("main/sessions/a.jsonl", session("hi", 1))]);
    damage(&scene.archive());

    let listed = scene.list(&["--json"]);
    assert_eq!(listed.status.code(), Some(4), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["verified"], false);
    assert!(listed["error"].as_str().is_some_and(|error| error.contains("not proven")), "{listed:#}");
}

/// Changes what was said in it.
fn damage(archive: &Path) {
    let mut bytes = fs::read(archive).expect("reads");
    let at = bytes.windows(4).position(|window| window == b"\"hi\"").expect("what was said");
    bytes[at + 1] = b'H';
    write(archive, bytes);
}
