//! The databases of an archive, checked one by one as they come along, each by a process of its own.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::desk::Desk;
use super::stranger::unproven;
use crate::error::{Error, Result};
use crate::freeze::{Check, DATABASE_MAGIC, DatabaseOptions, check_copy, may_be_database};
use crate::gate::Gate;
use crate::relpath::shown;

/// Checks databases.
pub(super) struct Databases {
    options: DatabaseOptions,
    desk: Desk,
    sound: u64,
    /// Path, and SQLite's words.
    broken: BTreeMap<Vec<u8>, String>,
}

impl Databases {
    pub(super) fn new(options: &DatabaseOptions, gate: &Arc<dyn Gate>) -> Self {
        let desk = Desk::new(gate, "set TMPDIR, or --sqlite-check off");
        Self { options: options.clone(), desk, sound: 0, broken: BTreeMap::new() }
    }

    /// Looks at an entry with contents of this length, and checks it if it is a database by the rule that archives are made by.
    ///
    /// # Errors
    /// Those of reading it; those of the temporary directory, and of the process that looks.
    pub(super) fn meet(&mut self, path: &[u8], size: u64, contents: &mut dyn Read) -> io::Result<()> {
        let unchecked = self.options.helper.is_empty() || self.options.check == Check::Off;
        if unchecked || !may_be_database(path, size) {
            return Ok(());
        }
        let mut start = Vec::new();
        contents.take(DATABASE_MAGIC.len() as u64).read_to_end(&mut start)?;
        if start != DATABASE_MAGIC {
            return Ok(());
        }
        let check = |staging: &_, place| check_copy(&self.options, staging, place);
        match self.desk.lay_out(&start, contents, check)? {
            Ok(None) => self.sound += 1,
            Ok(Some(words)) => drop(self.broken.insert(path.to_vec(), words)),
            Err(error) => return Err(self.desk.failed(error)),
        }
        Ok(())
    }

    /// What kept a database from being checked.
    pub(super) fn trouble(&mut self) -> Option<Error> {
        self.desk.trouble()
    }

    /// What nobody called sound need not be; gives SQLite's words if it is not.
    pub(super) fn forgive(&mut self, path: &[u8]) -> Option<String> {
        self.broken.remove(path)
    }

    /// How many were found sound.
    pub(super) fn checked(&self) -> u64 {
        self.sound
    }

    /// # Errors
    /// One of them is broken.
    pub(super) fn refuse_broken(&self) -> Result<()> {
        match self.broken.first_key_value() {
            None => Ok(()),
            Some((path, words)) => Err(unproven(format!("the database {} is broken: {words}", shown(path)))),
        }
    }
}
