//! The names that we give to what we make, and how we know them again.

use crate::entry::Timestamp;
use crate::sys;

const PREFIX: &str = ".clawsnap-";
const PARTIAL: &str = ".partial";

/// A fresh name for something hidden of ours: `.clawsnap-<UTC>-<8 hex>`.
///
/// # Errors
/// Those of the kernel's random numbers.
pub(crate) fn hidden_name(at: Timestamp) -> std::io::Result<String> {
    Ok(format!("{PREFIX}{}-{}", sys::utc_stamp(at), sys::random_hex(4)?))
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
    name.strip_prefix(PREFIX.as_bytes()).is_some_and(is_stamp_and_hex)
}

/// Whether `name` is that of an archive in the making.
pub(crate) fn is_partial_name(name: &[u8]) -> bool {
    name.strip_suffix(PARTIAL.as_bytes()).is_some_and(is_staging_name)
}

/// `YYYYMMDDTHHMMSSZ-xxxxxxxx`.
fn is_stamp_and_hex(rest: &[u8]) -> bool {
    const SHAPE: &[u8] = b"ddddddddTddddddZ-xxxxxxxx";
    let fits = |(&shape, c): (&u8, &u8)| match shape {
        b'd' => c.is_ascii_digit(),
        b'x' => c.is_ascii_digit() || (b'a'..=b'f').contains(c),
        literal => *c == literal,
    };
    rest.len() == SHAPE.len() && SHAPE.iter().zip(rest).all(fits)
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
        for other in
            [".clawsnap-", ".clawsnap-20261123T231500Z-1A2b3c4d", ".clawsnap-20261123T231500Z-1a2b3c4d.old", "x"]
        {
            assert!(!is_staging_name(other.as_bytes()), "{other}");
        }
    }
}
