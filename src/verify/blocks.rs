//! The tar stream that we write, read to the last bit: headers in the one form that we give them, contents, padding of
//! zeros, and the two blocks at the end.

use std::io::{self, BufRead, ErrorKind, Read};

use tar::Header;

const BLOCK: usize = 512;

/// A tar stream being read.
pub(super) struct Blocks<R> {
    input: R,
}

/// An entry of it: its header, and what is left of its contents.
pub(super) struct Entry<'a, R> {
    header: Header,
    size: u64,
    left: u64,
    input: &'a mut R,
}

impl<R: BufRead> Blocks<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input }
    }

    /// The next entry; `None` at the end, after which there is nothing.
    ///
    /// # Errors
    /// Those of the input; `InvalidData` for what no archive of ours has.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry<'_, R>>> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(cut)?;
        if block == [0; BLOCK] {
            return self.end().map(|()| None);
        }
        let header = Header::from_byte_slice(&block).clone();
        if header.as_ustar().is_none() || header.as_bytes() != rewritten(&header)?.as_bytes() {
            return Err(damaged("a header is damaged"));
        }
        let size = header.entry_size()?;
        Ok(Some(Entry { header, size, left: size, input: &mut self.input }))
    }

    fn end(&mut self) -> io::Result<()> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(cut)?;
        let mut more = [0; 1];
        if block == [0; BLOCK] && self.input.read(&mut more)? == 0 {
            return Ok(());
        }
        Err(damaged("its end-of-archive mark is damaged, or something follows it"))
    }
}

impl<R: BufRead> Entry<'_, R> {
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Length of the contents, as the header tells it.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads past what is left of the contents, and the padding.
    ///
    /// # Errors
    /// Those of the input; padding that is not of zeros.
    pub(super) fn finish(mut self) -> io::Result<()> {
        while self.left > 0 {
            let n = self.fill_buf()?.len();
            self.consume(n);
        }
        let over = usize::try_from(self.size % BLOCK as u64).unwrap_or(0);
        let padding = &mut [0; BLOCK][..(BLOCK - over) % BLOCK];
        self.input.read_exact(padding).map_err(cut)?;
        if padding.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(damaged("its padding is damaged")) }
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.input.read(&mut buffer[..wanted])?;
        if n == 0 && wanted > 0 {
            return Err(cut(ErrorKind::UnexpectedEof.into()));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// A header with every number in the one form that we write, and with the checksum that it must have: what other readers
/// would take for something else is no header of ours.
fn rewritten(header: &Header) -> io::Result<Header> {
    let mut ours = header.clone();
    ours.set_entry_type(header.entry_type());
    ours.set_mode(header.mode()?);
    ours.set_uid(header.uid()?);
    ours.set_gid(header.gid()?);
    ours.set_size(header.entry_size()?);
    ours.set_mtime(header.mtime()?);
    ours.set_cksum();
    Ok(ours)
}

impl<R: BufRead> BufRead for Entry<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        match self.input.fill_buf()? {
            [] => Err(cut(ErrorKind::UnexpectedEof.into())),
            there => Ok(&there[..there.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))]),
        }
    }

    fn consume(&mut self, n: usize) {
        self.left -= n as u64;
        self.input.consume(n);
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn cut(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::UnexpectedEof { damaged("it is cut") } else { error }
}
