//! Races, played for real: between two of our calls a script unlinks, renames, truncates or appends.

mod scene;
mod support;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawsnap::freeze::Mode;
use clawsnap::gate::{Gate, Realm, Step, Verb};
use clawsnap::report::Consistency;
use scene::{Frozen, Scene, append, at_of_a, instant, links_of_a, once, paths, takes};
use support::{Script, write, write_cold};

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

/// The only look that this could be met at was changed by scripts/mutants so that it ended the run, and no test failed.
#[test]
fn a_file_that_is_gone_when_it_is_looked_at_again_has_departed_and_fails_nothing() {
    let scene = Scene::new();
    let gone = scene.session("a", 6);
    write(&gone, "{}\n");
    let (victim, looks) = (gone.clone(), AtomicU64::new(0));
    // The first look is that of its capture.
    let gate = Script::new(move |_, step| match step.verb {
        Verb::Stat if step.realm == Realm::Source && step.name == b"6.jsonl" && step.dir.ends_with(b"a/sessions") => {
            if looks.fetch_add(1, Ordering::SeqCst) == 1 {
                fs::remove_file(&victim)
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    });
    let (report, archive) = scene.play(scene.backup().gate(gate));
    assert!(!gone.exists(), "it was never looked at again");
    assert_eq!((report.exit_code(), report.consistent), (0, Some(Consistency::Instant)));
    assert_eq!(paths(&report.departed), [gone.as_path()]);
    assert!(!archive.payload.contains_key(&gone));
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
