//! The databases of an archive, checked one by one as they come along, each by a process of its own: a file that is
//! made to harm SQLite's reader shall not reach ours.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::noting::Noting;
use super::stranger::unproven;
use crate::error::{Error, Result};
use crate::freeze::{Check, DATABASE_MAGIC, DatabaseOptions, Staging, check_copy};
use crate::gate::{self, Gate, Realm};
use crate::relpath::shown;
use crate::sys::Dir;

/// Checks databases in a private temporary directory, which is made when the first one comes along.
pub(super) struct Databases {
    options: DatabaseOptions,
    gate: Arc<dyn Gate>,
    staging: Option<Arc<Staging>>,
    sound: u64,
    /// Path, and SQLite's words.
    broken: Vec<(Vec<u8>, String)>,
    /// What was wrong with the temporary directory, and not with the archive.
    trouble: Option<Error>,
}

impl Databases {
    pub(super) fn new(options: &DatabaseOptions, gate: &Arc<dyn Gate>) -> Self {
        Self {
            options: options.clone(),
            gate: Arc::clone(gate),
            staging: None,
            sound: 0,
            broken: Vec::new(),
            trouble: None,
        }
    }

    /// Looks at an entry, and checks it if it is a database.
    ///
    /// # Errors
    /// Those of reading it; those of the temporary directory.
    pub(super) fn meet(&mut self, path: &[u8], contents: &mut dyn Read) -> io::Result<()> {
        if self.options.helper.is_empty() || self.options.check == Check::Off {
            return Ok(());
        }
        let mut start = Vec::new();
        contents.take(DATABASE_MAGIC.len() as u64).read_to_end(&mut start)?;
        if start != DATABASE_MAGIC {
            return Ok(());
        }
        let mut reading = Noting::new(contents);
        let checked = self.check(&start, &mut reading);
        match checked {
            Err(error) if reading.failed || gate::is_cancelled(&error) => Err(error),
            Err(error) => {
                let failed = Error::failed("check a database in", std::env::temp_dir(), error);
                self.trouble = Some(failed.remedy("set TMPDIR, or --sqlite-check off"));
                Err(io::Error::other("a database could not be checked"))
            }
            Ok(Ok(())) => {
                self.sound += 1;
                Ok(())
            }
            Ok(Err(words)) => {
                self.broken.push((path.to_vec(), words));
                Ok(())
            }
        }
    }

    /// Copies a database to where it can be checked; SQLite's words if it is broken.
    fn check(&mut self, start: &[u8], contents: &mut dyn Read) -> io::Result<std::result::Result<(), String>> {
        let staging = self.staging()?;
        let place = staging.private()?;
        let mut copy = staging.create_file(place)?;
        copy.write_all(start)?;
        io::copy(contents, &mut copy)?;
        drop(copy);
        let verdict = check_copy(&self.options, &staging, place);
        staging.give_up(place);
        match verdict {
            Err(error) if gate::is_cancelled(&error) => Err(error),
            other => Ok(other.map_err(|error| error.to_string())),
        }
    }

    /// What kept a database from being checked.
    pub(super) fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }

    fn staging(&mut self) -> io::Result<Arc<Staging>> {
        if let Some(staging) = &self.staging {
            return Ok(Arc::clone(staging));
        }
        let dir = Dir::open(&std::env::temp_dir(), Realm::Staging, Arc::clone(&self.gate))?;
        let staging = Staging::create(&dir, 1)?;
        self.staging = Some(Arc::clone(&staging));
        Ok(staging)
    }

    /// What is said to be torn need not be sound.
    pub(super) fn forgive(&mut self, path: &[u8]) {
        self.broken.retain(|(broken, _)| broken != path);
    }

    /// How many were found sound.
    pub(super) fn checked(&self) -> u64 {
        self.sound
    }

    /// # Errors
    /// One of them is broken.
    pub(super) fn refuse_broken(&self) -> Result<()> {
        match self.broken.first() {
            None => Ok(()),
            Some((path, words)) => Err(unproven(format!("the database {} is broken: {words}", shown(path)))),
        }
    }
}
