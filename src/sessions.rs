//! The sessions in an archive, for somebody who looks for a conversation.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::archive::{Line, source_path};
use crate::error::Result;
use crate::event::Observer;
use crate::freeze::{DATABASE_MAGIC, DatabaseOptions, sessions_in};
use crate::gate::Gate;
use crate::list::Wanted;
use crate::relpath::{joined, shown};
use crate::report::PathName;
use crate::transcript::{State, Store, Stored, Summary, store, written_millis};
use crate::verify::{Desk, Guest, Met, read_ours};

/// One session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Whose it is.
    pub agent: String,
    /// Its id.
    pub id: String,
    /// The absolute path, where it was backed up, of the file that holds it: its own, or its agent's database.
    pub path: PathName,
    /// What became of it by then.
    pub state: State,
    /// What became of that file when it was backed up.
    pub fate: String,
    /// Records that it has.
    pub records: u64,
    /// What could not be understood as a record.
    pub unparsed: u64,
    /// What a person said first in it, as one line, cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_message: Option<String>,
    /// When its latest record was made: seconds since the epoch, with nine decimals.
    pub last_time: String,
}

/// The sessions of an archive, each agent's together, the latest last.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// All that are wanted.
    pub sessions: Vec<Session>,
    /// What no sessions could be read from, and why.
    pub warnings: Vec<String>,
}

/// Finds the sessions in an archive of ours. Those that were `found` may be wrong, or not all, unless this returns
/// without an error.
///
/// Memory is bounded but for some hundreds of bytes a session. Databases of agents are written to a private temporary
/// directory, one at a time, and read there by processes of their own.
///
/// # Errors
/// Those of [`list`](crate::list::list); those of the temporary directory.
pub fn sessions(
    archive: &Path,
    wanted: &Wanted,
    databases: &DatabaseOptions,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    found: &mut Found,
) -> Result<()> {
    let desk = Desk::new(gate, "set TMPDIR");
    let mut seeker = Seeker { wanted, databases, desk, found, fates: HashMap::new(), read: HashMap::new() };
    let proof = read_ours(archive, gate, observer, &mut seeker);
    seeker.conclude();
    if let Some(trouble) = seeker.desk.trouble() {
        return Err(trouble);
    }
    proof.map(|_| ())
}

struct Seeker<'a> {
    wanted: &'a Wanted,
    databases: &'a DatabaseOptions,
    desk: Desk,
    found: &'a mut Found,
    /// Of the files that hold sessions and were not simply kept.
    fates: HashMap<Vec<u8>, String>,
    /// Where among those that were found the session of a file is.
    read: HashMap<Vec<u8>, usize>,
}

impl Guest for Seeker<'_> {
    fn entry(&mut self, met: Met<'_>, contents: &mut dyn Read) -> io::Result<()> {
        let path = source_path(met.path).to_vec();
        match store(&path) {
            Some(Store::Transcript { agent, id, state }) if matches!(met.kind, "file" | "hardlink") => {
                let id = String::from_utf8_lossy(id).into_owned();
                match met.link {
                    _ if !self.fits(&path, &id) => {}
                    Some(link) => self.keep_again(&path, agent, (id, state), source_path(link)),
                    None => {
                        let summary = Summary::read(contents)?;
                        self.read.insert(path.clone(), self.found.sessions.len());
                        self.keep(&path, agent, Stored { id, state, summary }, || met.mtime.to_string());
                    }
                }
                Ok(())
            }
            Some(Store::Database { agent }) if met.kind == "file" => self.read_database(&path, agent, &met, contents),
            _ => Ok(()),
        }
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        let path = source_path(&line.path.bytes().unwrap_or_default()).to_vec();
        if line.fate != "kept" && store(&path).is_some() {
            self.fates.insert(path, line.fate.clone());
        }
        Ok(())
    }
}

impl Seeker<'_> {
    /// A pattern may fit the file, or the session as if it lay below it.
    fn fits(&self, path: &[u8], id: &str) -> bool {
        self.wanted.fits(path) || self.wanted.fits(&joined(path, id.as_bytes()))
    }

    fn keep(&mut self, path: &[u8], agent: &[u8], stored: Stored, otherwise: impl Fn() -> String) {
        let Stored { id, state, summary } = stored;
        self.found.sessions.push(Session {
            agent: String::from_utf8_lossy(agent).into_owned(),
            id,
            path: PathName(path.to_vec()),
            state,
            fate: "kept".to_owned(),
            records: summary.records,
            unparsed: summary.unparsed,
            first_message: summary.first_message,
            last_time: summary.last.map_or_else(otherwise, written_millis),
        });
    }

    /// Another name of a file whose session was read, if its first name is one that is wanted, too.
    fn keep_again(&mut self, path: &[u8], agent: &[u8], (id, state): (String, State), first: &[u8]) {
        match self.read.get(first).and_then(|at| self.found.sessions.get(*at)) {
            Some(read) => {
                let (agent, fate) = (String::from_utf8_lossy(agent).into_owned(), "kept".to_owned());
                let session = Session { agent, id, state, path: PathName(path.to_vec()), fate, ..read.clone() };
                self.found.sessions.push(session);
            }
            None => self.found.warnings.push(format!(
                "the session in {} is not shown: its contents are those of {}, which must be named too",
                shown(path),
                shown(first)
            )),
        }
    }

    fn read_database(&mut self, path: &[u8], agent: &[u8], met: &Met<'_>, contents: &mut dyn Read) -> io::Result<()> {
        let mut start = Vec::new();
        contents.take(DATABASE_MAGIC.len() as u64).read_to_end(&mut start)?;
        let mut all = Vec::new();
        let read = if start == DATABASE_MAGIC {
            let tell = &mut |stored: Stored| all.push(stored);
            self.desk.lay_out(&start, contents, |staging, place| sessions_in(self.databases, staging, place, tell))?
        } else {
            Err(io::Error::other("it is no database"))
        };
        if let Err(error) = read {
            self.found.warnings.push(format!("the sessions in {} could not be read: {error}", shown(path)));
        }
        for stored in all {
            if self.fits(path, &stored.id) {
                self.keep(path, agent, stored, || met.mtime.to_string());
            }
        }
        Ok(())
    }

    fn conclude(&mut self) {
        for session in &mut self.found.sessions {
            if let Some(fate) = self.fates.get(&session.path.0) {
                session.fate.clone_from(fate);
            }
        }
        let moment = |session: &Session| {
            let (seconds, nanos) = session.last_time.split_once('.').unwrap_or((&session.last_time, "0"));
            (seconds.parse::<i64>().unwrap_or_default(), nanos.to_owned())
        };
        self.found.sessions.sort_by_cached_key(|session| (session.agent.clone(), moment(session), session.id.clone()));
    }
}
