//! How OpenClaw keeps its sessions: in which files, and what a record of one says.
//!
//! Up to 2026.7 a session is a file of JSON lines, since 2026.8 it is rows in its agent's database; the records are the
//! same. Only the first message of a person is remembered of it, cut, so that memory is bounded.

use std::io::{self, BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use crate::entry::Timestamp;
use crate::lines::{LONGEST_RECORD, is_lines};

/// Characters of a message that are remembered.
const LONGEST_MESSAGE: usize = 200;

/// The words by which OpenClaw knows again what it put in front of a message itself.
const CONTEXT: &str = "⟦openclaw:ctx⟧";

/// The name of an agent's database.
const DATABASE: &[u8] = b"openclaw-agent.sqlite";

/// What became of a session by the time of the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is where OpenClaw looks for it.
    #[default]
    Current,
    /// It was deleted, and kept under another name.
    Deleted,
    /// The same, for it was begun anew.
    Reset,
    /// A copy of a session, as it was before it was compacted or changed.
    Copy,
    /// It was packed away.
    Archived,
}

impl State {
    /// Its name, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Deleted => "deleted",
            Self::Reset => "reset",
            Self::Copy => "copy",
            Self::Archived => "archived",
        }
    }

    /// By the word that OpenClaw has for it.
    pub(crate) fn of(word: &[u8]) -> Self {
        match word {
            b"deleted" => Self::Deleted,
            b"reset" => Self::Reset,
            _ => Self::Copy,
        }
    }
}

/// A file that holds sessions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Store<'a> {
    /// One session, as lines.
    Transcript { agent: &'a [u8], id: &'a [u8], state: State },
    /// All of an agent's, as rows.
    Database { agent: &'a [u8] },
}

/// What the file at `path` is among the sessions, if anything.
pub(crate) fn store(path: &[u8]) -> Option<Store<'_>> {
    let mut parts = path.rsplit(|&c| c == b'/');
    let (name, dir, agent, agents) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    match dir {
        _ if agents != b"agents" => None,
        b"agent" if name == DATABASE => Some(Store::Database { agent }),
        b"sessions" if is_lines(name) && !holds(name, b".trajectory") => {
            let at = name.windows(ENDING.len()).position(|part| part == ENDING)?;
            let (id, rest) = (&name[..at], &name[at + ENDING.len()..]);
            let word = rest.strip_prefix(b".").and_then(|rest| rest.split(|&c| c == b'.').next());
            let usual = if holds(id, b".checkpoint.") { State::Copy } else { State::Current };
            Some(Store::Transcript { agent, id, state: word.map_or(usual, State::of) })
        }
        _ => None,
    }
}

const ENDING: &[u8] = b".jsonl";

fn holds(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

/// A session in a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) summary: Summary,
}

/// What is remembered of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Records that were understood.
    pub(crate) records: u64,
    /// Others.
    pub(crate) unparsed: u64,
    /// What a person said first, as one line.
    pub(crate) first_message: Option<String>,
    /// When the latest record was made, in milliseconds since the epoch.
    pub(crate) last: Option<i64>,
}

impl Summary {
    /// Of a file of lines.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn read(input: impl Read) -> io::Result<Self> {
        let mut summary = Self::default();
        let mut input = BufReader::with_capacity(64 * 1024, input);
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.by_ref().take(LONGEST_RECORD).read_until(b'\n', &mut line)? == 0 {
                return Ok(summary);
            }
            if line.len() as u64 == LONGEST_RECORD && !line.ends_with(b"\n") {
                summary.unparsed += 1;
                input.skip_until(b'\n')?;
            } else if !line.trim_ascii().is_empty() {
                summary.take(&line);
            }
        }
    }

    /// Takes the next record.
    pub(crate) fn take(&mut self, record: &[u8]) {
        let text = String::from_utf8_lossy(record);
        let Ok(head) = serde_json::from_str::<Head>(&text) else {
            self.unparsed += 1;
            return;
        };
        self.records += 1;
        self.last = self.last.max(head.timestamp.millis());
        if self.first_message.is_none() && head.kind == "message" {
            let spoken = serde_json::from_str::<Spoken>(&text).ok();
            self.first_message = spoken.and_then(|spoken| spoken.message.by_a_person());
        }
    }
}

/// What every record has.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    timestamp: Moment,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Moment {
    Text(String),
    Millis(i64),
    #[default]
    None,
    Strange(serde::de::IgnoredAny),
}

impl Moment {
    fn millis(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
            Self::Millis(millis) => Some(*millis),
            Self::None | Self::Strange(_) => None,
        }
    }
}

/// A record of something that was said.
#[derive(Deserialize)]
struct Spoken {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A text, or something else, as a picture.
#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

impl Message {
    /// What a person said, if it is that and if they said anything.
    fn by_a_person(self) -> Option<String> {
        if self.role != "user" {
            return None;
        }
        let text = match self.content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect::<Vec<_>>().join(" "),
        };
        Some(one_line(own_words(&text))).filter(|line| !line.is_empty())
    }
}

/// A message without what OpenClaw put in front of it: when it came, from whom, and what it answers.
fn own_words(message: &str) -> &str {
    let mut rest = without_time(message.trim_start());
    while let Some(after) = past_context(rest) {
        rest = after.trim_start();
    }
    without_time(rest)
}

/// `[Wed 2026-11-25 02:13 UTC] `
fn without_time(text: &str) -> &str {
    const SHAPE: &[u8] = b"[aaa dddd-dd-dd dd:dd";
    let fits = |(&shape, c): (&u8, &u8)| match shape {
        b'a' => c.is_ascii_alphabetic(),
        b'd' => c.is_ascii_digit(),
        literal => *c == literal,
    };
    let fits = text.len() > SHAPE.len() && SHAPE.iter().zip(text.as_bytes()).all(fits);
    let after = if fits { text.split_once(']') } else { None };
    after.map_or(text, |(_, after)| after.trim_start())
}

/// What follows a block of context: a heading, and JSON between fences or lines up to an empty one.
fn past_context(text: &str) -> Option<&str> {
    let (heading, rest) = text.split_once('\n')?;
    let heading = heading.trim_end();
    let is_marked = heading.ends_with(CONTEXT);
    let is_named = heading.contains("(untrusted") && heading.ends_with(':');
    match rest.strip_prefix("```json") {
        Some(fenced) if is_marked || is_named => fenced.split_once("\n```").map(|(_, after)| after),
        None if is_marked => rest.split_once("\n\n").map(|(_, after)| after),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
    words.flat_map(str::chars).take(LONGEST_MESSAGE).collect()
}

/// A moment as the inventory writes it.
pub(crate) fn written_millis(millis: i64) -> String {
    Timestamp::from_nanos(i128::from(millis) * 1_000_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(lines: &[u8]) -> Summary {
        Summary::read(lines).expect("reads")
    }

    fn said(text: &str) -> Option<String> {
        let content = serde_json::json!({ "type": "message", "message": { "role": "user", "content": text } });
        summary(content.to_string().as_bytes()).first_message
    }

    #[test]
    fn a_session_is_known_by_its_place_and_name() {
        let file = |id: &'static str, state| Some(Store::Transcript { agent: b"main", id: id.as_bytes(), state });
        for (path, expected) in [
            ("/s/agents/main/sessions/a.jsonl", file("a", State::Current)),
            ("/s/agents/main/sessions/a.jsonl.deleted.2026-11-25T01-02-03.000Z", file("a", State::Deleted)),
            ("/s/agents/main/sessions/a.jsonl.reset.1", file("a", State::Reset)),
            ("/s/agents/main/sessions/a.jsonl.bak.1", file("a", State::Copy)),
            ("/s/agents/main/sessions/a.checkpoint.b.jsonl", file("a.checkpoint.b", State::Copy)),
            ("/s/agents/main/agent/openclaw-agent.sqlite", Some(Store::Database { agent: b"main" })),
            ("/s/agents/main/sessions/a.trajectory.jsonl", None),
            ("/s/agents/main/sessions/sessions.json", None),
            ("/s/agents/main/sessions/deep/a.jsonl", None),
            ("/s/logs/a.jsonl", None),
            ("a.jsonl", None),
        ] {
            assert_eq!(store(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn the_first_message_of_a_person_and_the_time_of_the_latest_record_are_found() {
        let lines = br#"{"type":"session","id":"a","timestamp":"2026-11-25T02:13:20.516Z"}
{"type":"message","timestamp":"2026-11-25T02:13:21Z","message":{"role":"assistant","content":"not I"}}
{"type":"message","message":{"role":"user","content":[{"type":"image","data":"x"}]}}

{"type":"message","timestamp":1795572802000,"message":{"role":"user","content":[{"type":"text","text":"hi\n there"}]}}
{"type":"message","timestamp":"soon","message":{"role":"user","content":"second"}}
"#;
        let found = summary(lines);
        assert_eq!((found.records, found.unparsed), (5, 0));
        assert_eq!(found.first_message.as_deref(), Some("hi there"));
        assert_eq!(found.last.map(written_millis).as_deref(), Some("1795572802.000000000"));
    }

    #[test]
    fn what_is_no_record_is_counted_and_never_an_error() {
        let mut lines = b"{\"type\":\"session\"}\n{\"type\":\n[]\n7\n\xff\xfe\n{\"no\":\"type\"}\n".to_vec();
        lines.extend(std::iter::repeat_n(b'x', usize::try_from(LONGEST_RECORD).expect("fits") + 9));
        lines.extend(
            b"\n{\"type\":\"message\",\"message\":{\"role\":\"user\",\"content\":\"a \xff b\"}}\n{\"type\":\"mess",
        );
        let found = summary(&lines);
        assert_eq!((found.records, found.unparsed), (2, 7));
        assert_eq!(found.first_message.as_deref(), Some("a \u{fffd} b"));
    }

    #[test]
    fn what_openclaw_put_in_front_of_a_message_is_left_out() {
        for (message, expected) in [
            ("[Wed 2026-11-25 02:13 UTC] hi", "hi"),
            ("[see 1] hi", "[see 1] hi"),
            (
                "Conversation info (untrusted metadata):\n```json\n{\"a\":1}\n```\n\nSender (untrusted metadata):\n\
                 ```json\n{}\n```\n\n[Wed 2026-11-25 02:13 UTC] hi\nthere",
                "hi there",
            ),
            ("Conversation: ⟦openclaw:ctx⟧\n```json\n{}\n```\nhi", "hi"),
            ("Sender: ⟦openclaw:ctx⟧\nname: x\n\nhi", "hi"),
            ("Rules (untrusted metadata):\nhi", "Rules (untrusted metadata): hi"),
        ] {
            assert_eq!(said(message).as_deref(), Some(expected), "{message}");
        }
        assert_eq!(said("  \n "), None);
    }

    #[test]
    fn a_long_message_is_cut() {
        assert_eq!(said(&"ä ".repeat(1000)).map(|line| line.chars().count()), Some(LONGEST_MESSAGE));
    }
}
