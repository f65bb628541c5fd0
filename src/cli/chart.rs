//! A row of numbers as a row of bars.

use std::env;
use std::io::IsTerminal;

/// As many as fit beside a label on a narrow terminal.
const MOST: usize = 40;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];

/// What the bars are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Blocks, of an eighth to a whole line.
    Blocks,
    /// What every terminal and every file can show.
    Plain,
}

/// The bars that `stream` can show: blocks on a terminal whose locale is UTF-8.
pub(super) fn ink(stream: &impl IsTerminal) -> Ink {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os).find(|value| !value.is_empty());
    let is_utf8 = locale.is_some_and(|locale| is_utf8(&locale.to_string_lossy()));
    if stream.is_terminal() && is_utf8 { Ink::Blocks } else { Ink::Plain }
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The last numbers as bars, measured from zero, so that what hardly moves looks so.
pub(super) fn chart(numbers: &[u64], ink: Ink) -> String {
    let numbers = &numbers[numbers.len().saturating_sub(MOST)..];
    let most = u128::from(numbers.iter().copied().max().unwrap_or(0).max(1));
    let bars = if ink == Ink::Blocks { BLOCKS } else { PLAIN };
    let bar = |number: &u64| usize::try_from(u128::from(*number) * 7 / most).unwrap_or(0);
    numbers.iter().map(|number| bars[bar(number).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bars_from_zero_on() {
        assert_eq!(chart(&[0, 1, 4, 7], Ink::Blocks), "▁▂▅█");
        assert_eq!(chart(&[0, 1, 4, 7], Ink::Plain), "_.=#");
        assert_eq!(chart(&[100, 101], Ink::Plain), "*#");
        assert_eq!((chart(&[], Ink::Plain), chart(&[0], Ink::Plain)), (String::new(), "_".to_owned()));
        assert_eq!(chart(&[u64::MAX; 50], Ink::Plain), "#".repeat(40));
    }

    #[test]
    fn a_locale_tells_by_its_name() {
        assert!(is_utf8("C.UTF-8") && is_utf8("de_DE.utf8"));
        assert!(!is_utf8("C") && !is_utf8("de_DE@euro"));
    }
}
