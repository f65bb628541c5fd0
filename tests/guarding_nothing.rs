//! `clawsnap guard` where there is no durable, whole archive: the command does not start.
#![cfg(feature = "cli")]

mod stage;
mod ward;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Instant;

use nix::sys::signal::Signal;
use stage::{Stage, finished, json, send, text, wait_until};
use ward::{tree, way_back};

/// Noise takes seconds with this.
const SLOW: &str = "source -o out/ -q --compress xz:9";

/// A tiny filesystem, as long as it lives.
struct Tiny(PathBuf);

impl Tiny {
    fn on(path: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(path);
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: nothing can be mounted here");
        }
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().expect("runs").success());
    }
}

impl Stage {
    /// Waits until the archive is being made.
    fn archiving(&self, child: &mut Child) {
        wait_until(|| !self.leftovers().is_empty());
        assert!(child.try_wait().expect("waits").is_none(), "it has ended already");
    }
}

#[test]
fn nothing_starts_where_an_archive_cannot_be_written() {
    let stage = Stage::new().large();
    let output = stage.guarded("source -o /proc/no/such/", "touch ran");
    assert_eq!((output.status.code(), stage.path("ran").exists()), (Some(1), false), "{}", text(&output.stderr));
    let Some(tiny) = Tiny::on(&stage.path("out")) else { return };
    let output = stage.guarded("source -o out/ --compress none", "touch ran");
    assert_eq!((output.status.code(), stage.path("ran").exists()), (Some(1), false), "{}", text(&output.stderr));
    assert!(stage.archives().is_empty());
    drop(tiny);
    stage.assert_clean();
}

#[test]
fn nothing_starts_where_names_were_lost_unless_that_is_wanted() {
    let stage = Stage::new().broken();
    let output = stage.guarded("source -o out/", "touch ran");
    assert_eq!((output.status.code(), stage.path("ran").exists()), (Some(3), false), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the command was not started"), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("broken.sqlite"), "{}", text(&output.stderr));
    assert_eq!(stage.archives().len(), 1, "it is there all the same");

    for expected in [0, 7] {
        let output = stage.guarded("source -o out/ --despite-losses --json", &format!("touch ran; exit {expected}"));
        assert_eq!((output.status.code(), stage.path("ran").exists()), (Some(expected), true));
        assert_eq!(json(&output)["outcome"], "lossy");
        assert!(text(&output.stderr).contains("broken.sqlite"), "{}", text(&output.stderr));
        fs::remove_file(stage.path("ran")).expect("removes");
    }
    stage.assert_clean();
}

/// Where the workspace is a mount within the state, as docker-compose has it, a command ruined what nothing could bring back:
/// that was certain before, and told after it, with a way back that failed as well.
#[test]
fn nothing_starts_that_could_not_be_brought_back_from_and_without_that_the_way_back_leads_beside_the_archive() {
    let stage = Stage::new().installed("{}");
    let (state, workspace) = (stage.path("home/.openclaw"), stage.path("home/.openclaw/workspace"));
    fs::create_dir(&workspace).expect("makes a directory");
    let Some(_mounted) = Tiny::on(&workspace) else { return };
    stage.write("home/.openclaw/workspace/SOUL.md", b"kind");
    let before = tree(&state);
    let ruin = "echo on stderr >&2; rm -r home/.openclaw/agents; exit 7";
    let output = stage.guarded("-o out/ -q --rollback", ruin);
    let told = text(&output.stderr);
    assert!(told.starts_with("error: the command was not started, as nothing could be brought back from it"), "{told}");
    assert!(told.contains(&format!("{} is a mount of its own", workspace.display())), "{told}");
    assert_eq!((output.status.code(), stage.archives().len()), (Some(1), 1), "{told}");
    assert_eq!(tree(&state), before);
    let output = stage.guarded("-o out/ -q", ruin);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.starts_with("warning: if the command fails, nothing can be brought back in place: "), "{told}");
    assert!(told.lines().nth(1) == Some("on stderr"), "before it starts: {told}");
    let way = way_back(&output);
    let back = stage.later(&way, &stage.path("home"));
    assert_eq!(back.status.code(), Some(0), "{way}: {}", text(&back.stderr));
    let made = stage.archives().into_iter().find(|path| path.extension() == Some("restored".as_ref()));
    let made = made.expect("beside the archive").join(state.strip_prefix("/").expect("is absolute"));
    assert_eq!(tree(&made), before, "{way}");
}

/// A parent that ignores SIGCHLD, which lasts through `exec`, has nobody told how a command ends: one that had failed was told
/// as one that could not be run, with no way back, and no rule kept its archive.
#[test]
fn nothing_starts_where_nobody_could_know_how_it_ends() {
    let stage = Stage::new();
    for line in ["guard source -o out/ -q --rollback -- touch ran", "stage source -q -- touch ran"] {
        let typed = stage.command(line);
        let mut command = Command::new("env");
        command.arg("--ignore-signal=CHLD").arg(typed.get_program()).args(typed.get_args());
        let output = command.current_dir(stage.top()).env("HOME", stage.path("home")).output().expect("runs");
        let told = text(&output.stderr);
        assert!(told.starts_with("error: SIGCHLD is ignored here") && told.contains("nothing was done"), "{told}");
        assert_eq!((output.status.code(), stage.path("ran").exists()), (Some(1), false), "{line}");
        assert!(stage.archives().is_empty(), "{line}");
    }
    stage.assert_clean();
}

#[test]
fn nothing_starts_while_another_run_has_the_source() {
    let stage = Stage::new();
    let lock = fs::File::open(stage.path("source")).expect("opens");
    lock.lock().expect("locks");
    let output = stage.guarded("source -o out/", "touch ran");
    assert_eq!((output.status.code(), stage.path("ran").exists()), (Some(5), false), "{}", text(&output.stderr));
    assert!(stage.archives().is_empty());
}

#[test]
fn nothing_starts_when_the_run_is_interrupted_before() {
    let stage = Stage::new().large();
    for (signal, number) in [(Signal::SIGINT, 2), (Signal::SIGTERM, 15)] {
        let mut child = stage.begun(SLOW, "touch ran");
        stage.archiving(&mut child);
        send(&child, signal);
        assert_eq!(finished(child).signal(), Some(number));
        assert!(!stage.path("ran").exists() && stage.archives().is_empty());
        stage.assert_clean();
    }
}

#[test]
fn older_archives_stay_where_the_new_one_was_never_finished() {
    let stage = Stage::new().large();
    assert!(stage.run("create source -q -o out/").status.success());
    let old = stage.archives();
    let mut child = stage.begun(&format!("{SLOW} --keep-last 1"), "touch ran");
    stage.archiving(&mut child);
    send(&child, Signal::SIGINT);
    assert_eq!(finished(child).signal(), Some(2));
    assert_eq!(stage.archives(), old);
}

#[test]
fn nothing_starts_and_nothing_is_made_where_the_archive_could_not_be_read_back() {
    let stage = Stage::new();
    for line in ["source --output -", "source -o out/ --no-verify", "source -o out/ --if-changed"] {
        let output = stage.guarded(line, "touch ran");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{line}: {}", text(&output.stderr));
        assert!(!stage.path("ran").exists() && stage.archives().is_empty(), "{line}");
    }
    let output = stage.run("guard source -o out/");
    assert_eq!(output.status.code(), Some(2), "no command: {}", text(&output.stderr));
}

#[test]
fn a_run_that_is_killed_while_the_archive_is_made_starts_nothing_and_the_next_one_cleans_up() {
    let stage = Stage::new().large();
    let before = tree(&stage.path("source"));
    let begun = Instant::now();
    assert!(stage.guarded(SLOW, "exit 0").status.success());
    let (whole, points) = (begun.elapsed(), 20);
    let mut unfinished = 0;
    for point in 0..points {
        stage.archives().iter().for_each(|path| fs::remove_file(path).expect("removes"));
        let child = stage.begun(SLOW, "touch ran");
        sleep(whole * point / points);
        send(&child, Signal::SIGKILL);
        let status = finished(child);
        let made = stage.archives().iter().any(|path| !path.to_string_lossy().contains("/.clawsnap-"));
        unfinished += u32::from(!made);
        assert!(made || (status.signal() == Some(9) && !stage.path("ran").exists()), "point {point}");
        let next = stage.guarded("source -o out/ -q --compress none", "find source -type f -links +1 > linked");
        assert!(next.status.success(), "point {point}: {}", text(&next.stderr));
        assert_eq!(stage.said("linked").as_deref(), Some(""), "point {point}");
        assert_eq!(tree(&stage.path("source")), before, "point {point}");
        stage.assert_clean();
        drop(fs::remove_file(stage.path("ran")));
    }
    assert!(unfinished >= 10, "only {unfinished} were killed in time");
}
