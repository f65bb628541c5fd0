//! Rows of a label and a text: the form of every report for people.

use std::fmt::Display;

use super::terminal::Paint;
use crate::relpath::shown;
use crate::report::{Fated, PathName};

const LABEL_WIDTH: usize = 11;

/// Where the rest of a list is to be found.
pub(super) const IN_JSON: &str = "; --json names all";

/// A report in the making.
pub(super) struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    /// A page with its first line.
    pub(super) fn headed(heading: &str, paint: Paint) -> Self {
        Self { text: format!("{heading}\n"), paint }
    }

    /// A row.
    pub(super) fn row(&mut self, label: &str, text: impl Display) {
        let gap = " ".repeat(LABEL_WIDTH.saturating_sub(label.len()));
        self.text.push_str(&format!("  {}{gap}{text}\n", self.tinted(label)));
    }

    fn tinted(&self, label: &str) -> String {
        match label {
            "" => String::new(),
            "warning" => self.paint.warn(label),
            "losses" => self.paint.bad(label),
            _ => self.paint.faint(label),
        }
    }

    /// A row where there is something to tell.
    pub(super) fn row_if(&mut self, label: &str, text: Option<String>) {
        if let Some(text) = text {
            self.row(label, text);
        }
    }

    /// A row for each of the first `most`, and one that counts the rest, which are to be looked up `elsewhere`.
    pub(super) fn list<T: Display>(
        &mut self,
        label: &str,
        all: impl ExactSizeIterator<Item = T>,
        most: usize,
        elsewhere: &str,
    ) {
        let rest = all.len().saturating_sub(most);
        for (number, item) in all.take(most).enumerate() {
            self.row(if number == 0 { label } else { "" }, item);
        }
        if rest > 0 {
            self.row("", format!("and {} more{elsewhere}", count(rest as u64)));
        }
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A path, fit for a terminal.
pub(super) fn path(name: &PathName) -> String {
    shown(&name.0)
}

/// A sentence of the library, fit for a terminal, and one line.
pub(super) fn line(text: &str) -> String {
    shown(text.as_bytes())
}

/// A name with what became of it.
pub(super) fn fated(fated: &Fated) -> String {
    let reason = fated.reason.as_deref().map(|reason| format!(": {}", line(reason))).unwrap_or_default();
    format!("{} ({}{reason})", path(&fated.path), fated.fate)
}

/// A number with its thousands set apart.
pub(super) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// So many of something, in the singular or with an s.
pub(super) fn many(number: u64, singular: &str) -> String {
    plural(number, singular, &format!("{singular}s"))
}

/// So many of something, in the singular or the plural.
pub(super) fn plural(number: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", count(number), if number == 1 { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paint = Paint { colours: false };

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let mut page = Page::headed("head", PLAIN);
        page.list("names", ["a", "b", "c", "d"].iter(), 2, "; elsewhere");
        assert_eq!(page.finish(), "head\n  names      a\n             b\n             and 2 more; elsewhere\n");
    }

    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        let evil = Fated { path: PathName(b"/x\x1b[2J\n".to_vec()), fate: "lost", reason: Some("denied".to_owned()) };
        assert_eq!(fated(&evil), "/x\\u{1b}[2J\\n (lost: denied)");
    }
}
