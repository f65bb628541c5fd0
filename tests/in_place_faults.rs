//! A restore in place that fails, is cancelled or is killed at any step: everything, or nothing.
#![cfg(feature = "cli")]

mod place;
mod proof;
mod steps;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clawsnap::gate::{Gate, Verb, cancelled};
use clawsnap::restore::Ending;
use place::support::{Backup, Script, write_cold};
use place::{Mounted, Scene, Tree, childless, contents, idle, left_midway, restore, sh, tree};
use proof::{Promise, proven};
use steps::{count, counted, is_thorough, points, step};

/// The kinds of restore that the sweeps below try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Whole,
    Part,
    /// A part with a directory that is there no more.
    Directory,
    TwoRoots,
    Mount,
}

impl Sort {
    fn patterns(self) -> &'static [&'static str] {
        if matches!(self, Self::Part | Self::Directory) { &["agents", "openclaw.json"] } else { &[] }
    }

    fn archive(self, scene: &Scene) -> PathBuf {
        if self != Self::TwoRoots {
            return scene.archive();
        }
        write_cold(&scene.path("notes/note"), "old");
        let path = scene.path("a.tar.zst");
        assert_eq!(Backup::of(&scene.state()).and(&scene.path("notes")).to(&path).exit_code(), 0);
        path
    }

    fn go_on(self, scene: &Scene) {
        scene.go_on();
        if self == Self::TwoRoots {
            write_cold(&scene.path("notes/note"), "new");
        }
        if self == Self::Directory {
            fs::remove_dir_all(scene.state().join("agents")).expect("removes");
        }
    }
}

/// All that must be as it was, or as it was archived.
fn all(scene: &Scene) -> Vec<Tree> {
    let roots = [scene.state(), scene.path("notes")];
    roots.iter().filter(|root| root.exists()).map(|root| tree(root)).collect()
}

/// A scene before a restore, and how it looks before and after one.
fn staged(sort: Sort, scene: &Scene) -> (PathBuf, [Vec<Tree>; 2]) {
    let archive = sort.archive(scene);
    sort.go_on(scene);
    assert!(sh("cd \"$1\" && mkdir pristine && cp -a home $(ls -d notes 2>/dev/null || true) pristine", &scene.top));
    let before = all(scene);
    assert_eq!(scene.restore(&archive, sort.patterns()).outcome, Ending::Complete);
    let after = all(scene);
    set_back(scene);
    assert!(all(scene) == before);
    (archive, [before, after])
}

/// Everything as it was, and nothing kept.
fn set_back(scene: &Scene) {
    let script = "cd \"$1\" && find home/.openclaw -mindepth 1 -delete && rm -rf home/.openclaw.before* home/.clawsnap* \
                  notes* && cp -a pristine/. .";
    assert!(sh(script, &scene.top));
}

/// Nothing that was there before is gone: it is there still, or kept.
fn assert_nothing_lost(scene: &Scene, before: &BTreeSet<Vec<u8>>, what: &str) {
    let now = contents(&scene.top);
    let lost: Vec<_> = before.difference(&now).map(|lost| String::from_utf8_lossy(lost)).collect();
    assert!(lost.is_empty(), "{what}: gone for good: {lost:?}");
}

/// All contents that must not be lost.
fn precious(scene: &Scene) -> BTreeSet<Vec<u8>> {
    [scene.state(), scene.path("notes")].iter().filter(|root| root.exists()).flat_map(|root| contents(root)).collect()
}

/// A run that fails, or is cancelled, at any step leaves everything as it was, or everything restored.
#[test]
fn a_restore_in_place_that_ends_at_any_step_did_everything_or_nothing() {
    for sort in [Sort::Whole, Sort::Part, Sort::TwoRoots] {
        let scene = Scene::quick();
        scene.fill("old");
        let (archive, looks) = staged(sort, &scene);
        let precious = precious(&scene);
        let count = Script::new(|_, _| Ok(()));
        let steps = count.counter();
        assert_eq!(restore(&archive, &scene.options(sort.patterns()), Arc::new(count)).outcome, Ending::Complete);
        let steps = steps.load(Ordering::SeqCst);
        assert!(steps > 80, "{steps}");
        set_back(&scene);
        for (fault, at) in [Some(5), None].into_iter().flat_map(|fault| (0..steps).map(move |at| (fault, at))) {
            let fail = move || Err(fault.map_or_else(cancelled, io::Error::from_raw_os_error));
            let gate = Script::new(move |step, _| if step == at { fail() } else { Ok(()) });
            let restored = restore(&archive, &scene.options(sort.patterns()), Arc::new(gate));
            let done = matches!(restored.outcome, Ending::Complete | Ending::Different);
            let what = format!("{sort:?}: step {at} of {steps} fails with {fault:?}: {:?}", restored.error);
            assert!(all(&scene) == looks[usize::from(done)], "{what}");
            assert_nothing_lost(&scene, &precious, &what);
            let again = scene.restore(&archive, sort.patterns());
            assert_eq!(again.outcome, Ending::Complete, "{what}; afterwards: {:?}", again.error);
            scene.assert_nothing_hidden(&what);
            assert_nothing_lost(&scene, &precious, &what);
            set_back(&scene);
        }
    }
}

/// What a neighbour does who works on, though he should not: what is his is not ours to lose.
#[test]
fn nothing_is_lost_to_a_neighbour_who_works_on_or_to_a_filesystem_that_will_not_go_back() {
    for sort in [Sort::Whole, Sort::Part, Sort::TwoRoots] {
        let scene = Scene::quick();
        scene.fill("old");
        let (archive, _) = staged(sort, &scene);
        let precious = precious(&scene);
        let renames = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&renames);
        let count = Script::new(move |_, step| {
            counted.fetch_add(u64::from(step.verb == Verb::Rename), Ordering::SeqCst);
            Ok(())
        });
        assert_eq!(restore(&archive, &scene.options(sort.patterns()), Arc::new(count)).outcome, Ending::Complete);
        set_back(&scene);
        let all = renames.load(Ordering::SeqCst);
        for (harm, at) in Harm::ALL.into_iter().flat_map(|harm| (0..all).map(move |at| (harm, at))) {
            let (seen, state) = (AtomicU64::new(0), scene.state());
            let gate = Script::new(move |_, step| {
                let is_rename = step.verb == Verb::Rename;
                let number = if is_rename { seen.fetch_add(1, Ordering::SeqCst) } else { u64::MAX };
                harm.done(is_rename.then_some(number), at, &state)
            });
            let restored = restore(&archive, &scene.options(sort.patterns()), Arc::new(gate));
            let what = format!("{sort:?}, {harm:?} from rename {at} on: {:?} {:?}", restored.outcome, restored.error);
            assert_nothing_lost(&scene, &precious, &what);
            let again = scene.restore(&archive, sort.patterns());
            assert_eq!(again.outcome, Ending::Complete, "{what}; afterwards: {:?}", again.error);
            assert_nothing_lost(&scene, &precious, &what);
            set_back(&scene);
        }
    }
}

/// What is done at one rename of ours, or from it on.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// No rename is possible any more.
    NoRename,
    /// A directory that was just exchanged is moved away, and the next rename fails.
    Moved,
    /// A file that was just exchanged is replaced, and the run is cancelled.
    Replaced,
}

impl Harm {
    const ALL: [Self; 3] = [Self::NoRename, Self::Moved, Self::Replaced];

    fn done(self, rename: Option<u64>, at: u64, state: &Path) -> io::Result<()> {
        match (self, rename) {
            (Self::NoRename, Some(number)) if number >= at => Err(io::Error::from_raw_os_error(5)),
            (Self::Moved, Some(number)) if number == at => {
                drop(fs::rename(state.join("agents"), state.join("archived")));
                Err(io::Error::from_raw_os_error(5))
            }
            (Self::Replaced, Some(number)) if number == at => {
                let session = state.join("agents/main/sessions/4f1c0a3e-1.jsonl");
                fs::write(state.join("next"), fs::read(&session).unwrap_or_default())?;
                drop(fs::rename(state.join("next"), session));
                Err(cancelled())
            }
            _ => Ok(()),
        }
    }
}

/// The way back fails, or is cancelled, at any step: everything is as it was, or back; and it can be gone again. A directory
/// whose time was still to be put back when a signal came was left where it was, and all else went back. Gone again after
/// it had failed with all exchanged, as for a disk that would not make that durable, it put away again what was back.
#[test]
fn a_way_back_that_ends_at_any_step_did_everything_or_nothing() {
    for sort in [Sort::Whole, Sort::Part, Sort::Directory] {
        let scene = Scene::quick();
        scene.fill("old");
        let (archive, looks) = staged(sort, &scene);
        for fault in [Some(5), None] {
            let steps = (0..).take_while(|at| is_gone_back(sort, &scene, &archive, &looks, (fault, *at))).count();
            assert!(steps > 5, "{steps}");
        }
    }
}

/// Whether a way back comes to step `at`, where it fails.
fn is_gone_back(
    sort: Sort,
    scene: &Scene,
    archive: &Path,
    looks: &[Vec<Tree>; 2],
    (fault, at): (Option<i32>, u64),
) -> bool {
    assert_eq!(scene.restore(archive, sort.patterns()).outcome, Ending::Complete);
    let kept = scene.only_kept();
    let played = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&played);
    let fail = move || Err(fault.map_or_else(cancelled, io::Error::from_raw_os_error));
    let gate: Arc<dyn Gate> = Arc::new(Script::new(move |step, _| {
        counted.store(step + 1, Ordering::SeqCst);
        if step == at { fail() } else { Ok(()) }
    }));
    let back = {
        let _childless = childless();
        clawsnap::restore::bring_back(std::slice::from_ref(&kept), &scene.ways(), &gate)
    };
    let what = format!("{sort:?}: step {at} fails with {fault:?}: {:?}", back.error);
    let now = all(scene);
    assert!(now == looks[0] || now == looks[1], "{what}: a mixture");
    if now == looks[1] || back.error.is_some() {
        let again = scene.undo(&kept);
        assert_eq!(again.outcome, Ending::Complete, "{what}; afterwards: {:?}", again.error);
    }
    assert!(all(scene) == looks[0], "{what}: not back");
    set_back(scene);
    played.load(Ordering::SeqCst) > at
}

/// A signal that came while an interrupted restore was completed left a mixture for good; and what had touched nothing was
/// kept as if it had.
#[test]
fn an_interrupted_restore_is_dealt_with_to_the_end_though_a_signal_comes() {
    for is_begun in [false, true] {
        let scene = Scene::quick();
        scene.fill("old");
        let (archive, looks) = staged(Sort::Part, &scene);
        let leave = || left_midway(&archive, &scene.options(Sort::Part.patterns()), 1 + u64::from(is_begun));
        leave();
        let count = Script::new(|_, _| Ok(()));
        let steps = count.counter();
        assert_eq!(restore(&archive, &scene.options(&["logs"]), Arc::new(count)).outcome, Ending::Complete);
        set_back(&scene);
        for at in 0..steps.load(Ordering::SeqCst) {
            leave();
            let gate = Script::new(move |step, _| if step >= at { Err(cancelled()) } else { Ok(()) });
            let ended = restore(&archive, &scene.options(&["logs"]), Arc::new(gate));
            let what = format!("begun: {is_begun}, cancelled at step {at}: {:?}", ended.error);
            assert!(is_begun || ended.error.is_none() || scene.kept().is_empty(), "{what}: kept");
            assert_eq!(scene.restore(&archive, &["logs"]).outcome, Ending::Complete, "{what}");
            let now = without_logs(all(&scene));
            assert!(now == without_logs(looks[usize::from(is_begun)].clone()), "{what}: a mixture");
            scene.assert_nothing_hidden(&what);
            set_back(&scene);
        }
    }
}

/// The next run completed what an interrupted one had begun, came to nothing itself, and did not tell of the first.
#[test]
fn what_was_completed_is_told_though_nothing_else_is_restored() {
    for verb in [Verb::MakeDir, Verb::Create] {
        let scene = Scene::new();
        let archive = scene.archive();
        scene.go_on();
        left_midway(&archive, &scene.options(Sort::Part.patterns()), 2);
        let gate = Script::new(move |_, step| match step.verb == verb {
            true => Err(io::Error::from_raw_os_error(28)),
            false => Ok(()),
        });
        let failed = restore(&archive, &scene.options(&["logs"]), Arc::new(gate));
        assert_eq!((failed.outcome, failed.files), (Ending::Failed, 0));
        let kept = format!("was completed; what was there is kept as {}", scene.only_kept().display());
        assert!(failed.warnings.iter().any(|warning| warning.contains(&kept)), "{verb:?}: {:?}", failed.warnings);
    }
}

/// The command was silent about it with `-q`, and wherever it showed no page.
#[test]
fn the_command_tells_what_was_completed_whether_it_is_quiet_or_fails() {
    let run = |scene: &Scene, words: &[&str]| {
        let _idle = idle();
        let output = command(scene, words).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let scene = Scene::new();
    let archive = Sort::TwoRoots.archive(&scene);
    Sort::TwoRoots.go_on(&scene);
    let leave = || left_midway(&archive, &scene.options(Sort::Part.patterns()), 2);
    let told = "warning: an interrupted restore of ";
    assert_eq!(scene.restore(&archive, &["logs"]).outcome, Ending::Complete);
    let kept = scene.only_kept();
    let undo = ["restore", "--undo", kept.to_str().expect("is text"), "-q"];
    let logs = ["restore", "a.tar.zst", "logs", "--in-place", "--yes", "-q"];
    for words in [&logs[..], &undo] {
        leave();
        let (code, said) = run(&scene, words);
        assert!(code == Some(0) && said.starts_with(told) && said.lines().count() == 1, "{words:?}: {said}");
    }
    // Somebody is at work where the second source would go.
    let busy = scene.path(".clawsnap-20260101T000000Z-00000001.swap");
    fs::create_dir(&busy).expect("makes");
    fs::set_permissions(&busy, fs::Permissions::from_mode(0o700)).expect("sets");
    let held = fs::File::open(&busy).expect("opens");
    held.lock().expect("locks");
    leave();
    let (code, said) = run(&scene, &["restore", "a.tar.zst", "--in-place", "--yes"]);
    assert!(code == Some(1) && said.starts_with(told) && said.contains("is at work there"), "{said}");
}

const KILLED_AT: &str = "CLAWSNAP_TEST_KILLED_AT";
const KILLED_IN: &str = "CLAWSNAP_TEST_KILLED_IN";

/// What the test below starts in a process of its own, which dies at the step that it is told.
#[test]
#[ignore = "started by the test below"]
fn a_restore_that_is_killed() {
    let (Ok(at), Ok(top)) = (std::env::var(KILLED_AT), std::env::var(KILLED_IN)) else { return };
    let (at, patterns): (u64, Vec<&str>) = match at.split_once(' ') {
        Some((at, patterns)) => (at.parse().expect("is a number"), patterns.split(' ').collect()),
        None => (at.parse().expect("is a number"), Vec::new()),
    };
    let scene = Scene { top: top.into(), _made: None };
    let gate = Script::new(move |step, _| {
        if step == at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("dies");
        }
        Ok(())
    });
    restore(&scene.path("a.tar.zst"), &scene.options(&patterns), Arc::new(gate));
}

/// A scene that such a restore can be played in, and what is mounted there; `None` where nothing can be.
fn scene_of(sort: Sort) -> Option<(Scene, Option<Mounted>)> {
    let scene = Scene::quick();
    let mounted = if sort == Sort::Mount { Some(Mounted::on(&scene.state())?) } else { None };
    scene.fill("old");
    Some((scene, mounted))
}

/// `kill -9` at every step: the state directory is the old one or the new one, and the next run ends cleanly.
#[test]
fn a_restore_in_place_that_is_killed_at_any_step_is_completed_or_was_never_begun() {
    for sort in [Sort::Whole, Sort::Part, Sort::TwoRoots, Sort::Mount] {
        let Some((scene, _mounted)) = scene_of(sort) else { continue };
        let (archive, looks) = staged(sort, &scene);
        let precious = precious(&scene);
        let mut deaths = 0;
        while dies(&scene, sort, deaths) {
            let what = format!("{sort:?}, killed at step {deaths}");
            assert_recovers(&scene, sort, &archive, &looks, &precious, &what);
            assert_nothing_lost(&scene, &precious, &what);
            set_back(&scene);
            deaths += 1;
        }
        eprintln!("{sort:?}: killed at each of {deaths} steps");
        assert!(deaths > 80, "{deaths}");
    }
}

/// After a kill each root that is exchanged in one step is whole; the next runs complete what was begun, or begin anew.
fn assert_recovers(
    scene: &Scene,
    sort: Sort,
    archive: &Path,
    looks: &[Vec<Tree>; 2],
    precious: &BTreeSet<Vec<u8>>,
    what: &str,
) {
    if matches!(sort, Sort::Whole | Sort::TwoRoots) {
        assert_each_is_whole(&all(scene), looks, what);
    }
    // Another restore, of one name, deals with what the dead one left, and with nothing else.
    let another = scene.restore(archive, &["logs"]);
    assert_eq!(another.outcome, Ending::Complete, "{what}: {:?}", another.error);
    assert_each_is_whole(&without_logs(all(scene)), &looks.clone().map(without_logs), what);
    assert_nothing_lost(scene, precious, what);
    let again = scene.restore(archive, sort.patterns());
    assert_eq!(again.outcome, Ending::Complete, "{what}: {:?}", again.error);
    assert!(without_logs(all(scene)) == without_logs(looks[1].clone()), "{what}: the next run restores");
    scene.assert_nothing_hidden(what);
}

/// Each root is what it was, or what was archived.
fn assert_each_is_whole(now: &[Tree], looks: &[Vec<Tree>; 2], what: &str) {
    for (number, tree) in now.iter().enumerate() {
        assert!(looks.iter().any(|look| look[number] == *tree), "{what}: a mixture");
    }
}

fn without_logs(mut trees: Vec<Tree>) -> Vec<Tree> {
    trees.iter_mut().for_each(|tree| tree.retain(|path, _| !path.starts_with("logs")));
    trees
}

/// Whether a restore in a process of its own comes to that step, and dies there.
fn dies(scene: &Scene, sort: Sort, at: u64) -> bool {
    let at = [vec![at.to_string()], sort.patterns().iter().map(|word| (*word).to_owned()).collect()].concat().join(" ");
    let mut child = Command::new(std::env::current_exe().expect("our own path"));
    child.args(["--exact", "a_restore_that_is_killed", "--ignored", "--nocapture"]).env(KILLED_AT, at);
    let _idle = idle();
    let output = child.env(KILLED_IN, &scene.top).output().expect("runs");
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert!(signal == Some(9) || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    signal == Some(9)
}

/// The command, as people run it.
fn command(scene: &Scene, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
    command.args(words).current_dir(&scene.top).env("HOME", scene.path("home")).env("TMPDIR", scene.path("tmp"));
    for name in ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_HOME"] {
        command.env_remove(name);
    }
    command
}

/// The call at which a command was killed; `None` where it makes no more than `at`.
fn killed(line: &Command, at: u64) -> Option<String> {
    let _idle = idle();
    step(line, counted(), at).killed_at
}

fn calls_of(line: &Command) -> u64 {
    let _idle = idle();
    count(line, counted())
}

/// The same, of the command, at every call of the kernel that others can notice.
#[test]
fn a_restore_in_place_that_is_killed_at_any_call_is_completed_or_was_never_begun() {
    for sort in [Sort::Whole, Sort::Part, Sort::TwoRoots, Sort::Mount] {
        let Some((scene, _mounted)) = scene_of(sort) else { continue };
        let (archive, looks) = staged(sort, &scene);
        let precious = precious(&scene);
        let words = [&["restore", "a.tar.zst", "--in-place", "--yes", "-q"], sort.patterns()].concat();
        let line = || command(&scene, &words);
        let calls = calls_of(&line());
        set_back(&scene);
        let mut kills = 0;
        for at in points(calls) {
            let Some(call) = killed(&line(), at) else { continue };
            let what = format!("{sort:?}, killed at call {at} of {calls}, {call}");
            assert_recovers(&scene, sort, &archive, &looks, &precious, &what);
            assert_nothing_lost(&scene, &precious, &what);
            set_back(&scene);
            kills += 1;
        }
        println!("restore --in-place, {sort:?}: killed at {kills} of {calls} calls");
        assert!(calls > 40 && is_thorough(kills, calls), "{kills} of {calls}");
        proven(&[Promise::Untouched], kills, "killed restore --in-place");
    }
}

/// Whether a way back has ended, so that the next one would lead forth again.
fn is_concluded(kept: &Path) -> bool {
    let mark = PathBuf::from(format!("{}.undo", kept.display()));
    let journal = fs::read_to_string(kept.join("journal")).ok();
    !mark.exists() && journal.is_none_or(|journal| journal.contains("\"is_done\":true"))
}

/// The way back is killed at any call: it can be gone again, and leads to what was there. Where it was killed between the last
/// exchange and its end, it put away again what was back, and called that a success.
#[test]
fn a_way_back_that_is_killed_at_any_call_can_be_gone_again() {
    for sort in [Sort::Whole, Sort::Part] {
        let scene = Scene::quick();
        scene.fill("old");
        let (archive, looks) = staged(sort, &scene);
        let precious = precious(&scene);
        let undo = || {
            assert_eq!(scene.restore(&archive, sort.patterns()).outcome, Ending::Complete);
            let kept = scene.only_kept();
            (command(&scene, &["restore", "--undo", kept.to_str().expect("is text"), "-q"]), kept)
        };
        let calls = calls_of(&undo().0);
        set_back(&scene);
        let (mut kills, mut again) = (0, 0);
        for at in points(calls) {
            let (line, kept) = undo();
            if let Some(call) = killed(&line, at) {
                let what = format!("{sort:?}, killed at call {at} of {calls}, {call}");
                assert_nothing_lost(&scene, &precious, &what);
                let is_back = all(&scene) == looks[0];
                assert!(sort == Sort::Part || is_back || all(&scene) == looks[1], "{what}: a mixture");
                if !is_back || !is_concluded(&kept) {
                    assert_eq!(scene.undo(&kept).outcome, Ending::Complete, "{what}");
                    again += u64::from(is_back);
                }
                assert!(is_concluded(&kept), "{what}: it is not known to be back");
                assert!(all(&scene) == looks[0], "{what}: not back");
                scene.assert_nothing_hidden(&what);
                kills += 1;
            }
            set_back(&scene);
        }
        println!("restore --undo, {sort:?}: killed at {kills} of {calls} calls");
        assert!(calls >= 4 && is_thorough(kills, calls), "{kills} of {calls}");
        assert!(again > 0 || kills < calls, "never killed when all was back already");
        proven(&[Promise::Untouched], kills, "killed restore --undo");
    }
}
