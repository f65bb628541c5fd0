//! How an archive's bytes are compressed: which codec, at which level, and the two ends of the pipe.
//!
//! [`Encoder`] writes one compressed stream into a sink and [`Decoder`] reads one back. Three
//! properties hold for every codec:
//!
//! - **Only [`Encoder::finish`] finishes.** No codec holds the sink, so an encoder that is dropped,
//!   or that has failed once, cannot write the trailer that would make half a backup look whole.
//! - **Same input, same bytes.** The output depends on the input, the codec and the level, never on
//!   how the input was cut into writes, on the number of threads, or on timing.
//! - **A clean end is a proof of a whole stream** ([`Decoder`]): a cut or damaged stream, or bytes
//!   behind it, are errors. [`Codec::None`] has no checksum and so proves nothing.

mod decoder;
mod encoder;
mod gzip;
#[cfg(test)]
mod tests;
mod xz;

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// The most threads that a codec is run on: zstd's own limit, applied to all.
const MAX_THREADS: u32 = 256;

/// The processors that this process may use, as far as a codec can be run on them.
pub(crate) fn processors() -> u32 {
    let most = |n: NonZeroUsize| u32::try_from(n.get()).unwrap_or(MAX_THREADS).min(MAX_THREADS);
    std::thread::available_parallelism().map_or(1, most)
}

/// A compressed format that stock `tar` can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Zstandard: one frame, long-distance matching over 64 MiB, content checksum.
    #[default]
    Zstd,
    /// xz: one stream of independent blocks, CRC-64.
    Xz,
    /// gzip: one member, for readers that know nothing newer.
    Gzip,
    /// No compression: the bytes as they are.
    None,
}

/// Endings of file names, and the codec each one promises.
const ENDINGS: [(&str, Codec); 7] = [
    (".tar.zst", Codec::Zstd),
    (".tzst", Codec::Zstd),
    (".tar.xz", Codec::Xz),
    (".txz", Codec::Xz),
    (".tar.gz", Codec::Gzip),
    (".tgz", Codec::Gzip),
    (".tar", Codec::None),
];

impl Codec {
    /// Every codec, the default first.
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Xz, Self::Gzip, Self::None];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }

    /// The ending of a tar archive's file name, without a leading dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "tar.zst",
            Self::Xz => "tar.xz",
            Self::Gzip => "tar.gz",
            Self::None => "tar",
        }
    }

    /// The levels the codec takes, or `None` where there is nothing to choose.
    ///
    /// zstd ends at 19: the levels above it ("ultra") need gigabytes to compress.
    #[must_use]
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::Zstd => Some(1..=19),
            Self::Xz => Some(0..=9),
            Self::Gzip => Some(1..=9),
            Self::None => None,
        }
    }

    /// The level taken when none is named, or `None` where there is nothing to choose.
    ///
    /// zstd stands at 2, whose table of matches stays beside the processor: half the time of a processor for sessions that 3
    /// takes, and 7 % more bytes. xz stands at 3 and not at the tool's own 6, which takes 254 MB on two threads (3: 104 MB)
    /// and four times as long.
    #[must_use]
    pub const fn default_level(self) -> Option<i32> {
        match self {
            Self::Zstd => Some(2),
            Self::Xz => Some(3),
            Self::Gzip => Some(6),
            Self::None => None,
        }
    }

    fn check_level(self, level: i32) -> Result<i32, InvalidCompression> {
        match self.levels() {
            Some(levels) if levels.contains(&level) => Ok(level),
            _ => Err(self.refuse_level(&level)),
        }
    }

    fn refuse_level(self, level: &dyn fmt::Display) -> InvalidCompression {
        InvalidCompression(match self.levels() {
            Some(levels) => {
                let (low, high) = levels.into_inner();
                format!("{self} takes a level from {low} to {high}, not \"{level}\"")
            }
            None => format!("{self} takes no level, not even \"{level}\""),
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = InvalidCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|codec| codec.name() == name);
        known.ok_or_else(|| {
            InvalidCompression(format!(
                "\"{name}\" is no compression: expected zstd, xz, gzip or none, with or without a \
                 level, as in zstd:3"
            ))
        })
    }
}

/// A codec, and a level where one was asked for.
///
/// Written and parsed as `zstd`, `zstd:3` or `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compression {
    /// The format.
    pub codec: Codec,
    /// The level, or `None` for [`Codec::default_level`]. What is out of [`Codec::levels`] is refused
    /// when compression starts.
    pub level: Option<i32>,
}

impl Compression {
    /// The compression that the ending of a file name promises, at the default level: `.tar.zst` and
    /// `.tzst`, `.tar.xz` and `.txz`, `.tar.gz` and `.tgz`, `.tar`, in lower or upper case.
    ///
    /// `None` where the ending says nothing, and where the path ends in no name.
    #[must_use]
    pub fn from_file_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_ascii_lowercase();
        let ends = |ending: &str| name.as_encoded_bytes().ends_with(ending.as_bytes());
        let (_, codec) = ENDINGS.into_iter().find(|(ending, _)| ends(ending))?;
        Some(codec.into())
    }

    /// The level that will be used, or `None` where the codec has none.
    ///
    /// # Errors
    /// The level asked for is none of the codec's [levels](Codec::levels).
    pub fn effective_level(self) -> Result<Option<i32>, InvalidCompression> {
        match self.level {
            Some(level) => self.codec.check_level(level).map(Some),
            None => Ok(self.codec.default_level()),
        }
    }
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        Self { codec, level: None }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "{}:{level}", self.codec),
            None => self.codec.fmt(f),
        }
    }
}

impl FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, level)) = text.split_once(':') else {
            return text.parse().map(Codec::into);
        };
        let codec: Codec = name.parse()?;
        let number = level.parse().map_err(|_| codec.refuse_level(&level))?;
        let level = Some(codec.check_level(number)?);
        Ok(Self { codec, level })
    }
}

/// What is wrong with a compression that was asked for, in a sentence that names what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCompression(String);

impl fmt::Display for InvalidCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidCompression {}
