//! The options that say which archives stay, for all commands that take them.

use clap::Args;
use jiff::Span;
use jiff::tz::TimeZone;

use super::duration;
use crate::keep::{Period, Policy};
use crate::prune::Retention;

/// The names of the options, for clap.
pub(super) const RULES: [&str; 7] =
    ["keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within"];

/// Which archives stay.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which archives stay")]
pub(super) struct Keep {
    /// Keep the last N archives
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_last: Option<u32>,

    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_hourly: Option<u32>,

    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_daily: Option<u32>,

    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_weekly: Option<u32>,

    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_monthly: Option<u32>,

    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep_yearly: Option<u32>,

    /// Keep all that are younger than the newest by less than this, as 48h, 30d or 1y6mo
    #[arg(long, value_name = "DUR", value_parser = duration::within)]
    pub(super) keep_within: Option<Span>,
}

impl Keep {
    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        self.policy().is_empty()
    }

    fn policy(&self) -> Policy {
        let counts = [
            (Period::Last, self.keep_last),
            (Period::Hourly, self.keep_hourly),
            (Period::Daily, self.keep_daily),
            (Period::Weekly, self.keep_weekly),
            (Period::Monthly, self.keep_monthly),
            (Period::Yearly, self.keep_yearly),
        ];
        let periods = counts.into_iter().filter_map(|(period, count)| Some((period, count?))).collect();
        Policy { periods, within: self.keep_within }
    }

    /// What was said, by the local clock; `None` where nothing was.
    pub(super) fn retention(&self, dry_run: bool, again: bool) -> Option<Retention> {
        let policy = self.policy();
        (!policy.is_empty()).then(|| Retention { policy, zone: TimeZone::system(), dry_run, again })
    }
}
