//! What is mounted below a directory: it would be moved along with that, or be in the way.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Filesystems that answer when another machine does, or the host of this one; and whether they may be able to exchange two
/// names: the rename of the others takes no flags, whatever the kernel.
const REMOTE: [(&str, bool); 9] = [
    ("9p", false),
    ("afs", true),
    ("ceph", false),
    ("cifs", false),
    ("lustre", true),
    ("nfs", false),
    ("nfs4", false),
    ("smb3", false),
    ("virtiofs", true),
];

/// A mount point below `path`, and not at it.
pub(super) fn mount_below(path: &Path) -> Option<PathBuf> {
    mounts_below(path).into_iter().next()
}

/// All mount points below `path`, and not at it.
pub(crate) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = table();
    let points = table.split(|&c| c == b'\n').filter_map(point);
    points.filter(|point| point != path && point.starts_with(path)).collect()
}

/// The kinds of the filesystems that `path` lies on, and of those that are mounted below it, as the kernel calls them.
/// No path is resolved for that.
pub(crate) fn filesystems_at(path: &Path) -> Vec<String> {
    kinds(&table(), path)
}

/// Whether a filesystem of this kind answers only when another program, or another machine, does.
#[cfg(any(feature = "cli", test))]
pub(crate) fn is_served(kind: &str) -> bool {
    kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.") || REMOTE.iter().any(|(remote, _)| *remote == kind)
}

/// Whether it is known that a filesystem of this kind cannot exchange two names.
pub(super) fn cannot_exchange(kind: &str) -> bool {
    REMOTE.contains(&(kind, false))
}

fn kinds(table: &[u8], path: &Path) -> Vec<String> {
    let lines = || table.split(|&c| c == b'\n').filter_map(|line| Some((point(line)?, kind(line)?)));
    // Of two at one place, the later one covers the earlier one.
    let under = lines().filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.as_os_str().len());
    let below = lines().filter(|(point, _)| point.starts_with(path) && point != path);
    under.into_iter().chain(below).map(|(_, kind)| kind).collect()
}

fn table() -> Vec<u8> {
    fs::read("/proc/self/mountinfo").unwrap_or_default()
}

/// The kind of a line, the first field after a lone dash.
fn kind(line: &[u8]) -> Option<String> {
    let mut fields = line.split(|&c| c == b' ').skip_while(|field| *field != b"-");
    Some(String::from_utf8_lossy(fields.nth(1)?).into_owned())
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

    #[test]
    fn a_path_is_on_the_last_and_deepest_mount_above_it_and_has_those_below_it() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /mnt rw shared:1 - xfs a rw\n\
                      3 2 0:6 / /mnt rw - fuse.sshfs b rw\n4 3 0:7 / /mnt/d/e rw - nfs4 c rw\n";
        for (path, expected) in [
            ("/home", vec!["ext4"]),
            ("/mnt", vec!["fuse.sshfs", "nfs4"]),
            ("/mnt/d", vec!["fuse.sshfs", "nfs4"]),
            ("/mnt/d/e/f", vec!["nfs4"]),
            ("/mntx", vec!["ext4"]),
        ] {
            assert_eq!(kinds(table, Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_others_serve_may_hang_and_some_of_it_cannot_exchange() {
        for (kind, served, barred) in [
            ("fuse", true, false),
            ("fuse.sshfs", true, false),
            ("fuseblk", true, false),
            ("fusectl", false, false),
            ("nfs4", true, true),
            ("cifs", true, true),
            ("virtiofs", true, false),
            ("ext4", false, false),
            ("tmpfs", false, false),
        ] {
            assert_eq!((is_served(kind), cannot_exchange(kind)), (served, barred), "{kind}");
        }
    }
}
