//! A real OpenClaw (see `scripts/peers`), in a home of its own with a model of its own to talk to.

mod gateway;
mod installed;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs::{self, File, FileType};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use gateway::databases_in_use;
pub(crate) use installed::{Peer, SESSIONS_IN_FILES, SESSIONS_IN_ROWS};
use model::Model;
pub(crate) use model::REPLY;

/// A turn takes about fifteen seconds on two idle cores; a peer that hangs must not hang the suite.
const PATIENCE: Duration = Duration::from_secs(300);

/// What OpenClaw makes anew by itself, so that both it and we leave it out: names in the state directory.
const REGENERABLE: [&str; 7] = ["dev", "git", "npm", "npm-runtime", "tmp", "tools", "plugin-skills"];

/// A home directory that OpenClaw was set up in.
pub(crate) struct Home {
    peer: Peer,
    model: Model,
    path: PathBuf,
    _directory: TempDir,
}

impl Home {
    /// A fresh home, its state written by OpenClaw's own `onboard`, its model ours.
    pub(crate) fn onboard(peer: Peer) -> Self {
        let directory = tempfile::Builder::new().prefix("clawsnap-peer-").tempdir().expect("a home");
        // OpenClaw resolves links in the paths that it reports.
        let path = directory.path().canonicalize().expect("the home's path");
        let home = Self { peer, model: Model::listen(), path, _directory: directory };
        fs::create_dir(home.path("tmp")).expect("a directory for temporary files");
        let choices = "--non-interactive --mode local --auth-choice skip --gateway-bind loopback --gateway-auth token \
            --gateway-token t --no-install-daemon --skip-health --skip-channels --skip-search --skip-skills --skip-ui \
            --accept-risk --json";
        finish(home.openclaw().arg("onboard").args(choices.split(' '))).success();
        home.configure_model();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path(".openclaw")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.state().join("workspace")
    }

    pub(crate) fn agents_md(&self) -> PathBuf {
        self.workspace().join("AGENTS.md")
    }

    /// Changes OpenClaw's config as an operator would, with an editor.
    fn configure(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.state().join("openclaw.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a config")).expect("JSON");
        edit(&mut config);
        let config = serde_json::to_vec_pretty(&config).expect("JSON");
        fs::write(&path, config).expect("the config written");
    }

    fn configure_model(&self) {
        self.configure(|config| {
            config["models"] = json!({ "mode": "merge", "providers": { "ours": {
                "api": "openai-completions",
                "apiKey": "none",
                "baseUrl": self.model.base_url(),
                "models": [{ "id": "model", "name": "model" }],
            }}});
            config["agents"]["defaults"]["model"] = json!({ "primary": "ours/model" });
            config["logging"] = json!({ "file": self.path("openclaw.log") });
        });
    }

    /// Spares a turn the half of its time that goes into indexing memories, for tests that look at prompts.
    pub(crate) fn forgo_memory(&self) {
        self.configure(|config| match self.peer.version {
            SESSIONS_IN_FILES => config["agents"]["defaults"]["memorySearch"] = json!({ "enabled": false }),
            _ => config["memory"] = json!({ "search": { "enabled": false } }),
        });
    }

    /// A second agent whose workspace lies outside the state directory, with a link inside it.
    pub(crate) fn hire_helper(&self) {
        let workspace = self.helpers_workspace();
        fs::create_dir(&workspace).expect("a workspace");
        fs::write(workspace.join("notes.md"), "the helper's notes\n").expect("notes");
        symlink("notes.md", workspace.join("latest")).expect("a link");
        self.configure(|config| {
            config["agents"]["entries"]["helper"] = json!({ "workspace": workspace });
        });
    }

    pub(crate) fn helpers_workspace(&self) -> PathBuf {
        self.path("elsewhere")
    }

    /// What workspaces hold besides plain files: links in, out and to nowhere, a pair of names for one file,
    /// names that no header of the plain format can take.
    pub(crate) fn leave_awkward_things(&self) {
        let place = self.workspace().join("awkward");
        let deep = place.join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).expect("a deep directory");
        fs::write(deep.join("f".repeat(120)), "at the bottom\n").expect("a long path");
        fs::write(place.join("grüße"), "a name beyond ASCII\n").expect("a name");
        fs::write(place.join("two\nlines"), "a line break in a name\n").expect("a name");
        fs::write(place.join("one"), "one file\n").expect("a file");
        fs::hard_link(place.join("one"), place.join("the-same")).expect("a second name");
        for (name, target) in [
            ("inside", "one"),
            ("dangling", "nobody-home"),
            ("escaping", "../../../../elsewhere/notes.md"),
            ("outside", "/etc/hostname"),
        ] {
            symlink(target, place.join(name)).expect("a link");
        }
    }

    /// What an upgrade from a version before 2026.8 leaves behind: a transcript and its index as plain files.
    pub(crate) fn leave_older_session(&self) {
        let sessions = self.state().join("agents/main/sessions");
        let id = "3f2d4a6e-0c1b-4d5e-8f90-a1b2c3d4e5f6";
        let lines = [
            json!({ "type": "session", "version": 3, "id": id, "timestamp": "2026-04-14T09:00:00.000Z" }),
            json!({ "type": "message", "id": "m1", "message": { "role": "user", "content": "grüß dich" } }),
        ];
        let transcript: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::create_dir_all(&sessions).expect("a sessions directory");
        fs::write(sessions.join(format!("{id}.jsonl")), transcript).expect("a transcript");
        let index = json!({ "agent:main:older": { "sessionId": id, "updatedAt": 1_776_157_200_000_u64 } });
        fs::write(sessions.join("sessions.json"), index.to_string()).expect("an index");
    }

    /// Makes the workspace look an hour old, so that nothing in it is captured as a hot file.
    pub(crate) fn age_workspace(&self) {
        let then = SystemTime::now() - Duration::from_secs(3600);
        for (path, kind) in walk(&self.workspace()) {
            if kind == Kind::File {
                let file = File::options().write(true).open(&path).expect("a workspace file");
                file.set_modified(then).expect("its time set");
            }
        }
    }

    /// One agent turn; gives everything that the model was asked in it.
    pub(crate) fn turn(&self, message: &str) -> String {
        self.model.forget();
        let mut command = self.openclaw();
        command.args(["agent", "--local", "--agent", "main", "--json", "--message", message]);
        let done = finish(&mut command);
        // 2026.4.14 says it on standard error.
        let answered = [&done.stdout, &done.stderr].iter().any(|said| said.contains(REPLY));
        assert!(answered && done.status.success(), "the turn did not come to its answer: {done}");
        self.model.asked()
    }

    /// What SQLite, as OpenClaw has it, finds wrong with the databases.
    pub(crate) fn assert_databases_sound(&self) {
        let script = "const { DatabaseSync } = require('node:sqlite');
            const check = (path) => {
                const database = new DatabaseSync(path, { readOnly: true });
                const { integrity_check: said } = database.prepare('PRAGMA integrity_check').get();
                database.close();
                return said;
            };
            console.log(JSON.stringify(process.argv.slice(1).map(check)));";
        let databases: Vec<_> = walk(&self.state())
            .into_iter()
            .filter(|(path, kind)| *kind == Kind::File && is_database(path))
            .map(|(path, _)| path)
            .collect();
        let mut command = self.command(&self.peer.node);
        command.args(["--no-warnings", "-e", script, "--"]).args(&databases);
        assert_eq!(finish(&mut command).json(), json!(vec!["ok"; databases.len()]), "{databases:?}");
    }

    /// Nothing of a backup is left in the home, and no file of the state has a name more than it should have.
    pub(crate) fn assert_no_trace(&self) {
        let left = walk(&self.path)
            .into_iter()
            .filter(|(path, _)| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".clawsnap-")));
        assert_eq!(left.collect::<Vec<_>>(), [], "left behind");
        let linked = walk(&self.state()).into_iter().filter(|(path, kind)| *kind == Kind::File && links(path) > 1);
        assert_eq!(linked.collect::<Vec<_>>(), [], "files with a second name");
    }

    /// Puts a restored state where the live one was, as an operator does who lost it.
    pub(crate) fn take_over(&self, restored: &Path) {
        fs::rename(self.state(), self.path("lost")).expect("the state out of the way");
        fs::rename(restored, self.state()).expect("the restored state in its place");
    }

    /// The ids of the sessions that OpenClaw lists.
    pub(crate) fn sessions(&self) -> BTreeSet<String> {
        let listed = finish(self.openclaw().args(["sessions", "--json", "--all-agents"])).json();
        session_ids(&listed["sessions"], "sessionId")
    }

    /// The sessions that we list in an archive.
    pub(crate) fn sessions_in(&self, archive: &Path) -> Value {
        let done = finish(self.clawsnap("list").args(["--sessions", "--json"]).arg(archive));
        assert_eq!(done.status.code(), Some(0), "{done}");
        done.json()["sessions"].take()
    }

    /// What OpenClaw finds when it verifies an archive.
    pub(crate) fn verify(&self, archive: &Path) -> Value {
        finish(self.openclaw().args(["backup", "verify", "--json"]).arg(archive)).json()
    }

    /// What we find when we verify an archive.
    pub(crate) fn verify_by_clawsnap(&self, archive: &Path) -> Value {
        let done = finish(self.clawsnap("verify").arg("--json").arg(archive));
        assert_eq!(done.status.code(), Some(0), "{done}");
        done.json()["archives"][0].take()
    }

    /// Restores an archive with OpenClaw's own hands, and gives the directory that stands for `/` within.
    pub(crate) fn restore(&self, archive: &Path) -> PathBuf {
        let mut target = archive.as_os_str().to_owned();
        target.push(".restored");
        let mut command = self.openclaw();
        command.args(["backup", "restore", "--json", "--target"]);
        let report = finish(command.arg(&target).arg(archive)).json();
        let root = report["archiveRoot"].as_str().expect("an archive root");
        Path::new(&target).join(root).join("payload/posix")
    }

    /// Restores an archive with our hands, and gives the directory that stands for `/` within.
    pub(crate) fn restore_by_clawsnap(&self, archive: &Path) -> PathBuf {
        let mut target = archive.as_os_str().to_owned();
        target.push(".restored-by-clawsnap");
        let done = finish(self.clawsnap("restore").arg(archive).arg("--target").arg(&target));
        assert_eq!(done.status.code(), Some(0), "{done}");
        target.into()
    }

    /// Has a newer version migrate the state, by its `doctor`, behind an archive; that this fails is brought back at once.
    pub(crate) fn fail_to_upgrade_to(&self, newer: &Peer) -> Value {
        let script = r#""$NODE" "$OPENCLAW" doctor --fix --non-interactive >&2; exit 9"#;
        let mut command = self.clawsnap("guard");
        command.args(["--rollback", "--json", "--output"]).arg(self.path("before.tar.zst"));
        command.args(["--", "sh", "-c", script]).env("NODE", &newer.node).env("OPENCLAW", &newer.openclaw);
        let done = finish(&mut command);
        assert_eq!(done.status.code(), Some(9), "{done}");
        done.json()
    }

    /// Restores an archive to where it came from; what is said where that is refused.
    pub(crate) fn restore_in_place(&self, archive: &Path) -> Result<(), String> {
        let done = finish(self.clawsnap("restore").arg("--in-place").arg(archive));
        if done.status.success() { Ok(()) } else { Err(done.to_string()) }
    }

    /// OpenClaw's own backup of this home, by its report.
    pub(crate) fn openclaws_report(&self) -> Value {
        let mut command = self.openclaw();
        command.args(["backup", "create", "--json", "--output"]);
        finish(command.arg(self.path("openclaws-own.tar.gz"))).json()
    }

    /// `clawsnap create` for this home, its further arguments yet to come.
    pub(crate) fn clawsnap_create(&self) -> Command {
        self.clawsnap("create")
    }

    fn clawsnap(&self, verb: &str) -> Command {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_clawsnap")));
        command.arg(verb);
        command
    }

    /// Backs the state up into `archive`, which must lose nothing, and gives the report.
    pub(crate) fn back_up(&self, archive: &Path) -> Value {
        let done = finish(self.clawsnap_create().arg("--json").arg("--output").arg(archive));
        let report = done.json();
        assert_eq!(report["losses"], json!([]), "{done}");
        assert_eq!(done.status.code(), Some(0), "{done}");
        report
    }

    /// A backup that is over its freeze and cannot go on, because nobody reads what it writes.
    pub(crate) fn hold_backup(&self) -> HeldBackup {
        let mut child = self
            .clawsnap_create()
            .args(["--output", "-", "--compress", "none", "-q"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("clawsnap started");
        let mut stream = child.stdout.take().expect("its output");
        let mut held = vec![0; 4096];
        let first = stream.read_exact(&mut held);
        let backup = HeldBackup { child, stream, archive: held };
        first.expect("the beginning of an archive");
        backup
    }

    fn openclaw(&self) -> Command {
        let mut command = self.command(&self.peer.node);
        command.arg(&self.peer.openclaw);
        if self.peer.version == SESSIONS_IN_FILES {
            // It reads the manifests of all of them many times over, which is most of what it does.
            command.env("OPENCLAW_DISABLE_BUNDLED_PLUGINS", "1");
        }
        command
    }

    /// A command that sees this home and nothing of the one that the tests run in.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", &self.path)
            .env("TMPDIR", self.path("tmp"))
            .env("OPENCLAW_STATE_DIR", self.state())
            .env("NO_COLOR", "1")
            .current_dir(&self.path);
        command
    }
}

/// `clawsnap create --output -`, waiting for its reader.
pub(crate) struct HeldBackup {
    child: Child,
    stream: ChildStdout,
    archive: Vec<u8>,
}

impl HeldBackup {
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Reads the rest, and gives how the backup ended and the archive that it wrote.
    pub(crate) fn release(mut self) -> (ExitStatus, Vec<u8>) {
        let mut archive = std::mem::take(&mut self.archive);
        self.stream.read_to_end(&mut archive).expect("the rest of the archive");
        (self.child.wait().expect("its end"), archive)
    }
}

impl Drop for HeldBackup {
    /// A failed assertion must not leave the process behind; after `release` there is none.
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().expect("the held backup killed");
            self.child.wait().expect("its end");
        }
    }
}

/// What a process said and how it ended.
struct Done {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Done {
    fn success(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, stdout, stderr } = self;
        write!(out, "{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a command to its end. Its output goes through files: a grandchild that outlives it cannot hold us.
fn finish(command: &mut Command) -> Done {
    let mut stdout = tempfile::tempfile().expect("a file for stdout");
    let mut stderr = tempfile::tempfile().expect("a file for stderr");
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("a second descriptor"))
        .stderr(stderr.try_clone().expect("a second descriptor"))
        .process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        if Instant::now() > deadline {
            signal_group(&child, "KILL");
            child.wait().expect("its end");
            panic!("{command:?} did not end: {}{}", text(&mut stdout), text(&mut stderr));
        }
        thread::sleep(Duration::from_millis(20));
    };
    Done { status, stdout: text(&mut stdout), stderr: text(&mut stderr) }
}

/// OpenClaw's launcher runs the command in a child of its own, which a signal to the launcher would leave alive.
fn signal_group(child: &Child, signal: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} -{}", child.id())]).status();
    assert!(sent.expect("a shell").success());
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().expect("the file's beginning");
    file.read_to_string(&mut text).expect("UTF-8 output");
    text
}

/// One field of every session in a list.
pub(crate) fn session_ids(sessions: &Value, field: &str) -> BTreeSet<String> {
    let all = sessions.as_array().expect("sessions").iter();
    all.map(|session| session[field].as_str().expect("an id").to_owned()).collect()
}

fn names_database(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".sqlite") || name.contains(".sqlite-") || name.contains(".sqlite.")
}

fn is_database(path: &Path) -> bool {
    let mut magic = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"SQLite format 3\0"
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Directory,
    File,
    Link,
}

impl Kind {
    fn of(kind: FileType) -> Option<Self> {
        if kind.is_dir() {
            Some(Self::Directory)
        } else if kind.is_symlink() {
            Some(Self::Link)
        } else {
            kind.is_file().then_some(Self::File)
        }
    }
}

/// Every path below `root`, parents first.
fn walk(root: &Path) -> Vec<(PathBuf, Kind)> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root).expect("a directory") {
        let path = entry.expect("an entry").path();
        let Some(kind) = Kind::of(path.symlink_metadata().expect("its metadata").file_type()) else {
            continue; // Sockets and pipes are nothing to restore.
        };
        paths.push((path.clone(), kind));
        if kind == Kind::Directory {
            paths.extend(walk(&path));
        }
    }
    paths
}

/// One thing in a tree, by what it holds.
#[derive(PartialEq, Eq)]
pub(crate) enum Thing {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
}

/// Everything in a state directory but its databases, which a backup may write differently, and what is made
/// anew anyway.
pub(crate) fn contents(state: &Path) -> BTreeMap<PathBuf, Thing> {
    let kept = |path: &Path| {
        let first = path.components().next().expect("a relative path").as_os_str();
        let name = path.file_name().expect("a name").to_string_lossy();
        !REGENERABLE.iter().any(|left_out| first == *left_out) && !names_database(&name)
    };
    walk(state)
        .into_iter()
        .map(|(path, kind)| (path.strip_prefix(state).expect("a path below").to_owned(), path, kind))
        .filter(|(relative, ..)| kept(relative))
        .map(|(relative, path, kind)| {
            let thing = match kind {
                Kind::Directory => Thing::Directory,
                Kind::File => Thing::File(fs::read(&path).expect("a readable file")),
                Kind::Link => Thing::Link(fs::read_link(&path).expect("a link")),
            };
            (relative, thing)
        })
        .collect()
}

/// Says which paths differ, not what is in them.
pub(crate) fn assert_same(found: &BTreeMap<PathBuf, Thing>, expected: &BTreeMap<PathBuf, Thing>) {
    let differing: Vec<_> =
        expected.keys().chain(found.keys()).filter(|path| found.get(*path) != expected.get(*path)).collect();
    assert!(differing.is_empty(), "missing, surplus or different: {differing:#?}");
}

/// Where an absolute path lies below a directory that stands for `/`.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").expect("an absolute path"))
}

pub(crate) fn links(path: &Path) -> u64 {
    path.metadata().expect("its metadata").nlink()
}

pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
