//! The command, and a home for it with a directory to back up and one for archives.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const CLAWSNAP: &str = env!("CARGO_BIN_EXE_clawsnap");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `home`, `source` and `out`.
pub struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Self {
        Self::made(tempfile::tempdir().expect("makes a directory"))
    }

    /// Where it takes no time to make things durable.
    pub fn quick() -> Self {
        Self::made(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("makes a directory"))
    }

    fn made(dir: tempfile::TempDir) -> Self {
        let stage = Self { dir };
        for name in ["home", "source/below", "out"] {
            fs::create_dir_all(stage.path(name)).expect("makes a directory");
        }
        stage.file("source/a.txt", b"alpha").file("source/below/b.jsonl", b"{\"n\":1}\n")
    }

    pub fn top(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that nobody wrote to for an hour, so that it is linked.
    pub fn file(self, name: &str, contents: &[u8]) -> Self {
        self.write(name, contents);
        self.cool(name);
        self
    }

    pub fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("makes a directory");
        fs::write(path, contents).expect("writes");
    }

    /// As if nobody had written to it for an hour.
    pub fn cool(&self, name: &str) {
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let file = File::options().write(true).open(self.path(name)).expect("opens");
        file.set_modified(hour_ago).expect("sets the time");
    }

    /// OpenClaw's state at home, with this config, a session, and a workspace elsewhere.
    pub fn installed(self, config: &str) -> Self {
        let stage =
            self.file("home/.openclaw/agents/main/sessions/0.jsonl", b"{\"n\":1}\n").file("home/ws/SOUL.md", b"kind");
        stage.file("home/.openclaw/openclaw.json", config.as_bytes())
    }

    /// More than a pipe or two hold, and nothing that compresses.
    pub fn large(self) -> Self {
        let mut noise = vec![0; 4 << 20];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut noise)).expect("reads noise");
        self.file("source/large", &noise)
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(CLAWSNAP);
        command.args(line.split_whitespace());
        for name in ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_HOME", "NO_COLOR", "SOURCE_DATE_EPOCH"] {
            command.env_remove(name);
        }
        let home = self.path("home");
        command.current_dir(self.dir.path()).env("HOME", home).stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("runs")
    }

    /// What is in the directory for archives.
    pub fn archives(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(self.path("out")).expect("lists");
        found.map(|entry| entry.expect("lists").path()).collect()
    }

    /// Everything hidden of ours that is left anywhere.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let (mut open, mut found) = (vec![self.dir.path().to_owned()], Vec::new());
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("lists") {
                let path = entry.expect("lists").path();
                let is_ours = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".clawsnap-"));
                let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
                match is_ours {
                    true => found.push(path),
                    false => open.extend(is_dir.then_some(path)),
                }
            }
        }
        found
    }

    /// Nothing of ours is left anywhere.
    pub fn assert_clean(&self) {
        assert_eq!(self.leftovers(), [] as [PathBuf; 0]);
        for name in ["source/a.txt", "source/below/b.jsonl"] {
            assert_eq!(fs::metadata(self.path(name)).expect("is there").nlink(), 1, "{name}");
        }
    }
}

pub fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        sleep(Duration::from_millis(2));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("sends");
}

/// How a child ended.
pub fn finished(mut child: Child) -> ExitStatus {
    let mut status = None;
    wait_until(|| {
        status = child.try_wait().expect("waits");
        status.is_some()
    });
    status.expect("has ended")
}
