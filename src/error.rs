//! Why a run failed: the operation, the path, the cause, and what can be done.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::gate;
use crate::relpath::shown;

/// Why there is no archive.
#[derive(Debug)]
pub enum Error {
    /// What was asked for makes no sense; nothing was touched.
    Usage(String),
    /// An operation on the outside failed.
    Failed {
        /// What was being done, as in "cannot *open the source*".
        operation: String,
        /// To what.
        path: PathBuf,
        /// What the system answered.
        cause: io::Error,
        /// What the user can do.
        remedy: Option<String>,
    },
    /// Another run works on the same source, in a sentence.
    Locked(String),
    /// The archive that was read back is not what was written.
    Unproven(String),
    /// The run was cancelled.
    Cancelled,
}

/// The result of anything that can end a run.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operation on `path` failed with `cause`; a cancelled one is [`Error::Cancelled`].
    pub fn failed(operation: impl Into<String>, path: impl AsRef<Path>, cause: io::Error) -> Self {
        if gate::is_cancelled(&cause) {
            return Self::Cancelled;
        }
        Self::Failed { operation: operation.into(), path: path.as_ref().to_owned(), cause, remedy: None }
    }

    /// The same error with a word on what the user can do.
    pub fn remedy(self, advice: impl Into<String>) -> Self {
        match self {
            Self::Failed { operation, path, cause, remedy: _ } => {
                Self::Failed { operation, path, cause, remedy: Some(advice.into()) }
            }
            other => other,
        }
    }

    /// The same, where the cause is that there is no room.
    pub(crate) fn if_full(self, advice: &str) -> Self {
        match &self {
            Self::Failed { cause, .. }
                if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                self.remedy(advice)
            }
            _ => self,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::ffi::OsStrExt;
        match self {
            Self::Usage(what) | Self::Locked(what) | Self::Unproven(what) => f.write_str(what),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed { operation, path, cause, remedy } => {
                write!(f, "cannot {operation} {}: {cause}", shown(path.as_os_str().as_bytes()))?;
                remedy.as_ref().map_or(Ok(()), |advice| write!(f, " ({advice})"))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_operation_the_path_the_cause_and_what_to_do() {
        let error =
            Error::failed("open the source", "/a\nb", io::Error::from_raw_os_error(13)).remedy("run it as the owner");
        assert_eq!(
            error.to_string(),
            "cannot open the source /a\\nb: Permission denied (os error 13) (run it as the owner)"
        );
    }

    #[test]
    fn a_cancellation_is_not_a_failure() {
        assert!(matches!(Error::failed("read", "/x", gate::cancelled()), Error::Cancelled));
    }
}
