//! What was typed. What it means is decided in [`intent`](super::intent).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand};

use super::keep::Keep;
use super::{duration, helper};
use crate::archive::Compression;
use crate::freeze::{Check, DatabaseOptions, Mode, Options};

pub(super) const EXAMPLES: &str = "\
Examples:
  clawsnap create                          OpenClaw's state, into the current directory
  clawsnap create -o /backup/              under a name with the time, into /backup
  clawsnap create -o today.tar.xz          compressed by the ending of the name
  clawsnap create ~/notes -o notes.tar     any directory, not compressed
  clawsnap create -o - | ssh host 'cat > claw.tar.zst'
  clawsnap create --dry-run                what would be archived, and what is in the way
  clawsnap verify today.tar.xz             whether it is what it should be
  clawsnap restore today.tar.xz -t back    brings it back, into a new directory
  clawsnap restore today.tar.xz --in-place in the place of what is there, which is kept
  clawsnap create -o /backup/ --keep-daily 7 --keep-weekly 4
                                           and older ones of the same source go
  clawsnap status /backup --max-age 26h    whether there is a fresh one

Exit codes of create:
  0 complete, or unchanged   1 failed, no archive   2 usage   3 archive made, with losses that are listed
  4 made, but not what was written: not published   5 another run backs up the same source
  128+n ended by signal n";

/// A whole command line.
#[derive(Debug, Parser)]
#[command(name = "clawsnap", version, about, arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct Typed {
    /// What to do.
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Back up a state directory while its owner keeps running
    Create(Box<Create>),
    /// Read archives to their end and prove that they are what they should be
    Verify(Verify),
    /// Say what is in an archive, proving it on the way
    List(List),
    /// Bring back what is in an archive, or a part of it: into a new directory, or in place
    Restore(Restore),
    /// Remove archives from a directory by rules that say which stay
    Prune(Prune),
    /// Say how fresh and sound the archives in a directory are
    Status(Status),
    /// Show and remove what runs that were killed have left
    Sweep(Sweep),
    /// Print a script that has a shell complete what is typed
    Completions(Completions),
    /// Print the manual page, or that of one command
    Man(Manual),
    /// Copy one database, for a process that asks for it
    #[command(name = helper::NAME, hide = true)]
    Database,
}

/// How to back up.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Create {
    /// Directories or files to back up [default: OPENCLAW_STATE_DIR, else ~/.openclaw, with its workspaces]
    #[arg(value_name = "SOURCE")]
    pub(super) sources: Vec<PathBuf>,

    /// Where the archive goes: a file, a directory, or - for standard output [default: the current directory, or the
    /// home directory where the current one is being backed up]
    #[arg(short, long, value_name = "PATH|DIR|-")]
    pub(super) output: Option<PathBuf>,

    /// zstd, xz, gzip or none, with a level as in zstd:9 [default: by the ending of --output, else zstd]
    #[arg(long, value_name = "C")]
    pub(super) compress: Option<Compression>,

    /// Leave out what matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,

    /// Leave out what matches a line of FILE (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(super) exclude_from: Vec<PathBuf>,

    /// Keep what OpenClaw can make again: package directories, caches, pid, lock and temporary files
    #[arg(long)]
    pub(super) include_regenerable: bool,

    /// Back up OpenClaw's config alone
    #[arg(long)]
    pub(super) only_config: bool,

    /// Leave the agents' workspaces out
    #[arg(long)]
    pub(super) no_include_workspace: bool,

    /// How files are held still
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = modes())]
    pub(super) freeze: Mode,

    /// How long to wait for the tree to rest, as 500ms, 2s or 1m; 0 does not wait
    #[arg(long, value_name = "DUR", default_value = "2s", value_parser = duration::settle)]
    pub(super) settle: Duration,

    /// What was modified within this time may be written to at any moment; at least 1s
    #[arg(long, value_name = "DUR", default_value = "5m", value_parser = duration::hot_window)]
    pub(super) hot_window: Duration,

    /// How long to wait for the lock of a database's owner, as 500ms, 5s or 1m
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = duration::settle)]
    pub(super) sqlite_timeout: Duration,

    /// How copies of databases are checked: quick, full (indexes too) or off
    #[arg(long, value_name = "HOW", default_value = "quick", value_parser = checks())]
    pub(super) sqlite_check: Check,

    /// Do not read the archive back before it gets its name
    #[arg(long)]
    pub(super) no_verify: bool,

    /// Read the archive back before it gets its name; this is the default
    #[arg(long, conflicts_with = "no_verify")]
    pub(super) verify: bool,

    /// Write nothing if nothing differs from the newest archive in the output directory that was made so
    #[arg(long, conflicts_with = "no_verify")]
    pub(super) if_changed: bool,

    /// How long to wait while another run backs up the same source, as 30s or 10m; 0 does not wait
    #[arg(long, value_name = "DUR", default_value = "0", value_parser = duration::settle)]
    pub(super) wait: Duration,

    /// Add a line with the time and the outcome to FILE, and one for each warning and loss
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,

    /// Let other programs have the processor first, and as far as that goes by it, the disk
    #[arg(long)]
    pub(super) nice: bool,

    /// Have a shell run CMD if it ended with exit code 0; the report is on its standard input, as JSON
    #[arg(long, value_name = "CMD")]
    pub(super) on_success: Option<String>,

    /// The same if it ended with any other
    #[arg(long, value_name = "CMD")]
    pub(super) on_failure: Option<String>,

    /// Write nothing: say what would be archived and find what is in the way
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print the report as one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing unless something is lost or fails
    #[arg(short, long)]
    pub(super) quiet: bool,

    // Last, as its heading is that of all that follows.
    #[command(flatten)]
    pub(super) keep: Keep,
}

/// What to verify.
#[derive(Args, Debug)]
#[command(after_help = "\
Archives of clawsnap are held against their inventory, entry by entry; those of `openclaw backup create` carry none,
and are held against OpenClaw's rules. Nothing is written, but for databases, one at a time, in a private directory.

Exit codes:
  0 proven   1 cannot be read   4 not proven   128+n ended by signal n")]
pub(super) struct Verify {
    /// The archives
    #[arg(value_name = "ARCHIVE", required = true)]
    pub(super) archives: Vec<PathBuf>,

    /// How databases are checked: quick, full (indexes too) or off
    #[arg(long, value_name = "HOW", default_value = "quick", value_parser = checks())]
    pub(super) sqlite_check: Check,

    /// Allow an archive to unpack to any multiple of its length
    #[arg(long)]
    pub(super) any_ratio: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing unless an archive is not proven
    #[arg(short, long)]
    pub(super) quiet: bool,
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
pub(super) struct Restore {
    /// The archive
    #[arg(value_name = "ARCHIVE", required_unless_present = "undo")]
    pub(super) archive: Option<PathBuf>,

    /// Restore only what fits one of these, and what lies below: a path, a glob, or the start of a session's number
    #[arg(value_name = "PATH|GLOB|ID")]
    pub(super) patterns: Vec<String>,

    /// The directory to restore into
    #[arg(short, long, value_name = "DIR")]
    pub(super) target: Option<PathBuf>,

    /// Restore to where it came from, OpenClaw's state to where yours is
    #[arg(long)]
    pub(super) in_place: bool,

    /// Bring back what restores in place have kept; done twice it is not done
    #[arg(long, value_name = "KEPT", num_args = 1.., conflicts_with_all = ["archive", "patterns", "map", "tails"])]
    pub(super) undo: Vec<PathBuf>,

    /// What was at OLD goes to NEW, with all that lies below (repeatable)
    #[arg(long, value_name = "OLD=NEW")]
    pub(super) map: Vec<OsString>,

    /// In place although the gateway runs, or somebody has files open there
    #[arg(long, conflicts_with = "target")]
    pub(super) force: bool,

    /// Half-written records that were set aside as well, each as FILE.tail
    #[arg(long)]
    pub(super) tails: bool,

    /// Give DIR its name without waiting for the disk: after a power cut it may be there with empty files
    #[arg(long, requires = "target")]
    pub(super) no_sync: bool,

    /// Do not ask about names that the archive says are not whole
    #[arg(short, long)]
    pub(super) yes: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing unless something is different or fails
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// What to list.
#[derive(Args, Debug)]
#[command(after_help = "\
A pattern is a path, or a glob of one, and what lies below; one that begins with no slash may begin anywhere:
  clawsnap list a.tar.zst agents/main/sessions
  clawsnap list a.tar.zst '*.sqlite' --json
  clawsnap list a.tar.zst --sessions
  clawsnap list a.tar.zst --sessions agents/main '4f1c*'

Sessions are shown agent by agent, the latest last. A pattern fits the path of the file that they are in, or their id.

Exit codes:
  0 listed, and proven   1 cannot be read   2 usage   4 not proven: what was listed may be wrong")]
pub(super) struct List {
    /// The archive
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,

    /// List only what fits one of these
    #[arg(value_name = "PATH|GLOB")]
    pub(super) patterns: Vec<String>,

    /// The conversations in it, instead: when each was last written to, its id, its length, and what was said first
    #[arg(long)]
    pub(super) sessions: bool,

    /// What was lost when it was made, instead
    #[arg(long, conflicts_with = "sessions")]
    pub(super) losses: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,
}

/// What to prune.
#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("rules").required(true).multiple(true).args(super::keep::RULES)),
    after_help = "\
Each rule keeps the newest archive of each of the last N hours, days, ISO weeks, months or years that have one, by the \
local clock; while there are fewer than N, the oldest as well. What one rule keeps stays. Each source is judged by \
itself. The newest proven archive stays in any case, and the newest without a loss.
  clawsnap prune /backup --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
  clawsnap prune /backup --keep-last 3 --keep-within 2w

Only archives that `create` named itself can go (clawsnap-TIME.tar.zst). Each is read to its end once in \
30 days; what is not proven is named, stays, and takes nobody's place.

Exit codes:
  0 done   1 failed, or something could not be removed   2 usage   4 done, but an archive is not proven
  128+n ended by signal n"
)]
pub(super) struct Prune {
    /// The directory with the archives
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,

    /// Remove nothing: show why each would stay or go
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Read every archive, though it was proven in the last 30 days
    #[arg(long)]
    pub(super) verify: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing unless something fails or is not proven
    #[arg(short, long)]
    pub(super) quiet: bool,

    // Last, as its heading is that of all that follows.
    #[command(flatten)]
    pub(super) keep: Keep,
}

/// What to look at.
#[derive(Args, Debug)]
#[command(after_help = "\
  clawsnap status /backup --max-age 26h || mail -s 'no fresh backup' root
  clawsnap status /backup --max-age 26h --metrics /var/lib/node_exporter/clawsnap.prom -q

Only archives that `create` named itself are looked at (clawsnap-TIME.tar.zst). Each is read to its end once in 30 days.

Exit codes, of the worst source:
  0 fresh   1 nobody could look, or the metrics could not be written   2 usage   3 the newest has losses
  4 no archive is proven, or one is not   6 the newest proven one is too old   128+n ended by signal n")]
pub(super) struct Status {
    /// The directory with the archives
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,

    /// How old the newest archive of each source may be, as 26h or 8d
    #[arg(long, value_name = "DUR", value_parser = duration::any)]
    pub(super) max_age: Option<Duration>,

    /// Write a text file for Prometheus as well, which node_exporter's textfile collector reads (name it *.prom)
    #[arg(long, value_name = "FILE")]
    pub(super) metrics: Option<PathBuf>,

    /// Read every archive, though it was proven in the last 30 days
    #[arg(long)]
    pub(super) verify: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing unless it is not fresh
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// What to sweep.
#[derive(Args, Debug)]
#[command(after_help = "\
Looks beside the sources, in them, at the mounts below them, and in the directory for temporary files. What belongs to a
run that lives is left alone, and a restore in place that was interrupted is only shown, with what completes it. Every
create does the same for its own source and output.

Exit codes:
  0 nothing is left   1 something could not be removed   2 usage   128+n ended by signal n")]
pub(super) struct Sweep {
    /// Directories or files that were backed up [default: as for create]
    #[arg(value_name = "SOURCE")]
    pub(super) sources: Vec<PathBuf>,

    /// A directory where archives are made, too (repeatable)
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Vec<PathBuf>,

    /// Remove nothing: show what is left
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing unless something cannot be removed
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// For which shell.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

/// Of what.
#[derive(Args, Debug)]
pub(super) struct Manual {
    /// The command [default: clawsnap itself]
    #[arg(value_name = "COMMAND")]
    pub(super) command: Option<String>,
}

impl Create {
    /// How the freeze shall be done.
    pub(super) fn freeze_options(&self) -> Options {
        let (timeout, check) = (self.sqlite_timeout, self.sqlite_check);
        let databases = DatabaseOptions { helper: helper::command(), timeout, check };
        let (mode, settle, hot_window) = (self.freeze, self.settle, self.hot_window);
        Options { mode, settle, hot_window, databases, ..Options::default() }
    }
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(["auto", "link", "clone", "copy"]).try_map(|name| name.parse::<Mode>())
}

fn checks() -> impl TypedValueParser<Value = Check> {
    PossibleValuesParser::new(["quick", "full", "off"]).try_map(|name| name.parse::<Check>())
}

/// What clap itself would say of arguments that do not go together.
pub(super) fn misuse(message: &str) -> clap::Error {
    let mut command = Typed::command();
    command.build();
    let error = |command: &mut clap::Command| command.error(ErrorKind::ArgumentConflict, message);
    match command.find_subcommand_mut("create") {
        Some(create) => error(create),
        None => error(&mut command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(line: &str) -> Result<Create, String> {
        let words = std::iter::once("clawsnap").chain(line.split_whitespace());
        match Typed::try_parse_from(words) {
            Ok(Typed { verb: Verb::Create(create) }) => Ok(*create),
            Ok(_) => Err("is no backup".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Typed::command().debug_assert();
    }

    #[test]
    fn without_arguments_the_library_decides() {
        let typed = create("create").expect("parses");
        let (options, default) = (typed.freeze_options(), Options::default());
        assert_eq!(
            (options.mode, options.settle, options.hot_window),
            (default.mode, default.settle, default.hot_window)
        );
        let (databases, usual) = (options.databases, default.databases);
        assert_eq!((databases.timeout, databases.check), (usual.timeout, usual.check));
        assert!(typed.sources.is_empty() && typed.output.is_none() && typed.compress.is_none());
    }

    #[test]
    fn what_openclaw_takes_is_taken() {
        for line in
            ["create --output /x --json --dry-run --verify --only-config", "create --no-include-workspace --output /x"]
        {
            assert!(create(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn patterns_and_sources_may_be_many() {
        let typed =
            create("create a b --exclude *.log --exclude tmp --exclude-from x --exclude-from y").expect("parses");
        assert_eq!((typed.sources.len(), typed.exclude.len(), typed.exclude_from.len()), (2, 2, 2));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, word) in [
            ("create --verify --no-verify", "--no-verify"),
            ("create --freeze melt", "auto, link, clone, copy"),
            ("create --compress zip", "expected zstd, xz, gzip or none"),
            ("create --compress zstd:99", "level from 1 to 19"),
            ("create --settle 5", "unit"),
            ("create --hot-window 0", "at least 1s"),
            ("create --frobnicate", "--frobnicate"),
        ] {
            let said = create(line).expect_err(line);
            assert!(said.contains(word), "{line}: {said}");
        }
    }
}
