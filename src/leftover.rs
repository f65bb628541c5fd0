//! What a run that died has left, and what is to be said of it.

use std::io;

use serde::Serialize;

use crate::gate;
use crate::sys;

/// How something that a run made stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It was left, and is gone now.
    Removed,
    /// It was left, and can be removed.
    Removable,
    /// The run that made it may be alive.
    Busy,
    /// It is another user's, or something else has such a name.
    Foreign,
    /// A restore that is to be completed.
    Unfinished,
    /// It was left, and cannot be removed.
    Stuck,
}

/// Something of ours in a directory.
#[derive(Debug)]
pub(crate) struct Leftover {
    /// Its name there.
    pub(crate) name: Box<[u8]>,
    /// How it stands.
    pub(crate) standing: Standing,
    /// What the kernel said, where it is stuck.
    pub(crate) reason: Option<String>,
}

impl Leftover {
    /// What came of looking at `name`; none if it is not there any more.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    pub(crate) fn of(name: &[u8], looked: io::Result<Standing>) -> io::Result<Option<Self>> {
        let (standing, reason) = match sys::if_there(looked) {
            Ok(Some(standing)) => (standing, None),
            Ok(None) => return Ok(None),
            Err(error) if gate::is_cancelled(&error) => return Err(error),
            Err(error) => (Standing::Stuck, Some(error.to_string())),
        };
        Ok(Some(Self { name: name.into(), standing, reason }))
    }
}
