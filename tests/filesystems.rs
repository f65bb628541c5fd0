//! Real filesystems on loop devices: what can share extents does, what cannot is frozen otherwise, and nothing of ours
//! is left anywhere. Needs root and the tools that make them.

mod churn;
mod mounts;
mod proof;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use churn::{Sample, sample_state};
use clawsnap::gate::{Realm, Verb};
use clawsnap::report::{Consistency, Report};
use mounts::{bound, can, made, mounted, text};
use proof::{Promise, proven};
use support::{Archive, Backup, Script, differences, leftovers, snapshot, write_cold};

fn sample(dir: &Path) {
    sample_state(dir, &Sample { agents: 2, sessions_per_agent: 40, databases: false, ..Sample::default() });
}

/// Backs up, and sees that all of it is there and that nothing changed or stayed.
fn check(source: &Path, top: &Path) -> (Report, Archive) {
    let before = snapshot(source);
    let archive = top.join("checked.tar");
    let report = Backup::of(source).to(&archive);
    assert_eq!((report.exit_code(), report.consistent), (0, Some(Consistency::Instant)), "{:?}", report.error);
    assert_eq!(differences(&before, &snapshot(source)), [] as [String; 0]);
    for dir in [source, source.parent().expect("a parent"), top] {
        assert_eq!(leftovers(dir), [] as [PathBuf; 0]);
    }
    let found = Archive::read(&archive);
    let excluded: Vec<_> = report.excluded.iter().map(|fated| fated.path.0.clone()).collect();
    for (path, looks) in before.iter().filter(|(_, looks)| looks.is_file()) {
        let left_out = path.ancestors().any(|above| excluded.contains(&above.as_os_str().as_encoded_bytes().to_vec()));
        let hash = found.contents(path).map(|bytes| (bytes.len(), blake3::hash(bytes).to_hex().to_string()));
        assert!(left_out || hash == looks.contents, "{} is not what it was", path.display());
    }
    fs::remove_file(archive).expect("removes");
    proven(&[Promise::Instant, Promise::Whole, Promise::Fate, Promise::Untouched], 1, "a filesystem of another kind");
    (report, found)
}

/// Where times are kept in whole seconds, a name that went in the same second as the last change before the listing was
/// archived as of an instant at which it was gone.
#[test]
fn a_change_within_the_second_of_another_is_not_overlooked() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q", "-I", "128"]) else { return };
    let source = at.join("source");
    for round in 0..3 {
        (0..3).for_each(|name| write_cold(&source.join(format!("{name}.txt")), "contents"));
        begin_a_second();
        write_cold(&source.join(format!("round-{round}.txt")), "the last change before the listing");
        let (all, linked) = (4 + round, Arc::new(Mutex::new(Vec::new())));
        let (names, dir) = (Arc::clone(&linked), source.clone());
        let gate = Script::new(move |_, step| {
            if step.realm == Realm::Source && step.verb == Verb::Link {
                let mut names = names.lock().expect("no panic");
                names.push(String::from_utf8_lossy(step.name).into_owned());
                if names.len() == all {
                    fs::remove_file(dir.join(&names[0])).expect("removes");
                }
            }
            Ok(())
        });
        let archive = top.path().join(format!("{round}.tar"));
        let report = Backup::of(&source).settle(Duration::from_secs(20)).gate(gate).to(&archive);
        assert_eq!((report.exit_code(), report.consistent), (0, Some(Consistency::Instant)), "{:?}", report.error);
        let gone = source.join(&linked.lock().expect("no panic")[0]);
        assert!(!gone.exists() && Archive::read(&archive).contents(&gone).is_none(), "{report:#?}");
        proven(&[Promise::Instant], 1, "times of whole seconds");
        // A round may have removed its own.
        write_cold(&source.join(format!("round-{round}.txt")), "again");
    }
}

/// Waits until a second has just begun.
fn begin_a_second() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("is later");
    sleep(Duration::from_millis(1_020) - Duration::from_nanos(now.subsec_nanos().into()));
}

#[test]
fn where_extents_can_be_shared_guarded_and_hot_files_are_cloned() {
    for kind in ["xfs", "btrfs"] {
        let top = tempfile::tempdir().expect("a directory");
        let Some((_mount, at)) = mounted(top.path(), kind) else { continue };
        let state = at.join("state");
        sample(&state);
        if kind == "btrfs" {
            let sub = state.join("workspace/subvolume");
            assert!(can(&["btrfs", "subvolume", "create", text(&sub)]));
            fs::write(sub.join("file"), "in a subvolume").expect("writes");
        }
        let (report, archive) = check(&state, top.path());
        for how in ["hold", "pin", "copy"] {
            assert_eq!(report.captures.get(how), None, "{kind}: {:?}", report.captures);
        }
        assert!(report.captures["clone"] > 10 && report.captures["link"] > 10, "{kind}: {:?}", report.captures);
        let cloned = archive.inventory.iter().filter(|line| line["capture"] == "clone");
        assert!(cloned.clone().any(|line| line["path"].as_str().is_some_and(|path| path.ends_with("AGENTS.md"))));
    }
}

#[test]
fn where_extents_cannot_be_shared_nothing_is_cloned() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = mounted(top.path(), "ext4") else { return };
    sample(&at.join("state"));
    let (report, _) = check(&at.join("state"), top.path());
    assert_eq!(report.captures.get("clone"), None);
    assert!(report.captures["link"] > 10 && report.captures["pin"] > 10, "{:?}", report.captures);
}

#[test]
fn a_source_that_is_a_mount_point_is_staged_inside_itself() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = mounted(top.path(), "ext4") else { return };
    sample(&at);
    fs::remove_dir_all(at.join("lost+found")).expect("removes");
    let (report, archive) = check(&at, top.path());
    assert!(report.captures["link"] > 10, "{:?}", report.captures);
    let told = archive.inventory[0]["mtime"].as_str().expect("a time");
    let meta = fs::metadata(&at).expect("is there");
    assert_eq!(told, format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()), "the time before we came is archived");
}

#[test]
fn a_mount_inside_the_source_is_staged_on_its_own() {
    let top = tempfile::tempdir().expect("a directory");
    let state = top.path().join("state");
    sample(&state);
    let other = top.path().join("other");
    support::write_cold(&other.join("0.jsonl"), "{\"elsewhere\":1}\n");
    let inside = state.join("agents/bound/sessions");
    let Some(_mount) = bound(&other, &inside, "rw") else { return };
    let (report, archive) = check(&state, top.path());
    let line = archive
        .inventory
        .iter()
        .find(|line| line["path"].as_str().is_some_and(|path| path.ends_with("agents/bound/sessions/0.jsonl")));
    assert_eq!(line.expect("is archived")["capture"], "link", "{:?}", report.captures);
    assert_eq!(fs::metadata(other.join("0.jsonl")).expect("is there").nlink(), 1);
    assert_eq!(leftovers(&inside), [] as [PathBuf; 0]);
}

#[test]
fn a_read_only_source_is_frozen_without_a_link() {
    let top = tempfile::tempdir().expect("a directory");
    let (state, at) = (top.path().join("state"), top.path().join("read-only/state"));
    sample(&state);
    let Some(_mount) = bound(&state, &at, "ro") else { return };
    let (report, _) = check(&at, top.path());
    assert_eq!(report.captures.get("link"), None, "{:?}", report.captures);
    assert!(report.captures["pin"] > 10);
}

/// The kernel of some machines has no FAT; then the poorest filesystem is played by the tests of the output.
#[test]
fn an_archive_can_be_published_on_fat() {
    let top = tempfile::tempdir().expect("a directory");
    sample(&top.path().join("state"));
    let Some((_mount, at)) = mounted(top.path(), "vfat") else { return };
    let report = Backup::of(&top.path().join("state")).to(&at.join("a.tar"));
    assert_eq!(report.exit_code(), 0, "{:?}", report.error);
    assert!(Archive::read(&at.join("a.tar")).payload.len() > 50);
    assert_eq!(leftovers(&at), [] as [PathBuf; 0]);
}
