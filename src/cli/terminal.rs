//! What a terminal may be shown.

use std::env;
use std::io::IsTerminal;

/// Whether lines may be redrawn on `stream`.
pub(super) fn is_lively(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The colours for `stream`: none where it is no terminal, or where `NO_COLOR` says so.
pub(super) fn paint(stream: &impl IsTerminal) -> Paint {
    let declined = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Paint { colours: is_lively(stream) && !declined }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint {
    /// Whether there are any.
    pub(super) colours: bool,
}

impl Paint {
    /// For what went well.
    pub(super) fn good(self, text: &str) -> String {
        self.wrap("1;32", text)
    }

    /// For what should be looked at.
    pub(super) fn warn(self, text: &str) -> String {
        self.wrap("1;33", text)
    }

    /// For what was lost or failed.
    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For what is only there to lead the eye.
    pub(super) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_a_text_is_itself() {
        let (plain, coloured) = (Paint { colours: false }, Paint { colours: true });
        assert_eq!(plain.good("x") + &plain.faint("y") + &plain.bad("z"), "xyz");
        assert_eq!(coloured.warn("x"), "\x1b[1;33mx\x1b[0m");
    }
}
