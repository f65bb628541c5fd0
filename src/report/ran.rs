//! A command that was run on what was frozen, or behind its archive, and how it ended.

use serde::Serialize;

use super::{Fated, PathName};

/// A command that was run.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ran {
    /// Its words.
    pub command: Vec<PathName>,
    /// The directory that it ran in, where that was of our making.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathName>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it could not be started; its exit code says the same, as shells do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Wall time of the command in milliseconds.
    pub elapsed_milliseconds: u64,
    /// Files of the frozen tree whose contents moved while it ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub touched: Vec<Fated>,
    /// What of the frozen tree could not be laid out as it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Fated>,
    /// The shell command that goes back to what was there before it ran, where it was started and failed; where nothing can
    /// be brought back in place, it has that made beside the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_back: Option<String>,
    /// Until when rules that remove archives keep the one that it needs: ISO 8601, UTC; none where that could not be marked,
    /// or is not needed any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_back_kept_until: Option<String>,
    /// What came of going back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// What came of going back to what was there before a command.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Everything is back.
    pub done: bool,
    /// Why it is not, or what is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where what the command had left is kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<PathName>,
    /// What should be known, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Ran {
    /// Its exit code as a shell tells it: 128 + the signal where one ended it.
    pub fn code(&self) -> u8 {
        let code = self.exit_code.or_else(|| self.signal.map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_as_shells_do_and_what_never_ran_has_failed() {
        let code = |exit_code, signal| Ran { exit_code, signal, ..Ran::default() }.code();
        assert_eq!([code(Some(0), None), code(Some(7), None), code(None, Some(9)), code(None, None)], [0, 7, 137, 1]);
        assert_eq!(code(Some(-1), None), 1);
    }
}
