//! The frozen tree, read by the programs that people keep their backups with.
#![cfg(feature = "cli")]

mod churn;
mod stage;
mod tool;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use churn::{Churn, Load, Log, Sample, no_torn_line, sample_state};
use serde_json::Value;
use stage::{Stage, json, text};
use tool::{Seen, differing, has, sh, view};

/// Staged trees under churn; each is backed up and restored by restic. Twice as many were right, once, by hand.
fn runs() -> u64 {
    std::env::var("CLAWSNAP_STAGES").ok().and_then(|runs| runs.parse().ok()).unwrap_or(25)
}

impl Stage {
    /// With more to keep: times, modes, links, a database.
    fn rich(self) -> Self {
        let stage = self.file("source/below/deep/c d.jsonl", b"{\"n\":2}\n").file("source/empty", b"");
        symlink("a.txt", stage.path("source/link")).expect("links");
        fs::hard_link(stage.path("source/a.txt"), stage.path("source/z.txt")).expect("links");
        let database = rusqlite::Connection::open(stage.path("source/some.db")).expect("opens");
        database.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1)").expect("has a row");
        stage
    }

    fn staged(&self, words: &[&str]) -> Output {
        let mut command = self.command("stage source -q --");
        command.args(words).env("RESTIC_PASSWORD", "x").env("XDG_CACHE_HOME", self.path("cache"));
        command.env("BORG_BASE_DIR", self.path("borg")).env("TOP", self.top());
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output.stderr));
        output
    }

    fn by_hand(&self, script: &str) -> Output {
        let (cache, borg) = (self.path("cache"), self.path("borg"));
        let variables = [("XDG_CACHE_HOME", &*cache), ("BORG_BASE_DIR", &borg), ("RESTIC_PASSWORD", Path::new("x"))];
        sh(script, self.top(), &variables)
    }

    /// The source's tree is the one at `name`, times and all.
    fn assert_equal(&self, name: &str, same: impl Fn(&Seen, &Seen) -> bool) {
        // The live database is not the copy that was made of it.
        let but_database = |top: PathBuf| {
            let mut tree = view(&top);
            assert!(tree.remove(Path::new("some.db")).is_some(), "there is no database in {}", top.display());
            tree
        };
        let wrong = differing(&but_database(self.path("source")), &but_database(self.path(name)), same);
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        let database = rusqlite::Connection::open(self.path(name).join("some.db")).expect("opens");
        let rows: i64 = database.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("is sound");
        assert_eq!(rows, 1);
    }
}

/// What restic says of a backup.
fn summary(output: &Output) -> Value {
    let lines = text(&output.stdout);
    let mut last = lines.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    last.find(|line| line["message_type"] == "summary").expect("has a summary")
}

#[test]
fn restic_backs_the_frozen_tree_up_and_knows_it_again() {
    if !has("restic") {
        return;
    }
    let stage = Stage::new().rich();
    stage.by_hand("restic init -q -r repository");
    let backup = ["restic", "-r", "../../repository", "backup", ".", "--ignore-inode", "--json"];
    let first = summary(&stage.staged(&backup));
    let files = first["files_new"].as_u64().expect("a number");
    assert!(files > 4, "{first}");
    let second = summary(&stage.staged(&backup));
    assert_eq!((&second["files_new"], &second["files_changed"]), (&0.into(), &0.into()), "{second}");
    assert_eq!(second["files_unmodified"], files, "{second}");
    stage.write("source/below/b.jsonl", b"{\"n\":1}\n{\"n\":2}\n");
    let third = summary(&stage.staged(&backup));
    assert_eq!((&third["files_new"], &third["files_changed"]), (&0.into(), &1.into()), "{third}");
    stage.by_hand("restic -q -r repository restore latest --target back");
    stage.assert_equal("back", |was, is| was == is);
    stage.assert_clean_of_links();
}

#[test]
fn borg_backs_the_frozen_tree_up_and_knows_it_again() {
    if !has("borg") {
        return;
    }
    let stage = Stage::new().rich();
    stage.by_hand("borg init -e none repository");
    let create = |name: &str| {
        let archive = format!("../../repository::{name}");
        text(&stage.staged(&["borg", "create", "--list", "--files-cache", "mtime,size", &archive, "."]).stderr)
    };
    let known = |listed: &str| listed.lines().filter(|line| line.starts_with("U ")).count();
    let first = create("first");
    assert!(first.contains("A below/b.jsonl") || first.contains("A ./below/b.jsonl"), "{first}");
    assert_eq!(known(&first), 0, "{first}");
    // What has the newest time of all is read again, as borg cannot know whether it was complete.
    let second = create("second");
    assert!(known(&second) >= 2, "{second}");
    stage.by_hand("mkdir back; cd back; borg extract ../repository::second");
    stage.assert_equal("back", |was, is| was == is);
    stage.assert_clean_of_links();
}

#[test]
fn rsync_mirrors_the_frozen_tree_and_then_only_what_has_changed() {
    if !has("rsync") {
        return;
    }
    let stage = Stage::new().rich();
    let mirror = ["rsync", "-aHi", "--delete", "./", "../../mirror/"];
    let first = text(&stage.staged(&mirror).stdout);
    assert!(first.contains("below/b.jsonl"), "{first}");
    // Times of what is no file it takes for the same within a second.
    let same = |was: &Seen, is: &Seen| {
        let timely = if was.is_file() { was.mtime == is.mtime } else { (was.mtime.0 - is.mtime.0).abs() <= 1 };
        timely && (was.mode, &was.contents, &was.same_as) == (is.mode, &is.contents, &is.same_as)
    };
    stage.assert_equal("mirror", same);
    assert_eq!(text(&stage.staged(&mirror).stdout), "");
    fs::remove_file(stage.path("source/below/b.jsonl")).expect("removes");
    let third = text(&stage.staged(&mirror).stdout);
    assert!(third.contains("*deleting") && third.contains("below/b.jsonl"), "{third}");
    stage.assert_equal("mirror", same);
}

#[test]
fn rclone_copies_the_frozen_tree_and_leaves_alone_what_it_has() {
    if !has("rclone") {
        return;
    }
    let stage = Stage::new().rich();
    let copy = ["rclone", "copy", "--links", "--config", "/dev/null", ".", "../../remote"];
    stage.staged(&copy);
    let sound = |was: &Seen, is: &Seen| {
        // Modes, hard links and the times of directories are nothing to it.
        was.contents == is.contents && (!was.is_file() || was.mtime == is.mtime)
    };
    stage.assert_equal("remote", sound);
    let inode = |name: &str| fs::metadata(stage.path(name)).expect("is there").ino();
    let before = inode("remote/below/b.jsonl");
    stage.staged(&copy);
    assert_eq!(inode("remote/below/b.jsonl"), before);
}

impl Stage {
    fn assert_clean_of_links(&self) {
        assert_eq!(self.leftovers(), [] as [PathBuf; 0]);
        let links = fs::metadata(self.path("source/below/b.jsonl")).expect("is there").nlink();
        assert_eq!(links, 1);
    }
}

/// One source under churn, backed up by `run`, which says what it knows of that; what the oracles have to say against
/// what restic gives back.
fn under_churn(top: &Path, seed: u64, run: impl Fn(&Path) -> (Value, PathBuf)) -> Result<(), String> {
    let state = top.join(format!("state-{seed}"));
    let sample = Sample { agents: 2, sessions_per_agent: 30, databases: true, seed, ..Sample::default() };
    sample_state(&state, &sample);
    let churn = Churn::start(&state, Load::heavy().seed(seed));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let begun = churn::now_ns();
    let (report, back) = run(&state);
    let log = churn.stop();
    assert!(log.errors().is_empty(), "the mutator itself failed: {:?}", log.errors());
    let verdict = judge(&report, &back, &log.only(churn::is_kept), begun);
    fs::remove_dir_all(&state).expect("removes");
    fs::remove_dir_all(&back).expect("removes");
    verdict
}

/// Holds a restored tree against the truth.
fn judge(report: &Value, back: &Path, log: &Log, begun: u64) -> Result<(), String> {
    let tree = view(back);
    let known: BTreeSet<&Path> = log.names().collect();
    let names: BTreeSet<PathBuf> = tree.keys().filter(|name| known.contains(name.as_path())).cloned().collect();
    let instant = report["instant"].as_str().map(churn::instant_ns);
    let to = instant.unwrap_or_else(churn::now_ns);
    if instant.is_some() || report.is_null() {
        log.names_possible_at(begun, to, &names)?;
    }
    for (path, _) in log.existed_throughout(begun, to) {
        if !names.contains(&path) {
            return Err(format!("{} was there all the time, and is not in the backup", path.display()));
        }
    }
    for name in &names {
        let bytes = &tree[name].contents;
        log.bytes_ok(name, bytes)?;
        if name.to_string_lossy().contains(".jsonl") {
            no_torn_line(bytes).map_err(|torn| format!("{}: {torn}", name.display()))?;
        }
    }
    Ok(())
}

fn restic(top: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("restic");
    command.args(["-q", "-r"]).arg(top.join("repository")).args(words);
    command.env("RESTIC_PASSWORD", "x").env("XDG_CACHE_HOME", top.join("cache")).stdin(Stdio::null());
    command
}

/// By way of a staged tree: what comes back is also what the command was shown at first.
fn staged(stage: &Stage, state: &Path) -> (Value, PathBuf) {
    let (seen, back) = (stage.path("seen"), stage.path("back"));
    let script = r#"cp -a . "$SEEN" && restic -q -r "$REPOSITORY" backup . --ignore-inode"#;
    let mut command = stage.command("stage --json");
    command.arg(state).args(["--", "sh", "-c", script]).env("SEEN", &seen).env("RESTIC_PASSWORD", "x");
    command.env("REPOSITORY", stage.path("repository")).env("XDG_CACHE_HOME", stage.path("cache"));
    let output = command.output().expect("runs");
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", text(&output.stderr), report["losses"]);
    let status = restic(stage.top(), &["restore", "latest", "--target"]).arg(&back).status().expect("runs");
    assert!(status.success());
    let wrong = differing(&view(&seen), &view(&back), |was, is| was == is);
    assert!(wrong.is_empty(), "{wrong:#?}");
    fs::remove_dir_all(&seen).expect("removes");
    (report, back)
}

/// As people do without: the live tree.
fn live(stage: &Stage, state: &Path) -> (Value, PathBuf) {
    let back = stage.path("back");
    let words = ["backup", ".", "--ignore-inode"];
    let backup = restic(stage.top(), &words).current_dir(state).stderr(Stdio::null()).status();
    // 3: it could not read all of it.
    assert!(matches!(backup.expect("runs").code(), Some(0 | 3)));
    let status = restic(stage.top(), &["restore", "latest", "--target"]).arg(&back).status().expect("runs");
    assert!(status.success());
    (Value::Null, back)
}

#[test]
fn under_churn_restic_gives_back_the_frozen_tree_and_without_us_it_does_not() {
    if !has("restic") {
        return;
    }
    let stage = Stage::new();
    stage.by_hand("restic init -q -r repository");
    let run = |seed| under_churn(stage.top(), seed, |state| staged(&stage, state)).err();
    let wrong: Vec<String> = (0..runs()).filter_map(run).collect();
    assert!(wrong.is_empty(), "{} of {} runs: {wrong:#?}", wrong.len(), runs());
    let run = |seed| under_churn(stage.top(), seed, |state| live(&stage, state)).err();
    let wrong: Vec<String> = (100..110).filter_map(run).collect();
    eprintln!("restic on the live tree: {} of 10 runs are wrong, e.g. {:?}", wrong.len(), wrong.first());
    assert!(!wrong.is_empty(), "these oracles object to nothing");
}
