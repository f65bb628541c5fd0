//! `clawsnap list --sessions`: the conversations in an archive.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::{args, helper, list, page, say, when};
use crate::freeze::DatabaseOptions;
use crate::gate::Gate;
use crate::list::Wanted;
use crate::report::PathName;
use crate::sessions::{Found, Session, sessions};
use crate::transcript::State;

/// Columns of a line.
const WIDTH: usize = 80;

/// The sessions, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    archive_path: PathName,
    sessions: Vec<Session>,
    warnings: Vec<String>,
    /// Whether the archive was proven by the end of it.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `clawsnap list --sessions`.
pub(super) fn show(typed: &args::List, wanted: &Wanted, gate: &Arc<dyn Gate>) -> ExitCode {
    let databases = DatabaseOptions { helper: helper::command(), ..DatabaseOptions::default() };
    let mut found = Found::default();
    let error = sessions(&typed.archive, wanted, &databases, gate, &(), &mut found).err();
    let code = error.as_ref().map_or(0, list::code_of);
    let error = error.map(|error| error.to_string());
    if typed.json {
        let archive_path = PathName::from(typed.archive.as_path());
        let Found { sessions, warnings } = found;
        say::json("list", &Listing { archive_path, sessions, warnings, verified: error.is_none(), error });
        return ExitCode::from(code);
    }
    say::delivered("list", io::stdout().write_all(text(&found.sessions).as_bytes()));
    for warning in &found.warnings {
        say::complain(&format!("warning: {}", page::line(warning)));
    }
    error.map_or(ExitCode::SUCCESS, |error| say::failed(&error, code))
}

fn text(sessions: &[Session]) -> String {
    let agents = sessions.chunk_by(|one, next| one.agent == next.agent);
    agents.map(of_agent).collect::<Vec<_>>().join("\n")
}

fn of_agent(sessions: &[Session]) -> String {
    let agent = sessions.first().map(|session| page::line(&session.agent)).unwrap_or_default();
    let heading = format!("{agent}: {}\n", page::many(sessions.len() as u64, "session"));
    sessions.iter().fold(heading, |text, session| text + &two_lines(session))
}

/// When, which and how long; and what it began with.
fn two_lines(session: &Session) -> String {
    let time = when::local(&session.last_time).unwrap_or_else(|| session.last_time.clone());
    let time = time.get(..19).unwrap_or(&time);
    let records = page::many(session.records, "record");
    let mut notes = Vec::new();
    if session.state != State::Current {
        notes.push(session.state.as_str().to_owned());
    }
    if session.unparsed > 0 {
        notes.push(format!("{} not understood", page::count(session.unparsed)));
    }
    if session.fate != "kept" {
        notes.push(page::line(&session.fate));
    }
    let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
    let message = session.first_message.as_deref().map_or_else(|| "-".to_owned(), page::line);
    format!("  {time}  {}  {records}{notes}\n    {}\n", page::line(&session.id), cut(&message))
}

fn cut(message: &str) -> String {
    let room = WIDTH - "    ".len();
    match message.chars().nth(room) {
        Some(_) => message.chars().take(room - 1).chain(['…']).collect(),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(agent: &str, first_message: Option<&str>) -> Session {
        Session {
            agent: agent.to_owned(),
            id: "4f1c".to_owned(),
            path: PathName(Vec::new()),
            state: State::Reset,
            fate: "prefix".to_owned(),
            records: 1_234,
            unparsed: 2,
            first_message: first_message.map(str::to_owned),
            last_time: "1700000000.000000000".to_owned(),
        }
    }

    #[test]
    fn a_session_cannot_speak_to_the_terminal_and_keeps_to_its_line() {
        let long = format!("a\x1b[2J{}", "x".repeat(200));
        let text = text(&[session("main", Some(&long)), session("main", None), session("o\nther", None)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "main: 2 sessions");
        assert!(lines[1].ends_with("  4f1c  1,234 records  (reset, 2 not understood, prefix)"), "{text}");
        assert!(lines[2].starts_with("    a\\u{1b}[2Jxx") && lines[2].ends_with("x…"), "{text}");
        assert_eq!(lines[2].chars().count(), WIDTH);
        assert_eq!((lines[4], lines[6]), ("    -", "o\\nther: 1 session"));
    }
}
