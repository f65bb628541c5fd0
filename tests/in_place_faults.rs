//! A restore in place that fails, is cancelled or is killed at any step: everything, or nothing.

mod place;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clawsnap::gate::cancelled;
use clawsnap::restore::Ending;
use place::support::{Backup, Script, write_cold};
use place::{Mounted, Scene, Tree, restore, sh, tree};

/// The kinds of restore that the sweeps below try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Whole,
    Part,
    TwoRoots,
    Mount,
}

impl Sort {
    fn patterns(self) -> &'static [&'static str] {
        if self == Self::Part { &["agents", "openclaw.json"] } else { &[] }
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

/// A run that fails, or is cancelled, at any step leaves everything as it was, or everything restored.
#[test]
fn a_restore_in_place_that_ends_at_any_step_did_everything_or_nothing() {
    for sort in [Sort::Whole, Sort::Part, Sort::TwoRoots] {
        let scene = Scene::quick();
        scene.fill("old");
        let (archive, looks) = staged(sort, &scene);
        let count = Script::new(|_, _| Ok(()));
        let steps = count.counter();
        assert_eq!(restore(&archive, &scene.options(sort.patterns()), Arc::new(count)).outcome, Ending::Complete);
        let steps = steps.load(Ordering::SeqCst);
        assert!(steps > 80, "{steps}");
        set_back(&scene);
        for fault in [Some(5), None] {
            for at in 0..steps {
                let fail = move || Err(fault.map_or_else(cancelled, io::Error::from_raw_os_error));
                let gate = Script::new(move |step, _| if step == at { fail() } else { Ok(()) });
                let restored = restore(&archive, &scene.options(sort.patterns()), Arc::new(gate));
                let done = matches!(restored.outcome, Ending::Complete | Ending::Different);
                let what = format!("{sort:?}: step {at} of {steps} fails with {fault:?}: {:?}", restored.error);
                assert!(all(&scene) == looks[usize::from(done)], "{what}");
                let again = scene.restore(&archive, sort.patterns());
                assert_eq!(again.outcome, Ending::Complete, "{what}; afterwards: {:?}", again.error);
                scene.assert_nothing_hidden(&what);
                set_back(&scene);
            }
        }
    }
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

/// `kill -9` at every step: the state directory is the old one or the new one, and the next run ends cleanly.
#[test]
fn a_restore_in_place_that_is_killed_at_any_step_is_completed_or_was_never_begun() {
    for sort in [Sort::Whole, Sort::Part, Sort::TwoRoots, Sort::Mount] {
        let scene = Scene::quick();
        let mounted = if sort == Sort::Mount { Mounted::on(&scene.state()) } else { None };
        if sort == Sort::Mount && mounted.is_none() {
            continue;
        }
        scene.fill("old");
        let (archive, looks) = staged(sort, &scene);
        let mut deaths = 0;
        while dies(&scene, sort, deaths) {
            let what = format!("{sort:?}, killed at step {deaths}");
            let now = all(&scene);
            if matches!(sort, Sort::Whole) {
                assert!(looks.contains(&now), "{what}: a mixture");
            }
            let again = scene.restore(&archive, sort.patterns());
            assert_eq!(again.outcome, Ending::Complete, "{what}: {:?}", again.error);
            assert!(all(&scene) == looks[1], "{what}: the next run restores");
            scene.assert_nothing_hidden(&what);
            let kept = scene.kept();
            assert!(sort != Sort::Whole || kept.iter().any(|kept| tree(kept) == looks[0][0]), "{what}: {kept:?}");
            set_back(&scene);
            deaths += 1;
        }
        eprintln!("{sort:?}: killed at each of {deaths} steps");
        assert!(deaths > 80, "{deaths}");
    }
}

/// Whether a restore in a process of its own comes to that step, and dies there.
fn dies(scene: &Scene, sort: Sort, at: u64) -> bool {
    let at = [vec![at.to_string()], sort.patterns().iter().map(|word| (*word).to_owned()).collect()].concat().join(" ");
    let mut child = Command::new(std::env::current_exe().expect("our own path"));
    child.args(["--exact", "a_restore_that_is_killed", "--ignored", "--nocapture"]).env(KILLED_AT, at);
    let output = child.env(KILLED_IN, &scene.top).output().expect("runs");
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert!(signal == Some(9) || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    signal == Some(9)
}
