//! The names that we give to what we make, and how we know them again.

use crate::entry::Timestamp;
use crate::sys;

const PREFIX: &str = ".clawsnap-";
const STAGE: &str = "stage-";
const PARTIAL: &str = ".partial";
const SWAP: &str = ".swap";
const KEPT: &str = ".before-restore-";
const ARCHIVE: &str = "clawsnap-";

/// The extended attribute of an archive that says what it was made of.
pub(crate) const SEEN: &[u8] = b"user.clawsnap.seen";

/// The extended attribute of an archive that says that it was proven, and when.
pub(crate) const PROVEN: &[u8] = b"user.clawsnap.proof";

/// The extended attribute of an archive that says that a command can be gone back from by it, and since when.
pub(crate) const WAY_BACK: &[u8] = b"user.clawsnap.wayback";

/// What the names of archives end with.
const ENDINGS: [&str; 4] = [".tar.zst", ".tar.xz", ".tar.gz", ".tar"];

/// So many archives may be made in one second, in one directory.
const MOST_IN_A_SECOND: u32 = 99;

/// The name of an archive in a directory: `clawsnap-<UTC>.tar.zst`; the second one of a second is `clawsnap-<UTC>-2.…`.
pub(crate) fn archive_name(stamp: &str, number: u32, extension: &str) -> String {
    let suffix = if number > 1 { format!("-{number}") } else { String::new() };
    format!("{ARCHIVE}{stamp}{suffix}.{extension}")
}

/// The name of the next archive of the same second; `None` where there were enough of them, or `name` is none that
/// [`archive_name`] gives.
pub(crate) fn next_archive_name(name: &[u8]) -> Option<String> {
    let (stamp, number) = archive_stamp(name)?;
    let extension = ENDINGS.iter().find(|ending| name.ends_with(ending.as_bytes()))?;
    (number < MOST_IN_A_SECOND).then(|| archive_name(stamp, number + 1, &extension[1..]))
}

/// When an archive says by its name that it was made, and its number among those of that second; `None` for any name
/// that [`archive_name`] does not give.
pub(crate) fn archive_stamp(name: &[u8]) -> Option<(&str, u32)> {
    let rest = std::str::from_utf8(name).ok()?.strip_prefix(ARCHIVE)?;
    let (stamp, rest) = rest.split_at_checked(STAMP.len())?;
    let suffix = ENDINGS.iter().find_map(|ending| rest.strip_suffix(ending))?;
    let number = if suffix.is_empty() { 1 } else { suffix.strip_prefix('-')?.parse().ok()? };
    let is_ours = has_shape(stamp.as_bytes(), STAMP)
        && ENDINGS.iter().any(|ending| archive_name(stamp, number, &ending[1..]).as_bytes() == name);
    is_ours.then_some((stamp, number))
}

/// A fresh name for something hidden of ours: `.clawsnap-<UTC>-<8 hex>`.
///
/// # Errors
/// Those of the kernel's random numbers.
pub(crate) fn hidden_name(at: Timestamp) -> std::io::Result<String> {
    Ok(format!("{PREFIX}{}-{}", sys::utc_stamp(at), sys::random_hex(4)?))
}

/// The name of the staging directory in which a source is laid out for a command, the same for every run: who backs it up
/// there finds it under the path that it had before. Each user has another one, as nobody can remove somebody else's.
pub(crate) fn stage_name(source: &[u8], user: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&user.to_le_bytes()).update(source);
    format!("{PREFIX}{STAGE}{}", &hasher.finalize().to_hex()[..8])
}

/// A fresh name for an archive that is being written where files cannot be nameless.
///
/// # Errors
/// Those of the kernel's random numbers.
pub(crate) fn partial_name(at: Timestamp) -> std::io::Result<String> {
    Ok(hidden_name(at)? + PARTIAL)
}

/// Whether `name` is that of a staging directory: the walk leaves it out, and a sweep may look at it.
pub(crate) fn is_staging_name(name: &[u8]) -> bool {
    is_fresh(name) || name.strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| has_shape(rest, b"stage-xxxxxxxx"))
}

/// Whether `name` is that of an archive in the making.
pub(crate) fn is_partial_name(name: &[u8]) -> bool {
    name.strip_suffix(PARTIAL.as_bytes()).is_some_and(is_fresh)
}

/// A fresh name for what is about to be exchanged with something that is in use.
///
/// # Errors
/// Those of the kernel's random numbers.
pub(crate) fn swap_name(at: Timestamp) -> std::io::Result<String> {
    Ok(hidden_name(at)? + SWAP)
}

/// Whether `name` is that of something that is about to be exchanged.
pub(crate) fn is_swap_name(name: &[u8]) -> bool {
    name.strip_suffix(SWAP.as_bytes()).is_some_and(is_fresh)
}

/// The name that `name` gets when the swap named `swap` has put something else in its place:
/// `<name>.before-restore-<UTC>`.
pub(crate) fn kept_name(name: &[u8], swap: &[u8]) -> Vec<u8> {
    let stamp = swap.get(PREFIX.len()..PREFIX.len() + STAMP.len()).unwrap_or_default();
    [name, KEPT.as_bytes(), stamp].concat()
}

/// The name that something had before it was kept; `None` for a name that [`kept_name`] does not give.
pub(crate) fn name_before(kept: &[u8]) -> Option<&[u8]> {
    Some(taken_apart(kept)?.0)
}

/// When something was kept, in a form that sorts by time; `None` for a name that [`kept_name`] does not give.
pub(crate) fn kept_at(kept: &[u8]) -> Option<&[u8]> {
    Some(taken_apart(kept)?.1)
}

fn taken_apart(kept: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = kept.windows(KEPT.len()).rposition(|window| window == KEPT.as_bytes())?;
    let stamp = kept[at + KEPT.len()..].get(..STAMP.len())?;
    (at > 0 && has_shape(stamp, STAMP)).then_some((&kept[..at], stamp))
}

/// `YYYYMMDDTHHMMSSZ`.
const STAMP: &[u8] = b"ddddddddTddddddZ";

/// Whether `name` is one that [`hidden_name`] gives.
fn is_fresh(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| has_shape(rest, b"ddddddddTddddddZ-xxxxxxxx"))
}

/// Whether a text is of this shape: `d` stands for a digit, `x` for a hexadecimal one.
fn has_shape(text: &[u8], shape: &[u8]) -> bool {
    let fits = |(&shape, c): (&u8, &u8)| match shape {
        b'd' => c.is_ascii_digit(),
        b'x' => c.is_ascii_digit() || (b'a'..=b'f').contains(c),
        literal => *c == literal,
    };
    text.len() == shape.len() && shape.iter().zip(text).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_know_our_own_names_and_no_others() {
        let name = hidden_name(sys::now()).expect("random numbers");
        assert!(is_staging_name(name.as_bytes()), "{name}");
        assert!(!is_partial_name(name.as_bytes()));
        let partial = partial_name(sys::now()).expect("random numbers");
        assert!(is_partial_name(partial.as_bytes()), "{partial}");
        assert!(!is_staging_name(partial.as_bytes()));
        let swap = swap_name(sys::now()).expect("random numbers");
        assert!(is_swap_name(swap.as_bytes()) && !is_partial_name(swap.as_bytes()), "{swap}");
        assert!(!is_staging_name(swap.as_bytes()));
        let [stage, other] = [b"/a", b"/b"].map(|source| stage_name(source, 0));
        assert!(is_staging_name(stage.as_bytes()) && stage != other && stage != stage_name(b"/a", 1), "{stage}");
        assert!(!is_partial_name((stage + PARTIAL).as_bytes()));
        for other in
            [".clawsnap-", ".clawsnap-20261123T231500Z-1A2b3c4d", ".clawsnap-20261123T231500Z-1a2b3c4d.old", "x"]
        {
            assert!(!is_staging_name(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn we_know_our_archives_by_their_names() {
        for (name, number) in [
            ("clawsnap-20261123T231500Z.tar.zst", 1),
            ("clawsnap-20261123T231500Z.tar", 1),
            ("clawsnap-20261123T231500Z-2.tar.xz", 2),
            ("clawsnap-20261123T231500Z-99.tar.gz", 99),
        ] {
            assert_eq!(archive_stamp(name.as_bytes()), Some(("20261123T231500Z", number)), "{name}");
        }
        for other in [
            "clawsnap-20261123T231500Z.tar.zst.old",
            "clawsnap-20261123T231500Z-02.tar.zst",
            "clawsnap-20261123T231500Z-1.tar.zst",
            "clawsnap-20261123T231500Z-+2.tar.zst",
            "clawsnap-20261123T231500Z-.tar.zst",
            "clawsnap-20261123T231500.tar.zst",
            "clawsnap-20261123T231500Z.zip",
            "clawsnap-20261123T231500Z",
            ".clawsnap-20261123T231500Z.tar.zst",
            "xclawsnap-20261123T231500Z.tar.zst",
            "clawsnap-\u{e9}0261123T231500Z.tar",
            "clawsnap-.tar",
        ] {
            assert_eq!(archive_stamp(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn there_is_a_next_name_for_ninety_nine_archives_of_a_second() {
        let first = archive_name("20261123T231500Z", 1, "tar.zst");
        let names: Vec<_> = std::iter::successors(Some(first), |name| next_archive_name(name.as_bytes())).collect();
        assert_eq!((names.len(), names[1].as_str()), (99, "clawsnap-20261123T231500Z-2.tar.zst"));
        assert_eq!(names[98], "clawsnap-20261123T231500Z-99.tar.zst");
        assert_eq!(next_archive_name(b"mine.tar"), None);
    }

    #[test]
    fn what_is_kept_is_named_after_what_it_was() {
        let kept = kept_name(b".openclaw", b".clawsnap-20261125T015233Z-1a2b3c4d.swap");
        assert_eq!(kept, b".openclaw.before-restore-20261125T015233Z");
        assert_eq!((name_before(&kept), kept_at(&kept)), (Some(&b".openclaw"[..]), Some(&b"20261125T015233Z"[..])));
        assert_eq!(name_before(&kept_name(&kept, b".clawsnap-20261126T015233Z-1a2b3c4d.swap")), Some(&kept[..]));
        assert_eq!(name_before(&[&kept[..], b"-1a2b3c4d"].concat()), Some(&b".openclaw"[..]), "one of two in a second");
        for other in [&b".before-restore-20261125T015233Z"[..], b"x.before-restore-soon", b"x"] {
            assert_eq!(name_before(other), None);
        }
    }
}
