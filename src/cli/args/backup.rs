//! What is typed to back up: into an archive, before a command, for a command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{EXAMPLES, Waiting, checks};
use crate::archive::Compression;
use crate::cli::keep::Keep;
use crate::cli::{duration, helper};
use crate::freeze::{Check, DatabaseOptions, Mode, Options};

/// How to back up.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    pub(in crate::cli) what: What,

    #[command(flatten)]
    pub(in crate::cli) archive: Archive,

    #[command(flatten)]
    pub(in crate::cli) freezing: Freezing,

    /// Do not read the archive back before it gets its name
    #[arg(long)]
    pub(in crate::cli) no_verify: bool,

    /// Read the archive back before it gets its name; this is the default
    #[arg(long, conflicts_with = "no_verify")]
    pub(in crate::cli) verify: bool,

    /// Write nothing if nothing differs from the newest archive in the output directory that was made so
    #[arg(long, conflicts_with = "no_verify")]
    pub(in crate::cli) if_changed: bool,

    /// Write nothing: say what would be archived and find what is in the way
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    #[command(flatten)]
    pub(in crate::cli) priority: Priority,

    #[command(flatten)]
    pub(in crate::cli) unattended: Unattended,

    // Last, as its heading is that of all that follows.
    #[command(flatten)]
    pub(in crate::cli) keep: Keep,
}

/// What to do once there is an archive.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Makes an archive as create does, reads it back from disk, and runs COMMAND when that has its name. If COMMAND \
was started and fails, or is interrupted, the command that brings everything back is printed, or run at once with \
--rollback; what COMMAND left is kept as NAME.before-restore-TIME. No second name of ours is left when COMMAND starts.

  clawsnap guard -o ~/backups/ -- npm install -g openclaw@latest
  clawsnap guard -o ~/backups/ --rollback -- openclaw doctor --fix

Exit codes: that of COMMAND (126 it cannot be run, 127 not found, 128+n ended by signal n), or, if it was not started:
  1 failed, no archive   2 usage   3 an archive with losses is there (see --despite-losses)
  4 the archive did not prove   5 another run backs up the same source   127 COMMAND is not found")]
pub(in crate::cli) struct Guard {
    #[command(flatten)]
    pub(in crate::cli) what: What,

    /// The command to run once the archive is proven, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<OsString>,

    /// If the command fails, bring back at once what was there before
    #[arg(long)]
    pub(in crate::cli) rollback: bool,

    /// Run the command even if names were lost when the archive was made
    #[arg(long)]
    pub(in crate::cli) despite_losses: bool,

    #[command(flatten)]
    pub(in crate::cli) archive: Archive,

    #[command(flatten)]
    pub(in crate::cli) freezing: Freezing,

    #[command(flatten)]
    pub(in crate::cli) unattended: Unattended,

    // Last, as its heading is that of all that follows.
    #[command(flatten)]
    pub(in crate::cli) keep: Keep,
}

/// What to run in the frozen tree.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Freezes, lays the frozen tree out beside the source, runs COMMAND in it, and removes it again. COMMAND must only read: \
large files that nobody wrote to lately are second names of the live ones. The directory has the same name each time, so \
that restic and borg find each file again.

  clawsnap stage -- restic -r /srv/restic backup . --ignore-inode
  clawsnap stage -- borg create --files-cache mtime,size /srv/borg::{now} .
  clawsnap stage -- rclone copy . remote:claw
  clawsnap stage ~/notes -- rsync -a --delete ./ backup:notes/

COMMAND is told CLAWSNAP_ROOT (the directory that it is in), CLAWSNAP_SOURCE (what that stands for: the deepest \
directory that holds all sources) and CLAWSNAP_REPORT (a file with the report, as JSON).

Exit codes: that of COMMAND where it is not 0 (126 it cannot be run, 127 not found, 128+n ended by signal n), else
  0 done   3 done, but names were lost, or files were written to while COMMAND ran: they are listed
  1 failed   2 usage   5 another run backs up the same source   127 COMMAND is not found")]
pub(in crate::cli) struct Stage {
    #[command(flatten)]
    pub(in crate::cli) what: What,

    /// The command to run in the frozen tree, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<OsString>,

    #[command(flatten)]
    pub(in crate::cli) freezing: Freezing,

    #[command(flatten)]
    pub(in crate::cli) priority: Priority,

    #[command(flatten)]
    pub(in crate::cli) unattended: Unattended,
}

/// What is backed up.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct What {
    /// Directories or files to back up [default: OPENCLAW_STATE_DIR, else ~/.openclaw, with its workspaces]
    #[arg(value_name = "SOURCE")]
    pub(in crate::cli) sources: Vec<PathBuf>,

    /// Leave out what matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(in crate::cli) exclude: Vec<String>,

    /// Leave out what matches a line of FILE (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) exclude_from: Vec<PathBuf>,

    /// Keep what OpenClaw can make again: package directories, caches, pid, lock and temporary files
    #[arg(long)]
    pub(in crate::cli) include_regenerable: bool,

    /// Back up OpenClaw's config alone
    #[arg(long)]
    pub(in crate::cli) only_config: bool,

    /// Leave the agents' workspaces out
    #[arg(long)]
    pub(in crate::cli) no_include_workspace: bool,
}

/// Where the archive goes, and how it is compressed.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Archive {
    /// Where the archive goes: a file, a directory, or - for standard output [default: the current directory, or the
    /// home directory where the current one is being backed up]
    #[arg(short, long, value_name = "PATH|DIR|-")]
    pub(in crate::cli) output: Option<PathBuf>,

    /// zstd, xz, gzip or none, with a level as in zstd:9 [default: by the ending of --output, else zstd]
    #[arg(long, value_name = "C")]
    pub(in crate::cli) compress: Option<Compression>,
}

/// How the source is held still.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Freezing {
    /// How files are held still
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = modes())]
    pub(in crate::cli) freeze: Mode,

    /// How long to wait for the tree to rest, as 500ms, 2s or 1m; 0 does not wait
    #[arg(long, value_name = "DUR", default_value = "2s", value_parser = duration::settle)]
    pub(in crate::cli) settle: Duration,

    /// What was modified within this time may be written to at any moment; at least 1s
    #[arg(long, value_name = "DUR", default_value = "5m", value_parser = duration::at_least_a_second)]
    pub(in crate::cli) hot_window: Duration,

    /// How long to wait for the lock of a database's owner, as 500ms, 5s or 1m
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = duration::settle)]
    pub(in crate::cli) sqlite_timeout: Duration,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// How copies of databases are checked: quick, full (indexes too) or off
    #[arg(long, value_name = "HOW", default_value = "quick", value_parser = checks())]
    pub(in crate::cli) sqlite_check: Check,
}

/// Who goes first.
#[derive(Args, Clone, Copy, Debug)]
pub(in crate::cli) struct Priority {
    /// Let other programs have the processor first, and as far as that goes by it, the disk
    #[arg(long)]
    pub(in crate::cli) nice: bool,

    /// Use the disk only while nobody else does, by ionice(1); not every disk scheduler knows the difference
    #[arg(long)]
    pub(in crate::cli) ionice: bool,
}

/// What nobody need watch.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Unattended {
    /// How long to wait while another run backs up the same source, as 30s or 10m; 0 does not wait
    #[arg(long, value_name = "DUR", default_value = "0", value_parser = duration::settle)]
    pub(in crate::cli) wait: Duration,

    /// Add a line with the time and the outcome to FILE, and one for each warning and loss
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) log: Option<PathBuf>,

    /// Have a shell run CMD if it ended with exit code 0; the report is on its standard input, as JSON
    #[arg(long, value_name = "CMD")]
    pub(in crate::cli) on_success: Option<String>,

    /// The same if it ended with any other
    #[arg(long, value_name = "CMD")]
    pub(in crate::cli) on_failure: Option<String>,

    /// Print the report as one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say nothing unless something is lost, may be missing, or fails
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

impl Freezing {
    /// How the freeze shall be done.
    pub(in crate::cli) fn options(&self) -> Options {
        let (timeout, check) = (self.sqlite_timeout, self.sqlite_check);
        let databases = DatabaseOptions { helper: helper::command(), timeout, check };
        let (mode, settle, hot_window) = (self.freeze, self.settle, self.hot_window);
        Options { mode, settle, hot_window, databases, ..Options::default() }
    }
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(["auto", "link", "clone", "copy"]).try_map(|name| name.parse::<Mode>())
}
