//! Draft → Sealed → Verified → Published: nothing else names the archive.
//!
//! An archive has its final name only when it is complete, synced to disk, and (unless that was declined) read back
//! and found equal to its inventory. Until then nothing has that name, and nothing that had it is overwritten. A draft
//! has no name at all where the filesystem can do that; else a hidden one, `.clawsnap-<UTC>-<8 hex>.partial`.

mod hidden;
mod read_back;

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::entry::{Kind, Stat};
use crate::error::{Error, Result};
use crate::gate::{self, Gate, Realm, Step, Verb};
use crate::naming::{SEEN, next_archive_name};
use crate::sys::{self, Dir, Errno, Writer};
use hidden::Hidden;
use read_back::Progress;

pub(crate) use hidden::sweep;
pub(crate) use read_back::ReadBack;

/// How the names begin that archives get in a directory.
pub(crate) const ARCHIVE: &str = "clawsnap-";

/// Where an archive shall be published.
pub(crate) struct Target {
    dir: Dir,
    /// The directory, for messages.
    pub(crate) directory: PathBuf,
    name: Vec<u8>,
    /// Whether the name is one that somebody asked for.
    fixed: bool,
}

impl Target {
    /// Opens the directory of `path`, making it where it is missing, and sees that the name is free. Unless that is
    /// `fixed`, the archive gets the next name of its second if this one is taken by then.
    ///
    /// # Errors
    /// A name that is taken, and has no next one; a directory that cannot be made or opened.
    pub(crate) fn open(path: &Path, fixed: bool, gate: &Arc<dyn Gate>) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::Usage(format!("{} names no file", path.display())))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = made_directory(parent, gate)?;
        let dir = Dir::open(&directory, Realm::Output, Arc::clone(gate))
            .map_err(|error| Error::failed("open the output directory", &directory, error))?;
        let target = Self { dir, directory, name: name.as_bytes().to_vec(), fixed };
        match sys::if_there(target.dir.stat(&target.name)) {
            Ok(None) => Ok(target),
            // Since somebody found it free, another run has published there.
            Ok(Some(_)) if target.next_name().is_some() => Ok(target),
            Ok(Some(_)) => Err(taken(target.path(), io::Error::from(Errno::EXIST))),
            Err(error) => Err(Error::failed("look at the output", target.path(), error)),
        }
    }

    /// The name that the archive gets if its own is taken: another source's archive of this second is wanted as well.
    fn next_name(&self) -> Option<String> {
        next_archive_name(&self.name).filter(|_| !self.fixed)
    }

    /// The final path.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(std::ffi::OsStr::from_bytes(&self.name))
    }

    /// What is written on the archives in the directory that carry the mark `name` and are ours, the latest first.
    ///
    /// # Errors
    /// Only the cancellation of the run: what cannot be read tells nothing.
    pub(crate) fn marked(&self) -> io::Result<Vec<Marked>> {
        let mut found = Vec::new();
        for listed in self.dir.list().map(|listing| listing.names).unwrap_or_default() {
            if listed.name.starts_with(ARCHIVE.as_bytes()) {
                match self.mark_of(&listed.name) {
                    Err(error) if crate::gate::is_cancelled(&error) => return Err(error),
                    marked => found.extend(marked.ok().flatten()),
                }
            }
        }
        found.sort_unstable_by_key(|marked| std::cmp::Reverse(marked.stat.mtime));
        Ok(found)
    }

    fn mark_of(&self, name: &[u8]) -> io::Result<Option<Marked>> {
        let file = self.dir.open_file(name)?;
        let stat = file.stat()?;
        let ours = [0, sys::effective_uid()].contains(&stat.uid) && stat.kind == Kind::File;
        let mark = file.xattrs()?.into_iter().find(|(name, _)| name == SEEN).filter(|_| ours);
        let path = self.directory.join(std::ffi::OsStr::from_bytes(name));
        Ok(mark.map(|(_, mark)| Marked { path, stat, mark }))
    }

    /// Bytes that are free there.
    pub(crate) fn free_space(&self) -> Option<u64> {
        self.dir.free_space().ok()
    }
}

/// An archive with what is written on it.
pub(crate) struct Marked {
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
    pub(crate) mark: Vec<u8>,
}

/// The path of the directory `parent`, which is made where it is missing.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn made_directory(parent: &Path, gate: &Arc<dyn Gate>) -> Result<PathBuf> {
    let failed = |what: &str, error| Error::failed(format!("{what} the output directory"), parent, error);
    let step = |verb| gate::take_at(&**gate, verb, Realm::Output, parent);
    let looking = step(Verb::Stat).map_err(|error| failed("look at", error))?;
    if let Ok(there) = parent.canonicalize() {
        return Ok(there);
    }
    drop(looking);
    let _making = step(Verb::MakeDir).map_err(|error| failed("make", error))?;
    std::fs::create_dir_all(parent).map_err(|error| failed("make", error))?;
    parent.canonicalize().map_err(|error| failed("resolve", error))
}

fn taken(path: PathBuf, cause: io::Error) -> Error {
    Error::failed("publish the archive as", path, cause).remedy("choose another --output; nothing is ever overwritten")
}

/// Where an archive is written to.
pub(crate) trait Sink: Write + Send + 'static {
    /// A file without a name, for what need not be in memory until it is in the archive; `None` where there is no place
    /// for one.
    ///
    /// # Errors
    /// Only the cancellation of the run.
    fn room(&self) -> io::Result<Option<Writer>>;
}

/// An archive in the making. Dropping it removes it.
pub(crate) struct Draft {
    target: Target,
    file: Writer,
    hidden: Option<Hidden>,
    progress: Written,
}

/// Tells who reads behind when nothing more will be written, however that came.
struct Written(Arc<Progress>);

impl Drop for Written {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Draft {
    /// Begins an archive beside its final place, readable by its owner alone.
    ///
    /// # Errors
    /// A directory that we cannot write to.
    pub(crate) fn create(target: Target) -> Result<Self> {
        // What cannot be swept now is tried again by the next run.
        let _swept = sweep(&target.dir, true);
        let fail = |error| Error::failed("create the archive in", &target.directory, error);
        let (file, hidden) = match target.dir.create_unnamed() {
            Ok(file) if Path::new("/proc/self/fd").exists() => (file, None),
            Err(error) if crate::gate::is_cancelled(&error) => return Err(Error::Cancelled),
            // FAT, SMB, NFS and most FUSE filesystems have no nameless files.
            _ => Hidden::create(&target.dir).map(|(file, hidden)| (file, Some(hidden))).map_err(fail)?,
        };
        Ok(Self { target, file, hidden, progress: Written(Arc::default()) })
    }

    /// What reads the archive back from disk while it is written, in another thread.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn read_back(&self) -> Result<ReadBack> {
        let reader = match self.hidden {
            None => self.file.disk_reader(),
            // It is locked, and on SMB nobody may read what is locked but by the description that locked it: flock(2).
            Some(_) => self.file.own_disk_reader(),
        };
        let reader = reader.map_err(|error| Error::failed("read back", self.target.path(), error))?;
        Ok(ReadBack::new(reader, Arc::clone(&self.progress.0)))
    }

    /// Ends the writing and makes the contents durable.
    ///
    /// # Errors
    /// Those of `fsync(2)`, among them a disk that is full after all.
    pub(crate) fn seal(self) -> Result<Sealed> {
        self.file.sync().map_err(|error| Error::failed("sync the archive for", self.target.path(), error))?;
        self.progress.0.seal();
        Ok(Sealed { draft: self })
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.progress.0.advance(written as u64);
        Ok(written)
    }

    /// Writes nothing, as nothing is buffered; fails if the run is cancelled.
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for Draft {
    /// Beside the archive, which needs room there anyway.
    fn room(&self) -> io::Result<Option<Writer>> {
        gate::tolerate(self.target.dir.create_unnamed())
    }
}

/// A complete archive, durable, without its name.
pub(crate) struct Sealed {
    draft: Draft,
}

impl Sealed {
    /// Length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.draft.progress.0.written()
    }

    /// Goes on once `proof` has found that what was [read back](Draft::read_back) is what was written.
    ///
    /// # Errors
    /// That of `proof`; the archive is gone then.
    pub(crate) fn verify(self, proof: impl FnOnce() -> Result<()>) -> Result<Verified> {
        proof()?;
        Ok(Verified { draft: self.draft })
    }

    /// Goes on without reading it back, because that was declined; the report says so.
    pub(crate) fn trust(self) -> Verified {
        Verified { draft: self.draft }
    }
}

/// An archive that may have its name.
pub(crate) struct Verified {
    draft: Draft,
}

impl Verified {
    /// Writes on the archive what it was made of, which may depend on its own metadata. A power cut may take that away
    /// again: it only saves work.
    ///
    /// # Errors
    /// A filesystem without extended attributes.
    pub(crate) fn mark(&self, mark: impl FnOnce(&Stat) -> String) -> io::Result<()> {
        let file = &self.draft.file;
        file.set_xattr(SEEN, mark(&file.stat()?).as_bytes())
    }

    /// Gives the archive its name, or the next free one of its second, and makes the name durable.
    ///
    /// # Errors
    /// A name that was taken meanwhile; those of the kernel. The archive is gone then.
    pub(crate) fn publish(self) -> Result<PathBuf> {
        let Draft { mut target, file, hidden, .. } = self.draft;
        let name_it = |target: &Target| match &hidden {
            None => target.dir.name_unnamed(&file, &target.name),
            Some(hidden) => hidden.publish(&target.dir, &target.name),
        };
        while let Err(error) = name_it(&target) {
            let is_taken = sys::errno(&error) == Some(Errno::EXIST);
            target.name = match target.next_name().filter(|_| is_taken) {
                Some(next) => next.into_bytes(),
                None if is_taken => return Err(taken(target.path(), error)),
                None => return Err(Error::failed("publish the archive as", target.path(), error)),
            };
        }
        let path = target.path();
        target.dir.sync().map_err(|error| {
            // A name that may not survive a power cut is no proof.
            let _gone: io::Result<()> = target.dir.unstoppable().unlink(&target.name);
            Error::failed("make durable the name of", &path, error)
        })?;
        Ok(path)
    }
}

/// A stream that somebody else stores, such as standard output.
pub(crate) struct Stream {
    out: Box<dyn Write + Send>,
    gate: Arc<dyn Gate>,
    pub(crate) written: u64,
}

impl Stream {
    /// Writes to `out`; every write asks `gate` first.
    pub(crate) fn new(out: Box<dyn Write + Send>, gate: Arc<dyn Gate>) -> Self {
        Self { out, gate, written: 0 }
    }

    fn pass(&self) -> io::Result<()> {
        self.gate.pass(&Step { verb: Verb::Write, realm: Realm::Output, dir: b"", name: b"" })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass()?;
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass()?;
        self.out.flush()
    }
}

impl Sink for Stream {
    /// None: where it is stored is not known, and no other filesystem shall have to have room for it.
    fn room(&self) -> io::Result<Option<Writer>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CancelFlag;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    fn open_gate() -> Arc<dyn Gate> {
        Arc::new(CancelFlag::new())
    }

    fn read(mut back: ReadBack) -> Vec<u8> {
        let mut all = Vec::new();
        back.read_to_end(&mut all).expect("reads");
        all
    }

    fn draft(path: &Path, gate: Arc<dyn Gate>) -> Draft {
        let mut draft = Draft::create(Target::open(path, true, &gate).expect("is free")).expect("creates");
        draft.write_all(b"contents").expect("writes");
        draft
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("lists");
        entries.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Answers for a filesystem that can do less.
    struct Without(Vec<(Verb, Errno)>);

    impl Gate for Without {
        fn pass(&self, step: &Step<'_>) -> io::Result<()> {
            let refused = self.0.iter().find(|(verb, _)| {
                // A nameless file is created without a name.
                *verb == step.verb && (*verb != Verb::Create || step.name.is_empty())
            });
            refused.map_or(Ok(()), |(_, errno)| Err((*errno).into()))
        }
    }

    /// From the most able filesystem to the least.
    fn filesystems() -> Vec<Arc<dyn Gate>> {
        let fat = vec![(Verb::Create, Errno::OPNOTSUPP)];
        vec![open_gate(), Arc::new(Without(fat))]
    }

    #[test]
    fn an_archive_has_its_name_only_when_it_is_published() {
        for gate in filesystems() {
            let top = tempfile::tempdir().expect("a directory");
            let path = top.path().join("a.tar");
            let draft = draft(&path, gate);
            let back = draft.read_back().expect("can be read");
            let sealed = draft.seal().expect("seals");
            assert!(!path.exists());
            let mut seen = Vec::new();
            let verified = sealed.verify(|| {
                seen = read(back);
                Ok(())
            });
            assert!(!path.exists());
            verified.expect("verifies").publish().expect("publishes");
            assert_eq!((seen, std::fs::read(&path).expect("is there")), (b"contents".to_vec(), b"contents".to_vec()));
            assert_eq!(path.metadata().expect("stats").permissions().mode() & 0o777, 0o600);
            assert_eq!(names(top.path()), ["a.tar"]);
        }
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing() {
        for gate in filesystems() {
            let top = tempfile::tempdir().expect("a directory");
            drop(draft(&top.path().join("a.tar"), gate));
            assert!(names(top.path()).is_empty());
        }
    }

    #[test]
    fn nothing_is_overwritten_even_if_it_came_while_we_wrote() {
        for gate in filesystems() {
            let top = tempfile::tempdir().expect("a directory");
            let path = top.path().join("a.tar");
            let verified = draft(&path, gate).seal().expect("seals").trust();
            std::fs::write(&path, b"precious").expect("writes");
            assert!(verified.publish().expect_err("is taken").to_string().contains("nothing is ever overwritten"));
            assert_eq!(std::fs::read(&path).expect("is there"), b"precious");
            assert_eq!(names(top.path()), ["a.tar"]);
        }
    }

    #[test]
    fn two_archives_of_a_second_get_a_name_each() {
        for gate in filesystems() {
            let top = tempfile::tempdir().expect("a directory");
            let path = top.path().join("clawsnap-20261123T231500Z.tar");
            let drafts = [(); 3].map(|()| {
                let target = Target::open(&path, false, &gate).expect("is free");
                Draft::create(target).expect("creates").seal().expect("seals").trust()
            });
            let published = drafts.map(|draft| draft.publish().expect("publishes"));
            let expected = ["", "-2", "-3"].map(|suffix| format!("clawsnap-20261123T231500Z{suffix}.tar"));
            assert_eq!(published, expected.map(|name| top.path().canonicalize().expect("resolves").join(name)));
            assert_eq!(names(top.path()).len(), 3);
        }
    }

    /// A run that had found a name free, and opened the directory when another had published under it, failed: of eight that
    /// were started at once, on btrfs, one.
    #[test]
    fn a_name_that_was_taken_before_anything_is_written_makes_way_for_the_next_unless_it_was_asked_for() {
        for gate in filesystems() {
            let top = tempfile::tempdir().expect("a directory");
            let path = top.path().join("clawsnap-20261123T231500Z.tar");
            std::fs::write(&path, b"precious").expect("writes");
            let open = |name: &str, fixed| Target::open(&top.path().join(name), fixed, &gate);
            let draft = open("clawsnap-20261123T231500Z.tar", false).and_then(Draft::create).expect("creates");
            let published = draft.seal().expect("seals").trust().publish().expect("publishes");
            assert!(published.ends_with("clawsnap-20261123T231500Z-2.tar"), "{}", published.display());
            assert_eq!(std::fs::read(&path).expect("is there"), b"precious");
            std::fs::write(top.path().join("clawsnap-20261123T231500Z-99.tar"), b"the last").expect("writes");
            let taken = [("clawsnap-20261123T231500Z.tar", true), ("clawsnap-20261123T231500Z-99.tar", false)];
            for (name, fixed) in taken {
                let refused = open(name, fixed).map(drop).expect_err("is taken").to_string();
                assert!(refused.contains("nothing is ever overwritten"), "{refused}");
            }
        }
    }

    #[test]
    fn what_cannot_be_proved_is_not_published() {
        let top = tempfile::tempdir().expect("a directory");
        let sealed = draft(&top.path().join("a.tar"), open_gate()).seal().expect("seals");
        assert!(sealed.verify(|| Err(Error::Unproven("broken".into()))).is_err());
        assert!(names(top.path()).is_empty());
    }

    /// Refuses renames with flags (the first is one) and links, as the poorest filesystems do.
    #[derive(Default)]
    struct Poorest(AtomicBool);

    impl Gate for Poorest {
        fn pass(&self, step: &Step<'_>) -> io::Result<()> {
            match step.verb {
                Verb::Create if step.name.is_empty() => Err(Errno::OPNOTSUPP.into()),
                Verb::Link => Err(Errno::PERM.into()),
                Verb::Rename if !self.0.swap(true, Relaxed) => Err(Errno::INVAL.into()),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn a_filesystem_without_links_and_flags_is_published_to_as_well() {
        let top = tempfile::tempdir().expect("a directory");
        let path = top.path().join("a.tar");
        let gate = Arc::new(Poorest::default());
        draft(&path, gate.clone()).seal().expect("seals").trust().publish().expect("publishes");
        assert_eq!((std::fs::read(path).expect("is there"), gate.0.load(Relaxed)), (b"contents".to_vec(), true));
        assert_eq!(names(top.path()), ["a.tar"]);
    }

    /// The poorest filesystem, and a run that is cancelled after so many steps.
    struct Impatient {
        poorest: Poorest,
        left: AtomicUsize,
        cancel: CancelFlag,
    }

    impl Gate for Impatient {
        fn pass(&self, step: &Step<'_>) -> io::Result<()> {
            self.poorest.pass(step)?;
            if self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
                self.cancel.cancel();
            }
            self.cancel.pass(step)
        }
    }

    /// The place-holder of a run that was cancelled before it could be renamed over stayed, empty.
    #[test]
    fn a_run_that_is_cancelled_while_it_publishes_leaves_an_archive_or_nothing() {
        let mut cancelled = 0;
        for steps in 0.. {
            let top = tempfile::tempdir().expect("a directory");
            let path = top.path().join("a.tar");
            let (poorest, cancel) = (Poorest::default(), CancelFlag::new());
            let gate = Arc::new(Impatient { poorest, left: usize::MAX.into(), cancel });
            let verified = draft(&path, gate.clone()).seal().expect("seals").trust();
            gate.left.store(steps, Relaxed);
            if verified.publish().is_ok() {
                assert_eq!(std::fs::read(&path).expect("is there"), b"contents");
                break;
            }
            cancelled += 1;
            assert_eq!(names(top.path()), [""; 0], "cancelled after {steps} steps");
        }
        assert!(cancelled > 2, "{cancelled}");
    }

    #[test]
    fn a_dead_runs_hidden_draft_is_swept_and_a_living_ones_is_not() {
        let top = tempfile::tempdir().expect("a directory");
        std::fs::write(top.path().join(".clawsnap-20260101T000000Z-00000001.partial"), b"x").expect("writes");
        let living = draft(&top.path().join("a.tar"), Arc::new(Poorest::default()));
        let _second = draft(&top.path().join("b.tar"), Arc::new(Poorest::default()));
        assert_eq!(names(top.path()).len(), 2, "{:?}", names(top.path()));
        drop(living);
    }
}
