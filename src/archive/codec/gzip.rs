//! gzip on several threads.
//!
//! The input is cut into blocks, which are deflated independently and put out in order as *one*
//! gzip member: each block ends on a byte boundary with a sync flush, knows the 32 KiB before it as
//! its dictionary, and the checksums of the blocks are combined. One member and not one per block,
//! because a file cut between two members is a valid gzip file, and a cut must show.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// How far back deflate can refer, in bytes.
const WINDOW: usize = 32 << 10;

/// How much room deflate is given at a time, in bytes.
const ROOM: usize = 64 << 10;

/// Magic, method deflate, no flags, no time, no hint, operating system unknown: nothing in it
/// depends on when or where it was written.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A gzip member in the making, on a fixed number of worker threads. Dropping it joins them.
pub(super) struct ParallelGzip {
    /// `None` only while dropping: hanging up is what ends the workers.
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    /// Blocks in the works, oldest first.
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
    unwritten_header: Option<[u8; 10]>,
    dictionary: Vec<u8>,
    crc: Crc,
}

struct Job {
    dictionary: Vec<u8>,
    block: Vec<u8>,
    flush: FlushCompress,
    reply: SyncSender<io::Result<Deflated>>,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

impl ParallelGzip {
    /// Starts the workers. `level` is 1 to 9, `threads` at least 1.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn new(level: u32, threads: u32) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let mut gzip = Self {
            jobs: Some(jobs),
            workers: Vec::new(),
            pending: VecDeque::new(),
            unwritten_header: Some(HEADER),
            dictionary: Vec::new(),
            crc: Crc::new(),
        };
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            gzip.workers.push(spawn_worker(&queue, level)?);
        }
        Ok(gzip)
    }

    /// Takes in a block and writes what is ready, once enough blocks are in the works.
    ///
    /// # Errors
    /// The sink's, or that of a worker on an earlier block.
    pub(super) fn push(&mut self, block: &[u8], sink: &mut dyn Write) -> io::Result<()> {
        self.submit(block, FlushCompress::Sync)?;
        self.drain(2 * self.workers.len(), sink)
    }

    /// Takes in the last block, which may be empty, and writes all that is left.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(super) fn end(&mut self, block: &[u8], sink: &mut dyn Write) -> io::Result<()> {
        self.submit(block, FlushCompress::Finish)?;
        self.drain(0, sink)?;
        sink.write_all(&self.crc.sum().to_le_bytes())?;
        sink.write_all(&self.crc.amount().to_le_bytes())
    }

    fn submit(&mut self, block: &[u8], flush: FlushCompress) -> io::Result<()> {
        let (reply, answer) = mpsc::sync_channel(1);
        let tail = block[block.len().saturating_sub(WINDOW)..].to_vec();
        let job =
            Job { dictionary: std::mem::replace(&mut self.dictionary, tail), block: block.to_vec(), flush, reply };
        let jobs = self.jobs.as_ref().ok_or_else(worker_lost)?;
        jobs.send(job).map_err(|_| worker_lost())?;
        self.pending.push_back(answer);
        Ok(())
    }

    /// Writes the oldest blocks until at most `keep` are in the works.
    fn drain(&mut self, keep: usize, sink: &mut dyn Write) -> io::Result<()> {
        while self.pending.len() > keep {
            let Some(answer) = self.pending.pop_front() else {
                break;
            };
            let deflated = answer.recv().map_err(|_| worker_lost())??;
            if let Some(header) = self.unwritten_header.take() {
                sink.write_all(&header)?;
            }
            sink.write_all(&deflated.bytes)?;
            self.crc.combine(&deflated.crc);
        }
        Ok(())
    }
}

impl Drop for ParallelGzip {
    fn drop(&mut self) {
        self.jobs = None;
        // A worker whose answer nobody waits for stops at once.
        self.pending.clear();
        for worker in self.workers.drain(..) {
            // A panic in it has already shown as a missing answer.
            worker.join().ok();
        }
    }
}

fn worker_lost() -> io::Error {
    io::Error::other("a gzip thread has died")
}

fn spawn_worker(queue: &Arc<Mutex<Receiver<Job>>>, level: u32) -> io::Result<JoinHandle<()>> {
    let queue = Arc::clone(queue);
    let builder = thread::Builder::new().name("gzip".to_owned());
    builder.spawn(move || work(&queue, Compression::new(level)))
}

fn work(queue: &Mutex<Receiver<Job>>, level: Compression) {
    while let Some(job) = next_job(queue) {
        if job.reply.send(job.deflate(level)).is_err() {
            return;
        }
    }
}

fn next_job(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().ok()?.recv().ok()
}

impl Job {
    fn deflate(&self, level: Compression) -> io::Result<Deflated> {
        let mut compress = Compress::new(level, false);
        if !self.dictionary.is_empty() {
            compress.set_dictionary(&self.dictionary)?;
        }
        let mut crc = Crc::new();
        crc.update(&self.block);
        let bytes = self.run(&mut compress)?;
        Ok(Deflated { bytes, crc })
    }

    /// Calls deflate until all is out. A flush shows that by leaving room unused.
    fn run(&self, compress: &mut Compress) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            bytes.reserve(ROOM);
            let taken = compress.total_in() as usize;
            let status = compress.compress_vec(&self.block[taken..], &mut bytes, self.flush)?;
            let done = match self.flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => bytes.len() < bytes.capacity(),
            };
            if done {
                return Ok(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn gunzip(member: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(member);
        decoder.read_to_end(&mut data).expect("one whole member");
        data
    }

    #[test]
    fn a_block_refers_to_the_one_before_it() {
        let mut noise = 1_u32;
        let block: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(WINDOW - 1_000)
        .collect();
        let mut gzip = ParallelGzip::new(6, 2).expect("threads");
        let mut member = Vec::new();
        for _ in 0..9 {
            gzip.push(&block, &mut member).expect("pushed");
        }
        gzip.end(&block, &mut member).expect("ended");
        assert!(member.len() < 2 * block.len(), "{} bytes", member.len());
        assert!(gunzip(&member) == block.repeat(10));
    }

    #[test]
    fn a_worker_that_dies_is_an_error_and_not_a_gap() {
        // No such level: deflate cannot be set up, and the worker panics.
        let mut gzip = ParallelGzip::new(99, 2).expect("threads");
        let mut member = Vec::new();
        let pushed = (0..9).try_for_each(|_| gzip.push(b"lost", &mut member));
        let error = pushed.and_then(|()| gzip.end(b"", &mut member)).expect_err("workers died");
        assert_eq!(error.to_string(), "a gzip thread has died");
        assert!(member.is_empty());
    }
}
