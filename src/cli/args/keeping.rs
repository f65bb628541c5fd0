//! What is typed to look after archives: to prune, to tell their state, to sweep.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::Waiting;
use crate::cli::duration;
use crate::cli::keep::{Keep, RULES};

/// What to prune.
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("rules").required(true).multiple(true).args(RULES)),
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
pub(in crate::cli) struct Prune {
    /// The directory with the archives
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,

    /// Remove nothing: show why each would stay or go
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    /// Read every archive, though it was proven in the last 30 days
    #[arg(long)]
    pub(in crate::cli) verify: bool,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say nothing unless something fails or is not proven
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,

    // Last, as its heading is that of all that follows.
    #[command(flatten)]
    pub(in crate::cli) keep: Keep,
}

/// What to look at.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
  clawsnap status /backup --max-age 26h || mail -s 'no fresh backup' root
  clawsnap status /backup --max-age 26h --metrics /var/lib/node_exporter/clawsnap.prom -q

Only archives that `create` named itself are looked at (clawsnap-TIME.tar.zst). Each is read to its end once in 30 days.

Exit codes, of the worst source:
  0 fresh   1 nobody could look, or the metrics could not be written   2 usage   3 the newest has losses
  4 no archive is proven, or one is not   6 the newest proven one is too old   128+n ended by signal n")]
pub(in crate::cli) struct Status {
    /// The directory with the archives
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,

    /// How old the newest archive of each source may be, as 26h or 8d
    #[arg(long, value_name = "DUR", value_parser = duration::any)]
    pub(in crate::cli) max_age: Option<Duration>,

    /// Write a text file for Prometheus as well, which node_exporter's textfile collector reads (name it *.prom)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metrics: Option<PathBuf>,

    /// Read every archive, though it was proven in the last 30 days
    #[arg(long)]
    pub(in crate::cli) verify: bool,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say nothing unless it is not fresh
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

/// What to sweep.
#[derive(Args, Debug)]
#[command(after_help = "\
Looks beside the sources, in them, at the mounts below them, and in the directory for temporary files. What belongs to a
run that lives is left alone, and a restore in place that was interrupted is only shown, with what completes it. Every
create does the same for its own source and output.

Exit codes:
  0 nothing is left   1 something could not be removed   2 usage   128+n ended by signal n")]
pub(in crate::cli) struct Sweep {
    /// Directories or files that were backed up [default: as for create]
    #[arg(value_name = "SOURCE")]
    pub(in crate::cli) sources: Vec<PathBuf>,

    /// A directory where archives are made, too (repeatable)
    #[arg(short, long, value_name = "DIR")]
    pub(in crate::cli) output: Vec<PathBuf>,

    /// Remove nothing: show what is left
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    #[command(flatten)]
    pub(in crate::cli) waiting: Waiting,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say nothing unless something cannot be removed
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}
