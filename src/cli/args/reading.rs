//! What is typed to read archives: to verify, to restore, to list.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{Waiting, checks};
use crate::freeze::Check;

/// What to verify.
#[derive(Args, Debug)]
#[command(after_help = "\
Archives of clawsnap are held against their inventory, entry by entry; those of `openclaw backup create` carry none,
and are held against OpenClaw's rules. Nothing is written but databases, one at a time, in a private
directory; an archive that is not proven loses the note that it was.

Exit codes:
  0 proven   1 cannot be read   4 not proven   128+n ended by signal n")]
pub(in crate::cli) struct Verify {
    /// The archives
    #[arg(value_name = "ARCHIVE", required = true)]
    pub(in crate::cli) archives: Vec<PathBuf>,

    /// How databases are checked: quick, full (indexes too) or off
    #[arg(long, value_name = "HOW", default_value = "quick", value_parser = checks())]
    pub(in crate::cli) sqlite_check: Check,

    /// Allow an archive to unpack to any multiple of its length
    #[arg(long)]
    pub(in crate::cli) any_ratio: bool,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say nothing unless an archive is not proven
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

/// What to restore.
#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("where").required(true).args(["target", "in_place", "undo"])),
    after_help = "\
Into a new directory, each name by the absolute path that it had; DIR must not exist, or be empty, and gets its name only
when the whole archive is proven:
  clawsnap restore a.tar.zst -t /tmp/back
  clawsnap restore a.tar.zst 4f1c -t /tmp/one            the session whose number begins so
  clawsnap restore a.tar.zst '**/workspace/*.md' -t /tmp/notes

In place, OpenClaw's state to where yours is now. It is made beside what is there, proven, and exchanged in one step; what
was there is kept as NAME.before-restore-TIME, and the command that goes back is printed. With a PATH, what fits is put
among what is there, and what it replaces is kept. Stop the gateway first:
  clawsnap restore a.tar.zst --in-place
  clawsnap restore a.tar.zst 4f1c --in-place
  clawsnap restore a.tar.zst --in-place --map /home/old/notes=/home/new/notes
  clawsnap restore --undo ~/notes.before-restore-20261125T015233Z

Exit codes:
  0 restored as it was   1 failed, nothing restored   2 usage   3 restored, with differences or flagged names
  4 the archive is not proven, nothing restored   128+n ended by signal n"
)]
pub(in crate::cli) struct Restore {
    /// The archive
    #[arg(value_name = "ARCHIVE", required_unless_present = "undo")]
    pub(in crate::cli) archive: Option<PathBuf>,

    /// Restore only what fits one of these, and what lies below: a path, a glob, or the start of a session's number
    #[arg(value_name = "PATH|GLOB|ID")]
    pub(in crate::cli) patterns: Vec<String>,

    /// The directory to restore into
    #[arg(short, long, value_name = "DIR")]
    pub(in crate::cli) target: Option<PathBuf>,

    /// Restore to where it came from, OpenClaw's state to where yours is
    #[arg(long)]
    pub(in crate::cli) in_place: bool,

    /// Bring back what restores in place have kept; done twice it is not done
    #[arg(long, value_name = "KEPT", num_args = 1.., conflicts_with_all = ["archive", "patterns", "map", "tails"])]
    pub(in crate::cli) undo: Vec<PathBuf>,

    /// What was at OLD goes to NEW, with all that lies below (repeatable)
    #[arg(long, value_name = "OLD=NEW")]
    pub(in crate::cli) map: Vec<OsString>,

    /// In place although the gateway runs, somebody has files open there, or there seems to be too little room
    #[arg(long, conflicts_with = "target")]
    pub(in crate::cli) force: bool,

    /// Half-written records that were set aside as well, each as FILE.tail
    #[arg(long)]
    pub(in crate::cli) tails: bool,

    /// Give DIR its name without waiting for the disk: after a power cut it may be there with empty files
    #[arg(long, requires = "target")]
    pub(in crate::cli) no_sync: bool,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// Do not ask about names that the archive says are not whole
    #[arg(short, long)]
    pub(in crate::cli) yes: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say nothing unless something is different, should be known or fails
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

/// What to list.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A pattern is a path, or a glob of one, and what lies below; one that begins with no slash may begin anywhere:
  clawsnap list a.tar.zst agents/main/sessions
  clawsnap list a.tar.zst '*.sqlite' --json
  clawsnap list a.tar.zst --sessions
  clawsnap list a.tar.zst --sessions agents/main '4f1c*'

Sessions are shown agent by agent, the latest last. A pattern fits the path of the file that they are in, or their id.

Exit codes:
  0 listed, and proven   1 cannot be read   2 usage   4 not proven: what was listed may be wrong")]
pub(in crate::cli) struct List {
    /// The archive
    #[arg(value_name = "ARCHIVE")]
    pub(in crate::cli) archive: PathBuf,

    /// List only what fits one of these
    #[arg(value_name = "PATH|GLOB")]
    pub(in crate::cli) patterns: Vec<String>,

    /// The conversations in it, instead: when each was last written to, its id, its length, and what was said first
    #[arg(long)]
    pub(in crate::cli) sessions: bool,

    /// What was lost when it was made, instead
    #[arg(long, conflicts_with = "sessions")]
    pub(in crate::cli) losses: bool,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
