//! Restores and stages where less can be done than elsewhere: on filesystems whose renames know no flags, that have little
//! room, or whose files cannot be given away; and from an archive that can be read but once.
#![cfg(feature = "cli")]

mod mounts;
mod stage;
mod tool;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mounts::{Mount, mount};
use stage::{Stage, json, text};
use tool::{differing, has, sh, view};

/// More than what a stage copies because it is small.
const LARGE: usize = (1 << 20) + 1;

/// Under a tracer that answers every rename with flags as NFS, sshfs, 9p and older versions of ZFS do.
const FLAGLESS: &str = "strace -f -qq -o /dev/null -e trace=renameat2 -e inject=renameat2:error=EINVAL";

/// Root, who may not give files away: in a namespace that has none of their owners, and without the capability.
const UNGENEROUS: [&str; 2] = ["unshare -r", "setpriv --bounding-set -chown --inh-caps -chown"];

impl Stage {
    /// Runs the command under another, which takes its words first.
    fn under(&self, wrapper: &str, line: &str) -> Command {
        let inner = self.command(line);
        let mut words = wrapper.split_whitespace();
        let mut outer = Command::new(words.next().expect("has a word"));
        outer.args(words).arg(inner.get_program()).args(inner.get_args()).current_dir(self.top()).stdin(Stdio::null());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }

    /// An archive of the source, made where nothing is poor.
    fn archived(self) -> Self {
        let output = self.run("create source -q -o a.tar.zst");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        self
    }

    /// Where the source lies in a target.
    fn back(&self, target: &str) -> PathBuf {
        let source = self.path("source").canonicalize().unwrap_or_else(|_| self.path("source"));
        self.path(target).join(source.strip_prefix("/").expect("is absolute"))
    }

    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.top()).expect("lists").map(|entry| entry.expect("lists").path());
        entries.filter(|path| path.to_string_lossy().contains(".before-restore-")).collect()
    }

    /// The source, on a small filesystem of its own.
    fn cramped(&self) -> Option<(Mount, PathBuf)> {
        let disk = self.path("disk");
        let mounted = is_root().then(|| mount(&["-t", "tmpfs", "-o", "size=20m", "tmpfs"], &disk)).flatten();
        let Some(mounted) = mounted else {
            eprintln!("skipped: nothing can be mounted here");
            return None;
        };
        Some((mounted, disk.join("source")))
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("is there").uid() == 0
}

/// Whether renames with flags can be refused here.
fn is_traced() -> bool {
    let traced =
        has("strace") && Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !traced {
        eprintln!("skipped: strace may not trace here");
    }
    traced
}

fn assert_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn assert_same(before: &Path, after: &Path) {
    let wrong = differing(&view(before), &view(after), |was, is| was == is);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The whole tree was unpacked, could not get its name, and was removed again.
#[test]
fn where_renames_know_no_flags_a_target_gets_its_name() {
    if !is_traced() {
        return;
    }
    let stage = Stage::new().archived();
    fs::create_dir(stage.path("empty")).expect("makes");
    for target in ["new", "empty"] {
        let output = stage.under(FLAGLESS, &format!("restore a.tar.zst -q --target {target}")).output().expect("runs");
        assert_done(&output);
        assert_same(&stage.path("source"), &stage.back(target));
    }
    stage.assert_clean();
}

/// What was gone altogether could not come back either, though nothing had to be exchanged for that; and who was told to
/// restore into a target could not do that.
#[test]
fn where_renames_know_no_flags_what_is_gone_comes_back_in_place_and_what_is_there_stays() {
    if !is_traced() {
        return;
    }
    let stage = Stage::new().archived();
    sh("cp -a source before", stage.top(), &[]);
    let in_place = |words: &str| {
        stage.under(FLAGLESS, &format!("restore a.tar.zst {words} -q --in-place")).output().expect("runs")
    };
    stage.write("source/a.txt", b"later");
    let refused = in_place("");
    let told = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && told.contains("restore into a --target"), "{told}");
    assert_eq!((fs::read(stage.path("source/a.txt")).expect("reads"), stage.kept()), (b"later".to_vec(), Vec::new()));
    stage.assert_clean();
    // A directory of it, and then all.
    fs::remove_dir_all(stage.path("source/below")).expect("removes");
    assert_done(&in_place("below/b.jsonl"));
    assert_same(&stage.path("before/below"), &stage.path("source/below"));
    let kept = stage.kept().pop().expect("the journal is kept");
    for is_there in [false, true] {
        let undo = format!("restore -q --undo {}", kept.display());
        assert_done(&stage.under(FLAGLESS, &undo).output().expect("runs"));
        assert_eq!(stage.path("source/below").exists(), is_there);
    }
    fs::remove_dir_all(kept).expect("removes");
    fs::remove_dir_all(stage.path("source")).expect("removes");
    assert_done(&in_place(""));
    assert_same(&stage.path("before"), &stage.path("source"));
    assert_eq!(stage.kept(), [] as [PathBuf; 0]);
    stage.assert_clean();
}

/// One database, or one large file, and nothing was laid out.
#[test]
fn where_renames_know_no_flags_a_stage_lays_out_everything() {
    if !is_traced() {
        return;
    }
    let stage = Stage::new().file("source/large", &vec![7; LARGE]);
    let database = rusqlite::Connection::open(stage.path("source/jobs.sqlite")).expect("opens");
    database.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1)").expect("has a row");
    database.close().expect("closes");
    let mut command = stage.under(FLAGLESS, "stage source -q");
    let output = command.args(["--", "sh", "-ec", "cp -a . \"$TOP/seen\""]).env("TOP", stage.top()).output();
    assert_done(&output.expect("runs"));
    assert_eq!(fs::read(stage.path("seen/large")).expect("is there"), vec![7; LARGE]);
    let seen = rusqlite::Connection::open(stage.path("seen/jobs.sqlite")).expect("opens");
    assert_eq!(seen.query_row("SELECT n FROM t", [], |row| row.get::<_, i64>(0)).expect("is sound"), 1);
    stage.assert_clean();
    assert_eq!(fs::metadata(stage.path("source/large")).expect("is there").nlink(), 1);
}

/// Nothing at all was restored, though a user who may give nothing away either gets everything.
#[test]
fn root_who_may_not_give_files_away_gets_everything_and_is_told() {
    if !is_root() {
        eprintln!("skipped: only root can make files of others");
        return;
    }
    for wrapper in UNGENEROUS {
        if !has(wrapper.split(' ').next().expect("has a word")) {
            continue;
        }
        let stage = Stage::new().file("source/tool", b"runs").file("source/mine", b"root's");
        symlink("nowhere", stage.path("source/link")).expect("links");
        fs::hard_link(stage.path("source/a.txt"), stage.path("source/b.txt")).expect("links");
        let theirs = "chown -h 1000:1000 source source/tool source/link source/a.txt && chmod 6755 source/tool";
        sh(theirs, stage.top(), &[]);
        let stage = stage.archived();
        let output = stage.under(wrapper, "restore a.tar.zst --target back --json").output().expect("runs");
        assert_eq!(output.status.code(), Some(3), "{wrapper}: {}{}", text(&output.stdout), text(&output.stderr));
        let report = json(&output);
        // The directory, the tool, the link, and the two names of a file.
        assert_eq!(report["ownersNotKept"], 5, "{wrapper}: {report}");
        let told = report["differences"].as_array().expect("is a list");
        assert!(
            told.len() == 1 && told[0]["path"].as_str().is_some_and(|path| path.ends_with("/source/tool")),
            "{told:?}"
        );
        let back = fs::metadata(stage.back("back").join("tool")).expect("is there");
        assert_eq!((back.mode() & 0o7777, back.uid(), back.gid()), (0o755, 0, 0), "{wrapper}");
        fs::set_permissions(stage.path("source/tool"), fs::Permissions::from_mode(0o755)).expect("sets");
        assert_same(&stage.path("source"), &stage.back("back"));
        assert_eq!(stage.leftovers(), [] as [PathBuf; 0]);
    }
}

/// What is mostly holes was refused for lack of room, and a guarded command was not rolled back.
#[test]
fn holes_take_no_room_in_place() {
    let stage = Stage::new();
    let Some((_disk, source)) = stage.cramped() else { return };
    fs::create_dir(&source).expect("makes");
    let sparse = fs::File::create(source.join("sparse")).expect("creates");
    sparse.set_len(200 << 20).expect("grows");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 4096], 100 << 20).expect("writes");
    drop(sparse);
    let guarded = stage
        .command("guard disk/source -q --rollback -o out/")
        .args(["--", "sh", "-c", "rm disk/source/sparse; exit 7"])
        .output()
        .expect("runs");
    assert_eq!(guarded.status.code(), Some(7), "{}", text(&guarded.stderr));
    assert!(source.join("sparse").exists(), "{}", text(&guarded.stderr));
    assert_eq!(fs::metadata(source.join("sparse")).expect("is there").len(), 200 << 20);
}

/// How much room there must be is a guess: a filesystem that compresses takes less.
#[test]
fn who_knows_better_than_the_free_space_may_force_a_restore_in_place() {
    let stage = Stage::new();
    let Some((_disk, source)) = stage.cramped() else { return };
    fs::create_dir(&source).expect("makes");
    fs::write(source.join("noise"), vec![7; 12 << 20]).expect("writes");
    let made = stage.run("create disk/source -q -o a.tar.zst");
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    fs::write(source.join("later"), "later").expect("writes");
    let before = view(&source);
    let refused = stage.run("restore a.tar.zst --in-place -q");
    let told = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && told.contains("are free") && told.contains("--force"), "{told}");
    let forced = stage.run("restore a.tar.zst --in-place -q --force");
    let told = text(&forced.stderr);
    // It is tried, and here it is true.
    assert!(forced.status.code() == Some(1) && told.contains("source/noise") && !told.contains("are free"), "{told}");
    assert!(differing(&before, &view(&source), |was, is| was == is).is_empty());
    assert_eq!(fs::read_dir(stage.path("disk")).expect("lists").count(), 1);
}

/// A sound archive was called "not proven": the first reading had emptied the pipe, and the second found nothing.
#[test]
fn an_archive_that_can_be_read_but_once_is_no_source_of_a_restore_in_place() {
    let stage = Stage::new().archived();
    stage.write("source/a.txt", b"later");
    let piped = |words: &str| {
        let mut cat = Command::new("cat").arg(stage.path("a.tar.zst")).stdout(Stdio::piped()).spawn().expect("runs");
        let pipe = cat.stdout.take().expect("is a pipe");
        let output = stage.command(&format!("restore /dev/stdin -q {words}")).stdin(pipe).output().expect("runs");
        let _ended = cat.wait().expect("ends");
        output
    };
    let refused = piped("--in-place");
    let told = text(&refused.stderr);
    assert!(refused.status.code() == Some(2) && told.contains("read twice") && told.contains("--target"), "{told}");
    assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"later");
    assert_done(&piped("--target back"));
    let file = fs::File::open(stage.path("a.tar.zst")).expect("opens");
    assert_done(&stage.command("restore /dev/stdin -q --in-place").stdin(file).output().expect("runs"));
    assert_eq!(fs::read(stage.path("source/a.txt")).expect("reads"), b"alpha");
}
