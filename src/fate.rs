//! What became of a name: every name that any listing ever yielded meets exactly one fate.

use std::collections::BTreeMap;
use std::fmt;

use crate::relpath::{RelPath, shown};

/// What became of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In the archive, whole, as of the freeze.
    Kept,
    /// In the archive with what it had at the freeze; it has grown since.
    Prefix,
    /// In the archive, whole, but read after the freeze: its contents moved before they could be archived.
    Later,
    /// A listing proves that it left before the freeze was complete.
    Departed,
    /// Left out by the rule that is named.
    Excluded(Box<str>),
    /// The log, journal or index of a database: what it says is in the copy of that.
    Folded(Box<str>),
    /// In the archive as well as it could be had: short, padded, mixed or otherwise not proven. Counts as a loss.
    Torn(Box<str>),
    /// A directory that is in the archive without (all of) its contents, as it could not be listed. A loss.
    Hollow(Box<str>),
    /// Should be in the archive and is not. A loss.
    Lost(Box<str>),
}

impl Fate {
    /// That of the log, journal or index of the database `base`.
    pub(crate) fn folded_into(base: &[u8]) -> Self {
        Self::Folded(format!("into {}", shown(base)).into())
    }

    /// The fate's name, as the inventory and the report write it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Prefix => "prefix",
            Self::Later => "later",
            Self::Departed => "departed",
            Self::Excluded(_) => "excluded",
            Self::Folded(_) => "folded",
            Self::Torn(_) => "torn",
            Self::Hollow(_) => "hollow",
            Self::Lost(_) => "lost",
        }
    }

    /// The rule, or the reason, where the fate has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Excluded(reason)
            | Self::Folded(reason)
            | Self::Torn(reason)
            | Self::Hollow(reason)
            | Self::Lost(reason) => Some(reason),
            Self::Kept | Self::Prefix | Self::Later | Self::Departed => None,
        }
    }

    /// Whether it counts against the run.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Torn(_) | Self::Hollow(_) | Self::Lost(_))
    }

    /// Whether the name has an entry in the archive.
    pub fn is_archived(&self) -> bool {
        matches!(self, Self::Kept | Self::Prefix | Self::Later | Self::Torn(_) | Self::Hollow(_))
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{} ({reason})", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// The fates that are worth a line: all but `Kept`, which the inventory tells. A name has one at most.
#[derive(Debug, Default)]
pub struct Ledger {
    fates: BTreeMap<(u16, RelPath), Fate>,
}

impl Ledger {
    /// Writes down what became of `path` below the root with that number. A loss is never overwritten by a milder
    /// fate.
    pub fn note(&mut self, root: u16, path: RelPath, fate: Fate) {
        let slot = self.fates.entry((root, path)).or_insert_with(|| fate.clone());
        if !slot.is_loss() {
            *slot = fate;
        }
    }

    /// All fates but `Kept`, by root and path.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &RelPath, &Fate)> {
        self.fates.iter().map(|((root, path), fate)| (*root, path, fate))
    }

    /// How many names have a fate for which `wanted` holds.
    pub fn count(&self, wanted: impl Fn(&Fate) -> bool) -> u64 {
        self.fates.values().filter(|fate| wanted(fate)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_fate_and_a_loss_is_not_forgotten() {
        let mut ledger = Ledger::default();
        let path = || RelPath::new(*b"a");
        ledger.note(0, path(), Fate::Departed);
        ledger.note(0, path(), Fate::Torn("short".into()));
        ledger.note(0, path(), Fate::Prefix);
        let all: Vec<_> = ledger.iter().map(|(_, _, fate)| fate.clone()).collect();
        assert_eq!(all, [Fate::Torn("short".into())]);
        assert_eq!(ledger.count(Fate::is_loss), 1);
    }

    #[test]
    fn what_counts_against_the_run_is_what_the_design_says() {
        let reason = || Box::<str>::from("r");
        for (fate, loss, archived) in [
            (Fate::Kept, false, true),
            (Fate::Prefix, false, true),
            (Fate::Later, false, true),
            (Fate::Departed, false, false),
            (Fate::Excluded(reason()), false, false),
            (Fate::Folded(reason()), false, false),
            (Fate::Torn(reason()), true, true),
            (Fate::Hollow(reason()), true, true),
            (Fate::Lost(reason()), true, false),
        ] {
            assert_eq!((fate.is_loss(), fate.is_archived()), (loss, archived), "{fate}");
        }
    }
}
