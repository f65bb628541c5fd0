//! What OpenClaw reads through a guard is left alone while a backup runs, and what anybody reads is left as it was.
//!
//! OpenClaw refuses files with a second name, and proves what it imported by ctime. So a watcher looks at every file,
//! over and over, while a backup runs.

mod churn;
mod support;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, FileTimes, OpenOptions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use churn::{Sample, empty_database, sample_state};
use clawsnap::event::Observer;
use clawsnap::freeze::{Mode, Options};
use clawsnap::gate::Gate;
use clawsnap::plan::{Environment, Request};
use clawsnap::report::Report;
use clawsnap::{Create, Output};
use support::{Archive, differences, leftovers, snapshot, write, write_cold};
use watch::{Phase, Seen, Watched, Watcher};

const MODES: [Mode; 4] = [Mode::Auto, Mode::Link, Mode::Clone, Mode::Copy];

/// A home with a state directory, and a workspace outside of it.
struct Home {
    top: tempfile::TempDir,
    state: PathBuf,
}

impl Home {
    fn new(state: &str) -> Self {
        Self::with_config(state, "meta: { lastTouchedVersion: '2026.4.14' }")
    }

    /// `more` goes into the config.
    fn with_config(state: &str, more: &str) -> Self {
        let top = tempfile::tempdir().expect("a directory");
        let home = top.path().join("home");
        let state = home.join(state);
        let sample = Sample { agents: 2, sessions_per_agent: 6, hot_percent: 30, ..Sample::default() };
        sample_state(&state, &sample);
        fs::create_dir(top.path().join("out")).expect("makes a directory");
        let home = Self { top, state };
        home.add_what_the_sample_lacks(more);
        home.warm_every_other();
        home
    }

    fn home(&self) -> PathBuf {
        self.top.path().join("home")
    }

    fn out(&self) -> PathBuf {
        self.top.path().join("out")
    }

    fn outside(&self) -> PathBuf {
        self.home().join("outside")
    }

    fn add_what_the_sample_lacks(&self, more: &str) {
        let (inside, outside) = (self.state.join("workspace"), self.outside());
        let agents = format!(
            "agents: {{ defaults: {{ workspace: {inside:?} }}, list: [{{ id: 'main' }}, {{ id: 'helper-1', workspace: \
             {outside:?} }}] }}"
        );
        write_cold(&self.state.join("openclaw.json"), format!("{{ {agents}, {more} }}\n"));
        for name in ["AGENTS.md", "SOUL.md", "MEMORY.md", "notes/plan.md", "notes/deep/er.txt", "data/table.csv"] {
            write_cold(&outside.join(name), format!("# {name}\n"));
        }
        for name in [
            ".env",
            "extensions/acme/index.js",
            "extensions/acme/openclaw.plugin.json",
            "plugins/acme/plugin.js",
            "skills/acme/SKILL.md",
            "skills/acme/run.py",
            "hooks/boot/HOOK.md",
            "agents/main/agent/auth-profiles.json",
            "agents/main/agent/session-sqlite-import-archive/x.jsonl",
            "agents/main/agent/session-sqlite-import-archive/v.jsonl",
            "agents/main/agent/session-sqlite-migration-runs/y.jsonl",
            "agents/main/sessions/session-sqlite-import-archive/z.jsonl",
            "agents/main/sessions/0.trajectory.jsonl",
        ] {
            write_cold(&self.state.join(name), format!("{{\"name\":\"{name}\"}}\n"));
        }
        for name in [
            "state/openclaw.sqlite",
            "agents/main/agent/openclaw-agent.sqlite",
            "agents/main/sessions/index.db",
            "agents/main/sessions/more.db",
            "agents/main/sessions/nameless",
            "agents/main/sessions/renamed.json",
        ] {
            write_cold(&self.state.join(name), empty_database());
        }
        for name in ["agents/main/sessions/index.db-wal", "agents/main/sessions/nameless-wal"] {
            write_cold(&self.state.join(name), "the log of the database beside it");
        }
        write_cold(&self.home().join("notes/list.txt"), "milk\n");
    }

    /// Of each sort, every other file is as if it was written just now.
    fn warm_every_other(&self) {
        for files in self.sorts().values() {
            for path in files.iter().step_by(2) {
                let file = OpenOptions::new().write(true).open(path).expect("opens");
                file.set_times(FileTimes::new().set_modified(SystemTime::now())).expect("sets its times");
            }
        }
    }

    /// All files, by what OpenClaw thinks of them.
    fn sorts(&self) -> BTreeMap<&'static str, Vec<PathBuf>> {
        let mut sorts: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for path in self.files() {
            sorts.entry(self.sort(&path)).or_default().push(path);
        }
        sorts
    }

    fn files(&self) -> Vec<PathBuf> {
        snapshot(&self.home()).into_iter().filter(|(_, looks)| looks.is_file()).map(|(path, _)| path).collect()
    }

    /// What OpenClaw thinks of a file: `session` for what it reads whatever its links.
    fn sort(&self, path: &Path) -> &'static str {
        let Ok(path) = path.strip_prefix(&self.state) else {
            return if path.starts_with(self.outside()) { "workspace" } else { "plain" };
        };
        let path = path.to_str().expect("is UTF-8");
        let name = path.rsplit('/').next().unwrap_or(path);
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["workspace", ..] => "workspace",
            ["credentials", ..] => "credential",
            ["extensions" | "plugins" | "skills" | "hooks", ..] => "plugin",
            ["openclaw.json" | ".env"] => "config",
            _ if path.contains("session-sqlite-") => "import archive",
            _ if name.contains(".sqlite") || name.contains(".db") => "database",
            [.., "nameless" | "nameless-wal" | "renamed.json"] => "database",
            ["agents", _, "sessions", _] if name.contains(".jsonl") && !name.contains(".trajectory") => "session",
            ["cron", "runs", _] => "session",
            _ => "other",
        }
    }

    fn is_guarded(&self, path: &Path) -> bool {
        !matches!(self.sort(path), "session" | "plain")
    }

    /// Backs up, with a watcher, what the environment names, or these sources.
    fn watched(&self, sources: &[PathBuf], options: Options) -> (Report, Watched) {
        let watcher = Watcher::of(self.files());
        let report = self.backup(sources, options, &watcher.gate(), &watcher.observer());
        (report, watcher.end())
    }

    fn backup(&self, sources: &[PathBuf], options: Options, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
        let environment = Environment { home: Some(self.home()), cwd: "/".into(), variables: BTreeMap::new() };
        let environment = environment.with("OPENCLAW_STATE_DIR", &self.state);
        create(Request { sources: sources.to_vec(), ..Request::new(environment) }, &self.out(), options, gate, observer)
    }

    /// What is true of every run here.
    fn assert_sound(&self, report: &Report) {
        // The databases are copied raw, which counts as a loss.
        assert_eq!(report.exit_code(), 3, "{:?}", report.error);
        assert!(report.losses.iter().all(|loss| loss.fate == "torn"), "{:?}", report.losses);
        for dir in [self.home(), self.state.clone(), self.outside()] {
            assert_eq!(leftovers(&dir), [] as [PathBuf; 0]);
        }
    }
}

fn create(request: Request, out: &Path, freeze: Options, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    let output = Output::Path(out.to_owned());
    let compression = Some("none".parse().expect("is known"));
    let wait = Duration::ZERO;
    let (if_changed, created_at, retention) = (false, None, None);
    let create = Create { request, output, compression, freeze, verify: true, if_changed, wait, created_at, retention };
    clawsnap::create(create, gate, observer)
}

fn mode(mode: Mode) -> Options {
    Options { mode, ..Options::default() }
}

/// The backup of an installation, watched: what is guarded is left alone, and what is not is seen to be linked.
fn assert_guarded(home: &Home, options: Options) -> Report {
    let context = format!("{options:?}");
    let (report, watched) = home.watched(&[], options);
    home.assert_sound(&report);
    watched.assert_looked_from_within();
    assert_eq!(watched.touched(|path| home.is_guarded(path)), [] as [String; 0], "{context}");
    assert_archived(home, &report);
    let linked: Vec<&Seen> = watched.files.values().filter(|seen| seen.most_links > 1).collect();
    for seen in &linked {
        assert_eq!((seen.most_links, seen.last.nlink, seen.ctime_moved), (2, 1, true), "{seen:?}");
        assert!(seen.linked_in.contains(&Phase::Freeze) && !seen.linked_in.contains(&Phase::After), "{seen:?}");
    }
    // A hot session may be linked for a moment, until it turns out to be hot.
    let while_archived = linked.iter().filter(|seen| seen.linked_in.contains(&Phase::Archive)).count();
    assert_eq!(while_archived as u64, report.captures.get("link").copied().unwrap_or(0), "{context}");
    report
}

/// What was left alone was not left out.
fn assert_archived(home: &Home, report: &Report) {
    let path = report.archive_path.as_ref().expect("has an archive");
    let archive = Archive::read(Path::new(std::str::from_utf8(&path.0).expect("is UTF-8")));
    for (sort, files) in home.sorts() {
        for path in files {
            let left_out = sort == "plain" || path.starts_with(home.state.join("tmp"));
            let expected = (!left_out).then(|| fs::read(&path).expect("is readable"));
            assert_eq!(archive.contents(&path), expected.as_deref(), "{}", path.display());
        }
    }
}

#[test]
fn there_are_hot_and_cold_files_of_every_sort_that_is_guarded() {
    let home = Home::new("state");
    let sorts = home.sorts();
    let recent = SystemTime::now() - Duration::from_secs(120);
    for sort in ["workspace", "credential", "config", "plugin", "database", "import archive", "other", "session"] {
        let files = sorts.get(sort).unwrap_or_else(|| panic!("there is no {sort}"));
        let is_hot = |path: &PathBuf| path.metadata().and_then(|found| found.modified()).expect("has a time") > recent;
        let hot = files.iter().filter(|path| is_hot(path)).count();
        assert!(hot > 0 && hot < files.len(), "{hot} of {} are hot: {sort}", files.len());
    }
}

#[test]
fn guarded_files_keep_one_name_and_their_ctime_while_a_backup_runs() {
    let home = Home::new("state");
    let captures = MODES.map(|by| assert_guarded(&home, mode(by)).captures);
    for capture in ["link", "hold", "pin", "copy"] {
        assert!(captures[1].contains_key(capture), "by links, nothing shows the watcher {capture}: {captures:?}");
    }
    assert!(captures[0]["link"] > 0, "the watcher sees what is linked");
    assert_eq!(captures[3].keys().collect::<Vec<_>>(), [&"copy"], "by copies, not even a session is linked");
}

#[test]
fn hot_files_that_are_too_large_to_be_held_in_memory_keep_one_name_as_well() {
    let home = Home::new("state");
    assert_guarded(&home, Options { hold_limit: 0, ..mode(Mode::Link) });
}

/// A config without a version, as one writes it by hand, was taken for that of a version that does not guard them.
#[test]
fn sessions_of_versions_that_guard_them_or_may_do_so_keep_one_name_as_well() {
    for version in ["meta: { lastTouchedVersion: '2026.7.35' }", ""] {
        let home = Home::with_config("state", version);
        for by in [Mode::Auto, Mode::Link] {
            let (report, watched) = home.watched(&[], mode(by));
            home.assert_sound(&report);
            watched.assert_looked_from_within();
            assert_eq!(watched.touched(|path| home.sort(path) != "plain"), [] as [String; 0], "{by:?} {version}");
        }
    }
}

#[test]
fn guarded_files_keep_one_name_when_the_state_and_its_workspace_are_named() {
    let home = Home::new("state");
    for sources in [[home.state.clone(), home.outside()], [home.outside(), home.state.clone()]] {
        let (report, watched) = home.watched(&sources, mode(Mode::Auto));
        home.assert_sound(&report);
        assert_eq!(watched.touched(|path| home.is_guarded(path)), [] as [String; 0], "{sources:?}");
    }
}

/// A backup of a whole home directory takes the state for part of a plain tree.
#[test]
fn guarded_files_keep_one_name_when_they_lie_in_a_plain_source() {
    for state in ["state", ".openclaw"] {
        let home = Home::new(state);
        let (report, watched) = home.watched(&[home.home()], mode(Mode::Auto));
        home.assert_sound(&report);
        watched.assert_looked_from_within();
        assert_eq!(watched.touched(|path| home.is_guarded(path)), [] as [String; 0], "{state}");
    }
    let home = Home::new("state");
    support::cool(&home.home().join("notes/list.txt"));
    let (_, watched) = home.watched(&[home.home()], mode(Mode::Auto));
    assert_eq!(watched.seen(&home.home().join("notes/list.txt")).most_links, 2, "what is plain is linked");
}

/// The watcher itself, tried out: a second name that lives for two steps of a run, once in each of its parts.
#[test]
fn the_watcher_sees_a_guarded_file_that_is_linked_for_a_moment() {
    for (phase, file) in [(Phase::Freeze, "AGENTS.md"), (Phase::Archive, "SOUL.md"), (Phase::ReadBack, "USER.md")] {
        let home = Home::new("state");
        let watcher = Watcher::of(home.files());
        let (path, other) = (home.state.join("workspace").join(file), home.home().join("second"));
        let linked = AtomicBool::new(false);
        let (shared, name, second) = (Arc::clone(&watcher.shared), path.clone(), other.clone());
        let gate: Arc<dyn Gate> = Arc::new(support::Script::new(move |_, _| {
            shared.enter(Phase::Freeze);
            if shared.phase() == phase && !linked.swap(true, Ordering::SeqCst) {
                shared.looked()?; // A round that began in the phase before is over.
                fs::hard_link(&name, &second)?;
                shared.looked()?;
                fs::remove_file(&second)?;
            }
            shared.looked()
        }));
        let report = home.backup(&[], mode(Mode::Auto), &gate, &watcher.observer());
        home.assert_sound(&report);
        let watched = watcher.end();
        assert_eq!(watched.touched(|path| home.is_guarded(path)).len(), 1, "{phase:?}");
        let seen = watched.seen(&path);
        assert!(seen.ctime_moved && seen.most_links == 2 && seen.last.nlink == 1, "{seen:?}");
        assert_eq!(seen.linked_in, BTreeSet::from([phase]));
    }
}

#[test]
fn no_mode_changes_anything_in_the_source() {
    let home = Home::new("state");
    let sessions = home.state.join("agents/main/sessions");
    write_cold(&sessions.join("twin.jsonl"), "{}\n");
    fs::hard_link(sessions.join("twin.jsonl"), sessions.join("other-twin.jsonl")).expect("links");
    let gate: Arc<dyn Gate> = Arc::new(clawsnap::gate::CancelFlag::new());
    let before = snapshot(&home.home());
    for by in MODES {
        home.assert_sound(&home.backup(&[], mode(by), &gate, &()));
        assert_eq!(differences(&before, &snapshot(&home.home())), [] as [String; 0], "{by:?}");
    }
    fs::set_permissions(home.state.join("openclaw.json"), fs::Permissions::from_mode(0o640)).expect("sets the mode");
    assert_eq!(differences(&before, &snapshot(&home.home())).len(), 1, "the snapshot can tell");
}

/// Somebody who owns nothing.
const NOBODY: u32 = 65_534;

const SOURCE: &str = "CLAWSNAP_TEST_SOURCE";
const OUT: &str = "CLAWSNAP_TEST_OUT";
const MODE: &str = "CLAWSNAP_TEST_MODE";

/// Not a test by itself: what [`nothing_changes_when_somebody_without_privileges_makes_the_backup`] has run.
#[test]
#[ignore = "run by another test, as another user"]
fn back_up_as_whoever_runs_this() {
    let variable = |name| std::env::var(name).expect("is run by another test");
    let environment = Environment { home: None, cwd: "/".into(), variables: BTreeMap::new() };
    let request = Request { sources: vec![variable(SOURCE).into()], ..Request::new(environment) };
    let gate: Arc<dyn Gate> = Arc::new(clawsnap::gate::CancelFlag::new());
    let out = PathBuf::from(variable(OUT));
    let report = create(request, &out, mode(variable(MODE).parse().expect("is a mode")), &gate, &());
    write(&out.join("report.json"), serde_json::to_vec(&report).expect("serializes"));
}

#[test]
fn nothing_changes_when_somebody_without_privileges_makes_the_backup() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else (and whoever else runs this is without privileges)");
        return;
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("skipped: there is no setpriv to become somebody else with");
        return;
    }
    // Where the parent may not be written to, staging lies in the source itself for a while.
    for parent_is_ours in [true, false] {
        let home = Home::new("state");
        let strange = give_away(&home, parent_is_ours);
        let before = snapshot(&home.state);
        for by in ["auto", "link", "clone", "copy"] {
            let report = back_up_as_nobody(&home, by);
            assert_eq!(report["outcome"], "lossy", "{by}: {report:#}");
            assert_told(&report, &strange);
            assert_eq!(differences(&before, &snapshot(&home.state)), [] as [String; 0], "{by} {parent_is_ours}");
            assert_eq!([leftovers(&home.home()), leftovers(&home.state)].concat(), [] as [PathBuf; 0], "{by}");
        }
    }
}

/// Gives everything to [`NOBODY`] but for a session that others may read, a session that they may not, and a directory
/// that they may not list. Returns what will be lost.
fn give_away(home: &Home, with_parent: bool) -> [PathBuf; 2] {
    let sessions = home.state.join("agents/main/sessions");
    let [readable, private, closed] = ["readable.jsonl", "private.jsonl", "closed"].map(|name| sessions.join(name));
    write_cold(&readable, "{}\n");
    write_cold(&private, "{}\n");
    write_cold(&closed.join("x.jsonl"), "{}\n");
    let paths: Vec<PathBuf> = snapshot(&home.home()).into_keys().collect();
    let stays = |path: &PathBuf| {
        [&readable, &private].contains(&path) || path.starts_with(&closed) || (!with_parent && *path == home.home())
    };
    for path in paths.iter().filter(|path| !stays(path) && !path.is_symlink()) {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("changes the owner");
    }
    chown(home.out(), Some(NOBODY), Some(NOBODY)).expect("changes the owner");
    for (path, mode) in [(home.top.path(), 0o755), (&readable, 0o644), (&private, 0o600), (&closed, 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets the mode");
    }
    [private, closed]
}

/// What could not be had is told by name, and all that is lost but for the databases.
fn assert_told(report: &serde_json::Value, strange: &[PathBuf]) {
    let losses = report["losses"].as_array().expect("is a list").iter();
    let told =
        losses.filter(|loss| loss["reason"] != "raw database").map(|loss| loss["path"].as_str().map(PathBuf::from));
    let told: BTreeSet<PathBuf> = told.flatten().collect();
    assert_eq!(told, strange.iter().cloned().collect::<BTreeSet<PathBuf>>());
}

fn back_up_as_nobody(home: &Home, mode: &str) -> serde_json::Value {
    // The test binary may lie where nobody else can reach it.
    let binary = home.top.path().join("tests");
    if !binary.exists() {
        fs::copy(std::env::current_exe().expect("has a path"), &binary).expect("copies");
    }
    let ids = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups --");
    let child = Command::new("setpriv")
        .args(ids.split(' '))
        .arg(&binary)
        .args("--exact back_up_as_whoever_runs_this --ignored --nocapture".split(' '))
        .envs([(SOURCE, home.state.as_os_str()), (OUT, home.out().as_os_str()), (MODE, mode.as_ref())])
        .env("TMPDIR", home.out())
        .output()
        .expect("runs");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let report = fs::read(home.out().join("report.json")).expect("reported");
    fs::remove_file(home.out().join("report.json")).expect("removes");
    serde_json::from_slice(&report).expect("is JSON")
}
