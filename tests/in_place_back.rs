//! The way back from a restore in place, and the completion of an interrupted one, where somebody went on meanwhile.

mod place;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clawsnap::gate::{CancelFlag, Gate, Verb};
use clawsnap::restore::{BroughtBack, Ending, Restored};
use place::support::{Backup, Script, leftovers, write, write_cold};
use place::{Mounted, Scene, Tree, childless, contents, left_midway, restore, said, tree};

/// Where a database lies that is restored.
#[derive(Clone, Copy, Debug)]
enum Lies {
    /// In a part of the state.
    InPart,
    /// It is a source of its own.
    Alone,
    /// At the top of a mount.
    OnMount,
}

/// A database in a scene, an archive of it, and what its owner does.
struct Kept {
    scene: Scene,
    database: PathBuf,
    archive: PathBuf,
    patterns: &'static [&'static str],
    _mounted: Option<Mounted>,
}

/// As far as anybody looks, a database that says `words`.
fn database(words: &str) -> Vec<u8> {
    [b"SQLite format 3\0", words.as_bytes(), &[7; 4080]].concat()
}

impl Kept {
    /// `None` where nothing can be mounted.
    fn that(lies: Lies) -> Option<Self> {
        let scene = Scene::empty();
        let mounted = if matches!(lies, Lies::OnMount) { Some(Mounted::on(&scene.state())?) } else { None };
        scene.fill("old");
        let (database_path, patterns) = match lies {
            Lies::InPart => (scene.state().join("memory/main.sqlite"), &["memory"][..]),
            Lies::Alone => (scene.path("notes/main.sqlite"), &[][..]),
            Lies::OnMount => (scene.state().join("main.sqlite"), &[][..]),
        };
        write_cold(&database_path, database("archived"));
        write_cold(&database_path.with_file_name("a.md"), "archived");
        let archive = scene.path("a.tar.zst");
        let source = if matches!(lies, Lies::Alone) { database_path.clone() } else { scene.state() };
        assert_eq!(Backup::of(&source).to(&archive).exit_code(), 3, "it is no sound database");
        let kept = Self { scene, database: database_path, archive, patterns, _mounted: mounted };
        write(&kept.database, database("owner's"));
        write(&kept.database.with_file_name("a.md"), "owner's");
        Some(kept)
    }

    /// Its owner dies with it open.
    fn dies(&self, words: &str) {
        self.beside().iter().for_each(|path| write(path, words));
    }

    fn beside(&self) -> [PathBuf; 3] {
        ["-wal", "-shm", "-journal"].map(|end| format!("{}{end}", self.database.display()).into())
    }

    fn dir(&self) -> &Path {
        self.database.parent().expect("a parent")
    }

    /// Who wrote the database, and the log beside it.
    fn says(&self) -> (String, Option<String>) {
        let text = String::from_utf8(fs::read(&self.database).expect("reads")).expect("is text");
        let log = self.beside().map(|path| fs::read_to_string(path).ok());
        assert!(log.iter().all(|other| *other == log[0]), "{log:?}");
        (text.trim_end_matches('\u{7}')[16..].to_owned(), log[0].clone())
    }

    fn restore(&self) -> Restored {
        self.scene.restore(&self.archive, self.patterns)
    }

    fn undo(&self, kept: &Path) {
        let back = self.scene.undo(kept);
        assert_eq!((back.outcome, back.error), (Ending::Complete, None));
    }
}

/// Where that is kept which a restore has replaced.
fn kept_of(restored: &Restored) -> PathBuf {
    let kept = restored.places.first().and_then(|place| place.kept.as_ref());
    kept.unwrap_or_else(|| panic!("{:?}", restored.error)).as_path().to_owned()
}

/// Where that is kept which the completion of an interrupted restore has replaced.
fn completed(restored: &Restored) -> PathBuf {
    let told = restored.warnings.iter().find_map(|told| told.split_once("completed; what was there is kept as "));
    PathBuf::from(told.unwrap_or_else(|| panic!("{:?} {:?}", restored.warnings, restored.error)).1)
}

fn says(database: &str, log: Option<&str>) -> (String, Option<String>) {
    (database.to_owned(), log.map(str::to_owned))
}

/// The program ran on the restored database and was killed; the way back put the old database under the log that it had
/// left, which destroyed that.
#[test]
fn a_database_does_not_come_back_under_the_log_of_the_one_that_took_its_place() {
    for (lies, log) in
        [Lies::InPart, Lies::Alone, Lies::OnMount].into_iter().flat_map(|lies| [(lies, None), (lies, Some("first"))])
    {
        let Some(kept) = Kept::that(lies) else { continue };
        log.iter().for_each(|words| kept.dies(words));
        let before = tree(kept.dir());
        let way = kept_of(&kept.restore());
        assert_eq!(kept.says(), says("archived", None), "{lies:?}");
        kept.dies("second");
        let after = tree(kept.dir());
        for (look, database, log) in [(&before, "owner's", log), (&after, "archived", Some("second"))].repeat(2) {
            let expected = says(database, log);
            kept.undo(&way);
            assert_eq!(kept.says(), expected, "{lies:?}");
            assert_eq!(&tree(kept.dir()), look, "{lies:?}");
        }
    }
}

/// Whoever is killed on the way there or back leaves no database under another one's log: the old log was exchanged with
/// the new one in one step, before the databases or after.
#[test]
fn no_database_is_under_another_ones_log_at_any_time() {
    let kept = Kept::that(Lies::InPart).expect("nothing is mounted");
    kept.dies("first");
    let way = kept_of(&kept.restore());
    kept.dies("second");
    for _ in ["back", "and forth", "and back"] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (met, [wal, ..], database) = (Arc::clone(&seen), kept.beside(), kept.database.clone());
        let gate: Arc<dyn Gate> = Arc::new(Script::new(move |_, _| {
            let of = |path: &Path| fs::read(path).ok().map(|text| String::from_utf8_lossy(&text).into_owned());
            met.lock().expect("is sound").push((of(&database), of(&wal)));
            Ok(())
        }));
        assert_eq!(undo(&kept.scene, &way, &gate).outcome, Ending::Complete);
        let seen = std::mem::take(&mut *seen.lock().expect("is sound"));
        assert!(seen.iter().any(|(_, log)| log.is_none()));
        for (database, log) in seen {
            let is_archived = database.expect("is there").contains("archived");
            assert_ne!(log.as_deref(), Some(if is_archived { "first" } else { "second" }));
        }
    }
}

/// A restore was killed before it came to the database. Its owner went on, and died; the next restore put the archived
/// database under the owner's log, and what it kept lacked what was in that.
#[test]
fn an_interrupted_restore_is_not_completed_under_the_log_that_came_meanwhile() {
    for (lies, log) in
        [Lies::InPart, Lies::Alone, Lies::OnMount].into_iter().flat_map(|lies| [(lies, None), (lies, Some("first"))])
    {
        let Some(kept) = Kept::that(lies) else { continue };
        // What is exchanged first is another file, or what lies beside the database.
        match (log, lies) {
            (Some(words), _) => kept.dies(words),
            (None, Lies::Alone) => write(&kept.beside()[0], "first"),
            (None, _) => {}
        }
        left_midway(&kept.archive, &kept.scene.options(kept.patterns), 2);
        kept.dies("second");
        let restored = kept.restore();
        assert_eq!(kept.says(), says("archived", None), "{lies:?} {log:?}");
        let all = || contents(&kept.scene.top).into_iter().filter(|text| !text.starts_with(b"{\"format\""));
        let before: Vec<_> = all().collect();
        kept.undo(&kept_of(&restored));
        kept.undo(&completed(&restored));
        assert_eq!(kept.says(), says("owner's", Some("second")), "{lies:?} {log:?}");
        assert!(all().eq(before), "{lies:?} {log:?}: something is gone");
    }
}

fn undo(scene: &Scene, kept: &Path, gate: &Arc<dyn Gate>) -> BroughtBack {
    let _childless = childless();
    clawsnap::restore::bring_back(&[kept.to_owned()], &scene.ways(), gate)
}

/// What a restore has kept under its hidden name, as the last rename could not be done.
fn left_nameless(scene: &Scene, archive: &Path, patterns: &[&str]) -> PathBuf {
    let is_last = |name: &[u8]| name == b"tree" || name.ends_with(b".swap");
    let gate = Script::new(move |_, step| match step.verb == Verb::Rename && is_last(step.name) {
        true => Err(io::Error::from_raw_os_error(5)),
        false => Ok(()),
    });
    let restored = restore(archive, &scene.options(patterns), Arc::new(gate));
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    let kept = kept_of(&restored);
    assert!(kept.to_string_lossy().ends_with(".swap"), "{kept:?}");
    kept
}

/// What was kept had not got its name. The way back from it ended early, and the next restore took it for what an
/// interrupted one had made and not used yet: it removed the originals without a word.
#[test]
fn a_way_back_from_what_has_no_name_yet_may_end_at_any_step() {
    for patterns in [&[][..], &["agents", "openclaw.json"]] {
        for at in 0.. {
            let scene = Scene::quick();
            scene.fill("old");
            let archive = scene.archive();
            scene.go_on();
            let (before, precious) = (tree(&scene.state()), contents(&scene.state()));
            let kept = left_nameless(&scene, &archive, patterns);
            let gate: Arc<dyn Gate> = Arc::new(Script::new(move |step, _| match step >= at {
                true => Err(io::Error::from_raw_os_error(5)),
                false => Ok(()),
            }));
            let ended = undo(&scene, &kept, &gate);
            let what = format!("{patterns:?}, step {at}: {:?} {:?}", ended.error, ended.warnings);
            if ended.error.is_none() {
                assert!(at > 5, "{what}");
                assert_eq!(tree(&scene.state()), before, "{what}");
                assert_eq!(scene.undo(ended_at(&ended)).outcome, Ending::Complete, "{what}");
                break;
            }
            if at % 2 == 0 {
                let next = scene.restore(&archive, &["logs"]);
                assert_eq!(next.outcome, Ending::Complete, "{what}: {:?}", next.error);
                scene.undo(&kept_of(&next));
            }
            let now = contents(&scene.top);
            let lost: Vec<_> = precious.difference(&now).map(|lost| String::from_utf8_lossy(lost)).collect();
            assert!(lost.is_empty(), "{what}: gone for good: {lost:?}");
            if tree(&scene.state()) != before {
                let left: Vec<PathBuf> = scene.kept().into_iter().filter(|path| !is_of_logs(path)).collect();
                let way = left.first().unwrap_or(&kept);
                assert_eq!(scene.undo(way).outcome, Ending::Complete, "{what}: {way:?}");
            }
            assert_eq!(tree(&scene.state()), before, "{what}");
        }
    }
}

fn ended_at(back: &BroughtBack) -> &Path {
    back.places[0].kept.as_ref().expect("is kept").as_path()
}

fn is_of_logs(kept: &Path) -> bool {
    kept.join("tree/logs").exists()
}

/// What the way back from one of them finds hidden beside it is what the other one is to be brought back from.
#[test]
fn two_that_have_no_name_yet_are_brought_back_together() {
    let scene = Scene::new();
    let sources = ["first", "second"].map(|name| scene.path(name));
    let fill = |words: &str| sources.iter().for_each(|source| write_cold(&source.join("f"), words));
    fill("old");
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&sources[0]).and(&sources[1]).to(&archive).exit_code(), 0);
    fill("new");
    let patterns: Vec<&str> = sources.iter().map(|source| source.to_str().expect("is text")).collect();
    left_nameless(&scene, &archive, &patterns);
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    let back = clawsnap::restore::bring_back(&leftovers(&scene.top), &scene.ways(), &gate);
    assert_eq!((back.outcome, back.error, back.places.len()), (Ending::Complete, None, 2));
    assert_eq!(sources.clone().map(|source| said(&source.join("f"))), ["new"; 2]);
    let kept: Vec<_> = back.places.iter().map(|place| place.kept.clone().expect("is kept")).collect();
    assert!(kept.iter().all(|kept| kept.as_path().join("tree/f").exists()), "{kept:?}");
    scene.assert_nothing_hidden("brought back");
}

/// An interrupted restore could not be completed, as a directory had been moved away; the way back failed for that, and
/// once it was there again it carried the restore on: it said that all was back, and all was the archive's.
#[test]
fn the_way_back_from_what_was_done_in_part_leads_back() {
    let scene = Scene::new();
    let names = ["a.txt", "b.txt", "sub/f"].map(|name| scene.state().join(name));
    let fill = |words: &str| names.iter().for_each(|path| write_cold(path, words));
    let all = || names.clone().map(|path| said(&path));
    fill("archived");
    let archive = scene.archive();
    fill("owner's");
    left_midway(&archive, &scene.options(&["a.txt", "b.txt", "sub/f"]), 2);
    fs::rename(scene.state().join("sub"), scene.path("sub")).expect("moves");
    let next = scene.restore(&archive, &["logs"]);
    assert_eq!(next.outcome, Ending::Complete, "{:?}", next.error);
    assert!(next.warnings[0].contains("could not be completed"), "{:?}", next.warnings);
    let way = PathBuf::from(next.warnings[0].split_once("kept as ").expect("is told").1);
    assert_eq!([said(&names[0]), said(&names[1])], ["archived"; 2]);
    let back = scene.undo(&way);
    assert_eq!((back.outcome, back.error), (Ending::Complete, None));
    fs::rename(scene.path("sub"), scene.state().join("sub")).expect("moves");
    assert_eq!(all(), ["owner's"; 3]);
    for expected in [["archived", "archived", "owner's"], ["owner's"; 3]] {
        assert_eq!(scene.undo(&way).outcome, Ending::Complete);
        assert_eq!(all(), expected);
    }
}

/// The same where a restore that failed could not be taken back, as somebody else had changed things meanwhile.
#[test]
fn the_way_back_from_what_could_not_be_taken_back_leads_back() {
    let scene = Scene::new();
    let names = ["a.txt", "b.txt"].map(|name| scene.state().join(name));
    names.iter().for_each(|path| write_cold(path, "archived"));
    let archive = scene.archive();
    names.iter().for_each(|path| write_cold(path, "owner's"));
    let (first, next) = (names[0].clone(), scene.state().join("next"));
    let gate = Script::new(move |_, step| {
        if step.verb != Verb::Rename || step.name != b"b.txt" {
            return Ok(());
        }
        fs::write(&next, "went on")?;
        fs::rename(&next, &first)?;
        Err(io::Error::from_raw_os_error(5))
    });
    let failed = restore(&archive, &scene.options(&["a.txt", "b.txt"]), Arc::new(gate));
    let why = failed.error.unwrap_or_default();
    assert!(why.contains("could not be put back"), "{why}");
    let back = scene.undo(&scene.only_kept());
    assert_eq!((back.outcome, back.error), (Ending::Complete, None));
    assert_eq!(names.clone().map(|path| said(&path)), ["owner's"; 2]);
    assert_eq!(said(&scene.only_kept().join("tree/a.txt")), "went on");
}

/// Nothing was touched yet by a restore that was killed: the way back from what it had made put that in the place of what
/// was there, and said that all was back.
#[test]
fn there_is_no_way_back_from_what_was_never_begun() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let before: Tree = tree(&scene.state());
    let (home, away) = (scene.path("home"), scene.path("away"));
    let hidden = Arc::new(Mutex::new(PathBuf::new()));
    let found = Arc::clone(&hidden);
    // It is out of reach for the clean-up, as if there had been none.
    let gate = Script::new(move |_, step| {
        if step.verb != Verb::Rename || step.name == b"journal" || away.exists() {
            return Ok(());
        }
        *found.lock().expect("is sound") = leftovers(&home).remove(0);
        fs::rename(&*found.lock().expect("is sound"), &away)?;
        Err(io::Error::from_raw_os_error(5))
    });
    assert_eq!(restore(&archive, &scene.options(&["agents"]), Arc::new(gate)).outcome, Ending::Failed);
    let hidden = hidden.lock().expect("is sound").clone();
    fs::rename(scene.path("away"), &hidden).expect("is there");
    assert!(hidden.join("journal").exists());
    let back = scene.undo(&hidden);
    assert_eq!((back.outcome, tree(&scene.state())), (Ending::Usage, before), "{:?}", back.error);
    assert_eq!(scene.restore(&archive, &["logs"]).outcome, Ending::Complete);
    scene.assert_nothing_hidden("it is removed");
}
