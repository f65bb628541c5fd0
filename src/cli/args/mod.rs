//! What was typed. What it means is decided in [`intent`](super::intent).

mod backup;
mod keeping;
mod reading;

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use super::{deputy, duration, helper, launcher};
use crate::freeze::Check;

pub(super) use backup::{Create, Guard, Priority, Stage, Unattended, What};
pub(super) use keeping::{Prune, Status, Sweep};
pub(super) use reading::{List, Restore, Verify};

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
  clawsnap guard -o /backup/ -- npm install -g openclaw@latest
                                           an upgrade, with the way back if it fails
  clawsnap stage -- restic backup .        restic reads the frozen tree

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
    /// Back up, and run a command only then: an upgrade, with the way back if it fails
    Guard(Box<Guard>),
    /// Run a command in the frozen tree: a backup program with a repository of its own
    Stage(Box<Stage>),
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
    /// Become a command, for a process that waits for it
    #[command(name = launcher::NAME, hide = true)]
    Launch(Launch),
    /// Do what may hang, for a process that waits for it
    #[command(name = deputy::NAME, hide = true)]
    Deputy(Deputy),
}

/// How long is waited for a filesystem.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// How long a call to a filesystem may take before that is said to hang, and the run given up; at least 1s
    #[arg(long, value_name = "DUR", default_value = "5m", value_parser = duration::at_least_a_second)]
    pub(super) patience: Duration,
}

/// What to do for whom.
#[derive(Args, Debug)]
pub(super) struct Deputy {
    /// The number of the process that waits, and started it
    #[arg(long)]
    pub(super) of: u32,

    /// What was typed
    #[arg(last = true, required = true)]
    pub(super) words: Vec<OsString>,
}

/// What to become.
#[derive(Args, Debug)]
pub(super) struct Launch {
    /// End when the process with this number does, which started it
    #[arg(long)]
    pub(super) with: Option<u32>,

    /// The soft limit of open descriptors to have
    #[arg(long)]
    pub(super) descriptors: Option<u64>,

    /// A file that is told why the command could not be become, the command, and its arguments
    #[arg(last = true, required = true)]
    pub(super) words: Vec<OsString>,
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

fn checks() -> impl TypedValueParser<Value = Check> {
    PossibleValuesParser::new(["quick", "full", "off"]).try_map(|name| name.parse::<Check>())
}

/// What clap itself would say of arguments of `verb` that do not go together.
pub(super) fn misuse(verb: &str, message: &str) -> clap::Error {
    let mut command = Typed::command();
    command.build();
    let error = |command: &mut clap::Command| command.error(ErrorKind::ArgumentConflict, message);
    match command.find_subcommand_mut(verb) {
        Some(found) => error(found),
        None => error(&mut command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freeze::Options;

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
        let (options, default) = (typed.freezing.options(), Options::default());
        assert_eq!(
            (options.mode, options.settle, options.hot_window),
            (default.mode, default.settle, default.hot_window)
        );
        let (databases, usual) = (options.databases, default.databases);
        assert_eq!((databases.timeout, databases.check), (usual.timeout, usual.check));
        assert!(typed.what.sources.is_empty() && typed.archive.output.is_none() && typed.archive.compress.is_none());
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
        let what = typed.what;
        assert_eq!((what.sources.len(), what.exclude.len(), what.exclude_from.len()), (2, 2, 2));
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
