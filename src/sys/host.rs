//! The machine and this process: clocks, limits, identity, randomness.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(feature = "cli")]
use rustix::process::Rlimit;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

use crate::entry::Timestamp;
use crate::relpath::hex;

fn timestamp(t: Timespec) -> Timestamp {
    Timestamp { seconds: t.tv_sec, nanos: u32::try_from(t.tv_nsec).unwrap_or(0) }
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    timestamp(clock_gettime(ClockId::Realtime))
}

/// The clock that filesystems stamp with: it stands still between two ticks.
pub(crate) fn coarse_now() -> Timestamp {
    timestamp(clock_gettime(ClockId::RealtimeCoarse))
}

/// The length of one tick of [`coarse_now`]: 1 to 10 ms, by the kernel's configuration.
pub(crate) fn coarse_tick() -> Duration {
    let t = clock_getres(ClockId::RealtimeCoarse);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// Whose rights the process has.
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whose group's rights the process has.
pub(crate) fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Forgoes the right to give files to others, for this thread and those that it starts: SQLite, as root, hands the log
/// that it opens to the owner of its database.
pub(crate) fn forgo_ownership() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Ok(mut sets) = capabilities(None) else { return };
    sets.effective -= CapabilitySet::CHOWN;
    sets.permitted -= CapabilitySet::CHOWN;
    // Whoever may not change its rights had none to forgo.
    let _forgone = set_capabilities(None, sets);
}

/// Lowers the priority of this thread and of those that it starts, as `nice` does.
#[cfg(feature = "cli")]
pub(crate) fn be_nice() {
    // To be nicer is everybody's right.
    let _allowed = rustix::process::nice(10);
}

/// The soft limit of open descriptors that this process was given, once it was raised.
static GIVEN: OnceLock<Option<u64>> = OnceLock::new();

/// The soft limit of open descriptors that this process was given, whatever it is by now; none where there is none.
#[cfg(feature = "cli")]
pub(crate) fn given_descriptor_limit() -> Option<u64> {
    GIVEN.get().copied().unwrap_or_else(|| getrlimit(Resource::Nofile).current)
}

/// Sets the soft limit of open descriptors.
///
/// # Errors
/// It is above the hard one.
#[cfg(feature = "cli")]
pub(crate) fn set_descriptor_limit(soft: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(soft), ..getrlimit(Resource::Nofile) };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Raises the soft limit of open descriptors to the hard one; returns the limit in force.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    GIVEN.get_or_init(|| limit.current);
    let before = limit.current;
    limit.current = limit.maximum;
    let current = if setrlimit(Resource::Nofile, limit).is_ok() { limit.maximum } else { before };
    current.unwrap_or(u64::MAX)
}

/// `2 * bytes` random hexadecimal digits.
///
/// # Errors
/// Those of `getrandom(2)`.
pub(crate) fn random_hex(bytes: usize) -> io::Result<String> {
    let mut buffer = vec![0; bytes];
    rustix::rand::getrandom(&mut buffer[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(hex(&buffer))
}

/// A moment as `YYYYMMDDTHHMMSSZ`, the form in our file names.
pub(crate) fn utc_stamp(at: Timestamp) -> String {
    match jiff::Timestamp::new(at.seconds, 0) {
        Ok(time) => time.strftime("%Y%m%dT%H%M%SZ").to_string(),
        Err(_) => "00000000T000000Z".to_owned(),
    }
}

/// The living process that took the `flock(2)` on the inode with this identity, as far as the kernel lets us know.
pub(crate) fn lock_holder((dev, ino): (u64, u64)) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = format!("{:02x}:{:02x}:{ino}", rustix::fs::major(dev), rustix::fs::minor(dev));
    table.lines().find_map(|line| holder_in(line, &inode)).filter(|process| is_alive(*process))
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF`.
fn holder_in(line: &str, inode: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    match fields[..] {
        [_, "FLOCK", _, _, process, held, ..] if held == inode => process.parse().ok(),
        _ => None,
    }
}

fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The largest resident set that this process has had, in bytes; 0 where the kernel does not tell.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_of_locks_is_understood() {
        let line = "2: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF";
        assert_eq!(holder_in(line, "fd:00:1234"), Some(4711));
        for other in
            ["2: POSIX  ADVISORY  WRITE 4711 fd:00:1234 0 EOF", "2: -> FLOCK ADVISORY WRITE 1 fd:00:1234 0 EOF", ""]
        {
            assert_eq!(holder_in(other, "fd:00:1234"), None, "{other}");
        }
        assert_eq!(holder_in(line, "fd:00:123"), None);
        assert!(is_alive(std::process::id()) && !is_alive(u32::MAX));
    }
}
