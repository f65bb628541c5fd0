//! Races of whole directories, played for real: they leave with what they hold, come back, and change places with what has
//! their inode number, between two of our calls.

mod scene;
mod support;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clawsnap::event::{Event, Observer};
use clawsnap::gate::{Step, Verb};
use clawsnap::report::{Consistency, Report};
use scene::{Scene, at_source, instant, once, paths};
use support::{Archive, write, write_cold};

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

/// A directory that left in the last moment of the freeze was forgotten, when it had come just before; when it left between its
/// opening and its listing, it was told as hollow.
#[test]
fn a_directory_that_comes_and_goes_in_the_last_round_has_departed_by_name() {
    for leaves_at in [Verb::OpenDir, Verb::List] {
        let scene = Scene::new();
        let fleeting = scene.state().join("agents/b/sessions/fleeting");
        let (there, listings) = (fleeting.clone(), AtomicU64::new(0));
        // The last listing is the one that tells what became of it.
        let gate = at_source(move |step| match step.verb {
            Verb::List if step.dir == b"agents/b/sessions" && listings.fetch_add(1, Ordering::SeqCst) < 2 => {
                fs::create_dir(&there)
            }
            verb if verb == leaves_at && [step.dir, step.name].concat().ends_with(b"fleeting") => {
                fs::remove_dir(&there)
            }
            _ => Ok(()),
        });
        let (report, archive) = scene.play(scene.backup().settle(Duration::ZERO).gate(gate));
        let departed: Vec<&Path> = report.departed.iter().map(|fated| fated.path.as_path()).collect();
        assert_eq!((&departed[..], &paths(&report.losses)[..]), (&[&*fleeting][..], &[][..]), "{leaves_at:?}");
        assert!(!archive.payload.contains_key(&fleeting));
    }
}

/// Makes something at `path` that has this inode number; `false` where the filesystem gives that to nothing at once.
fn takes_over(number: u64, path: &Path, make: impl Fn(&Path)) -> bool {
    let candidates: Vec<PathBuf> = (0..100).map(|number| path.with_extension(number.to_string())).collect();
    let made = |candidate: &&PathBuf| {
        make(candidate);
        fs::metadata(candidate).expect("is there").ino() == number
    };
    let found = candidates.iter().find(made).map(|found| fs::rename(found, path).expect("takes its name"));
    for rest in candidates.iter().filter(|rest| rest.exists()) {
        if rest.is_dir() { fs::remove_dir(rest) } else { fs::remove_file(rest) }.expect("removes");
    }
    found.is_some()
}

/// Removes a directory, and tells its inode number.
fn removed(dir: &Path) -> u64 {
    let number = fs::metadata(dir).expect("is there").ino();
    fs::remove_dir(dir).expect("removes");
    number
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
        let gate = once(meant, move || {
            same.store(takes_over(removed(&dir), &dir, |path| write_cold(path, "{}\n")), Ordering::SeqCst);
        });
        let (report, archive) = scene.play(scene.backup().gate(gate));
        if reused.load(Ordering::SeqCst) {
            assert!(instant(&report), "{:?}", report.restless);
            assert_eq!((report.exit_code(), archive.contents(&path)), (0, Some(&b"{}\n"[..])));
            return;
        }
    }
    println!("skipped: this filesystem gives no inode number out again at once");
}

/// A directory that left between its opening and its listing was hollow from then on, and what came back under its name and
/// inode number was not listed: its files were in no entry of a backup that called itself of one instant.
#[test]
fn a_directory_that_leaves_before_it_is_listed_and_comes_back_is_archived_with_what_it_holds() {
    for _ in 0..20 {
        let scene = Scene::new();
        let dir = scene.state().join("agents/b/workspace");
        fs::create_dir(&dir).expect("makes");
        let (number, reused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (victim, old) = (dir.clone(), Arc::clone(&number));
        let gate = at_source(move |step| {
            if step.verb == Verb::List && step.dir == b"agents/b/workspace" && old.load(Ordering::SeqCst) == 0 {
                old.store(removed(&victim), Ordering::SeqCst);
            }
            Ok(())
        });
        let (back, same) = (dir.clone(), Arc::clone(&reused));
        let observer = Settling(move |round| {
            if round == 1 {
                let make = |path: &Path| fs::create_dir(path).expect("makes");
                same.store(takes_over(number.load(Ordering::SeqCst), &back, make), Ordering::SeqCst);
                write_cold(&back.join("x"), "x\n");
            }
        });
        let (report, archive) = scene.play(scene.backup().gate(gate).observer(observer));
        assert_eq!((report.exit_code(), archive.contents(&dir.join("x"))), (0, Some(&b"x\n"[..])), "{report:#?}");
        assert!(instant(&report), "{:?}", report.restless);
        if reused.load(Ordering::SeqCst) {
            return;
        }
    }
    println!("skipped: this filesystem gives no inode number out again at once");
}

/// The directory stayed among what is looked at, though no name led to it any more, and what it had held met no fate.
#[test]
fn a_directory_that_becomes_something_that_is_left_out_has_departed() {
    let scene = Scene::new();
    let dir = scene.state().join("agents/b/changeling");
    write_cold(&dir.join("x"), "x\n");
    let (victim, socket) = (dir.clone(), std::sync::OnceLock::new());
    let meant = |step: &Step<'_>| step.verb == Verb::Stat && step.dir.ends_with(b"changeling") && step.name == b"x";
    let gate = once(meant, move || {
        fs::remove_dir_all(&victim).expect("removes");
        socket.get_or_init(|| UnixListener::bind(&victim).expect("binds"));
    });
    let (report, archive) = scene.play(scene.backup().settle(Duration::from_millis(200)).gate(gate));
    assert!(instant(&report), "{:?}", report.restless);
    assert_eq!((report.exit_code(), paths(&report.departed)), (0, vec![dir.join("x")]));
    assert!(!archive.payload.contains_key(&dir));
}

/// Plays, in a freeze of two rounds, that what comes to a directory after its first listing leaves with that directory when
/// the last round comes to it.
fn left_with_its_directory(
    late: &'static str,
    make: impl Fn(&Path) + Send + Sync + 'static,
) -> (PathBuf, Report, Archive) {
    let scene = Scene::new();
    let (dir, aside) = (scene.state().join("agents/b/sessions"), scene.top.path().join("aside"));
    let (from, path) = (dir.clone(), dir.join(late));
    let came = AtomicBool::new(false);
    // So that no directory is too young to prove anything: the one above is not to be visited again.
    std::thread::sleep(Duration::from_millis(50));
    let gate = at_source(move |step| {
        let is_taken = matches!(step.verb, Verb::Stat | Verb::OpenDir) && step.name.ends_with(late.as_bytes());
        if step.verb == Verb::Link && step.dir == b"agents/b/sessions" && !came.swap(true, Ordering::SeqCst) {
            make(&path);
        } else if is_taken && path.exists() {
            fs::rename(&from, &aside)?;
            let _is_a_directory = fs::remove_file(aside.join(late));
        }
        Ok(())
    });
    let (report, archive) = scene.play(scene.backup().settle(Duration::ZERO).gate(gate));
    assert_eq!((report.consistent, report.rounds), (Some(Consistency::Window), 2));
    (dir, report, archive)
}

/// Only the directory itself was asked for it, which was not there any more: it was told as lost, though the directory above
/// proves that both have left.
#[test]
fn what_leaves_with_its_directory_in_the_last_round_has_departed() {
    let file = ("9.jsonl", left_with_its_directory("9.jsonl", |path| write_cold(path, "{}\n")));
    let directory = ("sub", left_with_its_directory("sub", |path| fs::create_dir(path).expect("makes")));
    for (late, (dir, report, archive)) in [file, directory] {
        assert_eq!((report.exit_code(), paths(&report.losses)), (0, vec![]), "{:?}", report.losses);
        assert_eq!(paths(&report.departed), [dir.join(late)]);
        assert!(archive.contents(&dir.join("1.jsonl")).is_some(), "what is held stays");
    }
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
    /// The visit of the directory waits in it.
    waiting: AtomicBool,
    /// Its parent was listed without it.
    listed: AtomicBool,
}

/// The step by which a visit opens the directory.
fn opens(step: &Step<'_>) -> bool {
    step.verb == Verb::OpenDir && step.name.ends_with(b"agents/b/sessions")
}

/// A step by which a visit holds the listing of the directory against what is held.
fn compares(step: &Step<'_>) -> bool {
    step.verb == Verb::Stat && step.dir == b"agents/b/sessions" && step.name == b"hot.jsonl"
}

/// Plays, in the second round, that a directory is found to have left by the visit of its parent, while a visit of its own
/// waits at a step, which gets this answer; comes back in the third round if it shall.
fn a_visit_of_a_directory_that_has_left(
    waits: fn(&Step<'_>) -> bool,
    answer: Option<i32>,
    comes_back: bool,
) -> (PathBuf, Report, Archive) {
    let scene = Scene::new();
    let (dir, aside) = (scene.state().join("agents/b/sessions"), scene.top.path().join("aside"));
    write(&dir.join("hot.jsonl"), "{}\n");
    write_cold(&dir.join("sub/x.jsonl"), "{}\n");
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
        _ if waits(step) && at.second.load(Ordering::SeqCst) => {
            if !at.waiting.swap(true, Ordering::SeqCst) {
                wait_for(&at.listed);
                return answer.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
            }
            Ok(())
        }
        Verb::List if step.dir == b"agents/b" && at.second.load(Ordering::SeqCst) && !to.exists() => {
            wait_for(&at.waiting);
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
    let (dir, report, _) = a_visit_of_a_directory_that_has_left(opens, Some(13), false);
    assert_eq!((report.exit_code(), paths(&report.losses)), (0, vec![]), "{:?}", report.losses);
    assert!(paths(&report.departed).contains(&dir), "{:?}", report.departed);
}

/// The names of a directory that had left by the listing of its parent, was not there for its own visit then, and came back,
/// were told as departed, and were archived.
#[test]
fn a_directory_that_is_gone_when_it_has_left_and_comes_back_has_no_departed_names() {
    let (dir, report, archive) = a_visit_of_a_directory_that_has_left(opens, None, true);
    assert!(report.exit_code() == 0 && archive.contents(&dir.join("0.jsonl")).is_some());
    assert_eq!(paths(&report.departed), [] as [PathBuf; 0]);
}

/// The directories in it stayed without a name, and theirs met no fate, though no archive entry had them; in a window they were
/// told as hollow.
#[test]
fn a_directory_that_leaves_while_it_is_visited_has_departed_with_all_that_is_below_it() {
    let (dir, report, archive) = a_visit_of_a_directory_that_has_left(compares, None, false);
    assert_eq!((report.exit_code(), paths(&report.losses)), (0, vec![]), "{:?}", report.losses);
    assert!(instant(&report), "{:?}", report.restless);
    for name in ["", "hot.jsonl", "1.jsonl", "sub", "sub/x.jsonl"] {
        let path = if name.is_empty() { dir.clone() } else { dir.join(name) };
        assert!(paths(&report.departed).contains(&path), "{name}: {:?}", report.departed);
        assert!(!archive.payload.contains_key(&path));
    }
}

/// Waits for what another thread may do, for half a second.
fn give_time_to(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() && begun.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A directory that was away in the round before was visited for itself, and again for the directory above: of two visits at
/// a time each captured what was new, which was held twice then, and told as departed where one of both was let go.
#[test]
fn a_directory_that_is_to_be_visited_for_two_reasons_is_visited_once() {
    let scene = Scene::new();
    let (dir, aside) = (scene.state().join("agents/b/sessions"), scene.top.path().join("aside"));
    // Which is not there for the check while the directory is away, so that both are to be visited.
    write_cold(&dir.join("sub/x.jsonl"), "{}\n");
    let (new, parent) = (dir.join("9.jsonl"), scene.state().join("agents/b"));
    let round = Arc::new(AtomicU32::new(0));
    let (above, visits, captures) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let (at, late, from, to) = (Arc::clone(&round), new.clone(), dir.clone(), aside.clone());
    let gate = at_source(move |step| {
        let is_here = step.dir == b"agents/b/sessions";
        match (at.load(Ordering::SeqCst), step.verb) {
            (0, Verb::Link) if is_here && !late.exists() => write_cold(&late, "{}\n"),
            (1, Verb::OpenDir) if opens(step) && from.exists() => fs::rename(&from, &to)?,
            // The first visit goes on when the second, if there is one, has come to what is new.
            (2, Verb::List) if is_here && visits.fetch_add(1, Ordering::SeqCst) == 0 => {
                wait_for(&above);
                give_time_to(|| captures.load(Ordering::SeqCst) > 0);
            }
            // The directory above was held against its listing.
            (2, Verb::Stat) if step.name == b"two.json" => above.store(true, Ordering::SeqCst),
            (2, Verb::Stat) if is_here && step.name == b"9.jsonl" => {
                captures.fetch_add(1, Ordering::SeqCst);
                give_time_to(|| captures.load(Ordering::SeqCst) > 1);
            }
            _ => {}
        }
        Ok(())
    });
    let back = dir.clone();
    let observer = Settling(move |count| {
        if count == 2 {
            fs::rename(&aside, &back).expect("comes back");
            write_cold(&parent.join("two.json"), "{}");
        }
        round.store(count, Ordering::SeqCst);
    });
    let (report, archive) = scene.play(scene.backup().gate(gate).observer(observer));
    assert_eq!((report.exit_code(), paths(&report.departed)), (0, vec![]), "{report:#?}");
    for name in ["0.jsonl", "1.jsonl", "2.jsonl", "9.jsonl", "sub/x.jsonl"] {
        assert!(archive.contents(&dir.join(name)).is_some(), "{name}");
    }
}
