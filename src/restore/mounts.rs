//! What is mounted below a directory: it would be moved along with that, or be in the way.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount point below `path`, and not at it.
pub(super) fn mount_below(path: &Path) -> Option<PathBuf> {
    mounts_below(path).into_iter().next()
}

/// All mount points below `path`, and not at it.
pub(crate) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = table.split(|&c| c == b'\n').filter_map(point);
    points.filter(|point| point != path && point.starts_with(path)).collect()
}

/// The mount point of a line, its fifth field.
fn point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|&c| c == b' ').nth(4)?;
    Some(PathBuf::from(OsString::from_vec(unescaped(field))))
}

/// The kernel writes blanks, line ends and backslashes in octal.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        name.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_read_as_the_kernel_writes_it() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(point(line), Some(PathBuf::from(r"/a b\c")));
        assert_eq!(point(b""), None);
        assert_eq!(mount_below(Path::new("/proc/self/no/such")), None);
        assert!(mount_below(Path::new("/")).is_some(), "something is mounted somewhere");
    }
}
