//! Races, played for real: between two of our calls a script unlinks, renames, truncates or appends.

mod support;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clawsnap::event::{Event, Observer};
use clawsnap::freeze::Mode;
use clawsnap::gate::{Gate, Realm, Step, Verb};
use clawsnap::report::{Consistency, Fated, Report};
use support::{Archive, Backup, Script, leftovers, write, write_cold};

/// A state with two agents, and a place for the archive beside it.
struct Scene {
    top: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { top: tempfile::tempdir().expect("a directory") };
        for agent in ["a", "b"] {
            for number in 0..3 {
                write_cold(&scene.session(agent, number), format!("{{\"agent\":\"{agent}\",\"n\":{number}}}\n"));
            }
        }
        write_cold(&scene.state().join("openclaw.json"), "{}");
        scene
    }

    fn state(&self) -> PathBuf {
        self.top.path().join("state")
    }

    fn session(&self, agent: &str, number: u32) -> PathBuf {
        self.state().join(format!("agents/{agent}/sessions/{number}.jsonl"))
    }

    fn backup(&self) -> Backup {
        Backup::of(&self.state())
    }

    /// Makes the backup, reads it, and sees that nothing of ours is left.
    fn play(&self, backup: Backup) -> (Report, Archive) {
        let path = self.top.path().join("a.tar");
        let report = backup.to(&path);
        assert!(matches!(report.exit_code(), 0 | 3), "{:?}", report.error);
        assert_eq!(leftovers(self.top.path()), [] as [PathBuf; 0]);
        (report, Archive::read(&path))
    }
}

/// Plays something once, at the first step that it is meant for.
fn once(
    meant: impl Fn(&Step<'_>) -> bool + Send + Sync + 'static,
    play: impl Fn() + Send + Sync + 'static,
) -> impl Gate + 'static {
    let played = AtomicBool::new(false);
    Script::new(move |_, step| {
        if meant(step) && !played.swap(true, Ordering::SeqCst) {
            play();
        }
        Ok(())
    })
}

/// The step that takes hold of a name: by link, or by opening it.
fn takes(verb: Verb, name: &'static str) -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    move |step| step.realm == Realm::Source && step.verb == verb && step.name.ends_with(name.as_bytes())
}

/// A step that is about a session of agent `a`, whose directory is listed by then.
fn at_of_a(verb: Verb, name: &'static str) -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    move |step| step.verb == verb && step.dir == b"agents/a/sessions" && step.name == name.as_bytes()
}

fn links_of_a(name: &'static str) -> impl Fn(&Step<'_>) -> bool + Send + Sync + 'static {
    at_of_a(Verb::Link, name)
}

/// Plays something when the freeze is over, and before anything is archived.
struct Frozen<F: Fn() + Send + Sync>(F);

impl<F: Fn() + Send + Sync> Observer for Frozen<F> {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) {
            (self.0)();
        }
    }
}

fn paths(list: &[Fated]) -> Vec<PathBuf> {
    list.iter().map(|fated| PathBuf::from(String::from_utf8_lossy(&fated.path.0).into_owned())).collect()
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).expect("opens");
    file.write_all(text.as_bytes()).expect("appends");
}

fn instant(report: &Report) -> bool {
    report.consistent == Some(Consistency::Instant)
}

/// A gate that answers for the kernel, or does something before it lets a step of the source pass.
fn at_source(play: impl Fn(&Step<'_>) -> io::Result<()> + Send + Sync + 'static) -> impl Gate + 'static {
    Script::new(move |_, step| if step.realm == Realm::Source { play(step) } else { Ok(()) })
}

/// Such a directory, as NFS and FUSE can have it, was in no archive and in no report, and the run said that it was
/// complete.
#[test]
fn a_directory_that_is_stale_to_the_last_is_hollow_by_name() {
    const ESTALE: i32 = 116;
    let scene = Scene::new();
    let gate = at_source(|step| match step.verb {
        Verb::OpenDir if step.name.ends_with(b"b/sessions") => Err(io::Error::from_raw_os_error(ESTALE)),
        Verb::OpenDir if step.dir == b"agents/b" => Err(io::Error::from_raw_os_error(ESTALE)),
        _ => Ok(()),
    });
    let (report, archive) = scene.play(scene.backup().settle(Duration::from_millis(50)).gate(gate));
    let stale = scene.state().join("agents/b/sessions");
    let [loss] = &report.losses[..] else { panic!("{:?}", report.losses) };
    assert_eq!((loss.path.as_path(), loss.fate, report.exit_code()), (&*stale, "hollow", 3));
    let reason = loss.reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("cannot be opened: Stale"), "{reason}");
    assert!(archive.payload.contains_key(&stale) && archive.contents(&scene.session("a", 2)).is_some());
}

/// What a directory held that could only be listed in a later round was not in the order of names, so that names of it were
/// told of as departed that were there all the time.
#[test]
fn a_directory_that_is_stale_at_first_has_each_of_its_names_once() {
    const ESTALE: i32 = 116;
    let scene = Scene::new();
    // By inodes, as they are captured, the last.
    write_cold(&scene.session("b", 10), "{\"n\":10}\n");
    let (late, stale) = (scene.session("b", 3), AtomicBool::new(false));
    let gate = at_source(move |step| match step.verb {
        Verb::OpenDir if step.name.ends_with(b"b/sessions") && !stale.swap(true, Ordering::SeqCst) => {
            Err(io::Error::from_raw_os_error(ESTALE))
        }
        Verb::Link if step.name == b"10.jsonl" && !late.exists() => {
            write_cold(&late, "{\"n\":3}\n");
            Ok(())
        }
        _ => Ok(()),
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!((report.exit_code(), report.losses.len(), paths(&report.departed).len()), (0, 0, 0), "{report:#?}");
    for number in [0, 1, 2, 3, 10] {
        assert!(archive.contents(&scene.session("b", number)).is_some(), "{number}");
    }
}

/// A directory that left in the last moment of the freeze was forgotten, when it had come just before.
#[test]
fn a_directory_that_comes_and_goes_in_the_last_round_has_departed_by_name() {
    let scene = Scene::new();
    let fleeting = scene.state().join("agents/b/sessions/fleeting");
    let (there, listings) = (fleeting.clone(), AtomicU64::new(0));
    // The last listing is the one that tells what became of it.
    let gate = at_source(move |step| match step.verb {
        Verb::List if step.dir == b"agents/b/sessions" && listings.fetch_add(1, Ordering::SeqCst) < 2 => {
            fs::create_dir(&there)
        }
        Verb::OpenDir if step.name.ends_with(b"fleeting") => fs::remove_dir(&there),
        _ => Ok(()),
    });
    let (report, archive) = scene.play(scene.backup().settle(Duration::ZERO).gate(gate));
    let departed: Vec<&Path> = report.departed.iter().map(|fated| fated.path.as_path()).collect();
    assert_eq!((&departed[..], report.losses.len()), (&[&*fleeting][..], 0));
    assert!(!archive.payload.contains_key(&fleeting));
}

#[test]
fn a_session_deleted_between_listing_and_linking_is_named_as_departed_and_fails_nothing() {
    let scene = Scene::new();
    let gone = scene.session("a", 1);
    let victim = gone.clone();
    let gate = once(links_of_a("1.jsonl"), move || fs::remove_file(&victim).expect("removes"));
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!(report.exit_code(), 0);
    assert!(instant(&report));
    assert_eq!(paths(&report.departed), [gone.as_path()]);
    assert!(!archive.payload.contains_key(&gone));
    assert!(archive.payload.contains_key(&scene.session("a", 0)));
}

#[test]
fn a_session_deleted_after_the_freeze_is_in_the_archive_whole() {
    let scene = Scene::new();
    let victim = scene.session("a", 1);
    let (hot, path) = (scene.session("b", 7), victim.clone());
    write(&hot, "{\"hot\":1}\n");
    let also = hot.clone();
    let observer = Frozen(move || [&path, &also].iter().for_each(|path| fs::remove_file(path).expect("removes")));
    let (report, archive) = scene.play(scene.backup().observer(observer));
    assert_eq!((report.exit_code(), report.counts.departed), (0, 0));
    assert_eq!(archive.contents(&victim), Some(&b"{\"agent\":\"a\",\"n\":1}\n"[..]));
    assert_eq!(archive.contents(&hot), Some(&b"{\"hot\":1}\n"[..]));
}

#[test]
fn a_session_renamed_over_after_the_freeze_is_archived_as_it_was() {
    let scene = Scene::new();
    let (path, new) = (scene.session("a", 1), scene.top.path().join("new"));
    fs::write(&new, "{\"new\":true}\n").expect("writes");
    let to = path.clone();
    let observer = Frozen(move || fs::rename(&new, &to).expect("renames"));
    let (report, archive) = scene.play(scene.backup().observer(observer));
    assert_eq!((report.exit_code(), report.counts.later), (0, 0));
    assert_eq!(archive.contents(&path), Some(&b"{\"agent\":\"a\",\"n\":1}\n"[..]));
}

#[test]
fn a_session_that_moves_to_a_directory_already_listed_is_archived_exactly_once() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let scene = Scene::new();
        let (old, new) = (scene.session(from, 2), scene.session(to, 9));
        let (was, is) = (old.clone(), new.clone());
        let gate = once(takes(Verb::Link, "1.jsonl"), move || fs::rename(&was, &is).expect("moves"));
        let (report, archive) = scene.play(scene.backup().gate(gate));
        assert!(instant(&report));
        assert!(!archive.payload.contains_key(&old), "moved from {from} to {to}");
        assert!(archive.payload.contains_key(&new), "moved from {from} to {to}");
    }
}

#[test]
fn a_name_that_comes_after_its_directory_was_listed_is_captured_by_the_next_round() {
    let scene = Scene::new();
    let new = scene.session("a", 8);
    let path = new.clone();
    let gate = once(links_of_a("0.jsonl"), move || write_cold(&path, "{\"late\":1}\n"));
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert!(instant(&report) && report.rounds > 1);
    assert!(archive.payload.contains_key(&new));
}

#[test]
fn a_name_that_is_replaced_while_it_is_captured_is_archived_as_its_last_binding() {
    for verb in [Verb::Link, Verb::Stat] {
        let scene = Scene::new();
        let path = scene.session("a", 1);
        let (new, to) = (scene.top.path().join("new"), path.clone());
        write_cold(&new, "{\"new\":true}\n");
        let gate = once(takes(verb, "1.jsonl"), move || fs::rename(&new, &to).expect("renames"));
        let (report, archive) = scene.play(scene.backup().gate(gate));
        assert!(instant(&report));
        let archived = archive.contents(&path).expect("is there");
        assert_eq!(archived, fs::read(&path).expect("reads"), "replaced before {verb:?}");
    }
}

#[test]
fn a_directory_that_leaves_takes_all_its_names_along_and_each_is_told() {
    let scene = Scene::new();
    let victim = scene.state().join("agents/a");
    let path = victim.clone();
    let gate = once(links_of_a("2.jsonl"), move || fs::remove_dir_all(&path).expect("removes"));
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!(report.exit_code(), 0, "{:?}", report.losses);
    assert!(instant(&report));
    assert!(!archive.payload.keys().any(|name| name.starts_with(&victim)));
    let departed = paths(&report.departed);
    assert!(departed.contains(&victim), "{departed:?}");
}

#[test]
fn a_directory_swapped_for_a_symlink_leads_nowhere() {
    let scene = Scene::new();
    let outside = scene.top.path().join("outside");
    write_cold(&outside.join("secret.jsonl"), "{\"secret\":1}\n");
    let victim = scene.state().join("agents/b/sessions");
    let (path, target, aside) = (victim.clone(), outside.clone(), scene.top.path().join("aside"));
    let meant = |step: &Step<'_>| step.verb == Verb::OpenDir && step.name.ends_with(b"agents/b/sessions");
    let gate = once(meant, move || {
        fs::rename(&path, &aside).expect("moves away");
        symlink(&target, &path).expect("links");
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert!(!archive.payload.keys().any(|name| name.ends_with("secret.jsonl")), "read outside of the source");
    assert_eq!(archive.payload[&victim].link.as_deref(), Some(outside.as_path()), "the link itself is archived");
    assert_eq!(report.exit_code(), 0);
    assert!(outside.join("secret.jsonl").exists());
}

#[test]
fn a_file_swapped_for_a_fifo_neither_hangs_the_run_nor_is_archived() {
    let scene = Scene::new();
    let path = scene.state().join("openclaw.json");
    let victim = path.clone();
    let gate = once(takes(Verb::Open, "openclaw.json"), move || {
        fs::remove_file(&victim).expect("removes");
        let made = std::process::Command::new("mkfifo").arg(&victim).status().expect("mkfifo runs");
        assert!(made.success());
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert!(!archive.payload.contains_key(&path));
    assert_eq!(report.excluded[0].reason.as_deref(), Some("special-file"));
}

#[test]
fn a_hot_session_that_grows_after_the_freeze_is_a_prefix_cut_at_a_record() {
    let scene = Scene::new();
    let path = scene.session("a", 5);
    write(&path, "{\"n\":1}\n{\"n\":2}\n{\"ha");
    let grown = path.clone();
    let observer = Frozen(move || append(&grown, "lf\":3}\n"));
    let (report, archive) = scene.play(scene.backup().mode(Mode::Link).holding_nothing().observer(observer));
    assert_eq!((report.exit_code(), report.counts.prefix, report.counts.tails), (0, 1, 1));
    assert_eq!(archive.contents(&path), Some(&b"{\"n\":1}\n{\"n\":2}\n"[..]));
    assert_eq!(archive.tails[&path], b"{\"ha");
    let told = archive.inventory.iter().find(|line| line["tail"] == 4).expect("the inventory tells the tail");
    assert_eq!((told["fate"].as_str(), told["capture"].as_str()), (Some("prefix"), Some("link")));
}

#[test]
fn a_hot_session_that_is_held_does_not_move_at_all() {
    let scene = Scene::new();
    let path = scene.session("a", 5);
    write(&path, "{\"n\":1}\n");
    let rewritten = path.clone();
    let observer = Frozen(move || fs::write(&rewritten, "{\"other\":1}\n").expect("rewrites"));
    let (report, archive) = scene.play(scene.backup().observer(observer));
    assert_eq!((report.exit_code(), report.counts.prefix, report.counts.later), (0, 0, 0));
    assert_eq!(archive.contents(&path), Some(&b"{\"n\":1}\n"[..]));
}

#[test]
fn a_cold_session_rewritten_in_place_after_the_freeze_is_captured_again_whole() {
    let scene = Scene::new();
    let path = scene.session("a", 1);
    let rewritten = path.clone();
    let observer = Frozen(move || fs::write(&rewritten, "{\"migrated\":1}\n{\"x\":2}\n").expect("rewrites"));
    let (report, archive) = scene.play(scene.backup().observer(observer));
    assert_eq!((report.exit_code(), report.counts.later), (0, 1));
    assert_eq!(archive.contents(&path), Some(&b"{\"migrated\":1}\n{\"x\":2}\n"[..]));
    assert_eq!((report.moved[0].fate, paths(&report.moved)), ("later", vec![path]));
}

#[test]
fn a_rewritten_session_that_was_deleted_then_is_captured_from_our_own_link() {
    let scene = Scene::new();
    let path = scene.session("a", 1);
    let victim = path.clone();
    let observer = Frozen(move || {
        fs::write(&victim, "{\"migrated\":1}\n").expect("rewrites");
        fs::remove_file(&victim).expect("removes");
    });
    let (report, archive) = scene.play(scene.backup().observer(observer));
    assert_eq!((report.exit_code(), report.counts.later), (0, 1));
    assert_eq!(archive.contents(&path), Some(&b"{\"migrated\":1}\n"[..]));
}

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

/// Moves something at every step.
fn for_ever(play: impl Fn(u64) + Send + Sync + 'static) -> impl Gate + 'static {
    Script::new(move |count, step| {
        if step.realm == Realm::Source && matches!(step.verb, Verb::OpenDir) {
            play(count);
        }
        Ok(())
    })
}

#[test]
fn a_directory_that_never_rests_is_named_and_the_archive_is_made_all_the_same() {
    let scene = Scene::new();
    let restless = scene.state().join("agents/a/sessions");
    let dir = restless.clone();
    let gate = for_ever(move |count| write(&dir.join(format!("new-{count}.jsonl")), "{}\n"));
    let (report, archive) = scene.play(scene.backup().settle(Duration::from_millis(100)).gate(gate));
    assert_eq!((report.exit_code(), report.consistent), (0, Some(Consistency::Window)));
    let named: Vec<_> = report.restless.iter().map(|r| String::from_utf8_lossy(&r.path.0).into_owned()).collect();
    assert!(named.contains(&restless.to_string_lossy().into_owned()), "{named:?}");
    assert!(archive.payload.contains_key(&scene.session("b", 1)));
    assert!(report.instant.is_none());
}

#[test]
fn contents_that_never_rest_are_named_too() {
    let scene = Scene::new();
    let path = scene.session("a", 6);
    write(&path, "{}\n");
    let moving = path.clone();
    let gate = for_ever(move |_| append(&moving, "{\"more\":1}\n"));
    let (report, archive) = scene.play(scene.backup().settle(Duration::from_millis(100)).gate(gate));
    assert_eq!(report.consistent, Some(Consistency::Window));
    assert!(report.restless.iter().any(|r| r.why == "contents"), "{:?}", report.restless);
    assert!(archive.contents(&path).expect("is there").ends_with(b"}\n"));
}

#[test]
fn a_file_that_is_read_while_it_changes_is_read_again_until_it_rests() {
    let scene = Scene::new();
    let path = scene.session("a", 6);
    write(&path, "{\"old\":1}\n");
    let moving = path.clone();
    let gate = once(takes(Verb::Read, "6.jsonl"), move || fs::write(&moving, "{\"new\":12345}\n").expect("rewrites"));
    let (report, archive) = scene.play(scene.backup().mode(Mode::Link).gate(gate));
    assert!(instant(&report));
    assert_eq!((report.counts.torn, archive.contents(&path)), (0, Some(&b"{\"new\":12345}\n"[..])));
}

#[test]
fn a_cold_session_that_is_written_to_while_it_is_copied_is_hot_and_cut_at_a_record() {
    let scene = Scene::new();
    let path = scene.session("a", 1);
    let growing = path.clone();
    let gate = once(at_of_a(Verb::Open, "1.jsonl"), move || append(&growing, "{\"ha"));
    let (report, archive) = scene.play(scene.backup().mode(Mode::Copy).gate(gate));
    assert_eq!((report.exit_code(), report.counts.tails), (0, 1));
    assert_eq!(archive.contents(&path), Some(&b"{\"agent\":\"a\",\"n\":1}\n"[..]));
    assert_eq!(archive.tails[&path], b"{\"ha");
}

#[test]
fn a_cold_session_that_is_written_to_after_it_was_copied_is_copied_again() {
    let scene = Scene::new();
    let path = scene.session("a", 1);
    let growing = path.clone();
    // The names of a directory are captured in their order: `1` is copied by then, and the tree is not yet at rest.
    let gate = once(at_of_a(Verb::Stat, "2.jsonl"), move || append(&growing, "{\"more\":1}\n"));
    let (report, archive) = scene.play(scene.backup().mode(Mode::Copy).gate(gate));
    assert_eq!((report.exit_code(), instant(&report)), (0, true));
    assert_eq!(archive.contents(&path), Some(&fs::read(&path).expect("reads")[..]), "older than the instant");
}

#[test]
fn a_link_that_is_refused_falls_back_to_a_capture_that_needs_none() {
    for errno in [1, 18, 31, 28, 13] {
        let scene = Scene::new();
        let gate = Script::new(move |_, step| match step.verb {
            Verb::Link if step.realm == Realm::Source => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        });
        let (report, archive) = scene.play(scene.backup().gate(gate));
        assert_eq!((report.exit_code(), report.captures.get("link")), (0, None), "errno {errno}");
        assert_eq!(archive.contents(&scene.session("a", 1)), Some(&b"{\"agent\":\"a\",\"n\":1}\n"[..]));
    }
}

#[test]
fn files_that_are_hard_linked_in_the_source_are_so_in_the_archive() {
    let scene = Scene::new();
    let (one, two) = (scene.session("a", 1), scene.session("b", 9));
    fs::hard_link(&one, &two).expect("links");
    for mode in [Mode::Auto, Mode::Copy] {
        let (report, archive) = scene.play(scene.backup().mode(mode));
        assert_eq!(report.exit_code(), 0);
        assert_eq!(archive.payload[&two].kind, tar::EntryType::Link, "{mode:?}");
        assert_eq!(archive.contents(&two), archive.contents(&one));
        fs::remove_file(scene.top.path().join("a.tar")).expect("removes");
    }
}

#[test]
fn a_database_is_copied_raw_with_its_log_and_flagged_and_never_linked() {
    let scene = Scene::new();
    let database = scene.state().join("agents/a/sessions/odd-name");
    write_cold(&database, [b"SQLite format 3\0".to_vec(), vec![7; 4080]].concat());
    write_cold(&scene.state().join("agents/a/sessions/odd-name-wal"), "log");
    let gate = Script::new(|_, step| {
        let database = step.name.windows(8).any(|part| part == b"odd-name");
        assert!(!(step.verb == Verb::Link && database), "a database is linked");
        Ok(())
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!((report.exit_code(), report.counts.torn), (3, 2));
    assert!(report.losses.iter().all(|loss| loss.reason.as_deref() == Some("raw database")));
    assert_eq!(archive.contents(&database).expect("is there").len(), 4096);
}

#[test]
fn a_database_that_is_named_like_a_session_is_not_linked_either() {
    let scene = Scene::new();
    let database = scene.session("a", 7);
    write_cold(&database, [b"SQLite format 3\0".to_vec(), vec![7; 4080]].concat());
    let gate = Script::new(|_, step| {
        assert!(!(step.verb == Verb::Link && step.name.ends_with(b"7.jsonl")), "a database is linked");
        Ok(())
    });
    let (report, _) = scene.play(scene.backup().gate(gate));
    assert_eq!((report.exit_code(), paths(&report.losses)), (3, vec![database]));
}

#[test]
fn what_cannot_be_read_is_lost_by_name_and_the_rest_is_archived() {
    let scene = Scene::new();
    let lost = scene.session("a", 1);
    let gate = Script::new(|_, step| {
        let about = step.name.ends_with(b"openclaw.json") && matches!(step.verb, Verb::Open | Verb::Link);
        if about { Err(io::Error::from_raw_os_error(13)) } else { Ok(()) }
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert_eq!(report.exit_code(), 3);
    assert_eq!(paths(&report.losses), [scene.state().join("openclaw.json")]);
    assert!(report.losses[0].reason.as_deref().is_some_and(|reason| reason.contains("Permission denied")));
    assert!(archive.payload.contains_key(&lost));
}

#[test]
fn a_name_that_somebody_takes_while_we_write_is_not_overwritten() {
    let scene = Scene::new();
    let path = scene.top.path().join("a.tar");
    let taken = path.clone();
    let report = scene.backup().observer(Frozen(move || fs::write(&taken, "precious").expect("writes"))).to(&path);
    assert_eq!(report.exit_code(), 1);
    assert!(report.error.expect("an error").contains("nothing is ever overwritten"));
    assert_eq!(fs::read(&path).expect("reads"), b"precious");
}

/// Refuses to open what ends like this.
fn closed(ending: &'static str) -> impl Gate + 'static {
    Script::new(move |_, step| {
        let meant = step.verb == Verb::OpenDir && step.name.ends_with(ending.as_bytes());
        if meant { Err(io::Error::from_raw_os_error(13)) } else { Ok(()) }
    })
}

#[test]
fn a_directory_that_may_not_be_listed_is_hollow_and_keeps_its_own_entry() {
    let scene = Scene::new();
    let hollow = scene.state().join("agents/a/sessions");
    let (report, archive) = scene.play(scene.backup().gate(closed("agents/a/sessions")));
    assert_eq!((report.exit_code(), report.counts.hollow), (3, 1));
    assert_eq!(paths(&report.losses), [hollow.as_path()]);
    assert_eq!(archive.payload[&hollow].mode & 0o777, 0o755);
    assert!(instant(&report));
}

#[test]
fn a_source_that_may_not_be_opened_is_lost_and_the_others_are_archived() {
    let scene = Scene::new();
    let other = scene.top.path().join("closed");
    write_cold(&other.join("file"), "x");
    let (report, archive) = scene.play(scene.backup().and(&other).gate(closed("/closed")));
    assert_eq!((report.exit_code(), report.counts.lost), (3, 1));
    assert_eq!(paths(&report.losses), [other.as_path()]);
    assert!(archive.payload.contains_key(&scene.session("a", 1)));
    assert_eq!(archive.manifest["assets"].as_array().map(Vec::len), Some(1), "what is lost is no asset");
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

/// Replaces a directory by a file that has its inode number; `false` where the filesystem gives that to no file at once.
fn becomes_a_file(dir: &Path) -> bool {
    let number = fs::metadata(dir).expect("is there").ino();
    fs::remove_dir(dir).expect("removes");
    let candidates: Vec<PathBuf> = (0..100).map(|number| dir.with_extension(number.to_string())).collect();
    let made = |path: &&PathBuf| {
        write_cold(path, "{}\n");
        fs::metadata(path).expect("is there").ino() == number
    };
    let found = candidates.iter().find(made).map(|path| fs::rename(path, dir).expect("takes its name"));
    candidates.iter().filter(|path| path.exists()).for_each(|path| fs::remove_file(path).expect("removes"));
    found.is_some()
}

/// A directory whose name and inode number were given to a file during the freeze was held as a directory to the last: no
/// instant was found, and the file was in no entry.
#[test]
fn a_directory_that_becomes_a_file_of_the_same_inode_number_is_archived_as_that_file() {
    let reused = Arc::new(AtomicBool::new(false));
    for _ in 0..20 {
        let scene = Scene::new();
        let path = scene.state().join("agents/b/changeling");
        fs::create_dir(&path).expect("makes");
        let (dir, same) = (path.clone(), Arc::clone(&reused));
        let meant = |step: &Step<'_>| step.verb == Verb::OpenDir && step.name.ends_with(b"changeling");
        let gate = once(meant, move || same.store(becomes_a_file(&dir), Ordering::SeqCst));
        let (report, archive) = scene.play(scene.backup().gate(gate));
        if reused.load(Ordering::SeqCst) {
            assert!(instant(&report), "{:?}", report.restless);
            assert_eq!((report.exit_code(), archive.contents(&path)), (0, Some(&b"{}\n"[..])));
            return;
        }
    }
    println!("skipped: this filesystem gives no inode number out again at once");
}

/// Waits for what another thread does.
fn wait_for(what: &AtomicBool) {
    let begun = Instant::now();
    while !what.load(Ordering::SeqCst) {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What happens in [`a_visit_of_a_directory_that_has_left`], in this order.
#[derive(Default)]
struct Course {
    /// The second round has begun.
    second: AtomicBool,
    /// The directory is about to be opened in it.
    opening: AtomicBool,
    /// Its parent was listed without it.
    listed: AtomicBool,
}

/// Plays, in the second round, that a directory is found to have left by the visit of its parent, while a visit of its own is
/// about to open it, which gets this answer; comes back in the third round if it shall.
fn a_visit_of_a_directory_that_has_left(answer: Option<i32>, comes_back: bool) -> (PathBuf, Report, Archive) {
    let scene = Scene::new();
    let (dir, aside) = (scene.state().join("agents/b/sessions"), scene.top.path().join("aside"));
    let course = Arc::new(Course::default());
    let (at, victim, to) = (Arc::clone(&course), dir.clone(), aside.clone());
    let parent = scene.state().join("agents/b");
    // Both directories move in the first round, so that both are visited in the second.
    let moved = AtomicBool::new(false);
    let gate = at_source(move |step| match step.verb {
        Verb::Link if step.dir == b"agents/b/sessions" && !moved.swap(true, Ordering::SeqCst) => {
            write_cold(&victim.join("9.jsonl"), "{}\n");
            write_cold(&parent.join("one.json"), "{}");
            Ok(())
        }
        Verb::OpenDir if step.name.ends_with(b"agents/b/sessions") && at.second.load(Ordering::SeqCst) => {
            if !at.opening.swap(true, Ordering::SeqCst) {
                wait_for(&at.listed);
                return answer.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
            }
            Ok(())
        }
        Verb::List if step.dir == b"agents/b" && at.second.load(Ordering::SeqCst) && !to.exists() => {
            wait_for(&at.opening);
            if !at.listed.load(Ordering::SeqCst) {
                fs::rename(&victim, &to)?;
                write_cold(&parent.join("two.json"), "{}");
            }
            Ok(())
        }
        // It is captured after its directory was held against the listing.
        Verb::Stat if step.name.ends_with(b"two.json") => {
            at.listed.store(true, Ordering::SeqCst);
            Ok(())
        }
        _ => Ok(()),
    });
    let (back, from) = (dir.clone(), aside);
    let observer = Settling(move |round| {
        course.second.store(true, Ordering::SeqCst);
        if comes_back && round == 2 {
            fs::rename(&from, &back).expect("comes back");
        }
    });
    let (report, archive) = scene.play(scene.backup().gate(gate).observer(observer));
    (dir, report, archive)
}

/// Plays something when the tree was found to move in a round.
struct Settling<F: Fn(u32) + Send + Sync>(F);

impl<F: Fn(u32) + Send + Sync> Observer for Settling<F> {
    fn on(&self, event: Event) {
        if let Event::Settling { round, .. } = event {
            (self.0)(round);
        }
    }
}

/// A directory that had left by the listing of its parent, and was refused to its own visit then, was told as hollow.
#[test]
fn a_directory_that_is_refused_when_it_has_left_has_departed() {
    let (dir, report, _) = a_visit_of_a_directory_that_has_left(Some(13), false);
    assert_eq!((report.exit_code(), paths(&report.losses)), (0, vec![]), "{:?}", report.losses);
    assert!(paths(&report.departed).contains(&dir), "{:?}", report.departed);
}

/// The names of a directory that had left by the listing of its parent, was not there for its own visit then, and came back,
/// were told as departed, and were archived.
#[test]
fn a_directory_that_is_gone_when_it_has_left_and_comes_back_has_no_departed_names() {
    let (dir, report, archive) = a_visit_of_a_directory_that_has_left(None, true);
    assert!(report.exit_code() == 0 && archive.contents(&dir.join("0.jsonl")).is_some());
    assert_eq!(paths(&report.departed), [] as [PathBuf; 0]);
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

/// Files in staging that have no other name, but for its lock.
fn copies(top: &Path) -> u64 {
    let dirs = leftovers(top).into_iter().flat_map(|staging| fs::read_dir(staging).expect("lists"));
    let shards = dirs.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir());
    let files = shards.flat_map(|shard| fs::read_dir(shard).expect("lists"));
    files.filter(|file| file.as_ref().expect("an entry").metadata().is_ok_and(|file| file.nlink() == 1)).count() as u64
}
