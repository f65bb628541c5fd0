//! Restoring where things lie oddly: behind links, behind modes, on mounts, in other sources, and where somebody has tidied
//! up meanwhile.

mod place;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use clawsnap::gate::{CancelFlag, Verb};
use clawsnap::plan::Environment;
use clawsnap::restore::{Destination, Ending, InPlace, Mapping};
use place::support::{self, Backup, leftovers, write, write_cold};
use place::{Mounted, Scene, idle, is_root, name, restore, said, sh, tree};

/// Who owns nothing else.
const NOBODY: u32 = 65_534;

/// The command as somebody to whom the kernel denies things, who owns the scene.
struct Nobody<'a>(&'a Scene);

impl<'a> Nobody<'a> {
    fn of(scene: &'a Scene) -> Option<Self> {
        let Some(program) = support::helper().into_iter().next().filter(|_| is_root()) else {
            eprintln!("skipped: only root can be somebody else");
            return None;
        };
        fs::copy(program, scene.path("clawsnap")).expect("copies");
        let nobody = Self(scene);
        nobody.owns();
        Some(nobody)
    }

    fn owns(&self) {
        assert!(sh(&format!("chown -hR {NOBODY}:{NOBODY} \"$1\""), &self.0.top));
    }

    fn run(&self, args: &[&str]) -> Output {
        let user = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups");
        let _idle = idle();
        let mut command = Command::new("setpriv");
        command.args(user.split(' ')).arg(self.0.path("clawsnap")).args(args);
        command.env("OPENCLAW_STATE_DIR", self.0.state()).env("HOME", self.0.path("home"));
        command.current_dir("/").output().expect("runs")
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
}

/// The state of another profile was mapped to where it had been, and took the place of the caller's own state.
#[test]
fn a_state_that_is_mapped_to_where_it_was_goes_there() {
    let scene = Scene::new();
    let archive = scene.archive();
    let archived = tree(&scene.state());
    scene.go_on();
    let theirs = scene.path("theirs");
    write(&theirs.join(".openclaw/openclaw.json"), "good");
    let environment = Environment { home: Some(theirs.clone()), ..scene.environment() };
    let mut options = scene.options(&[]);
    options.destination = Destination::InPlace(InPlace { environment, force: false });
    for same in [scene.state(), scene.path("home"), "/".into()] {
        options.mapping = Mapping::default().and(&same, &same).expect("is absolute");
        let restored = restore(&archive, &options, Arc::new(CancelFlag::new()));
        assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
        assert_eq!(restored.places[0].restored_to, name(&scene.state()));
        assert_eq!(said(&theirs.join(".openclaw/openclaw.json")), "good");
    }
    assert_eq!(tree(&scene.state()), archived);
}

/// One session was restored across a link to another disk, and a directory that held nothing else took the link's place.
#[test]
fn a_part_is_not_restored_across_a_link_but_may_replace_it_as_a_whole() {
    let scene = Scene::new();
    let archive = scene.archive();
    let agents = scene.state().join("agents");
    fs::create_dir(scene.path("disk")).expect("makes");
    fs::rename(&agents, scene.path("disk/agents")).expect("moves");
    symlink(scene.path("disk/agents"), &agents).expect("links");
    let sessions = scene.path("disk/agents/main/sessions");
    fs::remove_file(sessions.join("9999aaaa-2.jsonl")).expect("removes");
    write(&sessions.join("later.jsonl"), "{}\n");
    let before = tree(&scene.state());
    for pattern in ["9999", "agents/main", "*.jsonl"] {
        let refused = scene.restore(&archive, &[pattern]);
        let why = refused.error.unwrap_or_default();
        assert!(refused.outcome == Ending::Failed && why.contains("agents is a symbolic link"), "{pattern}: {why}");
        assert_eq!((tree(&scene.state()), scene.kept()), (before.clone(), Vec::new()));
        scene.assert_nothing_hidden("refused");
    }
    let restored = scene.restore(&archive, &["agents"]);
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    assert!(said(&agents.join("main/sessions/9999aaaa-2.jsonl")).contains("old"));
    assert!(agents.symlink_metadata().expect("is there").is_dir() && sessions.join("later.jsonl").exists());
    assert_eq!(scene.undo(&scene.only_kept()).outcome, Ending::Complete);
    assert_eq!(tree(&scene.state()), before);
}

/// Somebody had tidied up what was kept, and the program had made the like of it again: the way back was taken for an
/// interrupted one, put that aside, and said that all was back.
#[test]
fn a_kept_file_that_is_gone_does_not_keep_the_others_from_coming_back() {
    let scene = Scene::new();
    let database = scene.state().join("memory/main.sqlite");
    let log = scene.state().join("memory/main.sqlite-wal");
    write_cold(&database, [&b"SQLite format 3\0"[..], &[7; 4080]].concat());
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&scene.state()).to(&archive).exit_code(), 3, "it is no sound database");
    write(&database, "another");
    write(&log, "its log");
    assert_eq!(scene.restore(&archive, &["memory"]).outcome, Ending::Different);
    let kept = scene.only_kept();
    for way in ["another", "SQLite format 3"] {
        let kept_log = kept.join("tree/memory/main.sqlite-wal");
        if kept_log.exists() {
            fs::remove_file(kept_log).expect("removes");
        }
        write(&log, "a new log");
        let back = scene.undo(&kept);
        assert_eq!((back.outcome, back.error), (Ending::Complete, None));
        assert!(said(&database).starts_with(way), "{way}");
        assert!(!log.exists(), "a log of the other one");
    }
    scene.assert_nothing_hidden("there and back");
}

/// A directory that its owner may not open could not be removed from what an interrupted restore left, and no restore
/// went ahead there any more.
#[test]
fn a_closed_directory_that_a_dead_run_left_is_removed() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let swap = scene.path("home/.clawsnap-20260101T000000Z-00000001.swap");
    for (name, mode) in [("shut", 0o000), ("no-list", 0o300), ("tree", 0o000)] {
        let closed = swap.join("tree/a").join(name);
        write(&closed.join("deep/file"), "left");
        set_mode(&closed.join("deep"), mode);
        set_mode(&closed, mode);
    }
    set_mode(&swap, 0o700);
    let Some(nobody) = Nobody::of(&scene) else { return };
    let output = nobody.run(&["restore", archive.to_str().expect("is text"), "--in-place"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(said(&scene.state().join("logs/a.log")).contains("old"));
    scene.assert_nothing_hidden("restored");
}

/// What an interrupted restore had only begun to make, and cannot be removed, kept every other one from going ahead.
#[test]
fn what_a_dead_run_left_without_a_journal_keeps_nobody_from_restoring() {
    let scene = Scene::new();
    let archive = scene.archive();
    scene.go_on();
    let swap = scene.path("home/.clawsnap-20260101T000000Z-00000001.swap");
    write(&swap.join("tree/theirs/file"), "left");
    set_mode(&swap, 0o700);
    let Some(nobody) = Nobody::of(&scene) else { return };
    assert!(sh("chown -R 0:0 \"$1\"", &swap.join("tree/theirs")));
    let output = nobody.run(&["restore", archive.to_str().expect("is text"), "--in-place"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("00000001.swap") && told.contains("cannot be removed"), "{told}");
    assert!(said(&scene.state().join("logs/a.log")).contains("old"));
    assert!(swap.join("tree/theirs/file").exists());
}

/// A directory that its owner may not open stayed in the staging directory for good.
#[test]
fn a_closed_directory_does_not_keep_a_stage_from_being_removed() {
    let scene = Scene::new();
    set_mode(&scene.state().join("logs"), 0o000);
    let Some(nobody) = Nobody::of(&scene) else { return };
    let output = nobody.run(&["stage", scene.state().to_str().expect("is text"), "--", "true"]);
    assert!(leftovers(&scene.path("home")).is_empty(), "{}", told(&output));
    assert_eq!(fs::metadata(scene.state().join("logs")).expect("is there").mode() & 0o777, 0);
}

/// The state lay on a disk that was not mounted, and what was restored took the place of the link that leads there.
#[test]
fn a_state_whose_link_leads_nowhere_is_not_restored_in_the_place_of_the_link() {
    let scene = Scene::new();
    let disk = scene.path("disk/oc");
    fs::create_dir(scene.path("disk")).expect("makes");
    fs::rename(scene.state(), &disk).expect("moves");
    symlink(&disk, scene.state()).expect("links");
    let archive = scene.archive();
    fs::remove_dir_all(&disk).expect("removes");
    let refused = scene.restore(&archive, &[]);
    let why = refused.error.unwrap_or_default();
    assert!(refused.outcome == Ending::Usage && why.contains("is not there") && why.contains("--map"), "{why}");
    assert_eq!(fs::read_link(scene.state()).expect("is a link"), disk);
    fs::create_dir(&disk).expect("makes");
    assert_eq!(scene.restore(&archive, &[]).outcome, Ending::Complete);
    assert_eq!((fs::read_link(scene.state()).expect("is a link"), disk.join("logs/a.log").exists()), (disk, true));
}

/// The kernel lets nobody but root move a directory that is write-protected, and the user was told no more than that
/// permission was denied.
#[test]
fn what_to_do_about_a_write_protected_directory_is_said() {
    let scene = Scene::new();
    set_mode(&scene.state().join("logs"), 0o555);
    let archive = scene.archive();
    let Some(nobody) = Nobody::of(&scene) else { return };
    let kept = scene.kept();
    assert!(sh("rm -r \"$1/logs\"", &scene.state()));
    let output = nobody.run(&["restore", archive.to_str().expect("is text"), "logs", "--in-place"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("logs: ") && told.contains("write-protected") && told.contains("--target"), "{told}");
    assert_eq!(scene.kept(), kept);
    scene.assert_nothing_hidden("refused");
}

/// Of one source all that was wanted was a second name whose first was not, so that nothing could be restored: the whole
/// source was moved away, and nothing put in its place.
#[test]
fn a_source_of_which_nothing_can_be_restored_stays_where_it_is() {
    let scene = Scene::new();
    let (first, second) = (scene.path("first"), scene.path("second"));
    write_cold(&first.join("x"), "old");
    write_cold(&second.join("b1"), "old");
    fs::hard_link(second.join("b1"), second.join("b2")).expect("links");
    fs::create_dir_all(scene.path("first/empty")).expect("makes");
    let archive = scene.path("a.tar.zst");
    assert_eq!(Backup::of(&first).and(&second).to(&archive).exit_code(), 0);
    write(&first.join("x"), "new");
    let before = tree(&second);
    let pattern = |path: &Path| path.to_str().expect("is text").to_owned();
    let restored = scene.restore(&archive, &[&pattern(&first.join("x")), &pattern(&second.join("b2"))]);
    assert_eq!((restored.outcome, restored.files), (Ending::Different, 1), "{:?}", restored.error);
    assert_eq!((tree(&second), said(&first.join("x"))), (before, "old".to_owned()));
    let places: Vec<_> = restored.places.iter().map(|place| &place.path).collect();
    assert_eq!(places, [&name(&first)], "the other one is not restored");
    scene.assert_nothing_hidden("restored");
    // What is there already needs no exchange: nothing is kept.
    let same = scene.restore(&archive, &[&pattern(&first.join("empty"))]);
    assert_eq!((same.outcome, same.places.len()), (Ending::Complete, 1), "{:?}", same.error);
    assert_eq!(same.places[0].kept, None);
    scene.assert_nothing_hidden("restored");
}

/// What was said of a path that the archive does not have, as one with a link in it, was ignored in silence: what was meant
/// to go elsewhere took the place of what is there.
#[test]
fn nothing_is_restored_where_a_path_is_mapped_that_the_archive_does_not_have() {
    let scene = Scene::new();
    fs::create_dir(scene.path("disk")).expect("makes");
    fs::rename(scene.state(), scene.path("disk/oc")).expect("moves");
    symlink(scene.path("disk/oc"), scene.state()).expect("links");
    let archive = scene.archive();
    scene.go_on();
    let before = tree(&scene.path("disk/oc"));
    let mut options = scene.options(&[]);
    for old in [scene.state(), scene.path("disk/o"), scene.path("disk/oc/nothing")] {
        let mapping = || Mapping::default().and(&scene.path("disk/oc"), &scene.path("elsewhere"));
        options.mapping = mapping().and_then(|mapping| mapping.and(&old, &scene.path("there"))).expect("is absolute");
        for destination in [Destination::InPlace(scene.ways()), Destination::Target(scene.path("target"))] {
            options.destination = destination;
            let refused = restore(&archive, &options, Arc::new(CancelFlag::new()));
            let why = refused.error.unwrap_or_default();
            let told = format!("the archive has no {}; it has {}", old.display(), scene.path("disk/oc").display());
            assert!(refused.outcome == Ending::Usage && why.contains(&told), "{why}");
        }
    }
    assert_eq!((tree(&scene.path("disk/oc")), scene.kept()), (before, Vec::new()));
    for made in ["target", "elsewhere", "there"] {
        assert!(!scene.path(made).exists(), "{made}");
    }
    scene.assert_nothing_hidden("refused");
}

/// An empty disk was taken for an empty directory: all was made on the disk that it is mounted on, and refused at the end.
#[test]
fn a_mount_of_its_own_is_no_target_before_anything_is_written() {
    let scene = Scene::new();
    let archive = scene.archive();
    let disk = scene.path("disk");
    let Some(_mounted) = Mounted::on(&disk) else { return };
    let mut options = scene.options(&[]);
    options.destination = Destination::Target(disk.clone());
    let gate = support::Script::new(|_, step| match step.verb {
        Verb::MakeDir | Verb::Create => Err(std::io::Error::from_raw_os_error(28)),
        _ => Ok(()),
    });
    let refused = restore(&archive, &options, Arc::new(gate));
    let why = refused.error.unwrap_or_default();
    assert!(refused.outcome == Ending::Usage && why.contains("is a mount of its own"), "{why}");
    assert!(why.contains(disk.join("restored").to_str().expect("is text")), "{why}");
    options.destination = Destination::Target(disk.join("restored"));
    assert_eq!(restore(&archive, &options, Arc::new(CancelFlag::new())).outcome, Ending::Complete);
}
