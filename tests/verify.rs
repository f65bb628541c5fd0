//! Verifying: what is whole is proven, and whatever is done to it is refused.

mod support;

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Command;

use clawsnap::event::{Event, Observer};
use clawsnap::freeze::{Check, DatabaseOptions, Mode};
use clawsnap::verify::{Origin, Trust, VerifyOptions};
use support::patient::{ENDINGS, Patient, verdict, with};
use support::{Backup, helper, write, write_cold};

/// A small source, and archives of it.
struct Scene {
    top: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { top: tempfile::tempdir().expect("a directory") };
        let state = scene.path("state");
        write_cold(&state.join("agents/main/sessions/a.jsonl"), "{\"n\":1}\n{\"n\":2}\n");
        write(&state.join("agents/main/sessions/hot.jsonl"), "{\"n\":1}\n{\"ha");
        write_cold(&state.join("two\nlines \u{e9}"), "x");
        fs::hard_link(state.join("two\nlines \u{e9}"), state.join("same")).expect("links");
        std::os::unix::fs::symlink("agents", state.join("link")).expect("links");
        write_cold(&state.join("openclaw.json"), "{}");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn archive(&self, ending: &str) -> PathBuf {
        let path = self.path(&format!("a.{ending}"));
        let report = Backup::of(&self.path("state")).serving_databases().to(&path);
        assert!(matches!(report.exit_code(), 0 | 3), "{:?}", report.error);
        path
    }
}

/// With helpers that check databases.
fn thorough() -> VerifyOptions {
    let databases = DatabaseOptions { helper: helper(), check: Check::Quick, ..DatabaseOptions::default() };
    VerifyOptions { databases, any_ratio: false }
}

#[test]
fn a_whole_archive_is_proven_and_says_what_it_is() {
    let scene = Scene::new();
    for ending in ENDINGS {
        let verdict = verdict(&scene.archive(ending));
        assert_eq!((verdict.trust, verdict.exit_code(), verdict.error), (Trust::Proven, 0, None), "{ending}");
        assert_eq!((verdict.origin, verdict.losses), (Some(Origin::Clawsnap), 0));
        assert!(verdict.archive_root.is_some_and(|root| root.ends_with("-clawsnap-backup")));
        assert!(verdict.entries >= 11 && verdict.bytes > 20 && verdict.consistent.as_deref() == Some("instant"));
    }
}

#[test]
fn every_proper_prefix_is_refused() {
    let scene = Scene::new();
    for ending in ENDINGS {
        let patient = Patient::of(&scene.archive(ending));
        for length in (0..patient.bytes.len()).rev() {
            let verdict = patient.cut_to(length, verdict);
            assert_eq!(verdict.exit_code(), 4, "{ending} cut to {length} of {}: {verdict:?}", patient.bytes.len());
        }
    }
}

/// Each ending by a thread of its own: it is a minute of work.
#[test]
fn every_single_bit_counts() {
    let scene = Scene::new();
    let patients = ENDINGS.map(|ending| (ending, Patient::of(&scene.archive(ending))));
    std::thread::scope(|scope| {
        for (ending, patient) in &patients {
            scope.spawn(|| assert_every_bit_counts(ending, patient));
        }
    });
}

fn assert_every_bit_counts(ending: &str, patient: &Patient) {
    let whole = patient.whole();
    let mut idle = 0;
    for bit in 0..patient.bytes.len() * 8 {
        if patient.flipped(bit, verdict).exit_code() != 4 {
            assert!(patient.is_idle(bit, &whole), "{ending}, bit {} of byte {}", bit % 8, bit / 8);
            idle += 1;
        }
    }
    println!("{ending}: {} bits, of which {idle} say nothing", patient.bytes.len() * 8);
    assert!(idle < 200, "{idle} bits of {ending} say nothing");
    assert_eq!(verdict(&patient.path).exit_code(), 0, "healed");
}

#[test]
fn what_is_no_archive_is_no_proof() {
    let scene = Scene::new();
    let path = scene.path("something");
    for contents in [&b""[..], b"text", &[0; 1024], &[0x28, 0xb5, 0x2f, 0xfd], &[0xff; 5000]] {
        fs::write(&path, contents).expect("writes");
        assert_eq!(verdict(&path).exit_code(), 4, "{contents:?}");
    }
    let missing = verdict(&scene.path("nothing"));
    assert_eq!((missing.trust, missing.exit_code()), (Trust::Failed, 1));
    assert!(missing.error.is_some_and(|error| error.contains("cannot open the archive")));
}

#[test]
fn a_bomb_is_refused_unless_it_is_expected() {
    let scene = Scene::new();
    let file = fs::File::create(scene.path("state/zeros")).expect("creates");
    file.set_len(300 << 20).expect("grows");
    let archive = scene.archive("tar.zst");
    let refused = verdict(&archive);
    assert_eq!(refused.exit_code(), 4);
    assert!(refused.error.is_some_and(|error| error.contains("--any-ratio")));
    assert_eq!(with(&archive, &VerifyOptions { any_ratio: true, ..VerifyOptions::default() }).exit_code(), 0);
}

/// What unpacks to more than is taken for harmless lost its proof, though nothing said that it was broken.
#[test]
fn what_may_be_a_bomb_keeps_its_notes_and_what_is_broken_does_not() {
    let scene = Scene::new();
    fs::File::create(scene.path("state/zeros")).expect("creates").set_len(200 << 20).expect("grows");
    let archive = scene.archive("tar.zst");
    let notes = ["user.clawsnap.proof", "user.clawsnap.seen"];
    let attribute = |program: &str, words: &[&str]| {
        Command::new(program).args(words).arg(&archive).output().is_ok_and(|output| output.status.success())
    };
    if !notes.iter().all(|note| attribute("setfattr", &["-n", note, "-v", "x"])) {
        eprintln!("skipped: there are no extended attributes here");
        return;
    }
    let noted = || notes.map(|note| attribute("getfattr", &["-n", note]));
    assert_eq!((verdict(&archive).exit_code(), noted()), (4, [true, true]));
    let length = fs::metadata(&archive).expect("is there").len();
    OpenOptions::new().write(true).open(&archive).expect("opens").set_len(length - 100).expect("cuts");
    let any = VerifyOptions { any_ratio: true, ..VerifyOptions::default() };
    assert_eq!((with(&archive, &any).exit_code(), noted()), (4, [false, false]));
}

/// A helper whose disk fails it, from the `number`th read on, or at that alone.
fn failing(number: u32, on: &str) -> VerifyOptions {
    let inject =
        format!("exec strace -qq -o /dev/null -e inject=read,pread64:error=EIO:when={number}{on} \"$0\" \"$@\"");
    let words: [std::ffi::OsString; 3] = ["/bin/sh".into(), "-c".into(), inject.into()];
    let databases = DatabaseOptions { helper: words.into_iter().chain(helper()).collect(), ..thorough().databases };
    VerifyOptions { databases, any_ratio: false }
}

/// A disk that could not be read while a database was looked at made a sound archive a broken one.
#[test]
fn a_disk_that_fails_a_helper_says_nothing_about_the_archive() {
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace is not installed, or may not trace here");
        return;
    }
    let scene = Scene::new();
    let database = rusqlite::Connection::open(scene.path("state/memory.db")).expect("opens");
    let rows = "CREATE TABLE t(n, text); INSERT INTO t VALUES(1, hex(zeroblob(10000))), (2, hex(zeroblob(1000)))";
    database.execute_batch(rows).expect("writes");
    database.close().expect("closes");
    let archive = scene.archive("tar");
    let code = |number: u32, on: &str| {
        let verdict = with(&archive, &failing(number, on));
        assert!(matches!(verdict.exit_code(), 0 | 1), "read {number}{on}: {:?}", verdict.error);
        verdict.exit_code()
    };
    // Some of the first are those of its start.
    let reads = (1..200).take_while(|number| code(*number, "+") == 1).count();
    assert!((5..199).contains(&reads), "{reads} reads");
    (1..=reads).for_each(|number| assert!(code(number as u32, "") < 2));
}

#[test]
fn databases_are_opened_and_a_broken_one_is_refused_unless_it_is_flagged() {
    let scene = Scene::new();
    let database = rusqlite::Connection::open(scene.path("state/memory.db")).expect("opens");
    database.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1)").expect("writes");
    database.close().expect("closes");
    let sound = with(&scene.archive("tar"), &thorough());
    assert_eq!((sound.exit_code(), sound.databases), (0, 1), "{:?}", sound.error);

    let mut bytes = fs::read(scene.path("state/memory.db")).expect("reads");
    bytes[4096..].fill(0xEE);
    fs::write(scene.path("state/broken.db"), &bytes).expect("writes");
    fs::remove_file(scene.path("a.tar")).expect("removes");
    let flagged = with(&scene.archive("tar"), &thorough());
    assert_eq!((flagged.exit_code(), flagged.databases, flagged.flagged), (0, 1, 1), "{:?}", flagged.error);

    // The same, made by somebody who did not look.
    fs::remove_file(scene.path("a.tar")).expect("removes");
    let unchecked = DatabaseOptions { helper: helper(), check: Check::Off, ..DatabaseOptions::default() };
    let report = Backup::of(&scene.path("state")).databases(unchecked).to(&scene.path("a.tar"));
    assert_eq!(report.exit_code(), 0, "{:?}", report.losses);
    let broken = with(&scene.path("a.tar"), &thorough());
    assert_eq!(broken.exit_code(), 4);
    assert!(broken.error.is_some_and(|error| error.contains("broken.db is broken")));
}

/// What `openclaw backup create` would write, by hand.
fn theirs(entries: &[(&str, tar::EntryType, &str)], assets: &[&str]) -> Vec<u8> {
    const ROOT: &str = "2026-11-24T00-00-00.000Z-openclaw-backup";
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |path: &str, kind: tar::EntryType, text: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o600);
        let bytes = path.as_bytes();
        header.as_ustar_mut().expect("is ustar").name[..bytes.len()].copy_from_slice(bytes);
        let is_link = matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink);
        let contents = if is_link { "" } else { text };
        if is_link {
            header.as_ustar_mut().expect("is ustar").linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents.as_bytes()).expect("appends");
    };
    for (path, kind, text) in entries {
        append(&path.replace("ROOT", ROOT), *kind, &text.replace("ROOT", ROOT));
    }
    let assets: Vec<_> = assets
        .iter()
        .map(|source| serde_json::json!({"kind": "state", "sourcePath": source, "archivePath": format!("{ROOT}/payload/posix{source}")}))
        .collect();
    let manifest = serde_json::json!({"schemaVersion": 1, "archiveRoot": ROOT, "createdAt": "now", "assets": assets});
    append(&format!("{ROOT}/manifest.json"), tar::EntryType::Regular, &manifest.to_string());
    builder.into_inner().expect("finishes")
}

/// Writes a file in place when everything is frozen.
struct Writes(PathBuf, Vec<u8>);

impl Observer for Writes {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) {
            fs::write(&self.0, &self.1).expect("writes");
        }
    }
}

/// What every database begins with.
const MAGIC: &str = "SQLite format 3\0";

/// `create` goes by first bytes, length and name, and `verify` went by the first bytes alone: it called an archive broken that
/// was just what it should be.
#[test]
fn what_is_no_database_when_it_is_archived_is_none_when_it_is_verified() {
    use tar::EntryType::{Directory, Regular};
    let scene = Scene::new();
    write_cold(&scene.path("state/tiny.db"), MAGIC);
    write_cold(&scene.path("state/odd.bin"), format!("{MAGIC}{}", "x".repeat(600)));
    let verdict = with(&scene.archive("tar"), &thorough());
    assert_eq!((verdict.exit_code(), verdict.databases, verdict.flagged), (0, 0, 0), "{:?}", verdict.error);
    assert!(verdict.warnings.is_empty(), "{:?}", verdict.warnings);

    let path = scene.path("theirs.tar");
    for (length, expected) in [(0, 0), (600, 0), (1024 - MAGIC.len(), 4)] {
        let contents = format!("{MAGIC}{}", "x".repeat(length));
        let entries = [("ROOT/payload/posix/s", Directory, ""), ("ROOT/payload/posix/s/a", Regular, contents.as_str())];
        fs::write(&path, theirs(&entries, &["/s"])).expect("writes");
        let verdict = with(&path, &thorough());
        assert_eq!(verdict.exit_code(), expected, "{length}: {:?}", verdict.error);
    }
}

/// What became a database after the freeze was archived as a file, by an archive that says so, and held against it as a database.
#[test]
fn what_was_archived_as_a_file_and_is_a_broken_database_is_told_and_no_more() {
    let scene = Scene::new();
    let (path, archive) = (scene.path("state/late.bin"), scene.path("a.tar"));
    write_cold(&path, "x".repeat(700));
    let late = format!("{MAGIC}{}", "x".repeat(1024 - MAGIC.len())).into_bytes();
    // A clone, as on XFS, would hold what was there.
    let backup = Backup::of(&scene.path("state")).serving_databases().mode(Mode::Link).holding_nothing();
    let report = backup.observer(Writes(path, late)).to(&archive);
    assert_eq!((report.exit_code(), report.counts.later), (0, 1), "{:?}", report.losses);
    let verdict = with(&archive, &thorough());
    assert_eq!(verdict.exit_code(), 0, "{:?}", verdict.error);
    let told = &verdict.warnings[0];
    assert!(told.contains("late.bin begins like a SQLite database") && told.contains("archived as a file"), "{told}");
}

/// Three megabytes of archive, with one header for a name of two gigabytes, took ten gigabytes of memory.
#[test]
fn headers_that_are_longer_than_any_name_are_not_taken_into_memory() {
    use tar::EntryType::{Directory, GNULongName, Regular, XHeader};
    let (scene, long) = (Scene::new(), "x".repeat(2 << 20));
    let path = scene.path("theirs.tar");
    for (kind, expected) in [(GNULongName, 4), (XHeader, 4), (Regular, 0)] {
        let entries = [("ROOT/payload/posix/s", Directory, ""), ("ROOT/payload/posix/s/a", kind, &*long)];
        fs::write(&path, theirs(&entries, &["/s"])).expect("writes");
        let verdict = verdict(&path);
        assert_eq!(verdict.exit_code(), expected, "{kind:?} {verdict:?}");
        assert_eq!(
            verdict.error.is_some_and(|error| error.contains("longer than any name")),
            expected == 4,
            "{kind:?}"
        );
    }
}

#[test]
fn an_archive_of_openclaws_is_read_by_openclaws_rules_and_said_to_prove_less() {
    use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};
    let scene = Scene::new();
    let path = scene.path("theirs.tar");
    let good = [
        ("ROOT/payload/posix/s", Directory, ""),
        ("ROOT/payload/posix/s/a", Regular, "a"),
        ("ROOT/payload/posix/s/b", Link, "ROOT/payload/posix/s/a"),
        ("ROOT/payload/posix/s/c", Symlink, "/etc/hostname"),
    ];
    fs::write(&path, theirs(&good, &["/s"])).expect("writes");
    let verdict_on_good = verdict(&path);
    assert_eq!(
        (verdict_on_good.exit_code(), verdict_on_good.origin),
        (0, Some(Origin::Openclaw)),
        "{verdict_on_good:?}"
    );
    assert!(verdict_on_good.warnings[0].contains("no inventory"));
    for (what, bad) in [
        ("traversal", ("ROOT/../../etc/passwd", Regular, "x")),
        ("absolute", ("/etc/passwd", Regular, "x")),
        ("outside the root", ("other/payload/posix/s/x", Regular, "x")),
        ("twice", ("ROOT/payload/posix/s/a", Regular, "x")),
        ("beneath a symlink", ("ROOT/payload/posix/s/c/x", Regular, "x")),
        ("beneath a file", ("ROOT/payload/posix/s/a/x", Regular, "x")),
        ("a link to nothing", ("ROOT/payload/posix/s/x", Link, "ROOT/payload/posix/s/none")),
        ("a link to outside", ("ROOT/payload/posix/s/x", Link, "/etc/passwd")),
        ("a fifo", ("ROOT/payload/posix/s/x", Fifo, "")),
        ("a backslash", ("ROOT/payload/posix/s\\x", Regular, "x")),
    ] {
        let entries: Vec<_> = good.iter().copied().chain([bad]).collect();
        fs::write(&path, theirs(&entries, &["/s"])).expect("writes");
        assert_eq!(verdict(&path).exit_code(), 4, "{what}");
    }
    fs::write(&path, theirs(&good, &["/elsewhere"])).expect("writes");
    assert_eq!(verdict(&path).exit_code(), 4, "an asset without an entry");
    let whole = theirs(&good, &["/s"]);
    for length in [whole.len() - 1024, whole.len() - 2048, 512, 100] {
        fs::write(&path, &whole[..length]).expect("writes");
        assert_eq!(verdict(&path).exit_code(), 4, "cut to {length}");
    }
}

/// The commands, as whoever types them meets them.
#[cfg(feature = "cli")]
mod commands {
    use std::process::Output;

    use super::*;

    fn run(scene: &Scene, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        command.args(line.split_whitespace()).current_dir(scene.top.path()).env("HOME", scene.top.path());
        command.env_remove("NO_COLOR").output().expect("runs")
    }

    fn said(output: &Output) -> (Option<i32>, String, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    #[test]
    fn verify_says_what_is_proven_and_what_is_not() {
        let scene = Scene::new();
        let path = scene.archive("tar.zst");
        let (code, stdout, stderr) = said(&run(&scene, "verify a.tar.zst"));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(
            stdout.starts_with("proven: complete, and equal to its inventory\n  archive    a.tar.zst\n"),
            "{stdout}"
        );
        assert_eq!(said(&run(&scene, "verify -q a.tar.zst")), (Some(0), String::new(), String::new()));

        fs::copy(&path, scene.path("cut.tar.zst")).expect("copies");
        OpenOptions::new().write(true).open(scene.path("cut.tar.zst")).expect("opens").set_len(900).expect("cuts");
        let (code, stdout, stderr) = said(&run(&scene, "verify -q a.tar.zst cut.tar.zst nothing"));
        assert_eq!((code, stdout.as_str()), (Some(4), ""));
        let lines: Vec<&str> = stderr.lines().collect();
        assert!(lines[0].starts_with("error: cut.tar.zst: the archive is not proven: "), "{stderr}");
        assert!(lines[1].starts_with("error: nothing: cannot open the archive nothing: "), "{stderr}");
        assert_eq!(said(&run(&scene, "verify nothing")).0, Some(1));
        assert_eq!(said(&run(&scene, "verify")).0, Some(2));
        assert_eq!(said(&run(&scene, "verify state")).0, Some(1), "a directory");

        let (code, stdout, _) = said(&run(&scene, "verify --json a.tar.zst cut.tar.zst"));
        let json: serde_json::Value = serde_json::from_str(&stdout).expect("is JSON");
        let trust: Vec<_> = json["archives"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["trust"].as_str().unwrap_or_default())
            .collect();
        assert_eq!((code, trust), (Some(4), vec!["proven", "unproven"]));
    }

    /// An archive that was decrypted on the fly was called a bomb: a pipe has no length that it could unpack to too much of.
    #[test]
    fn an_archive_is_read_through_a_pipe_however_long_it_is() {
        let scene = Scene::new();
        let noise = vec![b'x'; 70 << 20];
        fs::write(scene.path("state/large.txt"), noise).expect("writes");
        scene.archive("tar");
        for line in ["verify /dev/stdin", "list /dev/stdin", "restore /dev/stdin --target back"] {
            let mut command = Command::new("sh");
            let script = format!("cat a.tar | {} {line}", env!("CARGO_BIN_EXE_clawsnap"));
            command.args(["-c", &script]).current_dir(scene.top.path()).env("HOME", scene.top.path());
            let (code, _, stderr) = said(&command.output().expect("runs"));
            assert_eq!(code, Some(0), "{line}: {stderr}");
        }
    }

    /// A helper that could not be started made a sound archive a broken one, and took its proof away.
    #[test]
    fn a_helper_that_cannot_look_says_nothing_about_the_archive() {
        let scene = Scene::new();
        rusqlite::Connection::open(scene.path("state/a.sqlite"))
            .and_then(|database| database.execute_batch("CREATE TABLE t(n)"))
            .expect("makes a database");
        scene.archive("tar");
        let codes = (6..20).map(|limit| {
            let mut command = Command::new("sh");
            let script = format!("ulimit -n {limit}; exec {} verify -q a.tar", env!("CARGO_BIN_EXE_clawsnap"));
            command.args(["-c", &script]).current_dir(scene.top.path()).env("HOME", scene.top.path());
            let (code, _, stderr) = said(&command.output().expect("runs"));
            assert!(matches!(code, Some(0 | 1)), "{limit}: {code:?} {stderr}");
            code
        });
        let codes: Vec<_> = codes.collect();
        assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{codes:?}");
    }

    #[test]
    fn databases_are_checked_in_a_private_place_that_is_gone_afterwards() {
        let scene = Scene::new();
        let database = rusqlite::Connection::open(scene.path("state/memory.db")).expect("opens");
        database.execute_batch("CREATE TABLE t(n)").expect("writes");
        database.close().expect("closes");
        scene.archive("tar");
        fs::create_dir(scene.path("tmp")).expect("makes");
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        let output =
            command.args(["verify", "a.tar"]).current_dir(scene.top.path()).env("TMPDIR", scene.path("tmp")).output();
        let (code, stdout, stderr) = said(&output.expect("runs"));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("  databases  1 sound\n"), "{stdout}");
        assert_eq!(fs::read_dir(scene.path("tmp")).expect("lists").count(), 0);

        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        let output =
            command.args(["verify", "a.tar"]).current_dir(scene.top.path()).env("TMPDIR", "/nonexistent").output();
        let (code, _, stderr) = said(&output.expect("runs"));
        assert_eq!(code, Some(1), "no fault of the archive: {stderr}");
        assert!(stderr.contains("cannot look at a database in /nonexistent") && stderr.contains("TMPDIR"), "{stderr}");
    }

    #[test]
    fn list_shows_names_with_what_became_of_them() {
        let scene = Scene::new();
        scene.archive("tar.zst");
        let (code, stdout, stderr) = said(&run(&scene, "list a.tar.zst"));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.contains(" -> agents\n") && stdout.contains("/two\\nlines é -> /"), "{stdout}");
        assert!(stdout.contains("/hot.jsonl  (half-written, set aside)\n"), "{stdout}");
        let (_, some, _) = said(&run(&scene, "list a.tar.zst sessions/*.jsonl"));
        assert_eq!(some.lines().count(), 3, "two sessions and a tail: {some}");
        assert!(some.lines().all(|line| line.starts_with("-rw-r--r-- ") && line.contains(".jsonl")), "{some}");

        let (code, stdout, _) = said(&run(&scene, "list --json a.tar.zst openclaw.json"));
        let json: serde_json::Value = serde_json::from_str(&stdout).expect("is JSON");
        assert_eq!((code, &json["verified"], &json["entries"][0]["size"]), (Some(0), &true.into(), &2.into()));
        assert_eq!(json["entries"][0]["path"], scene.path("state/openclaw.json").to_str().expect("is text"));
    }

    #[test]
    fn list_tells_losses_and_trusts_nothing_that_is_not_proven() {
        let scene = Scene::new();
        fs::write(scene.path("state/broken.db"), [b"SQLite format 3\0".to_vec(), vec![0xEE; 4080]].concat())
            .expect("writes");
        let path = scene.archive("tar");
        let (code, stdout, _) = said(&run(&scene, "list --losses a.tar"));
        assert_eq!(code, Some(0));
        assert!(stdout.contains("/state/broken.db (torn: raw database: "), "{stdout}");
        let length = fs::metadata(&path).expect("is there").len();
        OpenOptions::new().write(true).open(&path).expect("opens").set_len(length - 512).expect("cuts");
        let (code, stdout, stderr) = said(&run(&scene, "list a.tar"));
        assert_eq!(code, Some(4), "{stdout}");
        assert!(stderr.contains("the archive is not proven"), "{stderr}");
        assert_eq!(said(&run(&scene, "list a.tar a[")).0, Some(2));
        assert_eq!(said(&run(&scene, "list nothing")).0, Some(1));
    }
}
