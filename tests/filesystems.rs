//! Real filesystems on loop devices: what can share extents does, what cannot is frozen otherwise, and nothing of ours
//! is left anywhere. Needs root and the tools that make them.

mod churn;
mod mounts;
mod proof;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use churn::{Sample, sample_state};
use clawsnap::report::{Consistency, Report};
use mounts::{bound, can, mounted, text};
use proof::{Promise, proven};
use support::{Archive, Backup, differences, leftovers, snapshot};

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
