//! What benches call that is not for use: parts of the library whose types are its own.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::archive::{Compression, Decoder, Encoder, Exact, Line, Spool};
use crate::gate::{CancelFlag, Realm};
use crate::sys::Dir;

/// A directory whose files are read as an archive reads them.
pub struct Source(Dir);

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Dir::open(path, Realm::Source, Arc::new(CancelFlag::new()))?))
    }

    /// Reads exactly the first `length` bytes of a file, each buffer into `sink`, and gives their number.
    ///
    /// # Errors
    /// The file cannot be opened, or does not have so many bytes.
    pub fn read(&self, name: &[u8], length: u64, buffer: &mut [u8], mut sink: impl FnMut(&[u8])) -> io::Result<u64> {
        let reader = self.0.open_file(name)?;
        let mut exact = Exact::new(&reader, length);
        let mut total = 0;
        loop {
            match exact.read(buffer)? {
                0 => break,
                n => {
                    sink(&buffer[..n]);
                    total += n as u64;
                }
            }
        }
        match exact.shortfall() {
            None => Ok(total),
            Some(shortfall) => Err(io::Error::other(shortfall.reason(length).into_string())),
        }
    }
}

/// Lines of an inventory.
pub struct Lines(Vec<Line>);

impl Lines {
    /// One for each name: a session of `size` bytes that was linked.
    pub fn of_sessions(names: impl IntoIterator<Item = (String, u64)>) -> Self {
        let line = |(name, size): (String, u64)| Line {
            size,
            uid: 1_000,
            gid: 1_000,
            mtime: "1775117700.123456789".into(),
            blake3: Some(blake3::hash(name.as_bytes()).to_hex().to_string()),
            ..Line::of_linked(name.as_bytes())
        };
        Self(names.into_iter().map(line).collect())
    }

    /// Writes them as an inventory is written: as JSON, hashed and compressed. What comes back unpacks it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn pack(&self) -> io::Result<impl Fn() -> io::Result<Vec<u8>> + use<>> {
        let mut spool = Spool::new(None)?;
        self.0.iter().try_for_each(|line| spool.add(line))?;
        let inventory = spool.finish()?;
        Ok(move || {
            let mut text = Vec::new();
            inventory.text()?.read_to_end(&mut text)?;
            Ok(text)
        })
    }

    /// Writes them as JSON alone, into the same buffer again and again; gives the number of bytes.
    ///
    /// # Errors
    /// Out of memory.
    pub fn write(&self) -> io::Result<u64> {
        let (mut text, mut length) = (Vec::new(), 0);
        for line in &self.0 {
            text.clear();
            serde_json::to_writer(&mut text, line)?;
            length += text.len() as u64 + 1;
        }
        Ok(length)
    }
}

/// Reads an inventory's text and nothing more of it than JSON tells; gives the number of lines.
///
/// # Errors
/// It is none.
pub fn parse(text: &[u8]) -> io::Result<u64> {
    each_line(text, |_| true)
}

/// Reads an inventory's text as a proof of an archive does, with the digest that stands for each entry; gives the
/// number of lines.
///
/// # Errors
/// It is none.
pub fn digest(text: &[u8]) -> io::Result<u64> {
    each_line(text, |line| std::hint::black_box(line.facts()).is_some())
}

fn each_line(text: &[u8], take: impl Fn(&Line) -> bool) -> io::Result<u64> {
    let mut lines = 0;
    for text in text.split(|&c| c == b'\n').filter(|text| !text.is_empty()) {
        let line: Line = serde_json::from_slice(text)?;
        if !take(std::hint::black_box(&line)) {
            return Err(io::Error::other("a line has a name that is none"));
        }
        lines += 1;
    }
    Ok(lines)
}

/// Compresses all of `input` into `sink`, on `threads` threads beside the caller's.
///
/// # Errors
/// Those of the two ends; `InvalidInput` for a level that the codec does not have.
pub fn encode<W: Write>(mut input: impl Read, sink: W, compression: Compression, threads: u32) -> io::Result<W> {
    let mut encoder = Encoder::new(sink, compression, threads)?;
    io::copy(&mut input, &mut encoder)?;
    encoder.finish()
}

/// Unpacks all of `input`, whatever it is packed with, into `sink`.
///
/// # Errors
/// Those of the two ends; what is wrong with the packed stream.
pub fn decode<W: Write>(input: impl Read, mut sink: W) -> io::Result<W> {
    io::copy(&mut Decoder::new(input)?, &mut sink)?;
    sink.flush()?;
    Ok(sink)
}
