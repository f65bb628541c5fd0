//! A made-up state directory in the 2026.4 layout.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::rng::Rng;
use super::scribe::Scribe;

/// What the made-up state holds. The same spec always makes the same names and bytes.
#[derive(Clone, Debug)]
pub struct Sample {
    pub agents: usize,
    pub sessions_per_agent: usize,
    /// Whether `memory/main.sqlite` and `tasks/runs.sqlite` are there.
    pub databases: bool,
    pub seed: u64,
    /// How many of a hundred sessions were written just now; the others are hours to weeks old.
    pub hot_percent: u32,
}

impl Default for Sample {
    fn default() -> Self {
        Sample { agents: 2, sessions_per_agent: 20, databases: true, seed: 1, hot_percent: 5 }
    }
}

/// Makes the state directory `dir`, or panics with the reason.
pub fn sample_state(dir: &Path, spec: &Sample) {
    try_sample_state(dir, spec).unwrap_or_else(|error| panic!("no sample state: {error}"));
}

/// Makes the state directory `dir`.
pub fn try_sample_state(dir: &Path, spec: &Sample) -> io::Result<()> {
    let mut maker = Maker {
        root: std::path::absolute(dir)?,
        spec,
        scribe: Scribe::new(spec.seed),
        rng: Rng::new(spec.seed.wrapping_add(1)),
        now: SystemTime::now(),
    };
    maker.everything()
}

struct Maker<'a> {
    root: PathBuf,
    spec: &'a Sample,
    scribe: Scribe,
    rng: Rng,
    now: SystemTime,
}

impl Maker<'_> {
    fn everything(&mut self) -> io::Result<()> {
        self.config()?;
        for agent in 0..self.spec.agents {
            self.agent(&agent_name(agent))?;
        }
        self.credentials()?;
        self.workspace()?;
        self.git()?;
        if self.spec.databases {
            self.databases()?;
        }
        self.queue()?;
        self.logs()?;
        self.cron()?;
        self.browser()?;
        self.junk()
    }

    /// Written as people write it: JSON5, with a comment and trailing commas.
    fn config(&mut self) -> io::Result<()> {
        let workspace = json!(self.root.join("workspace").to_string_lossy());
        let agents: Vec<String> =
            (0..self.spec.agents).map(|agent| format!("      {{ id: '{}' }},\n", agent_name(agent))).collect();
        let text = format!(
            "// Made up; no gateway reads it.\n{{\n  meta: {{ lastTouchedVersion: '2026.4.14' }},\n  agents: {{\n    defaults: {{ workspace: {workspace} }},\n    \
             list: [\n{}    ],\n  }},\n  gateway: {{ mode: 'local', port: 18789, }},\n}}\n",
            agents.concat()
        );
        self.private("openclaw.json", text.as_bytes())
    }

    fn agent(&mut self, agent: &str) -> io::Result<()> {
        let sessions = format!("agents/{agent}/sessions");
        let mut index = Map::new();
        for number in 0..self.spec.sessions_per_agent {
            let id = self.rng.uuid();
            self.session(&sessions, &id)?;
            index.insert(format!("agent:{agent}:{number}"), self.index_entry(&id));
        }
        self.file(&format!("{sessions}/sessions.json"), &pretty(&Value::Object(index)))?;
        self.archived_sessions(&sessions)?;
        if agent != agent_name(0) {
            self.file(&format!("workspace/{agent}/AGENTS.md"), b"# Agents\n\nHelp the first one.\n")?;
        }
        let models = json!({"providers": {"mock": {"baseUrl": "http://127.0.0.1:9"}}});
        self.private(&format!("agents/{agent}/agent/models.json"), &pretty(&models))
    }

    fn session(&mut self, sessions: &str, id: &str) -> io::Result<()> {
        let size = self.rng.between(2_048, 38_000);
        let text = self.scribe.session(id, size);
        let age = match self.rng.percent(self.spec.hot_percent) {
            true => Duration::ZERO,
            false => self.age(),
        };
        self.aged(&format!("{sessions}/{id}.jsonl"), &text, age)
    }

    fn index_entry(&mut self, id: &str) -> Value {
        let updated = self.rng.between(1, 1_000_000);
        json!({"sessionId": id, "updatedAt": 1_775_000_000_000u64 + updated as u64, "chatType": "direct",
            "sessionFile": format!("{id}.jsonl"), "compactionCount": self.rng.below(4)})
    }

    fn archived_sessions(&mut self, sessions: &str) -> io::Result<()> {
        for why in ["deleted", "reset"] {
            let id = self.rng.uuid();
            let text = self.scribe.session(&id, 2_048);
            let name = format!("{sessions}/{id}.jsonl.{why}.2026-04-02T08-15-{:02}.250Z", self.rng.below(60));
            self.file(&name, &text)?;
        }
        Ok(())
    }

    fn credentials(&mut self) -> io::Result<()> {
        let creds = json!({"me": {"id": "000@s.whatsapp.net"}, "secret": self.rng.hex(64)});
        self.private("credentials/whatsapp/default/creds.json", &pretty(&creds))?;
        for key in 1..=30 {
            let value = json!({"public": self.rng.hex(64), "private": self.rng.hex(64)});
            self.private(&format!("credentials/whatsapp/default/pre-key-{key}.json"), &pretty(&value))?;
        }
        let allowed = json!({"version": 1, "allowFrom": ["000"]});
        self.private("credentials/telegram-allowFrom.json", &pretty(&allowed))
    }

    fn workspace(&mut self) -> io::Result<()> {
        for name in ["AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "TOOLS.md"] {
            let text = format!("# {name}\n\n{}.\n", self.scribe.words(80));
            self.file(&format!("workspace/{name}"), text.as_bytes())?;
        }
        for day in 1..=5 {
            let text = format!("# 2026-04-{day:02}\n\n- {}\n", self.scribe.words(40));
            self.file(&format!("workspace/memory/2026-04-{day:02}.md"), text.as_bytes())?;
        }
        let skill = format!("---\nname: weather\ndescription: {}\n---\n", self.scribe.words(8));
        self.file("workspace/skills/weather/SKILL.md", skill.as_bytes())?;
        self.file("workspace/skills/weather/run.sh", b"#!/bin/sh\necho sunny\n")?;
        self.mode("workspace/skills/weather/run.sh", 0o755)?;
        self.link("workspace/today.md", "memory/2026-04-05.md")
    }

    fn git(&mut self) -> io::Result<()> {
        let head = self.rng.hex(40);
        self.file("workspace/.git/HEAD", b"ref: refs/heads/main\n")?;
        self.file("workspace/.git/config", b"[core]\n\tbare = false\n")?;
        self.file("workspace/.git/refs/heads/main", format!("{head}\n").as_bytes())?;
        self.file("workspace/.git/logs/HEAD", format!("{head} first\n").as_bytes())?;
        for _ in 0..6 {
            let (dir, name) = (self.rng.hex(2), self.rng.hex(38));
            let object = format!("workspace/.git/objects/{dir}/{name}");
            let bytes = self.rng.bytes(300);
            self.file(&object, &bytes)?;
            self.mode(&object, 0o444)?;
        }
        Ok(())
    }

    fn databases(&mut self) -> io::Result<()> {
        self.file("memory/main.sqlite", &empty_database())?;
        self.file("tasks/runs.sqlite", &empty_database())
    }

    fn queue(&mut self) -> io::Result<()> {
        for _ in 0..3 {
            let id = self.rng.uuid();
            let entry = json!({"id": id, "channel": "telegram", "to": "000", "text": self.scribe.words(12)});
            self.file(&format!("delivery-queue/{id}.json"), &pretty(&entry))?;
        }
        self.dir("delivery-queue/failed")
    }

    fn logs(&mut self) -> io::Result<()> {
        for name in ["gateway.log", "commands.log", "config-audit.jsonl"] {
            let lines: Vec<u8> = (0..60).flat_map(|_| self.scribe.event(name)).collect();
            self.aged(&format!("logs/{name}"), &lines, Duration::ZERO)?;
        }
        Ok(())
    }

    fn cron(&mut self) -> io::Result<()> {
        let jobs: Vec<String> = (0..3).map(|_| self.rng.uuid()).collect();
        for job in &jobs {
            let runs: Vec<u8> = (0..20).flat_map(|_| self.scribe.event("finished")).collect();
            self.file(&format!("cron/runs/{job}.jsonl"), &runs)?;
        }
        self.file("cron/jobs.json", &pretty(&json!({"version": 1, "jobs": jobs})))
    }

    fn browser(&mut self) -> io::Result<()> {
        let profile = "browser/openclaw/user-data";
        self.file(&format!("{profile}/Default/Preferences"), b"{\"profile\":{}}\n")?;
        self.link(&format!("{profile}/SingletonLock"), "some-host-4711")?;
        self.link(&format!("{profile}/SingletonCookie"), "1234567890123456789")?;
        self.link(&format!("{profile}/SingletonSocket"), "no-such-directory/SingletonSocket")
    }

    fn junk(&mut self) -> io::Result<()> {
        for _ in 0..4 {
            let (name, bytes) = (self.rng.hex(12), self.rng.bytes(2_000));
            self.file(&format!("tmp/upload-{name}.bin"), &bytes)?;
        }
        Ok(())
    }

    /// A file that nobody wrote for a while.
    fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let age = self.age();
        self.aged(path, bytes, age)
    }

    fn private(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(path, bytes)?;
        self.mode(path, 0o600)
    }

    fn aged(&self, path: &str, bytes: &[u8], age: Duration) -> io::Result<()> {
        let full = self.place(path)?;
        write_aged(&full, bytes, self.now - age).map_err(|error| told(&full, &error))
    }

    fn mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let full = self.root.join(path);
        fs::set_permissions(&full, Permissions::from_mode(mode)).map_err(|error| told(&full, &error))
    }

    fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let full = self.place(path)?;
        symlink(target, &full).map_err(|error| told(&full, &error))
    }

    fn dir(&self, path: &str) -> io::Result<()> {
        let full = self.root.join(path);
        fs::create_dir_all(&full).map_err(|error| told(&full, &error))
    }

    /// The full path, with the directories above it.
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        let full = self.root.join(path);
        let above = full.parent().unwrap_or(&self.root);
        fs::create_dir_all(above).map_err(|error| told(above, &error))?;
        Ok(full)
    }

    /// One hour to twenty days.
    fn age(&mut self) -> Duration {
        Duration::from_secs(self.rng.between(3_600, 20 * 86_400) as u64)
    }
}

fn agent_name(number: usize) -> String {
    match number {
        0 => "main".to_owned(),
        _ => format!("helper-{number}"),
    }
}

fn write_aged(path: &Path, bytes: &[u8], modified: SystemTime) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_times(FileTimes::new().set_modified(modified).set_accessed(modified))
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// A sound SQLite database without a table: one page, which is the empty root of the schema.
pub fn empty_database() -> Vec<u8> {
    const PAGE: u16 = 4096;
    let mut page = vec![0; usize::from(PAGE)];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"SQLite format 3\0");
    put(16, &PAGE.to_be_bytes());
    put(18, &[1, 1, 0, 64, 32, 32]); // Rollback journal, no reserved bytes, the three fixed fractions.
    put(24, &1u32.to_be_bytes()); // Change counter; the field at 92 must equal it for the size to count.
    put(28, &1u32.to_be_bytes()); // Size in pages.
    put(44, &4u32.to_be_bytes()); // Schema format.
    put(56, &1u32.to_be_bytes()); // UTF-8.
    put(92, &1u32.to_be_bytes());
    put(96, &3_045_001u32.to_be_bytes()); // The SQLite that last wrote it.
    put(100, &[0x0d]); // The page is a table leaf without cells, and its content begins at its end.
    put(105, &PAGE.to_be_bytes());
    page
}
