//! What a plan could not take as it stood, without being stopped by it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::root::AssetKind;

/// What a plan could not take as it stood, without being stopped by it. Shown as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The config, or a file that it includes, cannot be read or understood.
    BrokenConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A path in the config refers to a variable that is not set.
    UnsetVariable {
        /// The variable.
        name: String,
        /// The path as the config has it.
        written: String,
    },
    /// A place that belongs to the installation does not exist.
    MissingAsset {
        /// What it would be.
        kind: AssetKind,
        /// Where it would be.
        path: PathBuf,
        /// The config or the environment names it. Else OpenClaw makes it when it needs it.
        is_named: bool,
    },
    /// A directory that was asked for, or that the config names, holds no name at all. A disk that is away leaves its mount
    /// point so.
    EmptyAsset {
        /// What it is.
        kind: AssetKind,
        /// Where it is.
        path: PathBuf,
    },
    /// The config of a state directory that was named puts something elsewhere, and that was not named.
    NotNamed {
        /// What it is.
        kind: AssetKind,
        /// Where it is.
        path: PathBuf,
    },
    /// The config puts a store of sessions into a directory that holds far more than them.
    WideStore {
        /// The store.
        path: PathBuf,
    },
    /// The config lets sandboxed agents work in a directory that holds far more than their work.
    WideSandbox {
        /// The directory.
        path: PathBuf,
    },
    /// The directory that the config puts the agents' sessions into cannot be listed: there may be more of them.
    UnlistedStores {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        cause: String,
    },
    /// A symbolic link in the state directory leads out of it, to what cannot be taken along.
    LinkNotFollowed {
        /// The link.
        link: PathBuf,
        /// Why not.
        cause: String,
    },
    /// An exclude pattern leaves out a whole source.
    ExcludedRoot {
        /// The source.
        path: PathBuf,
        /// The rule.
        rule: String,
    },
    /// An exclude pattern with an absolute path that touches no source.
    IdlePattern(String),
    /// A profile is set, but not the state directory that its gateway has.
    ProfileWithoutState {
        /// The profile.
        profile: String,
        /// The state directory that OpenClaw itself takes then, and so does this plan.
        state_dir: PathBuf,
    },
}

impl Warning {
    /// Whether the archive may lack what it should hold, so that somebody must look, though nothing that was found is
    /// lost.
    pub fn is_gap(&self) -> bool {
        match self {
            Self::MissingAsset { is_named, .. } => *is_named,
            // That is what was asked for.
            Self::IdlePattern(_) | Self::ExcludedRoot { .. } => false,
            Self::BrokenConfig { .. }
            | Self::UnsetVariable { .. }
            | Self::EmptyAsset { .. }
            | Self::NotNamed { .. }
            | Self::WideStore { .. }
            | Self::WideSandbox { .. }
            | Self::UnlistedStores { .. }
            | Self::LinkNotFollowed { .. }
            | Self::ProfileWithoutState { .. } => true,
        }
    }
}

fn asset(f: &mut fmt::Formatter<'_>, kind: AssetKind, path: &Path, what: &str) -> fmt::Result {
    write!(f, "The {} {} {what}", kind.as_str(), path.display())
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenConfig { path, cause } => write!(
                f,
                "{} cannot be understood ({cause}): it is archived as it is, and what it says about workspaces and \
                 agents is not followed.",
                path.display()
            ),
            Self::UnsetVariable { name, written } => write!(
                f,
                "{name} is not set here, so that nobody knows what the config means by {written:?}: it is not in the \
                 archive. Set {name} where this runs, or in the .env of the state directory."
            ),
            Self::MissingAsset { kind, path, .. } => asset(f, *kind, path, "does not exist and is not in the archive."),
            Self::EmptyAsset { kind, path } => asset(f, *kind, path, "holds nothing: is its disk mounted?"),
            Self::NotNamed { kind, path } => {
                let why = "is not in the archive, since only what is named is: name it too, or no source at all.";
                asset(f, *kind, path, why)
            }
            Self::WideStore { path } => write!(
                f,
                "The transcripts beside {} are not in the archive: its directory holds more than sessions. Give them one \
                 of their own.",
                path.display()
            ),
            Self::WideSandbox { path } => write!(
                f,
                "What sandboxed agents wrote to {} is not in the archive: it holds far more than that. Let their \
                 sandbox.workspaceRoot be a directory of its own.",
                path.display()
            ),
            Self::UnlistedStores { dir, cause } => write!(
                f,
                "{} cannot be listed ({cause}): the sessions in it of agents that the config does not name are not in \
                 the archive. Run clawsnap as the user who runs OpenClaw.",
                dir.display()
            ),
            Self::LinkNotFollowed { link, cause } => write!(
                f,
                "What the symbolic link {} leads to is not in the archive ({cause}). Repair the link, or let it lead to \
                 a directory of its own.",
                link.display()
            ),
            Self::ExcludedRoot { path, rule } => write!(f, "{} is left out as a whole ({rule}).", path.display()),
            Self::IdlePattern(pattern) => write!(
                f,
                "The exclude pattern {pattern:?} is an absolute path that touches no source. To match below a source, \
                 write it without the leading slash, with ./ in front."
            ),
            Self::ProfileWithoutState { profile, state_dir } => write!(
                f,
                "OPENCLAW_PROFILE is {profile:?} but OPENCLAW_STATE_DIR is not set: this backs up {}. For the profile's \
                 own state, set OPENCLAW_STATE_DIR.",
                state_dir.display()
            ),
        }
    }
}
