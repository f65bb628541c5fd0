//! Which capture freezes a file: one pure table.

use std::str::FromStr;

use crate::plan::Class;

/// How files shall be frozen, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By the table in [`choose`].
    #[default]
    Auto,
    /// The same, but extents are never shared.
    Link,
    /// Extents are shared wherever the filesystem can; no file gets a second name there.
    Clone,
    /// Every file is copied.
    Copy,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "link" => Ok(Self::Link),
            "clone" => Ok(Self::Clone),
            "copy" => Ok(Self::Copy),
            other => Err(format!("unknown way to freeze {other:?}; known are auto, link, clone and copy")),
        }
    }
}

/// How one file is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capture {
    /// A second name in staging: freezes the name, not the contents.
    Link,
    /// A file in staging that shares the extents: freezes name and contents.
    Clone,
    /// The bytes in memory, with the same (size, mtime, inode) before and after.
    Hold,
    /// An open descriptor: freezes the name, and leaves the link count alone.
    Pin,
    /// The bytes in staging, with the same (size, mtime, inode) before and after.
    Copy,
    /// A read transaction of a helper process, and a copy by SQLite's online backup afterwards.
    Database,
}

impl Capture {
    /// The capture's name, as the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Clone => "clone",
            Self::Hold => "hold",
            Self::Pin => "pin",
            Self::Copy => "copy",
            Self::Database => "database",
        }
    }
}

/// What is known of a file when its capture is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// How its owner treats it.
    pub class: Class,
    /// Modified within the hot window.
    pub hot: bool,
    /// A SQLite database, or its log or journal where it cannot be served as one.
    pub database: bool,
    /// Whether the memory budget takes it.
    pub holdable: bool,
    /// Whether there is a staging directory on its mount.
    pub staged: bool,
    /// Whether that filesystem can share extents, as far as is known.
    pub clones: bool,
}

/// Chooses how a file is frozen.
///
/// A database is never linked (whoever opened the link could corrupt the live one), cloned or held: its bytes alone are
/// no database while its owner writes.
pub fn choose(mode: Mode, facts: Facts) -> Capture {
    let clones = facts.clones && facts.staged;
    match mode {
        _ if facts.database => Capture::Database,
        Mode::Copy => Capture::Copy,
        Mode::Clone if clones => Capture::Clone,
        Mode::Auto if clones && (facts.hot || facts.class == Class::Guarded) => Capture::Clone,
        _ if facts.hot && facts.holdable => Capture::Hold,
        _ if facts.class == Class::Linkable && facts.staged => Capture::Link,
        _ => Capture::Pin,
    }
}

/// The captures to try for a file, best first: each refusal leads to the next.
///
/// A copy that could not be read falls back to a descriptor, so that what can be read is archived, and flagged.
pub fn chain(first: Capture, class: Class) -> &'static [Capture] {
    use Capture::{Clone, Copy, Database, Hold, Link, Pin};
    match (first, class) {
        // Whether extents can be shared is only known once it was tried; then a hot file is held after all.
        (Clone, Class::Linkable) => &[Clone, Hold, Link, Pin, Copy],
        (Clone, Class::Guarded) => &[Clone, Hold, Pin, Copy],
        (Hold, Class::Linkable) => &[Hold, Link, Pin, Copy],
        (Hold, Class::Guarded) => &[Hold, Pin, Copy],
        (Link, _) => &[Link, Pin, Copy],
        (Pin, _) => &[Pin, Copy],
        (Copy, _) => &[Copy, Pin],
        // Without a helper its bytes are copied, and flagged.
        (Database, _) => &[Database, Copy, Pin],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capture::*;
    use Class::{Guarded, Linkable};

    fn facts(text: &str, class: Class) -> Facts {
        let has = |word| text.split(' ').any(|w| w == word);
        Facts {
            class,
            hot: has("hot"),
            database: has("database"),
            holdable: has("small"),
            staged: !has("unstaged"),
            clones: has("clones"),
        }
    }

    #[test]
    fn the_table_of_the_design_is_kept() {
        for (mode, text, class, expected) in [
            (Mode::Auto, "cold", Linkable, Link),
            (Mode::Auto, "cold clones", Linkable, Link),
            (Mode::Auto, "hot small", Linkable, Hold),
            (Mode::Auto, "hot", Linkable, Link),
            (Mode::Auto, "hot small clones", Linkable, Clone),
            (Mode::Auto, "cold", Guarded, Pin),
            (Mode::Auto, "hot small", Guarded, Hold),
            (Mode::Auto, "hot", Guarded, Pin),
            (Mode::Auto, "cold clones", Guarded, Clone),
            (Mode::Auto, "cold unstaged", Linkable, Pin),
            (Mode::Auto, "cold clones unstaged", Guarded, Pin),
            (Mode::Auto, "cold database", Linkable, Database),
            (Mode::Auto, "hot small database clones", Guarded, Database),
            (Mode::Copy, "cold database", Guarded, Database),
            (Mode::Link, "hot small clones", Linkable, Hold),
            (Mode::Link, "cold clones", Guarded, Pin),
            (Mode::Link, "cold", Linkable, Link),
            (Mode::Clone, "cold clones", Linkable, Clone),
            (Mode::Clone, "cold", Linkable, Link),
            (Mode::Clone, "hot small", Guarded, Hold),
            (Mode::Copy, "cold clones", Linkable, Copy),
            (Mode::Copy, "hot small", Guarded, Copy),
        ] {
            assert_eq!(choose(mode, facts(text, class)), expected, "{mode:?} {text} {class:?}");
        }
    }

    #[test]
    fn a_guarded_file_and_a_database_are_never_linked() {
        for bits in 0..64_u32 {
            let bit = |n: u32| bits >> n & 1 == 1;
            let facts = Facts {
                class: if bit(0) { Guarded } else { Linkable },
                hot: bit(1),
                database: bit(2),
                holdable: bit(3),
                staged: bit(4),
                clones: bit(5),
            };
            for mode in [Mode::Auto, Mode::Link, Mode::Clone, Mode::Copy] {
                let capture = choose(mode, facts);
                assert!(capture != Link || !(facts.database || bit(0)), "{mode:?} {facts:?}");
            }
        }
        for first in [Clone, Hold, Pin, Copy] {
            assert!(!chain(first, Guarded).contains(&Link), "{first:?}");
        }
        assert!(!chain(Database, Linkable).contains(&Link), "the chain of a database");
    }

    #[test]
    fn each_way_to_freeze_is_asked_for_by_its_name() {
        for (text, mode) in [("auto", Mode::Auto), ("link", Mode::Link), ("clone", Mode::Clone), ("copy", Mode::Copy)] {
            assert_eq!(text.parse(), Ok(mode));
        }
        assert!("hold".parse::<Mode>().is_err_and(|said| said.contains("\"hold\"")));
    }

    #[test]
    fn an_inventory_calls_each_capture_by_its_name() {
        let names = [Link, Clone, Hold, Pin, Copy, Database].map(Capture::as_str);
        assert_eq!(names, ["link", "clone", "hold", "pin", "copy", "database"]);
    }

    #[test]
    fn every_refusal_leaves_a_capture_that_needs_no_link() {
        for first in [Link, Clone, Hold, Pin, Copy, Database] {
            for class in [Guarded, Linkable] {
                let tried = chain(first, class);
                assert_eq!(tried[0], first);
                assert!(tried.contains(&Pin) && tried.contains(&Copy), "{first:?} {class:?}");
            }
        }
    }
}
