//! Spans of time as people type them: `500ms`, `2s`, `1m30s`.

use std::time::Duration;

use jiff::Span;

/// A longer wait is a slip, and an instant that far ahead need not exist.
const LONGEST_SETTLE: Duration = Duration::from_secs(24 * 60 * 60);

/// The time that `--settle` takes.
pub(super) fn settle(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        span if span > LONGEST_SETTLE => Err("at most 24h".to_owned()),
        span => Ok(span),
    }
}

/// The time that `--hot-window` and `--patience` take.
pub(super) fn at_least_a_second(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        span if span < Duration::from_secs(1) => Err("at least 1s".to_owned()),
        span => Ok(span),
    }
}

/// Any span of time.
pub(super) fn any(text: &str) -> Result<Duration, String> {
    parse(text)
}

/// The span that `--keep-within` takes: calendar units too, and none that means two things.
pub(super) fn within(text: &str) -> Result<Span, String> {
    let mut rest = text;
    let mut span = Span::new();
    while !rest.is_empty() {
        let (number, unit, after) = split(rest)?;
        let number = i64::try_from(number).map_err(|_| "too long")?;
        let longer = match unit {
            "y" => span.try_years(span_of(span.get_years(), number)?),
            "mo" => span.try_months(span_of(span.get_months(), number)?),
            "w" => span.try_weeks(span_of(span.get_weeks(), number)?),
            "d" => span.try_days(span_of(span.get_days(), number)?),
            "h" => span.try_hours(span_of(span.get_hours(), number)?),
            "" => return Err("the unit is missing: y, mo, w, d or h".to_owned()),
            "m" => return Err("m could be months or minutes: months are mo".to_owned()),
            other => return Err(format!("unknown unit {other:?}: y, mo, w, d and h are known")),
        };
        span = longer.map_err(|_| "too long")?;
        rest = after;
    }
    if span.is_zero() { Err("a number and a unit are missing, as in 30d".to_owned()) } else { Ok(span) }
}

fn span_of(before: impl Into<i64>, number: i64) -> Result<i64, String> {
    before.into().checked_add(number).ok_or_else(|| "too long".to_owned())
}

/// One or more numbers, each with its unit; or 0.
fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (part, after) = first(rest)?;
        sum = sum.checked_add(part).ok_or("too long")?;
        rest = after;
    }
    if text.is_empty() { Err("a number and a unit are missing".to_owned()) } else { Ok(sum) }
}

/// The first number with its unit, and what follows.
fn first(text: &str) -> Result<(Duration, &str), String> {
    let (number, unit, rest) = split(text)?;
    let milliseconds = number.checked_mul(length(unit)?).ok_or("too long")?;
    Ok((Duration::from_millis(milliseconds), rest))
}

fn split(text: &str) -> Result<(u64, &str, &str), String> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not start with a whole number"))?;
    Ok((number, unit, rest))
}

/// A unit's length in milliseconds.
fn length(unit: &str) -> Result<u64, String> {
    match unit {
        "ms" => Ok(1),
        "s" => Ok(1_000),
        "m" | "min" => Ok(60_000),
        "h" => Ok(3_600_000),
        "d" => Ok(86_400_000),
        "" => Err("the unit is missing: ms, s, m, h or d".to_owned()),
        other => Err(format!("unknown unit {other:?}: ms, s, m, h and d are known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_spans() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("2s", 2_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "missing"),
            ("5", "unit is missing"),
            ("s", "whole number"),
            ("-1s", "whole number"),
            ("1.5s", "unknown unit"),
            ("1 s", "unknown unit"),
            ("2 weeks", "unknown unit"),
            ("99999999999999999999s", "whole number"),
            ("999999999999999999h", "too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_kept_within_is_told_in_the_units_of_a_calendar() {
        for (text, span) in [
            ("30d", Span::new().days(30)),
            ("1y6mo", Span::new().years(1).months(6)),
            ("2w12h", Span::new().weeks(2).hours(12)),
            ("1d1d", Span::new().days(2)),
        ] {
            assert_eq!(within(text).map(Span::fieldwise), Ok(span.fieldwise()), "{text}");
        }
        for (text, reason) in [
            ("", "missing"),
            ("0d", "missing"),
            ("5", "unit is missing"),
            ("5m", "months or minutes"),
            ("5s", "unknown unit"),
            ("99999999y", "too long"),
            ("18446744073709551615h", "too long"),
            ("-1d", "whole number"),
        ] {
            let error = within(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn both_options_have_their_bounds() {
        assert!(settle("24h").is_ok() && settle("25h").is_err());
        assert!(
            at_least_a_second("1s").is_ok() && at_least_a_second("999ms").is_err() && at_least_a_second("0").is_err()
        );
    }
}
