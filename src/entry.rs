//! What is known of one file: its kind, its metadata, its extended attributes.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What sort of thing a name is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A block or character device.
    Device,
}

/// Nanoseconds since the Unix epoch, before it as well: seconds rounded down, and a fraction that is never negative.
///
/// Packed, as [`Stat`] is: one is kept for each file that is held, and this leaves out the padding.
#[repr(Rust, packed(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// The coarsest clock that stamps files: FAT's.
pub(crate) const COARSEST: Duration = Duration::from_secs(2);

/// Nanoseconds of a hundredth of a second.
const HUNDREDTH: u32 = 10_000_000;

fn nanos_of(span: Duration) -> i128 {
    i128::from(span.as_secs()) * NANOS_PER_SECOND + i128::from(span.subsec_nanos())
}

impl Timestamp {
    /// The same moment as one number of nanoseconds.
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * NANOS_PER_SECOND + i128::from(self.nanos)
    }

    /// The moment that is `nanos` nanoseconds after the epoch; clamped to what 64-bit seconds can say.
    pub fn from_nanos(nanos: i128) -> Self {
        let seconds = nanos.div_euclid(NANOS_PER_SECOND);
        Self {
            seconds: i64::try_from(seconds).unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX }),
            nanos: u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0),
        }
    }

    /// Whether something that is stamped with this time may have been changed just before `now`, by a clock that ticks
    /// every `tick`, or is off by as much: then the next change could be stamped with it too. A time further in the
    /// future is none that a clock gave.
    pub fn is_fresh(self, now: Timestamp, tick: Duration) -> bool {
        const SKEW: Duration = Duration::from_secs(1);
        if tick.is_zero() {
            return false;
        }
        let ahead = Self::from_nanos(self.as_nanos() - nanos_of(tick.max(SKEW)));
        self >= now.before(tick.saturating_add(self.grain())) && ahead <= now
    }

    /// How coarsely a filesystem may keep this time, by its looks: FAT keeps every second second, ext3 (and ext4 with
    /// inodes of 128 bytes) whole ones, exFAT hundredths. One in ten million finer times looks like that too.
    fn grain(self) -> Duration {
        match self.nanos {
            0 if self.seconds % 2 == 0 => COARSEST,
            0 => Duration::from_secs(1),
            nanos if nanos % HUNDREDTH == 0 => Duration::from_nanos(HUNDREDTH.into()),
            _ => Duration::ZERO,
        }
    }

    /// How long after `earlier` this is; nothing where it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let nanos = self.as_nanos() - earlier.as_nanos();
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    /// `span` before this moment.
    pub fn before(self, span: Duration) -> Self {
        Self::from_nanos(self.as_nanos() - nanos_of(span))
    }
}

/// Seconds with nine decimals, as PAX records and the inventory write it: `-1.5` is written `-2.500000000`'s exact
/// value, that is `-1.500000000`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.as_nanos();
        let sign = if total < 0 { "-" } else { "" };
        let magnitude = total.unsigned_abs();
        let unit = NANOS_PER_SECOND.unsigned_abs();
        write!(f, "{sign}{}.{:09}", magnitude / unit, magnitude % unit)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The metadata of an inode, as `statx` gives it.
///
/// Packed: one is kept for each file that is held. (The 64-bit fields have to be copied before they can be lent.)
#[repr(Rust, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that the inode has.
    pub nlink: u32,
    /// Length in bytes.
    pub size: u64,
    /// 512-byte blocks on disk.
    pub blocks: u64,
    /// Inode number.
    pub ino: u64,
    /// Device of the filesystem.
    pub dev: u64,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode. **No** evidence of a content change: every link, rename or unlink moves it.
    pub ctime: Timestamp,
}

impl Stat {
    /// The identity of the inode.
    pub fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether the contents are, as far as metadata tells, those that `other` was taken from.
    pub fn same_contents(&self, other: &Stat) -> bool {
        (self.id(), self.size, self.mtime) == (other.id(), other.size, other.mtime)
    }
}

/// A directory's stamp, or that of a file whose contents shall be proved unmoved: any change moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    id: (u64, u64),
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Stamp {
    /// The stamp of what `stat` describes.
    pub fn of(stat: &Stat) -> Self {
        Self { id: stat.id(), mtime: stat.mtime, ctime: stat.ctime }
    }

    /// Whether a change at `now` or later must move this stamp, on a filesystem whose clock ticks every `tick`: git's
    /// "racily clean" rule. A stamp younger than a tick can be left unmoved by the next change.
    pub fn proves_from(&self, now: Timestamp, tick: Duration) -> bool {
        !self.mtime.is_fresh(now, tick) && !self.ctime.is_fresh(now, tick)
    }
}

/// Extended attributes, sorted by name, POSIX ACLs among them (`system.posix_acl_*`).
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_are_written_exactly() {
        let shown = |seconds, nanos| Timestamp { seconds, nanos }.to_string();
        assert_eq!(shown(-2, 500_000_000), "-1.500000000");
        assert_eq!(shown(-1, 999_999_999), "-0.000000001");
        assert_eq!(shown(0, 0), "0.000000000");
        assert_eq!(shown(1_700_000_000, 1), "1700000000.000000001");
    }

    #[test]
    fn nanoseconds_and_back_is_the_same_moment() {
        for t in [(-2, 5), (0, 0), (i64::MAX, 999_999_999), (i64::MIN, 0), (17, 1)] {
            let stamp = Timestamp { seconds: t.0, nanos: t.1 };
            assert_eq!(Timestamp::from_nanos(stamp.as_nanos()), stamp);
        }
    }

    #[test]
    fn a_time_is_fresh_from_a_tick_before_now_to_a_second_after_it() {
        let (now, tick) = (10_000_000_501, Duration::from_nanos(100));
        let fresh = |time| Timestamp::from_nanos(time).is_fresh(Timestamp::from_nanos(now), tick);
        for (time, expected) in [(-101, false), (-100, true), (0, true), (1_000_000_000, true), (1_000_000_001, false)]
        {
            assert_eq!(fresh(now + time), expected, "{time}");
        }
        let tickless = Timestamp::from_nanos(now).is_fresh(Timestamp::from_nanos(now), Duration::ZERO);
        assert!(!tickless);
    }

    /// ext3 stamps a change with the second that it is in: what came 0.8 s later left no mark, and was called unmoved.
    #[test]
    fn a_time_without_a_fraction_may_be_that_of_a_change_long_after_it() {
        let fresh = |stamp: (i64, u32), now: (i64, u32)| {
            let at = |(seconds, nanos)| Timestamp { seconds, nanos };
            at(stamp).is_fresh(at(now), Duration::from_millis(4))
        };
        for (stamp, last, no_more) in [
            ((10, 0), (12, 4_000_000), (12, 4_000_001)),
            ((11, 0), (12, 4_000_000), (12, 4_000_001)),
            ((10, 20_000_000), (10, 34_000_000), (10, 34_000_001)),
            ((10, 1), (10, 4_000_001), (10, 4_000_002)),
        ] {
            assert!(fresh(stamp, last) && !fresh(stamp, no_more), "{stamp:?}");
        }
    }

    #[test]
    fn a_clock_that_is_off_makes_fresh_what_is_as_far_off() {
        let at = |seconds| Timestamp { seconds, nanos: 1 };
        let fresh = |stamp| at(stamp).is_fresh(at(100), Duration::from_secs(30));
        assert!(fresh(70) && fresh(130) && !fresh(69) && !fresh(131));
    }

    #[test]
    fn before_goes_back_and_stops_where_time_begins() {
        let at = Timestamp::from_nanos;
        assert_eq!(at(5_000_000_000).before(Duration::from_nanos(1)), at(4_999_999_999));
        let beginning = Timestamp { seconds: i64::MIN, nanos: 0 };
        assert!(beginning.before(Duration::MAX).seconds == i64::MIN);
    }

    #[test]
    fn contents_are_the_same_while_inode_length_and_time_are() {
        let time = |nanos| Timestamp::from_nanos(nanos);
        let stat = Stat {
            kind: Kind::File,
            mode: 0o600,
            uid: 1,
            gid: 2,
            nlink: 1,
            size: 10,
            blocks: 8,
            ino: 11,
            dev: 12,
            mtime: time(13),
            ctime: time(14),
        };
        assert_eq!(stat.id(), (12, 11));
        assert!(stat.same_contents(&Stat { nlink: 2, ctime: time(99), mode: 0o644, ..stat }), "a link moves these");
        for other in [
            Stat { size: 11, ..stat },
            Stat { ino: 12, ..stat },
            Stat { dev: 13, ..stat },
            Stat { mtime: time(99), ..stat },
        ] {
            assert!(!stat.same_contents(&other));
        }
    }

    #[test]
    fn a_stamp_younger_than_a_tick_proves_nothing() {
        let at = |nanos| Timestamp::from_nanos(nanos);
        let stamp = Stamp { id: (1, 2), mtime: at(1_000), ctime: at(5_000_000) };
        let tick = Duration::from_millis(4);
        assert!(!stamp.proves_from(at(5_000_000), tick));
        assert!(!stamp.proves_from(at(9_000_000), tick));
        assert!(stamp.proves_from(at(9_000_001), tick));
        assert!(stamp.proves_from(at(5_000_000), Duration::ZERO), "a clock without ticks proves at once");
        let from_the_future = Stamp { mtime: at(1 << 60), ..stamp };
        assert!(from_the_future.proves_from(at(9_000_001), tick), "somebody set that time, no clock did");
    }
}
