//! The reading end.

use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::Codec;
use super::xz::XzReader;

/// What the compressed formats begin with.
const MAGICS: [(&[u8], Codec); 3] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], Codec::Zstd),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Codec::Xz),
    (&[0x1f, 0x8b], Codec::Gzip),
];

/// The longest of [`MAGICS`], in bytes.
const LONGEST_MAGIC: u64 = 6;

/// How much is read from the source at a time, in bytes.
const READ_AHEAD: usize = 128 << 10;

/// log2 of the largest zstd window that is read: 128 MiB, the most that a stock decoder takes without being told to.
const ZSTD_MOST_WINDOW_LOG: u32 = 27;

/// Decompresses what it reads from a source, to the very end of it.
///
/// The codec is told by the first bytes; what no magic fits is taken for [`Codec::None`]. Several
/// gzip members, zstd frames or xz streams in a row are read as one.
///
/// xz is read on all processors, the others on the caller's thread. Buffers and windows take at most 128 MiB, for xz all
/// threads together. Dropping a decoder stops and joins its threads.
///
/// A read that returns `Ok(0)` proves that the stream was whole, that its checksums were right, and
/// that nothing followed it. Only that read does: a caller that has seen all it wants must still read
/// on to the end. Uncompressed input has no checksum and no end, and proves nothing.
///
/// # Errors
/// Reading gives the source's own errors as they are, `UnexpectedEof` where the source ends too
/// early, and `InvalidData` for everything else that is wrong: damage, trailing bytes, a zstd window
/// above 128 MiB, an xz dictionary that needs more than 128 MiB. After an error every read fails.
pub(crate) struct Decoder<R: Read> {
    codec: Codec,
    format: Format<R>,
    source_failed: Arc<AtomicBool>,
    broken: bool,
}

type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, Source<R>>>;

enum Format<R: Read> {
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Xz(XzReader<Input<R>>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Stored(Input<R>),
}

impl<R: Read> Decoder<R> {
    /// Reads the first few bytes, and so tells the codec.
    ///
    /// # Errors
    /// The source's error; `UnexpectedEof` where the source is empty or ends within a magic, since
    /// an archive of no bytes is a cut one whatever it was to be.
    pub(crate) fn new(source: R) -> io::Result<Self> {
        let source_failed = Arc::new(AtomicBool::new(false));
        let mut source = Source { inner: source, failed: Arc::clone(&source_failed) };
        let mut start = Vec::new();
        source.by_ref().take(LONGEST_MAGIC).read_to_end(&mut start)?;
        let codec = sniff(&start)?;
        let input = BufReader::with_capacity(READ_AHEAD, Cursor::new(start).chain(source));
        Ok(Self { codec, format: Format::new(codec, input)?, source_failed, broken: false })
    }

    /// What the input is compressed with.
    #[cfg(test)]
    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    fn explain(&self, error: io::Error) -> io::Error {
        if self.source_failed.load(Ordering::Relaxed) {
            return error;
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_short(self.codec),
            _ => invalid_data(format!("the {} stream is damaged: {error}", self.codec)),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // Some of the codecs, asked again, take what follows an error for a clean end.
        if self.broken {
            return Err(invalid_data("decompression has failed before".to_owned()));
        }
        self.format.read(bytes).map_err(|error| {
            self.broken = true;
            self.explain(error)
        })
    }
}

impl<R: Read> Format<R> {
    fn new(codec: Codec, input: Input<R>) -> io::Result<Self> {
        Ok(match codec {
            Codec::Zstd => Self::Zstd(zstd_decoder(input)?),
            Codec::Xz => Self::Xz(XzReader::new(input)),
            Codec::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(input))),
            Codec::None => Self::Stored(input),
        })
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(bytes),
            Self::Xz(decoder) => decoder.read(bytes),
            Self::Gzip(decoder) => decoder.read(bytes),
            Self::Stored(input) => input.read(bytes),
        }
    }
}

fn sniff(start: &[u8]) -> io::Result<Codec> {
    for (magic, codec) in MAGICS {
        if start.starts_with(magic) {
            return Ok(codec);
        }
        if magic.starts_with(start) {
            return Err(cut_short_of(start.len()));
        }
    }
    Ok(Codec::None)
}

fn zstd_decoder<R: Read>(input: Input<R>) -> io::Result<zstd::stream::read::Decoder<'static, Input<R>>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_MOST_WINDOW_LOG)?;
    Ok(decoder)
}

fn cut_short_of(length: usize) -> io::Error {
    let message = format!("an archive cannot end after {length} bytes");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

fn cut_short(codec: Codec) -> io::Error {
    let message = format!("the {codec} stream ends too early");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

fn invalid_data(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The reader underneath. It retries interrupted reads, which not every codec survives, and notes
/// whether it was the one that failed, since codecs report their own trouble as `io::Error` as well.
struct Source<R> {
    inner: R,
    failed: Arc<AtomicBool>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                read => return read,
            }
        }
    }
}
