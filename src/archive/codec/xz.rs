//! Reading xz on several threads.
//!
//! Our own archives tell in the header of each block how long it is, packed and unpacked, so that blocks can be
//! unpacked side by side. Those of a single-threaded `xz` do not, and are read on one thread, as ever.
//!
//! liblzma's multi-threaded decoder reads one stream and passes over a check that it cannot compute: there is no way
//! to hand it the flags against that. What the flags would do, the reader here does itself.

use std::io::{self, BufRead, Read};

use liblzma::stream::{Action, MtStreamBuilder, Status, Stream};

use super::processors;

/// The most that reading may take, in bytes, all threads together: as much as the zstd window, and twice what `xz -9`
/// asks for. Blocks of level 3 take about 20 MiB each, those of level 6 about 40. What is too large for its share is
/// read on fewer threads, at last on one, which needs no more than the dictionary.
const MEMORY: u64 = 128 << 20;

/// Bytes of the header that every stream begins with.
const HEADER: usize = 12;

/// Where in the header the check is named.
const CHECK: usize = 7;

/// None, CRC-32, CRC-64 and SHA-256: what liblzma is built with.
const KNOWN_CHECKS: [u8; 4] = [0, 1, 4, 10];

/// Padding between streams, and behind the last, comes in multiples of so many bytes.
const PADDING: usize = 4;

/// Unpacks the xz streams in `input` as one, to the very end of it.
///
/// A read that gives `Ok(0)` has proven all that `Decoder` promises. After an error nothing may be read any more.
pub(super) struct XzReader<R> {
    input: R,
    /// `None` before the first stream and between two.
    stream: Option<Stream>,
    begun: bool,
}

impl<R: BufRead> XzReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, stream: None, begun: false }
    }

    /// Begins the next stream, or tells that there is none.
    ///
    /// # Errors
    /// Those of the input; `UnexpectedEof` for half a header; what is no header, or names a check unknown to us.
    fn next_stream(&mut self) -> io::Result<bool> {
        if self.begun && self.is_at_end()? {
            return Ok(false);
        }
        self.begun = true;
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header)?;
        let mut stream = decoder()?;
        stream.process(&header, &mut [], Action::Run)?;
        if !KNOWN_CHECKS.contains(&header[CHECK]) {
            return Err(damaged("its check is of a kind unknown here"));
        }
        self.stream = Some(stream);
        Ok(true)
    }

    /// Passes over padding; whether nothing follows it.
    fn is_at_end(&mut self) -> io::Result<bool> {
        let mut padding = 0;
        loop {
            let input = self.input.fill_buf()?;
            let zeros = input.iter().take_while(|&&byte| byte == 0).count();
            let ended = input.is_empty();
            let begins = zeros < input.len();
            self.input.consume(zeros);
            padding = (padding + zeros) % PADDING;
            if (ended || begins) && padding != 0 {
                return Err(damaged("the padding behind it is cut"));
            }
            if ended || begins {
                return Ok(ended);
            }
        }
    }
}

impl<R: BufRead> Read for XzReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(stream) = &mut self.stream else {
                if self.next_stream()? {
                    continue;
                }
                return Ok(0);
            };
            let input = self.input.fill_buf()?;
            let ended = input.is_empty();
            let (taken, given) = (stream.total_in(), stream.total_out());
            let action = if ended { Action::Finish } else { Action::Run };
            let status = stream.process(input, bytes, action)?;
            let given = (stream.total_out() - given) as usize;
            self.input.consume((stream.total_in() - taken) as usize);
            match status {
                Status::StreamEnd => self.stream = None,
                Status::MemNeeded if ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                Status::MemNeeded => return Err(damaged("liblzma makes no progress")),
                Status::Ok | Status::GetCheck => {}
            }
            if given > 0 {
                return Ok(given);
            }
        }
    }
}

/// No timeout: a call comes back when it has filled its room, or needs input.
fn decoder() -> io::Result<Stream> {
    let mut builder = MtStreamBuilder::new();
    builder.threads(processors()).memlimit_threading(MEMORY).memlimit_stop(MEMORY);
    Ok(builder.decoder()?)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::stream::Check;
    use liblzma::write::XzEncoder;

    use super::*;

    fn read(archive: &[u8]) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        XzReader::new(archive).read_to_end(&mut data)?;
        Ok(data)
    }

    fn packed(data: &[u8], stream: Stream) -> Vec<u8> {
        let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(data).expect("written");
        encoder.finish().expect("finished")
    }

    /// As the single-threaded `xz` packs: its blocks do not tell their lengths.
    fn simple(data: &[u8], check: Check) -> Vec<u8> {
        packed(data, Stream::new_easy_encoder(0, check).expect("an encoder"))
    }

    fn in_blocks(data: &[u8], length: u64) -> Vec<u8> {
        let mut builder = MtStreamBuilder::new();
        builder.threads(2).preset(0).check(Check::Crc64).block_size(length);
        packed(data, builder.encoder().expect("an encoder"))
    }

    fn counting(length: u32) -> Vec<u8> {
        (0..length / 4).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn padding_in_fours_is_passed_over_and_any_other_is_refused() {
        let stream = simple(b"one", Check::Crc64);
        for length in 0..10 {
            let padded = [&stream[..], &vec![0; length]].concat();
            let two = [&padded[..], &stream].concat();
            if length % 4 == 0 {
                assert_eq!(read(&padded).expect("whole"), b"one");
                assert_eq!(read(&two).expect("whole"), b"oneone");
            } else {
                for archive in [padded, two] {
                    let error = read(&archive).expect_err("padding that is cut");
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
                }
            }
        }
    }

    #[test]
    fn blocks_that_do_not_tell_their_lengths_are_read_between_those_that_do() {
        let data = counting(1 << 20);
        for check in [Check::None, Check::Crc32, Check::Crc64, Check::Sha256] {
            let archive = [in_blocks(&data, 100_000), simple(&data, check), in_blocks(&data, 70_001)].concat();
            assert!(read(&archive).expect("whole") == data.repeat(3), "{check:?}");
        }
    }

    #[test]
    fn what_comes_before_the_damage_is_given_before_the_error() {
        let data = counting(1 << 20);
        let mut archive = in_blocks(&data, 100_000);
        let middle = archive.len() / 2;
        archive[middle] ^= 1;
        let (mut reader, mut given, mut piece) = (XzReader::new(&archive[..]), Vec::new(), [0; 1_000]);
        while let Ok(length) = reader.read(&mut piece) {
            assert_ne!(length, 0, "a clean end");
            given.extend_from_slice(&piece[..length]);
        }
        assert!(given.len() > 300_000 && given.len() < data.len() && data.starts_with(&given), "{}", given.len());
    }

    #[test]
    fn a_block_too_large_for_several_threads_is_read_on_one() {
        // Packed and unpacked it would not fit side by side into what reading may take.
        let data = vec![0; (MEMORY + (1 << 20)) as usize];
        let archive = in_blocks(&data, data.len() as u64);
        let mut reader = XzReader::new(&archive[..]);
        assert_eq!(io::copy(&mut reader, &mut io::sink()).expect("whole"), data.len() as u64);
    }

    #[test]
    fn a_reader_that_is_dropped_in_the_middle_ends_its_threads() {
        let archive = in_blocks(&counting(4 << 20), 100_000);
        for length in [0, 1, 1_000_000] {
            let mut reader = XzReader::new(&archive[..]);
            reader.read_exact(&mut vec![0; length]).expect("there is as much");
        }
    }
}
