//! Moments and spans as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A moment, given in seconds with nine decimals, in the local time.
pub(super) fn local(seconds: &str) -> Option<String> {
    shown(seconds, TimeZone::system())
}

fn shown(seconds: &str, zone: TimeZone) -> Option<String> {
    let (whole, fraction) = seconds.split_once('.')?;
    let moment = Timestamp::new(whole.parse().ok()?, fraction.parse().ok()?).ok()?;
    Some(moment.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S%.3f %:z").to_string())
}

/// A span of so many microseconds, with as many digits as matter.
pub(super) fn span(microseconds: u64) -> String {
    let (milliseconds, seconds) = (microseconds / 1_000, microseconds / 1_000_000);
    match microseconds {
        0..10_000 => format!("{milliseconds}.{} ms", microseconds % 1_000 / 100),
        10_000..1_000_000 => format!("{milliseconds} ms"),
        1_000_000..60_000_000 => format!("{seconds}.{:02} s", microseconds % 1_000_000 / 10_000),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// How long ago something was, in its two largest units.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min"),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A moment that a report tells, ISO 8601 in UTC, in the local time, to the second.
pub(super) fn local_iso(iso: &str) -> String {
    let time = iso.parse::<Timestamp>().map(|time| time.to_zoned(TimeZone::system()));
    time.map_or_else(|_| super::page::line(iso), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_with_its_distance_from_utc() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(shown("1700000000.123456789", zone).as_deref(), Some("2023-11-14 23:13:20.123 +01:00"));
        assert_eq!(shown("soon", TimeZone::UTC), None);
    }

    #[test]
    fn an_age_is_told_in_two_units() {
        for (seconds, text) in
            [(7, "7 s"), (3_599, "59 min"), (18_720, "5 h 12 min"), (86_400, "1 d 0 h"), (950_400, "11 d 0 h")]
        {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_span_has_as_many_digits_as_matter() {
        for (microseconds, text) in [
            (412, "0.4 ms"),
            (9_950, "9.9 ms"),
            (83_412, "83 ms"),
            (1_250_000, "1.25 s"),
            (2_050_000, "2.05 s"),
            (125_000_000, "2 min 5 s"),
        ] {
            assert_eq!(span(microseconds), text);
        }
    }
}
