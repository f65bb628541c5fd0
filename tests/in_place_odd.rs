//! Restoring in place where things lie oddly: behind links, behind modes, and where somebody has tidied up meanwhile.

mod place;

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use clawsnap::gate::CancelFlag;
use clawsnap::plan::Environment;
use clawsnap::restore::{Destination, Ending, InPlace, Mapping};
use place::support::{Backup, write, write_cold};
use place::{Scene, name, restore, said, tree};

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
