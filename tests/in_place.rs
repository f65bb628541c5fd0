//! Restoring in place: what is there is exchanged with what was archived, and kept.

mod place;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use clawsnap::gate::{CancelFlag, Gate, Realm, Verb};
use clawsnap::plan::Environment;
use clawsnap::restore::{Destination, Ending, InPlace, Mapping};
use place::support::{self, Backup, Script, write, write_cold};
use place::{Mounted, Scene, is_root, left_midway, name, restore, said, sh, tree};

#[test]
fn the_state_of_the_archive_takes_the_place_of_what_is_there_and_that_is_kept() {
    let scene = Scene::new();
    let archive = scene.archive();
    let archived = tree(&scene.state());
    scene.go_on();
    let before = tree(&scene.state());
    let inode = |path: &Path| fs::metadata(path).expect("is there").ino();
    let old = inode(&scene.state());
    let restored = scene.restore(&archive, &[]);
    assert_eq!((restored.outcome, &restored.error), (Ending::Complete, &None), "{:?}", restored.differences);
    assert_eq!(tree(&scene.state()), archived);
    let kept = scene.only_kept();
    assert_eq!((tree(&kept), inode(&kept)), (before.clone(), old), "what was there is kept as it was");
    assert_eq!(restored.places[0].kept, Some(name(&kept)));
    scene.assert_nothing_hidden("restored");

    for (state, beside) in [(&before, &archived), (&archived, &before)] {
        let back = scene.undo(&kept);
        assert_eq!((back.outcome, back.error), (Ending::Complete, None));
        assert_eq!((&tree(&scene.state()), &tree(&kept)), (state, beside));
    }
}

#[test]
fn a_state_that_is_gone_is_restored_and_nothing_is_kept() {
    let scene = Scene::new();
    let archive = scene.archive();
    let archived = tree(&scene.state());
    fs::remove_dir_all(scene.state()).expect("removes");
    let restored = scene.restore(&archive, &[]);
    assert_eq!((restored.outcome, restored.places[0].kept.clone()), (Ending::Complete, None), "{:?}", restored.error);
    assert_eq!((tree(&scene.state()), scene.kept()), (archived, Vec::new()));
    scene.assert_nothing_hidden("restored");
}

#[test]
fn the_state_directory_goes_to_that_of_the_caller_or_where_it_is_mapped() {
    let scene = Scene::new();
    let archive = scene.archive();
    let archived = tree(&scene.state());
    let (theirs, elsewhere) = (scene.path("theirs"), scene.path("elsewhere/claw"));
    fs::create_dir_all(&theirs).expect("makes");
    let environment = Environment { home: Some(theirs.clone()), ..scene.environment() };
    let mut options = scene.options(&[]);
    options.destination = Destination::InPlace(InPlace { environment, force: false });
    let restored = restore(&archive, &options, Arc::new(CancelFlag::new()));
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    assert_eq!(restored.places[0].restored_to, name(&theirs.join(".openclaw")));
    assert_eq!(tree(&theirs.join(".openclaw")), archived);

    options.mapping = Mapping::default()
        .and(&scene.path("home"), &scene.path("elsewhere"))
        .expect("is absolute")
        .and(&scene.state(), &elsewhere)
        .expect("is absolute");
    let missing = restore(&archive, &options, Arc::new(CancelFlag::new()));
    assert_eq!(missing.outcome, Ending::Failed);
    assert!(missing.error.expect("says why").contains("--map"), "its parent does not exist");
    fs::create_dir_all(scene.path("elsewhere")).expect("makes");
    assert_eq!(restore(&archive, &options, Arc::new(CancelFlag::new())).outcome, Ending::Complete);
    assert_eq!(tree(&elsewhere), archived);

    options.mapping = Mapping::default().and(&scene.state().join("logs"), &elsewhere).expect("is absolute");
    assert_eq!(restore(&archive, &options, Arc::new(CancelFlag::new())).outcome, Ending::Usage, "half a root");
}

#[test]
fn a_mapping_holds_for_a_new_directory_too() {
    let scene = Scene::new();
    let archive = scene.archive();
    let mut options = scene.options(&[]);
    options.destination = Destination::Target(scene.path("target"));
    options.mapping = Mapping::default().and(&scene.state(), Path::new("/claw")).expect("is absolute");
    assert_eq!(restore(&archive, &options, Arc::new(CancelFlag::new())).outcome, Ending::Complete);
    assert_eq!(tree(&scene.path("target/claw")), tree(&scene.state()));
    assert_eq!(fs::read_dir(scene.path("target")).expect("lists").count(), 1);
}

#[test]
fn a_part_is_put_among_what_is_there_and_what_it_replaces_is_kept() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let before = tree(&scene.state());
    let sessions = scene.state().join("agents/main/sessions");
    let restored = scene.restore(&archive, &["agents/main/sessions"]);
    assert_eq!((restored.outcome, restored.files), (Ending::Complete, 2), "{:?}", restored.error);
    for session in ["4f1c0a3e-1.jsonl", "9999aaaa-2.jsonl"] {
        assert!(said(&sessions.join(session)).contains("old"));
    }
    assert!(sessions.join("later.jsonl").exists(), "what is not in the archive stays");
    assert!(said(&scene.state().join("logs/a.log")).contains("new"), "what was not named stays");
    scene.assert_nothing_hidden("restored");

    let back = scene.undo(&scene.only_kept());
    assert_eq!((back.outcome, back.error), (Ending::Complete, None));
    assert_eq!(tree(&scene.state()), before, "what was replaced is back, what was new is gone");
    assert_eq!(scene.undo(&scene.only_kept()).outcome, Ending::Complete);
    assert!(said(&sessions.join("9999aaaa-2.jsonl")).contains("old"), "and forth again");
    scene.assert_nothing_hidden("undone and done");
}

/// A second name of a file in another source, of which nothing was wanted, was left out without a word, and all was said
/// to be complete.
#[test]
fn a_second_name_whose_first_lies_in_another_source_is_not_dropped_in_silence() {
    let scene = Scene::new();
    let (first, notes) = (scene.state().join("logs/a.log"), scene.path("notes"));
    write_cold(&notes.join("own"), "old");
    fs::hard_link(&first, notes.join("second")).expect("links");
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&scene.state()).and(&notes).to(&archive).exit_code(), 0);
    fs::remove_file(notes.join("second")).expect("removes");
    let pattern = |path: &Path| path.to_str().expect("is text").to_owned();
    let (all, only, wanted) = (pattern(&notes), pattern(&notes.join("second")), pattern(&first));
    let half = scene.restore(&archive, &[&all]);
    assert_eq!((half.outcome, half.files), (Ending::Different, 1), "{:?}", half.error);
    let told: Vec<_> = half.differences.iter().map(|remark| (&remark.path, remark.what.contains(&wanted))).collect();
    assert_eq!(told, [(&name(&notes.join("second")), true)], "{:?}", half.differences);
    let nothing = scene.restore(&archive, &[&only]);
    let why = nothing.error.unwrap_or_default();
    assert!(nothing.outcome == Ending::Usage && why.contains("must be named too"), "{why}");
    let both = scene.restore(&archive, &[&only, &wanted]);
    assert_eq!((both.outcome, both.files), (Ending::Complete, 2), "{:?}", both.error);
    assert_eq!(said(&notes.join("second")), said(&first));
}

#[test]
fn one_session_is_restored_by_the_start_of_its_number() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let restored = scene.restore(&archive, &["9999"]);
    assert_eq!((restored.outcome, restored.files), (Ending::Complete, 1), "{:?}", restored.error);
    let sessions = scene.state().join("agents/main/sessions");
    assert!(said(&sessions.join("9999aaaa-2.jsonl")).contains("old"));
    assert!(said(&sessions.join("4f1c0a3e-1.jsonl")).contains("new"));
}

#[test]
fn a_directory_that_is_missing_comes_back_with_its_own_mode() {
    let scene = Scene::new();
    let agents = scene.state().join("agents");
    fs::set_permissions(&agents, fs::Permissions::from_mode(0o750)).expect("sets");
    let archive = scene.archive();
    fs::remove_dir_all(&agents).expect("removes");
    assert_eq!(scene.restore(&archive, &["4f1c"]).outcome, Ending::Complete);
    assert_eq!(fs::metadata(&agents).expect("is there").mode() & 0o7777, 0o750);
}

/// The log of one database beside another destroys that.
#[test]
fn what_sqlite_left_beside_a_database_goes_with_it() {
    let scene = Scene::new();
    let database = scene.state().join("memory/main.sqlite");
    write_cold(&database, [&b"SQLite format 3\0"[..], &[7; 4080]].concat());
    let path = scene.path("a.tar.zst");
    // It is no sound database, and archived as bytes.
    let report = Backup::of(&scene.state()).to(&path);
    assert_eq!(report.exit_code(), 3, "{:?}", report.error);
    write(&database, "another");
    let beside: Vec<PathBuf> =
        ["-wal", "-shm", "-journal"].map(|end| format!("{}{end}", database.display()).into()).into();
    beside.iter().for_each(|path| write(path, "stale"));
    write(&scene.state().join("memory/main.sqlite-notes"), "stays");
    let before = tree(&scene.state());
    let restored = scene.restore(&path, &["memory"]);
    assert_eq!((restored.outcome, restored.flagged.len()), (Ending::Different, 1), "{:?}", restored.error);
    assert!(beside.iter().all(|path| !path.exists()) && database.with_extension("sqlite-notes").exists());
    assert_eq!(fs::read(&database).expect("reads").len(), 4096);
    assert_eq!(scene.undo(&scene.only_kept()).outcome, Ending::Complete);
    assert_eq!(tree(&scene.state()), before);
}

/// Also where the database is all that was backed up.
#[test]
fn a_database_alone_takes_the_log_of_another_out_of_its_way() {
    let scene = Scene::new();
    let database = scene.path("notes/main.sqlite");
    write_cold(&database, [&b"SQLite format 3\0"[..], &[7; 4080]].concat());
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&database).to(&archive).exit_code(), 3);
    write(&database, "another");
    write(&scene.path("notes/main.sqlite-wal"), "stale");
    write(&scene.path("notes/other"), "stays");
    let before = tree(&scene.path("notes"));
    let restored = scene.restore(&archive, &[]);
    assert_eq!(restored.outcome, Ending::Different, "{:?}", restored.error);
    assert!(!scene.path("notes/main.sqlite-wal").exists() && scene.path("notes/other").exists());
    assert_eq!(fs::read(&database).expect("reads").len(), 4096);
    let kept = fs::read_dir(scene.path("notes")).expect("lists").map(|entry| entry.expect("an entry").path());
    let kept = kept.into_iter().find(|path| path.to_string_lossy().ends_with(".parts")).expect("is kept");
    assert_eq!(scene.undo(&kept).outcome, Ending::Complete);
    assert_eq!(tree(&scene.path("notes")), before);
}

#[test]
fn what_was_lost_when_the_archive_was_made_is_said_before_it_is_gone() {
    let scene = Scene::new();
    let secret = scene.state().join("credentials/oauth.json");
    write_cold(&secret, "secret");
    let archive = scene.path("a.tar.zst");
    let unreadable = Script::new(|_, step| match (step.realm, step.name.ends_with(b"oauth.json"), step.verb) {
        (Realm::Source, true, Verb::Open | Verb::Link | Verb::Clone) => Err(std::io::Error::from_raw_os_error(5)),
        _ => Ok(()),
    });
    let report = Backup::of(&scene.state()).gate(unreadable).to(&archive);
    assert_eq!((report.exit_code(), report.losses.len()), (3, 1), "{:?}", report.losses);
    let restored = scene.restore(&archive, &[]);
    assert_eq!(restored.outcome, Ending::Different, "{:?}", restored.error);
    assert_eq!(restored.flagged[0].path, name(&secret));
    assert!(restored.flagged[0].what.starts_with("lost when the archive was made"), "{:?}", restored.flagged);
    assert_eq!(said(&scene.only_kept().join("credentials/oauth.json")), "secret");
}

#[test]
fn a_part_that_moved_on_since_goes_back_all_the_same_and_is_kept() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    assert_eq!(scene.restore(&archive, &["agents"]).outcome, Ending::Complete);
    let kept = scene.only_kept();
    let sessions = scene.state().join("agents/main/sessions");
    // As OpenClaw writes: another file takes the name.
    write(&sessions.join("next"), "moved on");
    fs::rename(sessions.join("next"), sessions.join("4f1c0a3e-1.jsonl")).expect("renames");
    let back = scene.undo(&kept);
    assert_eq!((back.outcome, back.error), (Ending::Complete, None));
    assert!(said(&sessions.join("4f1c0a3e-1.jsonl")).contains("new") && !sessions.join("9999aaaa-2.jsonl").exists());
    assert_eq!(said(&kept.join("tree/agents/main/sessions/4f1c0a3e-1.jsonl")), "moved on");
}

/// Who may write to a directory could write a journal that leads anywhere.
#[test]
fn a_journal_is_believed_only_by_whoever_wrote_it() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let victim = scene.path("precious");
    write(&victim, "precious");
    let journal =
        |root: &str, inode: u64| format!(r#"{{"format":1,"root":"{root}","moves":[{{"path":"","after":{inode}}}]}}"#);
    let plant = |dir: &Path, root: &str, mode: u32| {
        write(&dir.join("tree"), "planted");
        let inode = fs::metadata(dir.join("tree")).expect("is there").ino();
        write(&dir.join("journal"), journal(root, inode));
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).expect("sets");
    };
    // In the state itself: it is kept as a whole, and what it holds decides nothing.
    plant(&scene.state(), "../precious", 0o700);
    assert_eq!(scene.restore(&archive, &[]).outcome, Ending::Complete);
    assert_eq!(scene.undo(&scene.only_kept()).outcome, Ending::Complete);
    assert!(scene.state().join("journal").exists());
    // Under the name that a keep of ours would have.
    let kept = |name: &str| scene.path("home").join(format!(".openclaw.before-restore-20260101T00000{name}Z.parts"));
    for (number, root, mode) in [("1", "../precious", 0o700), ("2", "precious", 0o700), ("3", ".openclaw", 0o755)] {
        plant(&kept(number), root, mode);
        assert_ne!(scene.undo(&kept(number)).outcome, Ending::Complete, "{root} {mode:o}");
    }
    // Under that of an interrupted restore: it leads nowhere, and what is not ours is left alone.
    let swap = scene.path("home/.clawsnap-20260101T000000Z-00000001.swap");
    plant(&swap, "openclaw.json", 0o755);
    let restored = scene.restore(&archive, &[]);
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    assert!(restored.warnings.iter().any(|warning| warning.contains("left alone")), "{:?}", restored.warnings);
    assert_eq!((said(&victim).as_str(), swap.exists()), ("precious", true));
}

#[test]
fn what_is_not_whole_is_restored_only_with_consent() {
    let scene = Scene::new();
    write_cold(&scene.state().join("memory/main.sqlite"), [&b"SQLite format 3\0"[..], &[7; 4080]].concat());
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&scene.state()).to(&archive).exit_code(), 3);
    scene.go_on();
    let before = tree(&scene.state());
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    let mut options = scene.options(&[]);
    for destination in [Destination::InPlace(scene.ways()), Destination::Target(scene.path("target"))] {
        options.destination = destination;
        let asked = std::sync::Mutex::new(Vec::new());
        let refuse = |flagged: &[clawsnap::restore::Remark]| {
            asked.lock().expect("is sound").extend_from_slice(flagged);
            false
        };
        let restored = clawsnap::restore::restore(&archive, &options, &gate, &(), &refuse);
        assert_eq!(restored.outcome, Ending::Cancelled);
        let asked = asked.into_inner().expect("is sound");
        assert!(asked.len() == 1 && asked[0].what.starts_with("torn: "), "{asked:?}");
        assert_eq!(tree(&scene.state()), before);
        assert!(!scene.path("target").exists());
        scene.assert_nothing_hidden("refused");
    }
}

#[test]
fn nothing_is_exchanged_under_somebody_who_works_there() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let before = tree(&scene.state());
    let input = Stdio::from(fs::File::open(scene.state().join("logs/a.log")).expect("opens"));
    let mut child = Command::new("sleep").arg("60").stdin(input).spawn().expect("runs");
    let refused = scene.restore(&archive, &[]);
    let mut options = scene.options(&["logs"]);
    options.destination = Destination::InPlace(InPlace { force: true, ..scene.ways() });
    let forced = restore(&archive, &options, Arc::new(CancelFlag::new()));
    let undone = scene.undo(&scene.only_kept());
    child.kill().and_then(|()| child.wait()).expect("ends");
    let error = refused.error.unwrap_or_default();
    assert_eq!((refused.outcome, refused.places.len()), (Ending::Failed, 0));
    assert!(error.contains("(sleep)") && error.contains("logs/a.log") && error.contains("--force"), "{error}");
    assert_eq!(forced.outcome, Ending::Complete);
    // It holds what was kept now, no longer what is there.
    assert_eq!(undone.outcome, Ending::Complete, "{:?}", undone.error);
    assert_eq!(tree(&scene.state()), before);
}

/// A file was restored while somebody had another one in its directory open, and the way back, or the next run after a
/// kill, was refused for that.
#[test]
fn what_is_done_to_a_file_is_no_concern_of_those_who_have_another_one_open() {
    let scene = Scene::new();
    let database = scene.path("notes/main.sqlite");
    write_cold(&database, [&b"SQLite format 3\0"[..], &[7; 4080]].concat());
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&database).to(&archive).exit_code(), 3);
    for (name, words) in [("main.sqlite", "another"), ("main.sqlite-wal", "stale"), ("other", "stays")] {
        write(&scene.path("notes").join(name), words);
    }
    let before = tree(&scene.path("notes"));
    let input = Stdio::from(fs::File::open(scene.path("notes/other")).expect("opens"));
    let mut child = Command::new("sleep").arg("60").stdin(input).spawn().expect("runs");
    // Its log is out of the way already.
    left_midway(&archive, &scene.options(&[]), 2);
    let restored = scene.restore(&archive, &[]);
    let names = fs::read_dir(scene.path("notes")).expect("lists").map(|entry| entry.expect("an entry").path());
    let mut kept: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(".parts")).collect();
    // The latest first.
    kept.sort_by_key(|path| restored.places.first().is_none_or(|place| place.kept != Some(name(path))));
    let undone: Vec<_> = kept.iter().map(|kept| scene.undo(kept)).collect();
    child.kill().and_then(|()| child.wait()).expect("ends");
    assert_eq!(restored.outcome, Ending::Different, "{:?}", restored.error);
    let completed = format!("an interrupted restore of {} was completed", database.display());
    assert!(restored.warnings[0].starts_with(&completed), "{:?}", restored.warnings);
    let is_named = |path: &PathBuf| path.to_string_lossy().contains("/main.sqlite.before-restore-");
    assert!(kept.len() == 2 && kept.iter().all(is_named), "{kept:?}");
    for back in undone {
        assert_eq!((back.outcome, back.error), (Ending::Complete, None));
        assert_eq!(back.places[0].restored_to, name(&database));
    }
    assert_eq!(tree(&scene.path("notes")), before);
}

#[test]
fn a_gateway_is_known_by_its_lock() {
    let scene = Scene::new();
    let archive = scene.archive();
    let lock = scene.path("tmp/openclaw-0/gateway.12345678.lock");
    let config = scene.state().join("openclaw.json");
    write(&lock, format!("{{\"pid\":{},\"configPath\":\"{}\"}}", std::process::id(), config.display()));
    let refused = scene.restore(&archive, &[]);
    assert_eq!(refused.outcome, Ending::Failed);
    assert!(refused.error.is_some_and(|error| error.contains("OpenClaw's gateway is running there")));
    fs::remove_file(&lock).expect("removes");
    assert_eq!(scene.restore(&archive, &[]).outcome, Ending::Complete);
}

#[test]
fn what_is_not_proven_touches_nothing() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let before = tree(&scene.state());
    let mut bytes = fs::read(&archive).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).expect("writes");
    assert_eq!(scene.restore(&archive, &[]).outcome, Ending::Unproven);
    assert_eq!((tree(&scene.state()), scene.kept()), (before, Vec::new()));
    scene.assert_nothing_hidden("not proven");
}

#[test]
fn a_mount_point_is_exchanged_name_by_name_and_what_was_there_is_kept_in_it() {
    let scene = Scene::empty();
    let Some(_mounted) = Mounted::on(&scene.state()) else { return };
    scene.fill("old");
    let archive = scene.archive();
    let archived = tree(&scene.state());
    scene.go_on();
    let before = tree(&scene.state());
    let restored = scene.restore(&archive, &[]);
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    assert_eq!(tree(&scene.state()), archived);
    let kept = scene.only_kept();
    assert!(kept.starts_with(scene.state()), "{kept:?}");
    scene.assert_nothing_hidden("restored");
    assert_eq!(scene.undo(&kept).outcome, Ending::Complete);
    assert_eq!(tree(&scene.state()), before);
    // What an earlier restore has kept is not exchanged.
    assert_eq!(scene.restore(&archive, &[]).outcome, Ending::Complete);
    assert_eq!((tree(&scene.state()), scene.kept().len()), (archived, 2));
}

#[test]
fn a_mount_within_what_is_exchanged_is_not_lost() {
    let scene = Scene::new();
    write_cold(&scene.state().join("workspace/notes.md"), "old");
    let archive = scene.archive();
    let Some(_mounted) = Mounted::on(&scene.state().join("workspace")) else { return };
    write(&scene.state().join("workspace/notes.md"), "mounted");
    for patterns in [&[][..], &["workspace"], &["notes.md"]] {
        let refused = scene.restore(&archive, patterns);
        assert_eq!(refused.outcome, Ending::Failed, "{patterns:?}");
        assert!(refused.error.is_some_and(|error| error.contains("mount of its own")));
        assert_eq!(said(&scene.state().join("workspace/notes.md")), "mounted");
        scene.assert_nothing_hidden("refused");
    }
    assert_eq!(scene.restore(&archive, &["logs"]).outcome, Ending::Complete, "what lies elsewhere can be restored");
}

/// Beside a state directory whose parent hands down its group and a list of those who may read, nothing could be made
/// ready; and the list would have come along into the state.
#[test]
fn what_the_parent_hands_down_does_not_come_into_the_state() {
    let scene = Scene::new();
    let archive = scene.archive();
    let archived = tree(&scene.state());
    scene.go_on();
    let before = tree(&scene.state());
    assert!(sh("chmod 2770 \"$1/..\" && setfacl -d -m u:1234:rwx \"$1/..\"", &scene.state()));
    let restored = scene.restore(&archive, &[]);
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    assert_eq!(tree(&scene.state()), archived);
    assert!(sh("test -z \"$(getfacl -R -s -n -p \"$1\")\"", &scene.state()), "a list of those who may read");
    assert_eq!(scene.undo(&scene.only_kept()).outcome, Ending::Complete);
    assert_eq!(tree(&scene.state()), before);
    scene.assert_nothing_hidden("restored and undone");
}

/// As in `/var/lib`, which root owns.
#[test]
fn where_nothing_may_be_made_beside_it_the_room_is_in_it() {
    let Some(program) = support::helper().into_iter().next().filter(|_| is_root()) else {
        eprintln!("skipped: only root can be somebody else");
        return;
    };
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    fs::copy(program, scene.path("clawsnap")).expect("copies");
    assert!(sh("cd \"$1/../..\" && chmod 755 . home && chown -R 65534:65534 home/.openclaw a.tar.zst", &scene.state()));
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let run = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(user).arg(scene.path("clawsnap")).args(args).env("OPENCLAW_STATE_DIR", scene.state());
        let output = command.current_dir("/").output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("is text")
    };
    let page = run(&["restore", archive.to_str().expect("is text"), "--in-place"]);
    let kept = scene.only_kept();
    assert!(kept.starts_with(scene.state()), "{kept:?}");
    assert!(said(&scene.state().join("logs/a.log")).contains("old"));
    let way_back =
        page.lines().find_map(|line| line.trim().strip_prefix("way back")).expect("is told").trim().to_owned();
    let words: Vec<&str> = way_back.split(' ').skip(1).collect();
    run(&words);
    assert!(said(&scene.state().join("logs/a.log")).contains("new"));
}
