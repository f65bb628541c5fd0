//! Retention: which archives stay, and why, as a pure function of what is known of them.
//!
//! The rules are restic's. Each `--keep-…` keeps the newest archive of each of the last so many periods that have one, in
//! the local time; where there are fewer such periods, the oldest archive as well. What one rule keeps stays. An archive
//! that is not proven takes nobody's place, and is never the one that goes; nor is the newest proven one of a source, nor
//! the newest without a loss, nor one that a failed command can be gone back from by.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// What is known of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is equal to its inventory, and nothing was lost, nor known to be missing, when it was made.
    Whole,
    /// It is equal to its inventory, and has losses or gaps.
    Lossy,
    /// Nobody knows what it is worth.
    Unproven,
}

/// An archive that may have to go.
#[derive(Clone, Debug)]
pub struct Candidate<S> {
    /// When it was made.
    pub at: Timestamp,
    /// What it is a backup of: each source is judged by itself.
    pub source: S,
    /// What it is worth.
    pub standing: Standing,
    /// Whether a command that failed can be gone back from by it.
    pub is_way_back: bool,
}

/// A stretch of time of which one archive is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// None: every archive counts.
    Last,
    /// An hour of the local clock.
    Hourly,
    /// A local day.
    Daily,
    /// An ISO week, from Monday on.
    Weekly,
    /// A calendar month.
    Monthly,
    /// A calendar year.
    Yearly,
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Last, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// What two archives of the same period have in common. `number` is the archive's own.
    fn key(self, at: &Zoned, number: usize) -> [i64; 4] {
        let week = at.date().iso_week_date();
        let [year, month, day, hour] = [at.year().into(), at.month().into(), at.day().into(), at.hour().into()];
        match self {
            Self::Last => [number as i64, 0, 0, 0],
            Self::Hourly => [year, month, day, hour],
            Self::Daily => [year, month, day, 0],
            Self::Weekly => [week.year().into(), week.week().into(), 0, 0],
            Self::Monthly => [year, month, 0, 0],
            Self::Yearly => [year, 0, 0, 0],
        }
    }
}

/// What shall stay.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// How many periods of each sort.
    pub periods: BTreeMap<Period, u32>,
    /// All that is younger than this, counted from the newest of the same source.
    pub within: Option<Span>,
}

impl Policy {
    /// Nothing was said.
    pub fn is_empty(&self) -> bool {
        self.within.is_none() && self.periods.values().all(|count| *count == 0)
    }
}

/// Why an archive stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is the newest of its source that is proven.
    Newest,
    /// It is the newest of its source that is proven and has no loss.
    NewestWhole,
    /// It is the newest of one of the last periods.
    Of(Period),
    /// It is the oldest, and there are fewer such periods than shall be kept.
    Oldest(Period),
    /// It is young enough.
    Within,
    /// A guarded command that failed can be gone back from by it.
    WayBack,
    /// It is not proven: it is never the reason for another one to go, and nobody knows what it is worth.
    Unproven,
    /// No rule was given.
    NoRule,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::NewestWhole => f.write_str("newest without loss"),
            Self::Of(period) => f.write_str(period.as_str()),
            Self::Oldest(period) => write!(f, "oldest, for {}", period.as_str()),
            Self::Within => f.write_str("within"),
            Self::WayBack => f.write_str("way back"),
            Self::Unproven => f.write_str("not proven"),
            Self::NoRule => f.write_str("no rule"),
        }
    }
}

/// Why each archive stays; one without a reason goes. Of two that were made at the same time, the later in the list is
/// the newer.
pub fn judge<S: Ord>(archives: &[Candidate<S>], policy: &Policy, zone: &TimeZone) -> Vec<Vec<Reason>> {
    let mut reasons = vec![Vec::new(); archives.len()];
    let mut sources: BTreeMap<&S, Vec<usize>> = BTreeMap::new();
    for (number, archive) in archives.iter().enumerate() {
        match archive.standing {
            Standing::Unproven => reasons[number].push(Reason::Unproven),
            _ => sources.entry(&archive.source).or_default().push(number),
        }
    }
    for mut own in sources.into_values() {
        own.sort_by_key(|number| std::cmp::Reverse((archives[*number].at, *number)));
        let group = Group { archives, newest_first: own, zone };
        group.judge(policy, &mut reasons);
    }
    reasons
}

/// The proven archives of one source.
struct Group<'a, S> {
    archives: &'a [Candidate<S>],
    newest_first: Vec<usize>,
    zone: &'a TimeZone,
}

impl<S> Group<'_, S> {
    fn judge(&self, policy: &Policy, reasons: &mut [Vec<Reason>]) {
        let mut keep = |number: usize, reason| reasons[number].push(reason);
        if policy.is_empty() {
            self.newest_first.iter().for_each(|number| keep(*number, Reason::NoRule));
        }
        let is_whole = |number: &&usize| self.archives[**number].standing == Standing::Whole;
        self.newest_first.first().into_iter().for_each(|number| keep(*number, Reason::Newest));
        self.newest_first.iter().find(is_whole).into_iter().for_each(|number| keep(*number, Reason::NewestWhole));
        for (period, count) in &policy.periods {
            self.by_period(*period, *count, &mut keep);
        }
        if let Some(span) = policy.within {
            self.young(span).for_each(|number| keep(number, Reason::Within));
        }
        let way_back = self.newest_first.iter().filter(|number| self.archives[**number].is_way_back);
        way_back.for_each(|number| keep(*number, Reason::WayBack));
    }

    fn zoned(&self, number: usize) -> Zoned {
        self.archives[number].at.to_zoned(self.zone.clone())
    }

    fn by_period(&self, period: Period, count: u32, keep: &mut impl FnMut(usize, Reason)) {
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        let mut seen = BTreeSet::new();
        for number in &self.newest_first {
            if seen.len() < most && seen.insert(period.key(&self.zoned(*number), *number)) {
                keep(*number, Reason::Of(period));
            }
        }
        if let (true, Some(oldest)) = (seen.len() < most, self.newest_first.last()) {
            keep(*oldest, Reason::Oldest(period));
        }
    }

    /// Those that are younger than `span`. Where that begins before all calendars, all of them are.
    fn young(&self, span: Span) -> impl Iterator<Item = usize> {
        let newest = self.newest_first.first().map(|number| self.zoned(*number));
        let since = newest.and_then(|newest| newest.checked_sub(span).ok()).map(|since| since.timestamp());
        let is_young = move |number: &usize| since.is_none_or(|since| self.archives[*number].at > since);
        self.newest_first.iter().copied().filter(is_young)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400;

    /// A zone with a summer time, without asking the machine for it.
    fn central_europe() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("is a zone")
    }

    fn at(text: &str) -> Candidate<u8> {
        Candidate { at: text.parse().expect("is a time"), source: 0, standing: Standing::Whole, is_way_back: false }
    }

    fn policy(periods: &[(Period, u32)], within: Option<Span>) -> Policy {
        Policy { periods: periods.iter().copied().collect(), within }
    }

    fn stays(archives: &[Candidate<u8>], policy: &Policy) -> Vec<bool> {
        judge(archives, policy, &central_europe()).iter().map(|reasons| !reasons.is_empty()).collect()
    }

    #[test]
    fn a_reason_is_told_in_the_words_of_the_options() {
        let told = |reason: Reason| reason.to_string();
        assert_eq!(
            Period::ALL.map(|period| told(Reason::Of(period))),
            ["last", "hourly", "daily", "weekly", "monthly", "yearly"]
        );
        assert_eq!(told(Reason::Oldest(Period::Monthly)), "oldest, for monthly");
        assert_eq!(
            [Reason::Newest, Reason::NewestWhole, Reason::Within, Reason::WayBack, Reason::Unproven, Reason::NoRule]
                .map(told),
            ["newest", "newest without loss", "within", "way back", "not proven", "no rule"]
        );
    }

    #[test]
    fn the_newest_of_each_day_that_has_one_is_kept_by_the_local_clock() {
        let archives = ["2026-11-20T12:00:00Z", "2026-11-22T22:59:00Z", "2026-11-22T23:01:00Z", "2026-11-23T22:00:00Z"];
        // The second is of the 22nd in Central Europe, the third of the 23rd, as is the fourth.
        assert_eq!(stays(&archives.map(at), &policy(&[(Period::Daily, 2)], None)), [false, true, false, true]);
    }

    #[test]
    fn an_iso_week_may_begin_in_another_year() {
        let archives = ["2024-12-29T12:00:00Z", "2024-12-30T12:00:00Z", "2025-01-01T12:00:00Z", "2025-01-06T12:00:00Z"];
        assert_eq!(stays(&archives.map(at), &policy(&[(Period::Weekly, 3)], None)), [true, false, true, true]);
        assert_eq!(stays(&archives.map(at), &policy(&[(Period::Yearly, 2)], None)), [false, true, false, true]);
    }

    #[test]
    fn an_hour_that_the_clock_repeats_is_one() {
        let archives = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"];
        assert_eq!(stays(&archives.map(at), &policy(&[(Period::Hourly, 2)], None)), [false, true, true]);
    }

    #[test]
    fn while_there_are_fewer_periods_than_wanted_the_oldest_stays_too() {
        let archives = ["2026-11-02T01:00:00Z", "2026-11-02T02:00:00Z", "2026-11-02T03:00:00Z"].map(at);
        let reasons = judge(&archives, &policy(&[(Period::Monthly, 3)], None), &TimeZone::UTC);
        assert_eq!(reasons[0], [Reason::Oldest(Period::Monthly)]);
        assert_eq!(reasons[1], []);
        assert_eq!(reasons[2], [Reason::Newest, Reason::NewestWhole, Reason::Of(Period::Monthly)]);
    }

    /// As restic has it.
    #[test]
    fn what_is_as_old_as_the_span_to_the_second_is_not_within_it() {
        let archives = ["2026-11-21T12:00:00Z", "2026-11-21T12:00:01Z", "2026-11-22T12:00:00Z"].map(at);
        let within = policy(&[], Some(Span::new().hours(24)));
        assert_eq!(stays(&archives, &within), [false, true, true]);
    }

    #[test]
    fn within_counts_from_the_newest_in_calendar_months() {
        let archives = ["2026-02-28T12:00:00Z", "2026-03-01T12:00:01Z", "2026-04-01T12:00:00Z"].map(at);
        let within = policy(&[], Some(Span::new().months(1)));
        assert_eq!(stays(&archives, &within), [false, false, true], "the clock was set forward by an hour in between");
        assert_eq!(stays(&archives, &policy(&[], Some(Span::new().months(1).hours(2)))), [false, true, true]);
        assert_eq!(stays(&archives, &policy(&[], Some(Span::new().years(19_000)))), [true, true, true]);
    }

    #[test]
    fn what_is_not_proven_neither_counts_nor_goes() {
        let mut archives = ["2026-11-01T12:00:00Z", "2026-11-02T12:00:00Z", "2026-11-03T12:00:00Z"].map(at);
        archives[2].standing = Standing::Unproven;
        assert_eq!(stays(&archives, &policy(&[(Period::Last, 1)], None)), [false, true, true]);
    }

    #[test]
    fn losses_do_not_push_out_the_last_archive_without_any() {
        let mut archives = ["2026-11-01T12:00:00Z", "2026-11-02T12:00:00Z", "2026-11-03T12:00:00Z"].map(at);
        archives[1].standing = Standing::Lossy;
        archives[2].standing = Standing::Lossy;
        assert_eq!(stays(&archives, &policy(&[(Period::Last, 1)], None)), [true, false, true]);
    }

    /// The nightly run made a newer one of what the command had ruined, and removed the one from before.
    #[test]
    fn the_way_back_stays_and_takes_the_place_that_it_would_have_anyway() {
        let mut archives = ["2026-11-01T12:00:00Z", "2026-11-02T12:00:00Z", "2026-11-03T12:00:00Z"].map(at);
        archives[1].is_way_back = true;
        assert_eq!(stays(&archives, &policy(&[(Period::Last, 1)], None)), [false, true, true]);
        assert_eq!(stays(&archives, &policy(&[(Period::Last, 2)], None)), [false, true, true]);
    }

    #[test]
    fn without_a_rule_everything_stays() {
        let archives = ["2026-11-01T12:00:00Z", "2026-11-02T12:00:00Z"].map(at);
        assert_eq!(stays(&archives, &Policy::default()), [true, true]);
        assert_eq!(stays(&archives, &policy(&[(Period::Daily, 0)], None)), [true, true]);
    }

    /// Who stays, told in another way: by what the calendar prints, and by sorting.
    fn naive(archives: &[Candidate<u8>], policy: &Policy, zone: &TimeZone) -> BTreeSet<usize> {
        let mut kept: BTreeSet<usize> =
            numbers(archives, |it| it.standing == Standing::Unproven || it.is_way_back).collect();
        for source in 0..=3 {
            let mut own: Vec<usize> =
                numbers(archives, |it| it.source == source && it.standing != Standing::Unproven).collect();
            own.sort_by_key(|number| (archives[*number].at, *number));
            own.reverse();
            let Some(newest) = own.first() else { continue };
            kept.insert(*newest);
            kept.extend(own.iter().find(|number| archives[**number].standing == Standing::Whole));
            if policy.is_empty() {
                kept.extend(&own);
            }
            if let Some(span) = policy.within {
                let since = archives[*newest].at.to_zoned(zone.clone()).checked_sub(span).expect("is in range");
                kept.extend(own.iter().filter(|number| archives[**number].at.to_zoned(zone.clone()) > since));
            }
            for (period, count) in &policy.periods {
                let label = |number: usize| label(*period, &archives[number].at.to_zoned(zone.clone()), number);
                let mut labels: Vec<String> = Vec::new();
                for number in &own {
                    if !labels.contains(&label(*number)) {
                        labels.push(label(*number));
                    }
                }
                let chosen = labels.iter().take(*count as usize);
                kept.extend(chosen.map(|wanted| own.iter().find(|it| label(**it) == *wanted).expect("has one")));
                kept.extend(own.last().filter(|_| labels.len() < *count as usize));
            }
        }
        kept
    }

    fn numbers(archives: &[Candidate<u8>], is: impl Fn(&Candidate<u8>) -> bool) -> impl Iterator<Item = usize> {
        archives.iter().enumerate().filter(move |(_, archive)| is(archive)).map(|(number, _)| number)
    }

    fn label(period: Period, at: &Zoned, number: usize) -> String {
        let format = match period {
            Period::Last => return number.to_string(),
            Period::Hourly => "%Y-%m-%d %H",
            Period::Daily => "%Y-%m-%d",
            Period::Weekly => "%G-W%V",
            Period::Monthly => "%Y-%m",
            Period::Yearly => "%Y",
        };
        at.strftime(format).to_string()
    }

    /// Archives that crowd together, some at the same moment, some years apart.
    fn archives() -> impl Strategy<Value = Vec<Candidate<u8>>> {
        let moment = prop_oneof![0..3 * DAY, 0..40 * DAY, 0..1_200 * DAY, (0..20_i64).prop_map(|n| n * 1_800)];
        let standing = prop_oneof![
            4 => Just(Standing::Whole),
            2 => Just(Standing::Lossy),
            2 => Just(Standing::Unproven),
        ];
        let way_back = prop::bool::weighted(0.1);
        let archive =
            (moment, 0..=3_u8, standing, way_back).prop_map(|(moment, source, standing, is_way_back)| Candidate {
                // From two days before summer time ends.
                at: Timestamp::from_second(1_698_192_000 + moment).expect("is in range"),
                source,
                standing,
                is_way_back,
            });
        prop::collection::vec(archive, 0..40)
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let within = prop::option::of((0..3_i64, 0..40_i64, 0..100_i64));
        (prop::collection::btree_map(prop::sample::select(&Period::ALL[..]), 0..6_u32, 0..4), within).prop_map(
            |(periods, within)| {
                let span = |(months, days, hours)| Span::new().months(months).days(days).hours(hours);
                Policy { periods, within: within.map(span) }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_is_what_the_naive_model_says_and_the_newest_proven_one_never_goes(
            archives in archives(), policy in policies(), utc in any::<bool>(),
        ) {
            let zone = if utc { TimeZone::UTC } else { central_europe() };
            let reasons = judge(&archives, &policy, &zone);
            let kept: BTreeSet<usize> = (0..archives.len()).filter(|number| !reasons[*number].is_empty()).collect();
            prop_assert_eq!(&kept, &naive(&archives, &policy, &zone));
            for source in 0..=3 {
                let proven = numbers(&archives, |it| it.source == source && it.standing != Standing::Unproven);
                let newest = proven.max_by_key(|number| (archives[*number].at, *number));
                prop_assert!(newest.is_none_or(|newest| kept.contains(&newest)));
            }
            prop_assert!(numbers(&archives, |it| it.standing == Standing::Unproven).all(|number| kept.contains(&number)));
        }
    }
}
