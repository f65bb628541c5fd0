//! Reading ahead: one thread decodes while another looks at what was decoded.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use crate::error::{Error, Result};

/// Bytes that are handed over at a time.
const BLOCK: usize = 256 * 1024;

/// Blocks that may wait to be looked at.
const WAITING: usize = 6;

/// What was read ahead. As with the source, only a read of nothing tells that the end was reached, and after an error
/// every read fails.
pub(super) struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    spent: Sender<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

/// Has `input` read ahead by a thread of its own for as long as `read` takes.
///
/// # Errors
/// Those of `read`; a thread that cannot be started.
pub(super) fn read_ahead<T>(input: impl Read + Send, read: impl FnOnce(Ahead) -> Result<T>) -> Result<T> {
    thread::scope(|scope| {
        let (to, blocks) = sync_channel(WAITING);
        let (spent, returned) = channel();
        thread::Builder::new()
            .name("decoder".to_owned())
            .spawn_scoped(scope, move || decode(input, &to, &returned))
            .map_err(|error| Error::failed("start a thread", "decoder", error))?;
        // Dropped by `read`, at the latest: the thread ends when nobody takes its blocks.
        read(Ahead { blocks, spent, block: Vec::new(), at: 0, ended: false })
    })
}

fn decode(mut input: impl Read, to: &SyncSender<io::Result<Vec<u8>>>, returned: &Receiver<Vec<u8>>) {
    loop {
        let mut block = returned.try_recv().unwrap_or_default();
        block.resize(BLOCK, 0);
        let outcome = fill(&mut input, &mut block);
        let ends = block.len() < BLOCK;
        let last = outcome.err().map(Err).or_else(|| ends.then(|| Ok(Vec::new())));
        // An empty block is the end; an error comes after what was read before it.
        let block = Some(Ok(block)).filter(|block| block.as_ref().is_ok_and(|block| !block.is_empty()));
        let is_last = last.is_some();
        if block.into_iter().chain(last).any(|message| to.send(message).is_err()) || is_last {
            return;
        }
    }
}

/// Fills the block, or cuts it to what was there.
fn fill(input: &mut impl Read, block: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    while filled < block.len() {
        match input.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) => {
                block.truncate(filled);
                return Err(error);
            }
        }
    }
    block.truncate(filled);
    Ok(())
}

impl Ahead {
    /// Takes the next block, which is empty at the end.
    fn next_block(&mut self) -> io::Result<()> {
        let gone = |_| Err(io::Error::other("decompression has failed before"));
        let block = self.blocks.recv().unwrap_or_else(gone)?;
        self.ended = block.is_empty();
        self.at = 0;
        // The decoder has gone when the end is near.
        let _if_needed = self.spent.send(std::mem::replace(&mut self.block, block));
        Ok(())
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.block.len() && !self.ended {
            self.next_block()?;
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes, and then what is said.
    struct Given {
        left: usize,
        then: Option<io::ErrorKind>,
    }

    impl Read for Given {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 {
                return self.then.map_or(Ok(0), |kind| Err(kind.into()));
            }
            let n = buffer.len().min(self.left).min(1000);
            buffer[..n].fill(7);
            self.left -= n;
            Ok(n)
        }
    }

    #[test]
    fn what_is_read_ahead_is_what_was_there_to_the_end_and_beyond_it() {
        for left in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 17] {
            let read = read_ahead(Given { left, then: None }, |mut ahead| {
                let mut all = Vec::new();
                ahead.read_to_end(&mut all).expect("reads");
                assert_eq!(ahead.read(&mut [0; 9]).expect("still the end"), 0);
                Ok(all)
            });
            assert_eq!(read.expect("reads"), vec![7; left]);
        }
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it_and_stays() {
        for left in [0, 5, BLOCK, 3 * BLOCK + 1] {
            let input = Given { left, then: Some(io::ErrorKind::InvalidData) };
            let outcome = read_ahead(input, |mut ahead| {
                let mut all = Vec::new();
                let error = ahead.read_to_end(&mut all).expect_err("fails");
                assert_eq!((all.len(), error.kind()), (left, io::ErrorKind::InvalidData));
                assert!(ahead.read(&mut [0; 9]).is_err());
                Ok(())
            });
            outcome.expect("ends");
        }
    }

    #[test]
    fn who_stops_reading_is_not_kept_waiting() {
        let endless = Given { left: usize::MAX, then: None };
        let outcome = read_ahead(endless, |mut ahead| ahead.read_exact(&mut [0; 10]).map_err(|_| Error::Cancelled));
        outcome.expect("ends");
    }
}
