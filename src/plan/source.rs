//! What people name on the command line.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::environment::{Environment, expand};
use super::error::PlanError;
use crate::naming::is_staging_name;

/// The canonical path of a source, which is a directory or a regular file that can be read.
pub(super) fn resolve(named: &Path, environment: &Environment) -> Result<PathBuf, PlanError> {
    if named.as_os_str().is_empty() {
        return Err(PlanError::EmptySource);
    }
    let path = match environment.cwd.join(named).canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return resolve_missing(named, environment),
        Err(error) => return Err(PlanError::Unreadable(named.to_path_buf(), error)),
    };
    check_readable(&path)?;
    Ok(path)
}

/// A shell leaves the `~` in `--source=~/x` or in quotes as it is; what it means is plain.
fn resolve_missing(named: &Path, environment: &Environment) -> Result<PathBuf, PlanError> {
    let home = environment.effective_home();
    let starts_with_tilde = named.as_os_str().as_encoded_bytes().starts_with(b"~");
    match expand(named, Some(&home)) {
        expanded if expanded != named && home.is_absolute() => resolve(&expanded, environment),
        _ if starts_with_tilde => Err(PlanError::Unexpanded(named.to_path_buf())),
        _ if environment.cwd.join(named).symlink_metadata().is_ok() => Err(PlanError::Dangling(named.to_path_buf())),
        _ => Err(PlanError::Missing(named.to_path_buf())),
    }
}

/// Whether the directory at `path` holds no name but such as dead runs of ours have left. What cannot be listed is no empty
/// directory: the freeze tells of that.
pub(super) fn holds_nothing(path: &Path) -> bool {
    let is_ours =
        |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| is_staging_name(entry.file_name().as_bytes()));
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(is_ours))
}

/// Whether reading is allowed is asked by doing it: modes, ACLs and mounts all have a say. What is neither a
/// directory nor a file is not opened, for that could wait for ever.
pub(super) fn check_readable(path: &Path) -> Result<(), PlanError> {
    let unreadable = |error| PlanError::Unreadable(path.to_path_buf(), error);
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        fs::read_dir(path).map(drop).map_err(unreadable)
    } else if metadata.is_file() {
        File::open(path).map(drop).map_err(unreadable)
    } else {
        Err(PlanError::NotASource(path.to_path_buf()))
    }
}
