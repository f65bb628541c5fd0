//! Races after the freeze, played for real: what is frozen by name moves before it is archived, or while it is.

mod scene;
mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clawsnap::freeze::Mode;
use clawsnap::gate::{Realm, Step, Verb};
use scene::{Frozen, Scene, append, at_source, once, paths};
use support::{Script, leftovers, write, write_cold};

/// A file that is streamed, as it is larger than what is read at once.
fn large(scene: &Scene) -> (PathBuf, Vec<u8>) {
    let (path, contents) = (scene.session("a", 4), b"{\"large\":true}\n".repeat(400_000));
    write_cold(&path, &contents);
    (path, contents)
}

/// Somewhere in the middle of the streaming.
fn mid_stream() -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    let reads = std::sync::atomic::AtomicU32::new(0);
    // The staged name of a linked file is a number.
    move |step| {
        let staged = step.verb == Verb::Read && step.realm == Realm::Staging;
        staged && reads.fetch_add(1, Ordering::SeqCst) == 14
    }
}

#[test]
fn a_large_file_that_shrinks_while_it_is_streamed_is_torn_and_tears_nothing_else() {
    let scene = Scene::new();
    let (path, contents) = large(&scene);
    let shrunk = path.clone();
    let gate = once(mid_stream(), move || {
        fs::OpenOptions::new().write(true).open(&shrunk).expect("opens").set_len(1_000_000).expect("shrinks");
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!(report.exit_code(), 3);
    assert_eq!(paths(&report.losses), [path.as_path()]);
    assert_eq!(archive.contents(&path).expect("is there").len(), contents.len(), "padded to what was promised");
    assert!(archive.payload.contains_key(&scene.session("b", 2)), "what follows is whole");
}

#[test]
fn a_large_file_that_grows_while_it_is_streamed_yields_what_was_promised() {
    let scene = Scene::new();
    let (path, contents) = large(&scene);
    let grown = path.clone();
    let gate = once(mid_stream(), move || append(&grown, "{\"more\":1}\n"));
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!(archive.contents(&path), Some(&contents[..]));
    assert!(report.counts.torn <= 1, "{:?}", report.losses);
}

/// A large hot file that was rewritten in its middle, with its length and both its ends as before, was told as a prefix that
/// lost nothing, though its bytes could be a mixture.
#[test]
fn a_large_hot_file_that_is_rewritten_in_its_middle_is_no_prefix() {
    let scene = Scene::new();
    let path = scene.session("a", 5);
    write(&path, "{\"n\":1}\n".repeat(50_000));
    let rewritten = path.clone();
    let observer = Frozen(move || {
        let file = fs::OpenOptions::new().write(true).open(&rewritten).expect("opens");
        file.write_all_at(b"{\"n\":2}\n", 200_000).expect("rewrites");
    });
    let (report, archive) = scene.play(scene.backup().mode(Mode::Link).holding_nothing().observer(observer));
    assert_eq!((report.exit_code(), report.counts.prefix, report.counts.later), (0, 0, 1));
    assert_eq!(archive.contents(&path), Some(&fs::read(&path).expect("reads")[..]));
}

/// Appends to a log and rotates it: from then on its name is bound to another file.
fn rotate(log: &Path) -> PathBuf {
    append(log, "{\"last\":1}\n");
    let old = log.with_extension("1");
    fs::rename(log, &old).expect("rotates");
    fs::write(log, "{\"new\":1}\n").expect("begins another");
    old
}

/// A log that was appended to and rotated after the freeze was archived as the file that had its name by then, and what was
/// frozen of it was in no entry.
#[test]
fn a_log_that_is_rotated_after_the_freeze_is_archived_from_the_file_that_was_frozen() {
    for (name, capture) in [("agents/a/sessions/7.jsonl", "link"), ("workspace/log.md", "pin")] {
        let scene = Scene::new();
        let path = scene.state().join(name);
        write_cold(&path, "{\"n\":1}\n");
        let log = path.clone();
        let (report, archive) =
            scene.play(scene.backup().mode(Mode::Link).observer(Frozen(move || drop(rotate(&log)))));
        assert_eq!((report.exit_code(), report.counts.later), (0, 1), "{capture}");
        assert_eq!(archive.contents(&path), Some(&b"{\"n\":1}\n{\"last\":1}\n"[..]), "{capture}");
        let told = archive.inventory.iter().find(|line| line["fate"] == "later").expect("the inventory tells it");
        assert_eq!(told["capture"], capture);
    }
}

/// Where a rotated log was archived as the file that had its name by then, and that had two names, another name of the frozen
/// one became a link to that.
#[test]
fn another_name_of_a_rotated_log_that_will_not_rest_is_no_link_to_what_came_in_its_place() {
    let scene = Scene::new();
    let (path, other) = (scene.session("a", 1), scene.session("b", 9));
    fs::hard_link(&path, &other).expect("links");
    let (log, rotated) = (path.clone(), Arc::new(OnceLock::<PathBuf>::new()));
    let old = Arc::clone(&rotated);
    let gate = Script::new(move |_, step| {
        if let (Verb::Read, Some(old)) = (step.verb, old.get()) {
            append(old, "{\"more\":1}\n");
        }
        Ok(())
    });
    let observer = Frozen(move || {
        rotated.set(rotate(&log)).expect("is rotated once");
        fs::hard_link(&log, log.with_extension("new")).expect("links");
    });
    let (report, archive) = scene.play(scene.backup().gate(gate).observer(observer));
    assert_eq!((report.exit_code(), report.counts.later, paths(&report.losses)), (3, 1, vec![other.clone()]));
    assert_eq!(archive.contents(&path), Some(&b"{\"new\":1}\n"[..]));
    let archived = archive.contents(&other).expect("is there");
    assert!(archived.starts_with(b"{\"agent\":\"a\",\"n\":1}\n"), "{}", String::from_utf8_lossy(archived));
}

/// A file that changed until the time to settle was over, and was removed then, was told as whole, with the mode of its
/// staged copy; or as lost, where its bytes were in memory.
#[test]
fn a_file_that_never_rested_and_is_removed_is_torn_with_what_was_read_of_it() {
    for mode in [Mode::Link, Mode::Copy] {
        let scene = Scene::new();
        let path = scene.session("a", 6);
        write(&path, "{}\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("sets its mode");
        let (growing, victim) = (path.clone(), path.clone());
        let gate = at_source(move |step| {
            if step.verb == Verb::Read && step.name.ends_with(b"6.jsonl") {
                append(&growing, "{\"more\":1}\n");
            }
            Ok(())
        });
        let observer = Frozen(move || fs::remove_file(&victim).expect("removes"));
        let backup = scene.backup().mode(mode).settle(Duration::from_millis(50));
        let (report, archive) = scene.play(backup.gate(gate).observer(observer));
        assert_eq!((report.exit_code(), paths(&report.losses)), (3, vec![path.clone()]), "{mode:?}");
        assert_eq!((report.losses[0].fate, archive.payload[&path].mode & 0o777), ("torn", 0o640), "{mode:?}");
        assert!(
            archive.contents(&path).is_some_and(|contents| contents.starts_with(b"{}\n{\"more\":1}\n")),
            "{mode:?}"
        );
    }
}

/// A large log that was appended to while its ends were read was lost, though its name was bound to one file all the time.
#[test]
fn a_large_file_that_grows_faster_than_it_is_looked_at_is_held_all_the_same() {
    let names = ["agents/a/sessions/7.jsonl", "workspace/log.md"];
    for (name, rests) in names.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let scene = Scene::new();
        let path = scene.state().join(name);
        write(&path, "{\"n\":1}\n".repeat(100));
        let (log, frozen) = (path.clone(), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&frozen);
        let gate = Script::new(move |_, step| {
            if step.verb == Verb::Read && !(rests && over.load(Ordering::SeqCst)) {
                append(&log, "{\"more\":1}\n");
            }
            Ok(())
        });
        let backup = scene.backup().mode(Mode::Link).holding_nothing().settle(Duration::from_millis(50)).gate(gate);
        let (report, archive) = scene.play(backup.observer(Frozen(move || frozen.store(true, Ordering::SeqCst))));
        assert!(
            report.restless.iter().any(|restless| restless.path.0.ends_with(name.as_bytes())),
            "{name}: {:?}",
            report.restless
        );
        let (torn, code) = if rests { (vec![], 0) } else { (vec![path.clone()], 3) };
        assert_eq!((report.exit_code(), paths(&report.losses)), (code, torn), "{name}, rests: {rests}");
        let archived = archive.contents(&path).expect("is there");
        assert!(archived.starts_with("{\"n\":1}\n".repeat(100).as_bytes()), "{name}");
        assert!(!rests || archived == fs::read(&path).expect("reads"), "{name}");
    }
}

/// Of two names of a file that was rewritten, or would not rest, only the first was told of.
#[test]
fn each_name_of_a_file_that_moved_is_told_of() {
    for rests in [true, false] {
        let scene = Scene::new();
        let (one, two) = (scene.session("a", 1), scene.session("b", 9));
        fs::hard_link(&one, &two).expect("links");
        let (path, frozen) = (one.clone(), Arc::new(AtomicU64::new(0)));
        let moves = Arc::clone(&frozen);
        let gate = Script::new(move |_, step| {
            if !rests && step.verb == Verb::Read && moves.load(Ordering::SeqCst) > 0 {
                let count = moves.fetch_add(1, Ordering::SeqCst);
                fs::write(&path, format!("{{\"moves\":{count}}}\n")).expect("rewrites");
            }
            Ok(())
        });
        let rewritten = one.clone();
        let observer = Frozen(move || {
            fs::write(&rewritten, "{\"migrated\":1}\n").expect("rewrites");
            frozen.store(1, Ordering::SeqCst);
        });
        let (report, archive) = scene.play(scene.backup().gate(gate).observer(observer));
        let told = if rests { &report.moved } else { &report.losses };
        assert_eq!(paths(told), [one.clone(), two.clone()], "rests: {rests}");
        let fate = if rests { "later" } else { "torn" };
        assert!(told.iter().all(|fated| fated.fate == fate), "{told:?}");
        assert_eq!(archive.payload[&two].kind, tar::EntryType::Link);
        assert_eq!(archive.inventory.iter().filter(|line| line["fate"] == fate).count(), 2);
    }
}

/// What was copied of a large hot file when the filesystem was full stayed there for the rest of the run, and the file was
/// lost.
#[test]
fn a_copy_that_no_room_is_left_for_is_given_up_at_once_and_the_file_streamed() {
    for verb in [Verb::Create, Verb::Write] {
        let scene = Scene::new();
        let (path, contents) = large(&scene);
        write(&path, &contents);
        let (top, full) = (scene.top.path().to_owned(), Arc::new(AtomicBool::new(false)));
        let (found, frozen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (left, begun, number) = (Arc::clone(&found), Arc::clone(&frozen), AtomicU64::new(0));
        let gate = Script::new(move |_, step| {
            let ours = step.realm == Realm::Staging && begun.load(Ordering::SeqCst);
            if ours && step.verb == Verb::Read && full.load(Ordering::SeqCst) {
                left.fetch_add(copies(&top), Ordering::SeqCst);
            }
            let fails = ours && step.verb == verb && number.fetch_add(1, Ordering::SeqCst) == 0;
            if fails && !full.swap(true, Ordering::SeqCst) { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
        });
        let observer = Frozen(move || frozen.store(true, Ordering::SeqCst));
        let backup = scene.backup().mode(Mode::Link).gate(gate).observer(observer);
        let (report, archive) = scene.play(backup);
        assert_eq!((report.exit_code(), paths(&report.losses)), (0, vec![]), "{verb:?}");
        assert!(archive.contents(&path) == Some(&contents[..]), "{verb:?}");
        assert_eq!(found.load(Ordering::SeqCst), 0, "{verb:?}: copies were left");
    }
}

/// The copy of a large hot file that grew meanwhile stayed in staging beside the next one.
#[test]
fn a_copy_that_its_file_outgrew_makes_room_for_the_next() {
    let scene = Scene::new();
    let (path, contents) = large(&scene);
    write(&path, &contents);
    let (top, growing) = (scene.top.path().to_owned(), path.clone());
    let (most, frozen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, begun, grown) = (Arc::clone(&most), Arc::clone(&frozen), AtomicBool::new(false));
    let gate = Script::new(move |_, step| {
        let ours = step.realm == Realm::Staging && begun.load(Ordering::SeqCst);
        if ours && step.verb == Verb::Write && !grown.swap(true, Ordering::SeqCst) {
            append(&growing, "{\"more\":1}\n");
        }
        if ours && step.verb == Verb::Read {
            seen.fetch_max(copies(&top), Ordering::SeqCst);
        }
        Ok(())
    });
    let observer = Frozen(move || frozen.store(true, Ordering::SeqCst));
    let (report, archive) = scene.play(scene.backup().mode(Mode::Link).gate(gate).observer(observer));
    assert_eq!((report.exit_code(), report.counts.prefix, most.load(Ordering::SeqCst)), (0, 1, 1));
    assert!(archive.contents(&path) == Some(&contents[..]));
}

/// The bytes of a database that could only be read where it lay were called a prefix, and no loss, when it grew meanwhile.
#[test]
fn a_database_of_which_there_are_only_bytes_is_torn_though_it_only_grew() {
    let scene = Scene::new();
    let database = scene.state().join("memory/main.sqlite");
    write(&database, [&b"SQLite format 3\0"[..], &[7; 3 << 20]].concat());
    let growing = database.clone();
    // Nothing of ours can be made anywhere.
    let gate = Script::new(move |_, step| match step.realm {
        Realm::Staging => Err(io::Error::from_raw_os_error(13)),
        _ => Ok(()),
    });
    let observer = Frozen(move || append(&growing, "more"));
    let (report, archive) = scene.play(scene.backup().gate(gate).observer(observer));
    assert_eq!((report.exit_code(), paths(&report.losses)), (3, vec![database.clone()]), "{report:#?}");
    assert!(archive.contents(&database).is_some());
}

/// Files in staging that have no other name, but for its lock.
fn copies(top: &Path) -> u64 {
    let dirs = leftovers(top).into_iter().flat_map(|staging| fs::read_dir(staging).expect("lists"));
    let shards = dirs.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir());
    let files = shards.flat_map(|shard| fs::read_dir(shard).expect("lists"));
    files.filter(|file| file.as_ref().expect("an entry").metadata().is_ok_and(|file| file.nlink() == 1)).count() as u64
}
