//! What the kernel alone takes to give files a second name and to look at that: the least that a freeze could take.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, linkat, mkdirat, openat, statx};

use super::Result;

/// Links in one directory: all of a thread's, so that there is nothing but the two system calls.
pub(crate) const ALL: usize = usize::MAX;

/// Links in one directory: as many as the freeze puts into one of its shards.
pub(crate) const SHARD: usize = 128;

/// Names that a thread takes at a stretch.
const CHUNK: usize = 512;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A file: its directory's number, and its name.
type Name = (usize, std::ffi::CString);

/// Files that were listed beforehand: the listing is not part of the loop, but it is part of a freeze.
pub(crate) struct Names {
    dirs: Vec<File>,
    names: Vec<Name>,
}

impl Names {
    /// Lists the files in `dirs`, each directory by inode, which is the order that a filesystem links fastest in.
    pub(crate) fn list(dirs: &[PathBuf]) -> Result<Self> {
        let mut all = Self { dirs: Vec::new(), names: Vec::new() };
        for (number, path) in dirs.iter().enumerate() {
            let dir = File::open(path)?;
            let mut found = Vec::new();
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    found.push((entry.ino(), entry.file_name().to_owned()));
                }
            }
            found.sort_unstable();
            all.names.extend(found.into_iter().map(|(_, name)| (number, name)));
            all.dirs.push(dir);
        }
        Ok(all)
    }

    /// Links each file into fresh directories of `links` names in `staging`, with as many threads as the freeze has, and
    /// looks at each link. Each thread fills directories of its own, and makes them.
    pub(crate) fn link(&self, staging: &Path, links: usize) -> Result<Duration> {
        std::fs::create_dir(staging)?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let (begun, next) = (Instant::now(), AtomicUsize::new(0));
        let outcomes: Vec<rustix::io::Result<()>> = std::thread::scope(|scope| {
            let work = |thread| self.link_some(staging, thread, links, &next);
            let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            let own = work(0);
            let joined = others.into_iter().map(|other| other.join().unwrap_or(Err(rustix::io::Errno::CANCELED)));
            joined.chain([own]).collect()
        });
        let took = begun.elapsed();
        outcomes.into_iter().collect::<rustix::io::Result<()>>()?;
        Ok(took)
    }

    fn link_some(&self, staging: &Path, thread: usize, links: usize, next: &AtomicUsize) -> rustix::io::Result<()> {
        let mut linked = 0;
        let mut shard = None;
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed).min(self.names.len());
            let chunk = &self.names[from..self.names.len().min(from + CHUNK)];
            if chunk.is_empty() {
                return Ok(());
            }
            for (dir, name) in chunk {
                if linked % links == 0 {
                    let path = staging.join(format!("{thread}-{}", linked / links));
                    mkdirat(CWD, &path, Mode::RWXU)?;
                    shard = Some(openat(CWD, &path, DIRECTORY, Mode::empty())?);
                }
                let Some(shard) = &shard else { continue };
                let second = (linked % links).to_string();
                linkat(&self.dirs[*dir], name, shard, &second, AtFlags::empty())?;
                statx(shard, &second, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
                linked += 1;
            }
        }
    }
}
