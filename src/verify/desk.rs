//! Where databases of an archive are laid out, one at a time, for a process of their own to look at: a file that is made
//! to harm SQLite's reader shall not reach ours.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::Noting;
use crate::error::Error;
use crate::freeze::{Staged, Staging};
use crate::gate::{self, Gate, Realm};
use crate::sys::Dir;

/// A private temporary directory, which is made when the first database comes along.
pub(crate) struct Desk {
    gate: Arc<dyn Gate>,
    remedy: &'static str,
    staging: Option<Arc<Staging>>,
    trouble: Option<Error>,
}

impl Desk {
    /// Where it cannot be had, the `remedy` is told.
    pub(crate) fn new(gate: &Arc<dyn Gate>, remedy: &'static str) -> Self {
        Self { gate: Arc::clone(gate), remedy, staging: None, trouble: None }
    }

    /// Lays out what has this start and these further contents, for as long as `look` takes, and gives what that found.
    ///
    /// # Errors
    /// Those of reading it; the cancellation of the run; trouble with the directory, which is kept for [`trouble`].
    ///
    /// [`trouble`]: Self::trouble
    pub(crate) fn lay_out<T>(
        &mut self,
        start: &[u8],
        contents: &mut dyn Read,
        look: impl FnOnce(&Staging, Staged) -> io::Result<T>,
    ) -> io::Result<io::Result<T>> {
        let mut reading = Noting::new(contents);
        let found = self.laid_out(start, &mut reading, look);
        match found {
            Err(error) if reading.failed || gate::is_cancelled(&error) => Err(error),
            Err(error) => Err(self.failed(error)),
            Ok(Err(error)) if gate::is_cancelled(&error) => Err(error),
            Ok(found) => Ok(found),
        }
    }

    fn laid_out<T>(
        &mut self,
        start: &[u8],
        contents: &mut dyn Read,
        look: impl FnOnce(&Staging, Staged) -> io::Result<T>,
    ) -> io::Result<io::Result<T>> {
        let staging = self.staging()?;
        let place = staging.private()?;
        let mut copy = staging.create_file(place)?;
        copy.write_all(start)?;
        io::copy(contents, &mut copy)?;
        drop(copy);
        let found = look(&staging, place);
        staging.give_up(place);
        Ok(found)
    }

    fn staging(&mut self) -> io::Result<Arc<Staging>> {
        if let Some(staging) = &self.staging {
            return Ok(Arc::clone(staging));
        }
        let dir = Dir::open(&std::env::temp_dir(), Realm::Staging, Arc::clone(&self.gate))?;
        let staging = Staging::create(&dir, 1, None)?;
        self.staging = Some(Arc::clone(&staging));
        Ok(staging)
    }

    /// Keeps what went wrong here, and not with the archive, for [`trouble`](Self::trouble); what ends the reading.
    pub(crate) fn failed(&mut self, error: io::Error) -> io::Error {
        let failed = Error::failed("look at a database in", std::env::temp_dir(), error);
        self.trouble = Some(failed.remedy(self.remedy));
        io::Error::other("a database could not be looked at")
    }

    /// What went wrong here, and not with the archive.
    pub(crate) fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}
