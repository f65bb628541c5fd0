//! What an archive tells about itself, as far as anybody goes by it. The rest of a report, which may name a million things,
//! is read past and never in memory.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::archive::Name;

/// What a report tells.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Told {
    /// When the archive was made: ISO 8601, UTC.
    pub(crate) created_at: Option<String>,
    /// The hash of the inventory.
    pub(crate) inventory_blake3: Option<String>,
    /// `instant` or `window`.
    pub(crate) consistent: Option<String>,
    /// The instant, in seconds since the epoch.
    pub(crate) instant: Option<String>,
    /// What it took.
    pub(crate) elapsed_milliseconds: Option<u64>,
    /// Whether workspaces were wanted.
    pub(crate) include_workspace: bool,
    /// Whether something of a state directory that lies elsewhere was not named.
    pub(crate) state_alone: bool,
    /// The sources.
    pub(crate) assets: Vec<Source>,
    /// What is torn, hollow or lost.
    pub(crate) losses: Vec<Loss>,
    /// How many reasons there are why it may lack what it should hold.
    pub(crate) gaps: Count,
    /// How many names were left out by a rule.
    pub(crate) excluded: Count,
}

/// A source.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Source {
    /// What it is: `state`, `workspace`, `tree` and so on.
    pub(crate) kind: String,
    /// Where it was.
    pub(crate) source_path: Name,
}

/// A name that is torn, hollow or lost.
#[derive(Debug, Deserialize)]
pub(crate) struct Loss {
    /// Where it was.
    pub(crate) path: Name,
    /// Its fate.
    pub(crate) fate: String,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}

/// The length of a list that nobody keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Counting)
    }
}

/// What a manifest of ours tells.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ToldManifest {
    /// The version of OpenClaw's schema.
    pub(super) schema_version: u64,
    /// The one directory that everything lies in.
    pub(super) archive_root: Option<String>,
    /// What OpenClaw does not know of.
    pub(super) clawsnap: Own,
}

/// What we add to OpenClaw's manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Own {
    /// The hash of the inventory.
    pub(super) inventory_blake3: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_goes_by_is_read_past_and_what_is_counted_is_not_kept() {
        let text = r#"{"createdAt":"t","deep":[[{"x":[0,1,null]}]],"excluded":[{"a":1},2,[3]],"consistent":null,
            "losses":[{"path":{"hex":"ff"},"fate":"lost","more":[]}],"assets":[{"kind":"tree","sourcePath":"/a","x":0}]}"#;
        let told: Told = serde_json::from_str(text).expect("is a report");
        assert_eq!((told.created_at.as_deref(), told.excluded, told.consistent), (Some("t"), Count(3), None));
        assert_eq!((told.losses[0].path.bytes(), told.losses[0].fate.as_str()), (Some(vec![0xff]), "lost"));
        assert_eq!((told.assets[0].kind.as_str(), told.assets[0].source_path.bytes()), ("tree", Some(b"/a".to_vec())));
    }

    /// Two bytes of a list became a value of thirty-two: some kilobytes of archive took all memory.
    #[test]
    fn lists_of_anything_else_are_refused_at_once() {
        for text in [r#"{"losses":[0,0]}"#, r#"{"losses":[{}]}"#, r#"{"assets":[[]]}"#, r#"{"excluded":7}"#] {
            assert!(serde_json::from_str::<Told>(text).is_err(), "{text}");
        }
    }
}
