//! An archive that is damaged, and looked at.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::verify::{Verdict, VerifyOptions, verify};

/// The endings of all codecs.
pub const ENDINGS: [&str; 4] = ["tar", "tar.zst", "tar.gz", "tar.xz"];

pub fn verdict(archive: &Path) -> Verdict {
    with(archive, &VerifyOptions::default())
}

pub fn with(archive: &Path, options: &VerifyOptions) -> Verdict {
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    verify(archive, options, &gate, &())
}

/// A file that is damaged and healed again.
pub struct Patient {
    file: File,
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Patient {
    pub fn of(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
        Self { file, path: path.to_owned(), bytes: fs::read(path).expect("reads") }
    }

    /// What `look` sees of it with this bit flipped.
    pub fn flipped<T>(&self, bit: usize, look: impl FnOnce(&Path) -> T) -> T {
        let at = (bit / 8) as u64;
        self.file.write_all_at(&[self.bytes[bit / 8] ^ 1 << (bit % 8)], at).expect("writes");
        let seen = look(&self.path);
        self.file.write_all_at(&[self.bytes[bit / 8]], at).expect("writes");
        seen
    }

    /// What `look` sees of it with all cut off behind this length. It can only become shorter.
    pub fn cut_to<T>(&self, length: usize, look: impl FnOnce(&Path) -> T) -> T {
        self.file.set_len(length as u64).expect("cuts");
        look(&self.path)
    }

    /// Whether this bit says nothing: a compressed stream has such, as the time in a gzip header. Whatever they are, it
    /// unpacks to the same bytes, by somebody else's reader.
    pub fn is_idle(&self, bit: usize, whole: &[u8]) -> bool {
        let mut bytes = self.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.unpacked(&bytes) == whole
    }

    /// What it holds.
    pub fn whole(&self) -> Vec<u8> {
        self.unpacked(&self.bytes)
    }

    fn unpacked(&self, bytes: &[u8]) -> Vec<u8> {
        let mut unpacked = Vec::new();
        match self.path.extension().and_then(|ending| ending.to_str()) {
            Some("zst") => zstd::stream::copy_decode(bytes, &mut unpacked).map(drop),
            Some("gz") => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut unpacked).map(drop),
            Some("xz") => liblzma::read::XzDecoder::new(bytes).read_to_end(&mut unpacked).map(drop),
            _ => (&mut &bytes[..]).read_to_end(&mut unpacked).map(drop),
        }
        .expect("unpacks");
        unpacked
    }
}
