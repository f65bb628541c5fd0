//! Claims about the codecs, each test named after one.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Codec, Compression, Decoder, Encoder};

const COMPRESSED: [Codec; 3] = [Codec::Zstd, Codec::Xz, Codec::Gzip];

// ── What is typed ──────────────────────────────────────────────────────────────────────────────

fn parse(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|error: super::InvalidCompression| error.to_string())
}

#[test]
fn what_is_displayed_parses_to_the_same() {
    for text in ["zstd", "zstd:1", "zstd:19", "xz", "xz:0", "gzip:9", "none"] {
        let compression = parse(text).expect("valid");
        assert_eq!(compression.to_string(), text);
    }
}

#[test]
fn a_refused_compression_names_what_is_wrong_and_what_is_accepted() {
    fn message(text: &str) -> String {
        parse(text).expect_err(text)
    }
    assert_eq!(
        message("bzip2:3"),
        "\"bzip2\" is no compression: expected zstd, xz, gzip or none, with or without a level, \
         as in zstd:3"
    );
    assert!(message("").starts_with("\"\" is no compression"));
    assert!(message("ZSTD").starts_with("\"ZSTD\" is no compression"));
    let zstd_range = |level: &str| format!("zstd takes a level from 1 to 19, not \"{level}\"");
    for level in ["0", "20", "-1", "x", "", "3:4", "99999999999"] {
        assert_eq!(message(&format!("zstd:{level}")), zstd_range(level));
    }
    assert_eq!(message("xz:10"), "xz takes a level from 0 to 9, not \"10\"");
    assert_eq!(message("gzip:0"), "gzip takes a level from 1 to 9, not \"0\"");
    assert_eq!(message("none:1"), "none takes no level, not even \"1\"");
}

#[test]
fn a_file_name_promises_its_codec_by_its_ending() {
    let codec = |name: &str| Compression::from_file_name(Path::new(name)).map(|c| c.codec);
    for codec_of in Codec::ALL {
        let name = format!("/b/state.{}", codec_of.extension());
        assert_eq!(codec(&name), Some(codec_of), "{name}");
    }
    assert_eq!(codec("a.tzst"), Some(Codec::Zstd));
    assert_eq!(codec("a.txz"), Some(Codec::Xz));
    assert_eq!(codec("A.TGZ"), Some(Codec::Gzip));
    for name in ["a.zst", "a.tar.bz2", "a", "", "/", "a.tar.gz/..", "tar", "a.tar.gz.part"] {
        assert_eq!(codec(name), None, "{name}");
    }
}

#[test]
fn every_default_level_is_accepted() {
    for codec in Codec::ALL {
        let level = Compression::from(codec).effective_level().expect("a default");
        assert_eq!(level.is_some(), codec.levels().is_some());
        assert!(level.is_none_or(|level| codec.levels().is_some_and(|all| all.contains(&level))));
    }
}

#[test]
fn a_level_out_of_range_is_refused_before_anything_is_written() {
    for (codec, level) in [(Codec::Zstd, 20), (Codec::Xz, -1), (Codec::Gzip, 0), (Codec::None, 1)] {
        let compression = Compression { codec, level: Some(level) };
        let error = Encoder::new(io::sink(), compression, 1).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

// ── There and back ─────────────────────────────────────────────────────────────────────────────

/// xorshift64*: test data that is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// Stretches of JSON lines, of noise, of zeros, and of what was there before.
fn mixed_data(length: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut data = Vec::with_capacity(length + (64 << 10));
    while data.len() < length {
        let stretch = 1 + random.below(48 << 10);
        match random.below(4) {
            0 => data.extend((0..stretch).map(|_| random.next() as u8)),
            1 => data.resize(data.len() + stretch, 0),
            2 => data.extend_from_within(data.len() - stretch.min(data.len())..),
            _ => extend_with_json(&mut data, stretch, &mut random),
        }
    }
    data.truncate(length);
    data
}

fn extend_with_json(data: &mut Vec<u8>, stretch: usize, random: &mut Random) {
    let end = data.len() + stretch;
    while data.len() < end {
        let (id, words) = (random.next(), random.below(900));
        writeln!(data, r#"{{"type":"message","id":"{id:016x}","usage":{{"output":{words}}}}}"#).expect("memory");
    }
}

fn encoder<W: Write>(sink: W, codec: Codec, threads: u32) -> Encoder<W> {
    Encoder::new(sink, codec.into(), threads).expect("an encoder")
}

fn compress_with(data: &[u8], compression: Compression, threads: u32) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression, threads).expect("an encoder");
    encoder.write_all(data).expect("written");
    encoder.finish().expect("finished")
}

fn compress(data: &[u8], codec: Codec) -> Vec<u8> {
    compress_with(data, codec.into(), 2)
}

fn decompress(archive: &[u8]) -> io::Result<(Codec, Vec<u8>)> {
    let mut decoder = Decoder::new(archive)?;
    let mut data = Vec::new();
    decoder.read_to_end(&mut data)?;
    Ok((decoder.codec(), data))
}

fn assert_round_trip(data: &[u8], text: &str, threads: u32) {
    let compression = parse(text).expect("valid");
    let archive = compress_with(data, compression, threads);
    let (codec, back) = decompress(&archive).expect("whole");
    assert_eq!(codec, compression.codec);
    assert!(back == data, "{text} on {threads} threads, {} bytes", data.len());
}

#[test]
fn what_goes_in_comes_out() {
    let data = mixed_data(5 << 20);
    let texts = ["zstd", "zstd:1", "zstd:7", "xz", "xz:0", "xz:1", "xz:2", "gzip", "gzip:1", "gzip:9", "none"];
    for text in texts {
        for threads in [1, 2, 5] {
            assert_round_trip(&data, text, threads);
        }
        assert_round_trip(b"x", text, 0);
    }
}

/// What we set of them is not what libzstd and liblzma would; the levels stay what they are for.
#[test]
fn each_of_the_lower_levels_is_smaller_than_the_one_below() {
    let text = [include_str!("tests.rs"), include_str!("../../create.rs"), include_str!("../../sys/dir.rs")].concat();
    let length = |level: &&str| compress_with(text.as_bytes(), parse(level).expect("valid"), 2).len();
    for levels in [&["zstd:1", "zstd:2", "zstd:3"][..], &["xz:0", "xz:1", "xz:2", "xz:3", "xz:4"]] {
        let lengths: Vec<usize> = levels.iter().map(length).collect();
        assert!(lengths.is_sorted_by(|below, level| below > level), "{levels:?}: {lengths:?}");
    }
}

#[test]
fn the_highest_levels_work() {
    let data = mixed_data(300 << 10);
    for text in ["zstd:19", "xz:9", "gzip:9"] {
        assert_round_trip(&data, text, 1);
    }
}

#[test]
fn lengths_around_a_block_come_back() {
    let data = mixed_data((2 << 20) + 1);
    for codec in Codec::ALL {
        for length in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, (2 << 20) + 1] {
            assert_round_trip(&data[..length], codec.name(), 2);
        }
    }
}

#[test]
fn nothing_is_a_valid_stream_too() {
    for codec in COMPRESSED {
        let archive = compress(b"", codec);
        assert_eq!(decompress(&archive).expect("whole"), (codec, Vec::new()));
    }
    assert!(compress(b"", Codec::None).is_empty());
}

#[test]
fn the_bytes_do_not_depend_on_writes_flushes_or_threads() {
    let data = mixed_data(5 << 20);
    let mut random = Random(7);
    for text in ["zstd", "xz:0", "gzip", "none"] {
        let compression = parse(text).expect("valid");
        let expected = compress_with(&data, compression, 2);
        for threads in [1, 2, 3, 8] {
            let split = compress_in_pieces(&data, compression, threads, &mut random);
            assert!(split == expected, "{text} on {threads} threads");
        }
    }
}

fn compress_in_pieces(data: &[u8], compression: Compression, threads: u32, random: &mut Random) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression, threads).expect("an encoder");
    encoder.write_all(b"").expect("nothing written");
    let mut rest = data;
    while !rest.is_empty() {
        let limit = [10, 5_000, 3 << 20][random.below(3)];
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(limit)));
        encoder.write_all(piece).expect("written");
        encoder.flush().expect("flushed");
        rest = after;
    }
    encoder.finish().expect("finished")
}

#[test]
fn streams_in_a_row_are_read_as_one() {
    for codec in COMPRESSED {
        let mut archive = compress(b"one, ", codec);
        archive.extend(compress(b"two", codec));
        assert_eq!(decompress(&archive).expect("whole").1, b"one, two");
    }
}

/// Gives one byte at a time, each after an interruption.
struct Trickle<'a>(&'a [u8], bool);

impl Read for Trickle<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = bytes.len().min(1);
        self.0.read(&mut bytes[..length])
    }
}

#[test]
fn a_slow_and_interrupted_source_is_read_all_the_same() {
    let data = mixed_data(100 << 10);
    for codec in Codec::ALL {
        let archive = compress(&data, codec);
        let mut decoder = Decoder::new(Trickle(&archive, false)).expect("a decoder");
        let mut back = Vec::new();
        decoder.read_to_end(&mut back).expect("whole");
        assert!(back == data && decoder.codec() == codec, "{codec}");
    }
}

// ── Only a whole stream ends cleanly ───────────────────────────────────────────────────────────

fn assert_refused(archive: &[u8], what: &str) {
    let error = decompress(archive).err();
    let kind = error.unwrap_or_else(|| panic!("accepted: {what}")).kind();
    let expected = [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData];
    assert!(expected.contains(&kind), "{what}: {kind:?}");
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let data = mixed_data(3_000);
    for codec in COMPRESSED {
        for archive in [compress(&data, codec), compress(b"", codec)] {
            for length in 0..archive.len() {
                assert_refused(&archive[..length], &format!("{codec} cut at {length}"));
            }
        }
    }
}

#[test]
fn an_archive_cut_between_its_blocks_is_refused() {
    let data = mixed_data(5 << 20);
    for text in ["zstd", "xz:0", "gzip"] {
        let compression = parse(text).expect("valid");
        let written = Arc::new(Mutex::new(Shared::default()));
        let sink = Tap(Arc::clone(&written));
        let mut encoder = Encoder::new(sink, compression, 2).expect("an encoder");
        encoder.write_all(&data).expect("written");
        encoder.finish().expect("finished");
        let written = written.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, cuts) = written.writes.split_last().expect("writes");
        for &length in cuts {
            assert_refused(&written.bytes[..length], &format!("{text} cut at {length}"));
        }
    }
}

#[test]
fn a_cut_archive_says_that_it_ends_too_early() {
    for codec in COMPRESSED {
        let archive = compress(&mixed_data(3_000), codec);
        let error = decompress(&archive[..archive.len() / 2]).expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), format!("the {codec} stream ends too early"));
    }
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let data = mixed_data(2_000);
    for codec in COMPRESSED {
        let archive = compress(&data, codec);
        for bit in 0..archive.len() * 8 {
            let mut damaged = archive.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match decompress(&damaged) {
                Ok((found, back)) if found == codec => assert!(back == data, "{codec} bit {bit}"),
                // Without its magic it is taken for what it is then: no compressed archive.
                Ok((found, _)) => assert_eq!((found, bit < 6 * 8), (Codec::None, true)),
                Err(error) => assert_ne!(error.kind(), io::ErrorKind::Other, "{error}"),
            }
        }
    }
}

#[test]
fn bits_flipped_in_a_large_archive_are_refused_or_change_nothing() {
    let data = mixed_data(2 << 20);
    let mut random = Random(3);
    for codec in COMPRESSED {
        let archive = compress(&data, codec);
        for _ in 0..40 {
            let mut damaged = archive.clone();
            let byte = 6 + random.below(archive.len() - 6);
            damaged[byte] ^= 1 << random.below(8);
            let back = decompress(&damaged);
            assert!(back.is_err() || back.is_ok_and(|(_, back)| back == data), "{codec} {byte}");
        }
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for codec in COMPRESSED {
        for garbage in [&b"x"[..], b"\x1f", b"not an archive at all, and long", &[1; 200_000]] {
            let mut archive = compress(&mixed_data(3_000), codec);
            archive.extend_from_slice(garbage);
            assert_refused(&archive, &format!("{codec} and {} bytes", garbage.len()));
        }
    }
}

#[test]
fn what_is_too_short_to_be_told_is_cut_short() {
    for start in [&b""[..], b"\x28", b"\x28\xb5\x2f", b"\xfd7zXZ", b"\x1f"] {
        let error = Decoder::new(start).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{start:?}");
    }
}

#[test]
fn a_failed_decoder_never_comes_to_a_clean_end() {
    for codec in COMPRESSED {
        let whole = compress(&mixed_data(3_000), codec);
        for byte in 6..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0xff;
            assert_never_ends(&damaged);
            assert_never_ends(&whole[..byte]);
        }
    }
}

fn assert_never_ends(archive: &[u8]) {
    let mut decoder = Decoder::new(archive).expect("a decoder");
    if decoder.read_to_end(&mut Vec::new()).is_err() {
        decoder.read(&mut [0; 16]).expect_err("failed before");
    }
}

#[derive(Debug, PartialEq)]
struct Unplugged;

impl std::fmt::Display for Unplugged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unplugged")
    }
}

impl std::error::Error for Unplugged {}

impl Read for Unplugged {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(Self))
    }
}

#[test]
fn a_source_error_is_passed_on_as_it_is() {
    for codec in Codec::ALL {
        let archive = compress(&mixed_data(300_000), codec);
        let source = archive[..archive.len() / 2].chain(Unplugged);
        let mut decoder = Decoder::new(source).expect("a decoder");
        let error = decoder.read_to_end(&mut Vec::new()).expect_err("unplugged");
        let inner = error.into_inner().expect("an inner error");
        assert_eq!(*inner.downcast::<Unplugged>().expect("ours"), Unplugged);
    }
    let error = Decoder::new(Unplugged).err().expect("unplugged");
    assert_eq!(error.to_string(), "unplugged");
}

#[test]
fn a_zstd_window_above_128_mib_is_refused() {
    let mut frame = compress(&mixed_data(3_000), Codec::Zstd);
    assert_eq!(frame[5], (26 - 10) << 3, "the window descriptor");
    frame[5] = (27 - 10) << 3;
    assert_eq!(decompress(&frame).expect("what an earlier clawsnap wrote is still read").1.len(), 3_000);
    frame[5] = (28 - 10) << 3;
    assert_refused(&frame, "a window of 256 MiB");
}

#[test]
fn an_xz_check_that_cannot_be_verified_is_refused() {
    let mut archive = compress(b"unverifiable", Codec::Xz);
    let footer = archive.len() - 12;
    for flags in [7, footer + 9] {
        assert_eq!(archive[flags], 4, "CRC-64");
        // Reserved for some other check of eight bytes.
        archive[flags] = 5;
    }
    let header_sum = crc32(&archive[6..8]);
    archive[8..12].copy_from_slice(&header_sum);
    let footer_sum = crc32(&archive[footer + 4..footer + 10]);
    archive[footer..footer + 4].copy_from_slice(&footer_sum);
    assert_refused(&archive, "a check unknown to us");
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

// ── Only finish finishes ───────────────────────────────────────────────────────────────────────

#[derive(Default)]
struct Shared {
    bytes: Vec<u8>,
    /// How many bytes there were after each write.
    writes: Vec<usize>,
}

/// A sink that outlives its encoder.
struct Tap(Arc<Mutex<Shared>>);

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.bytes.extend_from_slice(bytes);
        let length = shared.bytes.len();
        shared.writes.push(length);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is in the sink after an encoder that was given `data` is dropped.
fn dropped_after(data: &[u8], compression: &str) -> Vec<u8> {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let compression = parse(compression).expect("valid");
    let mut encoder = Encoder::new(Tap(Arc::clone(&shared)), compression, 2).expect("an encoder");
    encoder.write_all(data).expect("written");
    let before = length_of(&shared);
    drop(encoder);
    assert_eq!(length_of(&shared), before, "the drop wrote");
    std::mem::take(&mut shared.lock().expect("one thread").bytes)
}

fn length_of(shared: &Mutex<Shared>) -> usize {
    shared.lock().expect("one thread").bytes.len()
}

#[test]
fn a_dropped_encoder_leaves_a_stream_that_no_decoder_takes_for_whole() {
    let data = mixed_data(12 << 20);
    for compression in ["zstd:1", "xz:0", "gzip:1"] {
        for length in [0, 1, 1 << 20, 5 << 20, 12 << 20] {
            let archive = dropped_after(&data[..length], compression);
            let what = format!("{compression}, dropped after {length}");
            assert_refused(&archive, &what);
            let name = compression.split(':').next().unwrap_or_default();
            if !archive.is_empty()
                && let Some(output) = run_stock(name, &["-t"], &archive)
            {
                assert!(!output.status.success(), "stock {what}");
            }
        }
        assert!(!dropped_after(&data, compression).is_empty(), "{compression}: no test");
    }
    assert_eq!(dropped_after(&data[..5 << 20], "none").len(), 5 << 20);
}

/// Takes `room` bytes, then fails once; what comes after that is counted.
struct Failing {
    room: usize,
    failed: bool,
    late: Arc<Mutex<usize>>,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            *self.late.lock().expect("one thread") += bytes.len();
            return Ok(bytes.len());
        }
        if self.room == 0 {
            self.failed = true;
            return Err(io::Error::from_raw_os_error(28));
        }
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_error_comes_back_and_ends_all_writing() {
    let data = mixed_data(8 << 20);
    for compression in ["zstd:1", "xz:0", "gzip:1", "none"] {
        for room in [0, 1, 9, 11, 100_000, 1_000_000] {
            let late = Arc::new(Mutex::new(0));
            let sink = Failing { room, failed: false, late: Arc::clone(&late) };
            let error = feed_until_error(sink, compression, &data);
            assert_eq!(error.raw_os_error(), Some(28), "{compression} after {room}");
            assert_eq!(*late.lock().expect("one thread"), 0, "{compression} after {room}");
        }
    }
}

/// The first error, once it has been seen that everything after it fails as well.
fn feed_until_error(sink: Failing, compression: &str, data: &[u8]) -> io::Error {
    let compression = parse(compression).expect("valid");
    let mut encoder = Encoder::new(sink, compression, 2).expect("an encoder");
    let written = encoder.write_all(data);
    let error = match written {
        Ok(()) => return encoder.finish().err().expect("finishing fails"),
        Err(error) => error,
    };
    encoder.write_all(data).expect_err("still broken");
    encoder.finish().err().expect("never finishes");
    error
}

#[test]
fn an_error_while_finishing_ends_all_writing() {
    let late = Arc::new(Mutex::new(0));
    for codec in Codec::ALL {
        let sink = Failing { room: 5, failed: false, late: Arc::clone(&late) };
        let mut encoder = encoder(sink, codec, 2);
        encoder.write_all(b"shorter than a block").expect("gathered");
        let error = encoder.finish().err().expect("finishing fails");
        assert_eq!(error.raw_os_error(), Some(28), "{codec}");
    }
    assert_eq!(*late.lock().expect("one thread"), 0);
}

/// Panics at the first write; counts those after it.
struct Explosive(bool, Arc<Mutex<usize>>);

impl Write for Explosive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            *self.1.lock().expect("one thread") += bytes.len();
            return Ok(bytes.len());
        }
        panic!("the sink panics, as it should in this test");
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_encoder_whose_sink_panicked_writes_no_more() {
    let late = Arc::new(Mutex::new(0));
    let mut encoder = encoder(Explosive(false, Arc::clone(&late)), Codec::None, 1);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| encoder.write_all(&mixed_data(1 << 20))));
    assert!(caught.is_err());
    encoder.finish().err().expect("never finishes");
    assert_eq!(*late.lock().expect("one thread"), 0);
}

#[test]
fn finish_flushes_the_sink() {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let sink = io::BufWriter::with_capacity(1 << 16, Tap(Arc::clone(&shared)));
    let mut encoder = encoder(sink, Codec::Gzip, 1);
    encoder.write_all(b"a few bytes").expect("gathered");
    let sink = encoder.finish().expect("finished");
    assert!(sink.buffer().is_empty() && length_of(&shared) > 0);
}

// ── Strangers read it ──────────────────────────────────────────────────────────────────────────

/// Runs a stock tool on `input`, or says that it is missing.
fn run_stock(tool: &str, arguments: &[&str], input: &[u8]) -> Option<std::process::Output> {
    let spawned =
        Command::new(tool).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: no stock {tool} here");
        return None;
    };
    let mut stdin = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        // A tool that has seen enough hangs up, which is not what is tested.
        scope.spawn(move || stdin.write_all(input).ok());
        Some(child.wait_with_output().expect("ran"))
    })
}

#[test]
fn stock_tools_decompress_to_the_same_bytes() {
    let data = mixed_data(5 << 20);
    for codec in COMPRESSED {
        for data in [&data[..], b"x", b""] {
            let archive = compress(data, codec);
            let Some(output) = run_stock(codec.name(), &["-dc"], &archive) else {
                continue;
            };
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{codec}: {complaint}");
            assert!(output.stdout == data, "{codec}");
        }
    }
}

struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("clawsnap-{}-{name}", std::process::id()));
        fs::write(&path, bytes).expect("written");
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn stock_listing(tool: &str, name: &str, archive: &[u8]) -> Option<String> {
    let file = TemporaryFile::new(name, archive);
    let listed = Command::new(tool).arg("-lv").arg(&file.0).output();
    let Ok(output) = listed else {
        eprintln!("skipped: no stock {tool} here");
        return None;
    };
    assert!(output.status.success(), "{tool} cannot list it");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn stock_zstd_sees_one_frame_with_window_26_and_a_checksum() {
    let archive = compress(&mixed_data(5 << 20), Codec::Zstd);
    let Some(listing) = stock_listing("zstd", "one.zst", &archive) else {
        return;
    };
    assert!(listing.contains("Zstandard Frames: 1\n"), "{listing}");
    assert!(listing.contains("67108864 B"), "{listing}");
    assert!(listing.contains("XXH64"), "{listing}");
}

#[test]
fn stock_xz_sees_one_stream_of_several_blocks_with_crc64() {
    let data = mixed_data(5 << 20);
    let archive = compress_with(&data, parse("xz:0").expect("valid"), 2);
    let Some(listing) = stock_listing("xz", "one.xz", &archive) else {
        return;
    };
    let count = |label: &str| {
        let line = listing.lines().find(|line| line.trim_start().starts_with(label));
        let number = line.and_then(|line| line.split_whitespace().last());
        number.and_then(|number| number.parse::<u32>().ok())
    };
    assert_eq!(count("Streams:"), Some(1), "{listing}");
    assert!(count("Blocks:").is_some_and(|blocks| blocks > 1), "{listing}");
    assert!(listing.contains("CRC64"), "{listing}");
}

#[test]
fn gzip_is_one_member_with_no_time_in_it() {
    let archive = compress(&mixed_data(5 << 20), Codec::Gzip);
    assert_eq!(archive[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    let mut first_member = flate2::bufread::GzDecoder::new(&archive[..]);
    let length = io::copy(&mut first_member, &mut io::sink()).expect("whole");
    assert_eq!(length, 5 << 20);
}
