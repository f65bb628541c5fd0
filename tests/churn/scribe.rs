//! Writes what an agent writes: session headers and messages, one JSON object a line.

use serde_json::{Value, json};

use super::rng::Rng;

const WORDS: &[&str] = &[
    "agent",
    "answer",
    "archive",
    "backup",
    "branch",
    "build",
    "calendar",
    "channel",
    "check",
    "commit",
    "config",
    "cron",
    "daily",
    "deploy",
    "draft",
    "error",
    "evening",
    "file",
    "gateway",
    "heartbeat",
    "index",
    "invoice",
    "kitchen",
    "light",
    "list",
    "log",
    "mail",
    "meeting",
    "memory",
    "message",
    "model",
    "morning",
    "note",
    "open",
    "order",
    "page",
    "photo",
    "plan",
    "please",
    "project",
    "queue",
    "read",
    "reminder",
    "report",
    "review",
    "run",
    "schedule",
    "search",
    "send",
    "server",
    "session",
    "skill",
    "status",
    "summary",
    "task",
    "test",
    "then",
    "thread",
    "today",
    "token",
    "tomorrow",
    "update",
    "weather",
    "week",
    "with",
    "workspace",
    "write",
    "für",
    "naïve",
    "完成",
];

const TOOLS: &[&str] = &["exec", "read", "write", "web_fetch", "memory_search"];

/// The author of every record. No two records of one scribe are alike, so bytes name the file they are from.
#[derive(Debug)]
pub struct Scribe {
    rng: Rng,
    now_ms: u64,
    parent: Option<String>,
}

impl Scribe {
    pub fn new(seed: u64) -> Self {
        Scribe { rng: Rng::new(seed), now_ms: 0, parent: None }
    }

    /// A whole session: its header, then messages until it has at least `size` bytes.
    pub fn session(&mut self, id: &str, size: usize) -> Vec<u8> {
        let mut text = self.header(id);
        while text.len() < size {
            text.extend(self.record());
        }
        text
    }

    pub fn header(&mut self, id: &str) -> Vec<u8> {
        self.parent = None;
        let at = self.tick();
        line(&json!({"type": "session", "version": 3, "id": id, "timestamp": at, "cwd": "workspace",
            "nonce": self.rng.hex(16)}))
    }

    /// One message, with its newline.
    pub fn record(&mut self) -> Vec<u8> {
        let message = match self.rng.below(5) {
            0 => self.user(),
            1 | 2 => self.assistant(),
            3 => self.tool_call(),
            _ => self.tool_result(),
        };
        let id = self.rng.hex(16);
        let parent = self.parent.replace(id.clone());
        line(&json!({"type": "message", "id": id, "parentId": parent, "timestamp": self.tick(), "message": message}))
    }

    /// A line that fits a log of another kind.
    pub fn event(&mut self, name: &str) -> Vec<u8> {
        let at = self.tick();
        line(&json!({"ts": at, "event": name, "id": self.rng.hex(16), "note": self.words(6)}))
    }

    pub fn words(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count).map(|_| *self.rng.pick(WORDS)).collect();
        words.join(" ")
    }

    /// The time of day moves on with every record: an ISO time in April 2026.
    pub fn tick(&mut self) -> String {
        self.now_ms += self.rng.between(3, 90_000) as u64;
        iso(self.now_ms)
    }

    fn user(&mut self) -> Value {
        let count = self.rng.between(3, 40);
        json!({"role": "user", "content": [{"type": "text", "text": self.words(count)}], "timestamp": self.now_ms})
    }

    fn assistant(&mut self) -> Value {
        let count = self.rng.between(10, 160);
        let text = self.words(count);
        self.said(json!({"type": "text", "text": text}), "stop")
    }

    fn tool_call(&mut self) -> Value {
        let (tool, count) = (*self.rng.pick(TOOLS), self.rng.between(2, 20));
        let call = json!({"type": "toolCall", "id": format!("call_{}", self.rng.hex(20)), "name": tool,
            "arguments": {"command": self.words(count), "path": format!("notes/{}.md", self.rng.hex(6))}});
        self.said(call, "toolUse")
    }

    fn said(&mut self, content: Value, stop: &str) -> Value {
        let (input, output) = (self.rng.between(200, 90_000), self.rng.between(5, 900));
        json!({"role": "assistant", "content": [content], "provider": "mock", "model": "mock-1", "stopReason": stop,
            "usage": {"input": input, "output": output, "totalTokens": input + output}, "timestamp": self.now_ms})
    }

    fn tool_result(&mut self) -> Value {
        let lines: Vec<String> = (0..self.rng.between(1, 24)).map(|_| self.listing_line()).collect();
        json!({"role": "toolResult", "toolCallId": format!("call_{}", self.rng.hex(20)),
            "toolName": *self.rng.pick(TOOLS), "isError": self.rng.percent(4),
            "content": [{"type": "text", "text": lines.join("\n")}], "timestamp": self.now_ms})
    }

    fn listing_line(&mut self) -> String {
        format!("-rw-r--r-- {:>8} {} {}", self.rng.below(10_000_000), self.rng.hex(10), self.words(2))
    }
}

/// One JSON line.
pub fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

fn iso(ms: u64) -> String {
    let (seconds, day) = (ms / 1000, ms / 86_400_000 % 30 + 1);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("2026-04-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z", seconds % 60, ms % 1000)
}
