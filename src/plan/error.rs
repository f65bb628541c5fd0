//! Why no plan could be made.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why no plan could be made. Each message names the operation, the path, the cause and what to do about it.
#[derive(Debug)]
pub enum PlanError {
    /// No source was named, and OpenClaw's state directory is not where it should be.
    NoState {
        /// The places that were looked at.
        looked: Vec<PathBuf>,
        /// Whether `OPENCLAW_STATE_DIR` named the place.
        named: bool,
    },
    /// A source is the empty string.
    EmptySource,
    /// A source does not exist.
    Missing(PathBuf),
    /// A source is a symbolic link to nothing.
    Dangling(PathBuf),
    /// A source starts with a `~` that nobody can expand.
    Unexpanded(PathBuf),
    /// A source cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A source is neither a directory nor a regular file.
    NotASource(PathBuf),
    /// Only the config was asked for, and there is none.
    NoConfig(PathBuf),
    /// Only the config was asked for, of a directory that has none by itself.
    OnlyConfigOfTree(PathBuf),
    /// An exclude pattern that means nothing.
    BadPattern {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A file of exclude patterns cannot be read.
    ExcludeFile(PathBuf, io::Error),
    /// The exclude patterns leave no source.
    NothingLeft,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoState { looked, named } => no_state(f, looked, *named),
            Self::EmptySource => f.write_str(
                "cannot back up a source without a name: an empty argument was given. Check the variable that it came \
                 from.",
            ),
            Self::Missing(path) => {
                write!(f, "cannot back up {}: there is no such file or directory. Check the path.", path.display())
            }
            Self::Dangling(path) => write!(
                f,
                "cannot back up {}: it is a symbolic link to something that is not there. Repair the link or name its \
                 target.",
                path.display()
            ),
            Self::Unexpanded(path) => write!(
                f,
                "cannot back up {}: the shell did not expand the ~, and the home directory that it means is not known. \
                 Write the path in full.",
                path.display()
            ),
            Self::Unreadable(path, cause) => write!(
                f,
                "cannot back up {}: reading it failed ({cause}). Run clawsnap as the user who owns it.",
                path.display()
            ),
            Self::NotASource(path) => write!(
                f,
                "cannot back up {}: it is neither a directory nor a regular file. Name the directory that holds it.",
                path.display()
            ),
            Self::NoConfig(path) => write!(
                f,
                "cannot back up the config: there is no {}. Set OPENCLAW_CONFIG_PATH, or leave out --only-config.",
                path.display()
            ),
            Self::OnlyConfigOfTree(path) => write!(
                f,
                "cannot back up only the config of {}: it is no OpenClaw state directory. Leave out --only-config, or \
                 name the state directory.",
                path.display()
            ),
            Self::BadPattern { pattern, cause } => {
                write!(f, "cannot use the exclude pattern {pattern:?}: {cause}. Correct it or leave it out.")
            }
            Self::ExcludeFile(path, cause) => write!(
                f,
                "cannot read exclude patterns from {}: {cause}. It must be a UTF-8 text file, one pattern a line.",
                path.display()
            ),
            Self::NothingLeft => {
                f.write_str("cannot back up anything: the exclude patterns leave out every source. Narrow them.")
            }
        }
    }
}

fn no_state(f: &mut fmt::Formatter<'_>, looked: &[PathBuf], named: bool) -> fmt::Result {
    let places: Vec<String> = looked.iter().map(|path| path.display().to_string()).collect();
    let by = if named { " (named by OPENCLAW_STATE_DIR)" } else { "" };
    write!(
        f,
        "cannot find OpenClaw's state directory: no directory at {}{by}. Name a SOURCE, set OPENCLAW_STATE_DIR, or run \
         clawsnap as the user who runs OpenClaw.",
        places.join(" or ")
    )
}

impl From<PlanError> for crate::error::Error {
    fn from(error: PlanError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Error for PlanError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreadable(_, cause) | Self::ExcludeFile(_, cause) => Some(cause),
            _ => None,
        }
    }
}
