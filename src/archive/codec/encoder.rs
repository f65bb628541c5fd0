//! The writing end.

use std::io::{self, Write};

use liblzma::stream::{Action, Check, Filters, LzmaOptions, MtStreamBuilder, Status, Stream};
use zstd::stream::raw::{self, CParameter, InBuffer, Operation, OutBuffer};

use super::gzip::ParallelGzip;
use super::{Codec, Compression, MAX_THREADS};

/// The unit in which every codec is fed, in bytes. Part of the format in one sense: another size
/// gives other (equally valid) gzip bytes.
const BLOCK: usize = 1 << 20;

/// How much compressed output is taken from a codec at a time, in bytes.
const ROOM: usize = 128 << 10;

/// log2 of the zstd window: 64 MiB, half of what a stock decoder takes without being told to. An archive is read back
/// while it is written, so that the window is there twice; twice as large a one made 2 GB of sessions smaller by 0.05 %.
const ZSTD_WINDOW_LOG: u32 = 26;

/// log2 of the entries in a bucket of the long-distance matcher, and of all its entries; libzstd 1.5.7 would take at least
/// 4 and 19 at that window. What is looked up at every byte stays near the processor: a sixth of the time that `zstd -3
/// --long=27` takes is saved for 0.1 % of the size, on 10,000 sessions.
const LDM_BUCKET_LOG: u32 = 2;
const LDM_HASH_LOG: u32 = 17;

/// log2 of the bytes, on the average, between two entries of the long-distance matcher: with fewer entries than that
/// window has bytes, a denser rate would only make it forget sooner.
const LDM_RATE_LOG: u32 = 9;

/// The level whose matches are looked for as below; libzstd 1.5.7 would take a table of 16 and matches of 6.
const NEAR_LEVEL: i32 = 2;

/// log2 of the entries in the table of matches, of four bytes each: 128 KiB stay beside the processor. With this and the
/// shortest match, a quarter of the time to compress sessions is saved for 4 % of the size; level 1 (14, 7) takes hardly
/// less, and makes 5 % more bytes.
const NEAR_HASH_LOG: u32 = 15;

/// Bytes of the shortest match that is looked for.
const NEAR_MATCH: u32 = 7;

/// Compresses what is written to it into a sink.
///
/// Input is gathered into blocks of 1 MiB. The sink is written with `write_all`, on the caller's
/// thread only.
///
/// Peak memory of a whole process on two threads, measured, in MB: zstd 87 up to level 3 (the window
/// alone is 67), 91 at 6, 131 at 9, 479 at 19; xz 29 at 0, 104 up to 3, 254 at 6, 664 at 9; gzip 25.
/// More threads cost zstd and gzip a few MB each, xz about half of its figure each.
///
/// Dropping an encoder stops and joins its threads and leaves the stream without its end. It waits
/// for the blocks at work: some hundredths of a second at the default levels, seconds from zstd:15
/// on, half a minute at zstd:19. After the first error (or a panic in the sink) every further call
/// fails, and the sink is not written again.
pub(crate) struct Encoder<W: Write> {
    sink: W,
    engine: Engine,
    block: Vec<u8>,
    broken: bool,
}

impl<W: Write> Encoder<W> {
    /// An encoder on `threads` threads (at least 1, at most 256) beside the caller's.
    ///
    /// # Errors
    /// `InvalidInput` for a level that the codec does not have; else the system's or the codec's
    /// refusal of threads or memory. Nothing has been written to the sink.
    pub(crate) fn new(sink: W, compression: Compression, threads: u32) -> io::Result<Self> {
        Ok(Self {
            sink,
            engine: Engine::new(compression, threads.clamp(1, MAX_THREADS))?,
            block: Vec::with_capacity(BLOCK),
            broken: false,
        })
    }

    /// Completes the compressed stream, flushes the sink and gives it back. Syncing is the caller's.
    ///
    /// # Errors
    /// The sink's or the codec's error, or that of an earlier call: the stream is not complete.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.attempt(Engine::end)?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// The only way to the sink. Whatever does not come back with success leaves the encoder broken:
    /// what a codec had taken in but not put out is lost, so nothing after it may be written.
    fn attempt(&mut self, step: impl FnOnce(&mut Engine, &[u8], &mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("compression has failed before"));
        }
        self.broken = true;
        step(&mut self.engine, &self.block, &mut self.sink)?;
        self.block.clear();
        self.broken = false;
        Ok(())
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.attempt(Engine::push)?;
        }
        Ok(taken)
    }

    /// Does nothing: a flush that reached the codec would cut a block and so change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A codec at work. None of them owns the sink; each is lent it for the length of a call.
enum Engine {
    Zstd(raw::Encoder<'static>),
    Xz(Stream),
    Gzip(ParallelGzip),
    Stored,
}

impl Engine {
    fn new(compression: Compression, threads: u32) -> io::Result<Self> {
        let level = compression.effective_level().map_err(invalid_input)?;
        let level = level.unwrap_or_default();
        Ok(match compression.codec {
            Codec::Zstd => Self::Zstd(zstd_encoder(level, threads)?),
            Codec::Xz => Self::Xz(xz_encoder(level.unsigned_abs(), threads)?),
            Codec::Gzip => Self::Gzip(ParallelGzip::new(level.unsigned_abs(), threads)?),
            Codec::None => Self::Stored,
        })
    }

    /// Takes in a block that is not the last.
    fn push(&mut self, block: &[u8], sink: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => zstd_push(encoder, block, sink),
            Self::Xz(stream) => xz_code(stream, block, Action::Run, sink),
            Self::Gzip(gzip) => gzip.push(block, sink),
            Self::Stored => sink.write_all(block),
        }
    }

    /// Takes in the last block, which may be empty, and puts out all that is left.
    fn end(&mut self, block: &[u8], sink: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => zstd_end(encoder, block, sink),
            Self::Xz(stream) => xz_code(stream, block, Action::Finish, sink),
            Self::Gzip(gzip) => gzip.end(block, sink),
            Self::Stored => sink.write_all(block),
        }
    }
}

fn invalid_input(error: super::InvalidCompression) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// One worker is still a worker: zstd without any would cut its jobs differently, and the same input
/// would give other bytes on a machine with one core.
fn zstd_encoder(level: i32, threads: u32) -> io::Result<raw::Encoder<'static>> {
    let mut encoder = raw::Encoder::new(level)?;
    encoder.set_parameter(CParameter::NbWorkers(threads))?;
    encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.set_parameter(CParameter::LdmBucketSizeLog(LDM_BUCKET_LOG))?;
    encoder.set_parameter(CParameter::LdmHashLog(LDM_HASH_LOG))?;
    encoder.set_parameter(CParameter::LdmHashRateLog(LDM_RATE_LOG))?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    if level == NEAR_LEVEL {
        encoder.set_parameter(CParameter::HashLog(NEAR_HASH_LOG))?;
        encoder.set_parameter(CParameter::MinMatch(NEAR_MATCH))?;
    }
    Ok(encoder)
}

fn zstd_push(encoder: &mut raw::Encoder<'static>, block: &[u8], sink: &mut dyn Write) -> io::Result<()> {
    let mut input = InBuffer::around(block);
    let mut room = Vec::with_capacity(ROOM);
    while input.pos() < block.len() {
        encoder.run(&mut input, &mut OutBuffer::around(&mut room))?;
        sink.write_all(&room)?;
    }
    Ok(())
}

fn zstd_end(encoder: &mut raw::Encoder<'static>, block: &[u8], sink: &mut dyn Write) -> io::Result<()> {
    zstd_push(encoder, block, sink)?;
    let mut room = Vec::with_capacity(ROOM);
    let mut left = 1;
    while left > 0 {
        left = encoder.finish(&mut OutBuffer::around(&mut room), false)?;
        sink.write_all(&room)?;
    }
    Ok(())
}

/// Those of the tool's own level, but for the four that look for matches in chains: there a larger dictionary and shorter
/// chains take less time for the same size, within a fiftieth. On two threads it was, in parts of the time that `xz` takes
/// at that level, for sessions and for a library of Python: 0.65 and 0.96 at 1, 0.50 and 0.70 at 2, 0.61 and 0.8 at 3.
fn xz_options(level: u32) -> io::Result<LzmaOptions> {
    let mut options = LzmaOptions::new_preset(level)?;
    // Bytes of dictionary, and how many places a chain is followed to.
    let chains = [(1 << 20, 3), (4 << 20, 3), (4 << 20, 8), (4 << 20, 32)];
    if let Some(&(dictionary, depth)) = chains.get(level as usize) {
        options.dict_size(dictionary).depth(depth);
    }
    Ok(options)
}

/// The multi-threaded encoder even for one thread: its blocks are cut by size alone.
fn xz_encoder(level: u32, threads: u32) -> io::Result<Stream> {
    let mut filters = Filters::new();
    filters.lzma2(&xz_options(level)?);
    let mut builder = MtStreamBuilder::new();
    builder.threads(threads).filters(filters).check(Check::Crc64).timeout_ms(XZ_TIMEOUT_MS);
    Ok(builder.encoder()?)
}

/// How long liblzma works before it comes back, in milliseconds: a block of a high level takes most of a minute, and
/// nobody who cancels waits for that.
const XZ_TIMEOUT_MS: u32 = 100;

/// Feeds `input` to the end; with `Action::Finish`, also takes all output to the stream's end.
fn xz_code(stream: &mut Stream, input: &[u8], action: Action, sink: &mut dyn Write) -> io::Result<()> {
    let start = stream.total_in();
    let mut room = Vec::with_capacity(ROOM);
    loop {
        let taken = (stream.total_in() - start) as usize;
        if matches!(action, Action::Run) && taken == input.len() {
            return Ok(());
        }
        room.clear();
        let status = stream.process_vec(&input[taken..], &mut room, action)?;
        if room.is_empty() {
            // Nothing came out in that time: the sink can still say that the run is cancelled.
            sink.flush()?;
        }
        sink.write_all(&room)?;
        match status {
            Status::StreamEnd => return Ok(()),
            Status::MemNeeded => return Err(io::Error::other("liblzma makes no progress")),
            Status::Ok | Status::GetCheck => {}
        }
    }
}
