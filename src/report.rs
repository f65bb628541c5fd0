//! What a run says about itself: one JSON object, a superset of what `openclaw backup create --json` prints.
//!
//! The same object stands in the archive as `<root>/clawsnap/report.json`; what is not known before the archive is
//! complete (its length, whether it verified, where it lies) is absent there. The exit code of the command is a pure
//! function of it: [`Report::exit_code`].

mod ran;

pub use ran::{Ran, Rollback};

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use serde::{Serialize, Serializer};

use crate::relpath::serialize_bytes;

/// The version of the archive's layout, of the inventory and of this report.
pub const FORMAT_VERSION: u32 = 1;

/// Wall time since `begun`, as reports tell it.
pub(crate) fn milliseconds_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything that was there is in the archive.
    Complete,
    /// Nothing differs from what the archive that is named was made of; nothing was written.
    Unchanged,
    /// The archive was made, with losses that are listed.
    Lossy,
    /// There is no archive; or there is one, which the report says is verified, and what was to follow failed.
    #[default]
    Failed,
    /// What was asked for makes no sense.
    Usage,
    /// The archive was made and did not prove what it holds; it was not published.
    Unproven,
    /// Another run works on the same source.
    Locked,
    /// The run was cancelled; there is no archive.
    Cancelled,
}

/// Whether everything in the archive is of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// There was a moment at which the source held exactly these names, each bound to the file that was archived.
    Instant,
    /// The tree would not rest: the names were collected over a span of time.
    Window,
}

impl Consistency {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Window => "window",
        }
    }
}

/// Bytes that name a file: in JSON a string, or `{"hex": "…"}` where they are not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathName(pub Vec<u8>);

impl PathName {
    /// The same, for the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl From<&Path> for PathName {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl Serialize for PathName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_bytes(&self.0, serializer)
    }
}

/// A source as OpenClaw's backups describe it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asset {
    /// `state`, `config`, `credentials`, `workspace`, …; `tree` for a plain source.
    pub kind: &'static str,
    /// Its absolute path.
    pub source_path: PathName,
    /// The same with the home directory as `~`.
    pub display_path: PathName,
    /// Where it is in the archive.
    pub archive_path: PathName,
}

/// Something that the plan left out, or that another source covers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// What it is.
    pub kind: String,
    /// Its absolute path.
    pub source_path: PathName,
    /// The same with the home directory as `~`.
    pub display_path: PathName,
    /// `covered`, `missing`, or the name of the rule.
    pub reason: String,
    /// The source that covers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<PathName>,
}

/// An agent's own directory.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRoot {
    /// The agent.
    pub agent_id: String,
    /// Its directory.
    pub source_path: PathName,
}

/// A symbolic link that leads out of the state directory.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalLink {
    /// Its path in the archive.
    pub entry_path: PathName,
    /// Its target.
    pub linkpath: PathName,
}

/// One name and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Fated {
    /// The absolute path in the source.
    pub path: PathName,
    /// `torn`, `hollow`, `lost`, `departed`, `later`, `prefix`, `excluded` or `folded`.
    pub fate: &'static str,
    /// The reason, or the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a database was copied.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopiedDatabase {
    /// The absolute path in the source.
    pub path: PathName,
    /// `snapshot`: what a read transaction of the instant saw. `locked`: the same, while its owner could not commit.
    /// `closed`: its files, which nobody had open. `recovered`: the same, after the crash of its owner. `raw`: bytes.
    pub way: &'static str,
    /// How its owner writes: `wal` or `rollback`.
    pub journal: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages of the copy.
    pub pages: u64,
    /// The application's own number in it.
    pub user_version: i64,
    /// `ok`, `off`, or SQLite's words.
    pub check: String,
    /// For how long its owner could not commit.
    pub locked_microseconds: u64,
}

/// Something that would not rest.
#[derive(Clone, Debug, Serialize)]
pub struct RestlessPath {
    /// The absolute path in the source.
    pub path: PathName,
    /// `names` or `contents` moved; `young`: the last change was too fresh for the next to show; `locked`: a database
    /// that its owner kept locked.
    pub why: &'static str,
}

/// A name that `openclaw backup restore` would refuse. It is in the archive all the same.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedName {
    /// The absolute path in the source.
    pub path: PathName,
    /// What is wrong with it there.
    pub why: String,
}

/// What a dry run found of one kind, to be frozen in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SurveyRow {
    /// `jsonl` for sessions and other line-oriented files, `database`, or `file`.
    pub kind: &'static str,
    /// `link`, `clone`, `hold`, `pin`, `copy` or `database`.
    pub capture: &'static str,
    /// How many.
    pub files: u64,
    /// Their contents, in bytes.
    pub bytes: u64,
}

/// Names by fate, and what was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files, symbolic links and hard links in the archive.
    pub files: u64,
    /// Directories in the archive.
    pub directories: u64,
    /// Bytes of contents in the archive.
    pub bytes: u64,
    /// Whole, as of the freeze.
    pub kept: u64,
    /// With what they had at the freeze; grown since.
    pub prefix: u64,
    /// Whole, but read after the freeze.
    pub later: u64,
    /// Left before the freeze was complete.
    pub departed: u64,
    /// Left out by a rule.
    pub excluded: u64,
    /// Logs and journals of databases, which the copies contain.
    pub folded: u64,
    /// In the archive, but not whole. A loss.
    pub torn: u64,
    /// Directories that could not be listed. A loss.
    pub hollow: u64,
    /// Not in the archive, though they should be. A loss.
    pub lost: u64,
    /// Half-written records that were set aside.
    pub tails: u64,
}

impl Counts {
    /// What counts against the run.
    pub fn losses(&self) -> u64 {
        self.torn + self.hollow + self.lost
    }
}

/// What became of the archives in a directory, by rules that say which stay.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// The directory.
    pub directory: PathName,
    /// Nothing was removed.
    pub dry_run: bool,
    /// Each archive that was looked at, the oldest first.
    pub archives: Vec<Judged>,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An archive, and why it stays or goes.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Where it lies, or lay.
    pub path: PathName,
    /// Its length.
    pub bytes: u64,
    /// It was read to its end and is equal to its inventory; what is not neither counts nor goes.
    pub proven: bool,
    /// When it was made: ISO 8601, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// What it is a backup of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Names that were lost when it was made.
    pub losses: u64,
    /// Reasons why it may lack what it should hold.
    pub gaps: u64,
    /// Why it stays; one without a reason goes.
    pub stays: Vec<String>,
    /// It was removed.
    pub removed: bool,
    /// Why it is not proven, or could not be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Pruned {
    /// The exit code of the command: 0 done, 1 failed, or something that should go could not be removed, 4 done, but an
    /// archive is not proven.
    pub fn exit_code(&self) -> u8 {
        let stuck = |judged: &Judged| judged.proven && judged.error.is_some();
        match () {
            () if self.error.is_some() || self.archives.iter().any(stuck) => 1,
            () if self.archives.iter().any(|judged| !judged.proven) => 4,
            () => 0,
        }
    }
}

/// Who is told how far a run has come, by the report as it is then: when the archive has its name, and when a command has
/// ended. What comes after that may hang, and then this is all that is known.
pub type SoFar<'a> = dyn Fn(&Report) + 'a;

/// What a run says about itself.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When the run began: ISO 8601, UTC, milliseconds.
    pub created_at: String,
    /// The one directory that everything in the archive lies in.
    pub archive_root: String,
    /// Where the archive lies, or would lie; `-` for standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_path: Option<PathName>,
    /// Nothing was written.
    pub dry_run: bool,
    /// Workspaces were wanted.
    pub include_workspace: bool,
    /// Only the config was wanted.
    pub only_config: bool,
    /// A state directory was named, and something of it that lies elsewhere was not.
    pub state_alone: bool,
    /// The archive was read back from disk and found equal to its inventory.
    pub verified: bool,
    /// The sources.
    pub assets: Vec<Asset>,
    /// OpenClaw's agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agent_roots: Vec<AgentRoot>,
    /// What was planned and is not a source of its own.
    pub skipped: Vec<Skipped>,
    /// Names that a rule left out.
    pub skipped_volatile_count: u64,
    /// What the user should know, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Those of them that say that the archive may lack what it should hold, though nothing that was found is lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
    /// Why nothing could be brought back in place if the command fails that this is made for, where that is known before it
    /// starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barred: Option<String>,
    /// Those of them that say that something of ours could not be removed: files of the source may still have a second name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
    /// Symbolic links that lead out of the state directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_symbolic_links: Vec<ExternalLink>,

    /// The version of clawsnap.
    pub version: &'static str,
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// How the run ended.
    pub outcome: Outcome,
    /// Why, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The signal that cancelled the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether everything is of one instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent: Option<Consistency>,
    /// That instant: seconds since the epoch, with nine decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instant: Option<String>,
    /// What would not rest, if there was no instant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restless: Vec<RestlessPath>,
    /// Rounds of listing and checking that the freeze took.
    pub rounds: u32,
    /// The width of the freeze, from the first look to the last, in microseconds.
    pub freeze_microseconds: u64,
    /// Names by fate.
    pub counts: Counts,
    /// Files by the way they were frozen: `link`, `clone`, `hold`, `pin`, `copy`, `database`.
    pub captures: BTreeMap<&'static str, u64>,
    /// What a dry run found, by kind and by the way it would be frozen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub survey: Vec<SurveyRow>,
    /// `zstd`, `xz`, `gzip` or `none`, with the level where one was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Length of the archive in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// BLAKE3 of the inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory_blake3: Option<String>,
    /// Lines of the inventory: entries of the archive, but for the inventory, the report and the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory_entries: Option<u64>,
    /// What counts against the run: torn, hollow and lost.
    pub losses: Vec<Fated>,
    /// Names that left before the freeze was complete.
    pub departed: Vec<Fated>,
    /// Names in the archive that moved on after the freeze: `prefix` and `later`.
    pub moved: Vec<Fated>,
    /// Names that a rule left out.
    pub excluded: Vec<Fated>,
    /// Logs and journals of databases: what they say is in the copies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folded: Vec<Fated>,
    /// The databases, and how each was copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<CopiedDatabase>,
    /// Names that OpenClaw's own restore would refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_names: Vec<RefusedName>,
    /// Bytes that are free where the archive goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Mount points at or below the sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<PathName>,
    /// What became of older archives in the same directory, where rules said which stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Pruned>,
    /// The command that was run on what was frozen, or behind its archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    /// Wall time of the run in milliseconds; in the archive, until the report was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_milliseconds: Option<u64>,
    /// The largest resident set of the process in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

impl Report {
    /// The exit code of the command: 0 complete or unchanged, 1 failed, 2 usage, 3 with losses, 4 unproven, 5 locked, 128 + the
    /// signal if cancelled by one (1 if cancelled otherwise). Where a command was run and failed, its exit code; and whatever
    /// became of it, where it was run behind its archive: that was known to have losses, and told, before.
    pub fn exit_code(&self) -> u8 {
        if let Some(ran) = self.ran.as_ref().filter(|ran| ran.code() != 0 || ran.directory.is_none()) {
            return ran.code();
        }
        match self.outcome {
            Outcome::Complete | Outcome::Unchanged => 0,
            Outcome::Failed => 1,
            Outcome::Usage => 2,
            Outcome::Lossy => 3,
            Outcome::Unproven => 4,
            Outcome::Locked => 5,
            Outcome::Cancelled => self.signal.and_then(|signal| u8::try_from(128 + signal).ok()).unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_a_function_of_the_report() {
        let code = |outcome, signal| Report { outcome, signal, ..Report::default() }.exit_code();
        for (outcome, expected) in [
            (Outcome::Complete, 0),
            (Outcome::Unchanged, 0),
            (Outcome::Failed, 1),
            (Outcome::Usage, 2),
            (Outcome::Lossy, 3),
            (Outcome::Unproven, 4),
            (Outcome::Locked, 5),
            (Outcome::Cancelled, 1),
        ] {
            assert_eq!(code(outcome, None), expected);
        }
        assert_eq!(code(Outcome::Cancelled, Some(2)), 130);
        assert_eq!(code(Outcome::Cancelled, Some(15)), 143);
    }

    #[test]
    fn a_command_that_failed_gives_its_own_exit_code_and_one_behind_its_archive_always_does() {
        let code = |outcome, exit_code, staged: bool| {
            let directory = staged.then(|| PathName(b"/stage".to_vec()));
            let ran = Some(Ran { exit_code: Some(exit_code), directory, ..Ran::default() });
            Report { outcome, ran, ..Report::default() }.exit_code()
        };
        for (outcome, exit_code, staged, expected) in [
            (Outcome::Complete, 0, true, 0),
            (Outcome::Lossy, 0, true, 3),
            (Outcome::Lossy, 7, true, 7),
            (Outcome::Lossy, 0, false, 0),
            (Outcome::Complete, 7, false, 7),
        ] {
            assert_eq!(code(outcome, exit_code, staged), expected, "{outcome:?}, {exit_code}, {staged}");
        }
    }

    #[test]
    fn every_loss_counts() {
        let counts = Counts { torn: 1, hollow: 20, lost: 300, files: 4_000, ..Counts::default() };
        assert_eq!(counts.losses(), 321);
    }

    #[test]
    fn a_directory_was_cleared_unless_it_could_not_be_read_or_something_is_stuck_or_unproven() {
        let judged = |proven, error: Option<&str>| Judged { proven, error: error.map(Into::into), ..Judged::default() };
        let code = |archives: Vec<Judged>, error: Option<&str>| {
            Pruned { archives, error: error.map(Into::into), ..Pruned::default() }.exit_code()
        };
        assert_eq!(code(vec![], None), 0);
        assert_eq!(code(vec![judged(true, None)], None), 0);
        assert_eq!(code(vec![judged(true, None), judged(false, Some("damaged"))], None), 4);
        assert_eq!(code(vec![judged(false, Some("damaged")), judged(true, Some("busy"))], None), 1);
        assert_eq!(code(vec![judged(true, None)], Some("cannot be listed")), 1);
    }

    #[test]
    fn the_fields_that_openclaw_prints_keep_their_names() {
        let json = serde_json::to_value(Report::default()).expect("serializes");
        for field in [
            "createdAt",
            "archiveRoot",
            "dryRun",
            "includeWorkspace",
            "onlyConfig",
            "verified",
            "assets",
            "skipped",
            "skippedVolatileCount",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
