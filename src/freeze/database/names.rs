//! Which files may be a database, and which the others of one, by their names, lengths and first bytes.

/// How a database file begins.
pub(crate) const MAGIC: &[u8] = b"SQLite format 3\0";

/// The other files of a database, by the ending of their names.
pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-journal", "-shm"];
pub(super) const WAL: usize = 0;
pub(super) const JOURNAL: usize = 1;
pub(super) const SHM: usize = 2;

/// Whether a file of this name and length may be a database at all: one is a whole number of pages, each of 512 bytes or a
/// multiple.
pub(crate) fn may_be_database(name: &[u8], size: u64) -> bool {
    size >= 512 && (size.is_multiple_of(512) || has_database_name(name))
}

fn has_database_name(name: &[u8]) -> bool {
    [&b".sqlite"[..], b".sqlite3", b".db", b".db3"].iter().any(|ending| name.ends_with(ending))
}

/// The name of a sidecar of `name`.
pub(crate) fn sidecar(name: &[u8], number: usize) -> Vec<u8> {
    [name, SIDECARS[number].as_bytes()].concat()
}

/// Whether a file with the name of a sidecar is one, by its first eight bytes (fewer, if it has no more): people may give
/// a file any name.
pub(crate) fn is_sidecar(name: &[u8], start: &[u8]) -> bool {
    const LOG: [&[u8]; 2] = [&[0x37, 0x7f, 0x06, 0x82], &[0x37, 0x7f, 0x06, 0x83]];
    const ROLLBACK: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let is = |number: usize| name.ends_with(SIDECARS[number].as_bytes());
    // A journal that is kept for the next transaction begins with zeros.
    let idle = start.iter().all(|&byte| byte == 0);
    idle || is(SHM) || is(WAL) && LOG.iter().any(|magic| start.starts_with(magic)) || is(JOURNAL) && start == ROLLBACK
}

/// The name of the database that `name` would be the log or journal of.
pub(crate) fn sidecar_of(name: &[u8]) -> Option<&[u8]> {
    SIDECARS.iter().find_map(|ending| name.strip_suffix(ending.as_bytes()))
}
