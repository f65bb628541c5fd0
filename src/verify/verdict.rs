//! What verifying an archive came to.

use std::time::Instant;

use serde::Serialize;

use super::told::Told;
use crate::archive::Line;
use crate::error::{Error, Result};
use crate::report::{PathName, milliseconds_since};

/// How far an archive can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// It is complete, and equal to its inventory; or, where it has none, well-formed to its end.
    Proven,
    /// It is not what it should be: `error` names the first thing that is wrong.
    Unproven,
    /// It could not be read at all.
    #[default]
    Failed,
    /// The run was cancelled.
    Cancelled,
}

/// Who made an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// We did: it has an inventory.
    Clawsnap,
    /// `openclaw backup create` did: it has none.
    Openclaw,
}

/// What verifying an archive came to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The archive.
    pub archive_path: PathName,
    /// How far it can be trusted.
    pub trust: Trust,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The one directory that everything in it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_root: Option<String>,
    /// When it was made, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// `instant` or `window`, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent: Option<String>,
    /// Its instant, as it says itself: seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instant: Option<String>,
    /// Its length.
    pub archive_bytes: u64,
    /// Entries but for those that are about the archive.
    pub entries: u64,
    /// Bytes of their contents, by the inventory.
    pub bytes: u64,
    /// Entries that are flagged in the inventory: torn or hollow.
    pub flagged: u64,
    /// Losses that the archive's own report tells, those without an entry among them.
    pub losses: u64,
    /// Databases that SQLite found sound.
    pub databases: u64,
    /// BLAKE3 of the inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory_blake3: Option<String>,
    /// What should be known, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Wall time in milliseconds.
    pub elapsed_milliseconds: u64,
}

impl Verdict {
    pub(super) fn of(archive_path: PathName) -> Self {
        Self { archive_path, ..Self::default() }
    }

    /// The exit code: 0 proven, 1 unreadable (or cancelled; the command ends by the signal then), 4 not proven.
    pub fn exit_code(&self) -> u8 {
        match self.trust {
            Trust::Proven => 0,
            Trust::Failed | Trust::Cancelled => 1,
            Trust::Unproven => 4,
        }
    }

    /// Takes note of a line of the inventory.
    pub(super) fn count(&mut self, line: &Line) {
        self.bytes += if line.kind == "hardlink" { 0 } else { line.size };
        self.flagged += u64::from(line.fate == "torn" || line.fate == "hollow");
    }

    /// Takes over what the archive says of itself.
    pub(super) fn quote(&mut self, report: Told) {
        (self.created_at, self.consistent, self.instant) = (report.created_at, report.consistent, report.instant);
        self.losses = report.losses.len() as u64;
    }

    pub(super) fn conclude(&mut self, outcome: Result<()>, begun: Instant) {
        self.elapsed_milliseconds = milliseconds_since(begun);
        self.trust = match &outcome {
            Ok(()) => Trust::Proven,
            Err(Error::Unproven(_)) => Trust::Unproven,
            Err(Error::Cancelled) => Trust::Cancelled,
            Err(_) => Trust::Failed,
        };
        self.error = outcome.err().map(|error| error.to_string());
    }
}
