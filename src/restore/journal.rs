//! What is about to be exchanged, written down: whoever finds it later can complete it.
//!
//! What is exchanged is told by inodes. Both sides of an exchange exist until somebody removes one, so no number can come
//! to stand for a third thing. One rule says what was done: as long as what shall be at the root's side is still beside the
//! journal, it is pending; else what is beside the journal was at the root's side, and must be kept.
//!
//! A journal of the way back says so: what is pending there is what was at the root's side.
//!
//! That rule holds as long as nobody else touches either side. When all is done, the journal says so: from then on people
//! may remove what was kept, and the program make the like of it again.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ground::{Ground, Spot};
use crate::archive::Name;
use crate::relpath::{joined, shown, split};
use crate::sys::{self, Dir};

/// The name of a journal.
const JOURNAL: &[u8] = b"journal";
/// Where what is exchanged lies beside it.
pub(super) const TREE: &[u8] = b"tree";

const DRAFT: &[u8] = b"journal.new";
const FORMAT: u32 = 1;

/// Longest journal that is read.
const LONGEST: u64 = 1 << 30;

/// What is exchanged between a root and the tree beside the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    format: u32,
    /// The root's name in the directory that the journal's lies in; empty where that is the root.
    root: Name,
    /// The name of the file in the root that is all that is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<Name>,
    /// Whether it is known that everything was carried out; where it is not, the inodes tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_done: bool,
    /// Whether it leads back: what is pending was at the root's side once, and must be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_way_back: bool,
    pub(super) moves: Vec<Move>,
}

/// One exchange.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Move {
    /// Where, below the root, and below the tree.
    path: Name,
    /// The name beside the tree that is meant, where the place in the tree was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aside: Option<Name>,
    /// The inode that is at the root's side once it is done; none if nothing is.
    pub(super) after: Option<u64>,
}

impl Journal {
    pub(super) fn of(ground: &Ground, moves: Vec<Move>) -> Self {
        let (root, file) = (Name::new(ground.root_name()), ground.file().map(Name::new));
        Self { format: FORMAT, root, file, is_done: false, is_way_back: false, moves }
    }

    /// The root's name, which is one name or none.
    fn root(&self) -> io::Result<Vec<u8>> {
        one_name(&self.root).ok_or_else(|| io::Error::other("its journal names no root"))
    }

    /// The ground of what it exchanges, where the directory that it lies in is in `host`.
    ///
    /// # Errors
    /// A root or a file that is not one name.
    pub(super) fn ground(&self, host: Dir, host_path: &Path) -> io::Result<Ground> {
        let ground = Ground::in_host(host, host_path, self.root()?);
        let Some(file) = &self.file else { return Ok(ground) };
        let file = one_name(file).filter(|file| !file.is_empty() && ground.is_inside());
        Ok(ground.around(&file.ok_or_else(|| io::Error::other("its journal names no file"))?))
    }

    /// Whether the root itself is exchanged.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.moves[..], [only] if only.path.bytes().is_some_and(|path| path.is_empty()))
    }

    /// Makes it durable in `dir`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn write(&self, dir: &Dir) -> io::Result<()> {
        self.put(dir)?;
        dir.sync()
    }

    fn put(&self, dir: &Dir) -> io::Result<()> {
        sys::if_there(dir.unlink(DRAFT))?;
        let file = dir.create(DRAFT)?;
        file.write_all_at(&serde_json::to_vec(self)?, 0)?;
        file.sync()?;
        dir.rename_over(DRAFT, JOURNAL)
    }

    /// The one in `dir`, if there is one.
    ///
    /// # Errors
    /// One that cannot be read, or is of a later version.
    pub(super) fn read(dir: &Dir) -> io::Result<Option<Self>> {
        let Some(file) = sys::if_there(dir.open_file(JOURNAL))? else { return Ok(None) };
        let mut text = Vec::new();
        file.into_file().take(LONGEST).read_to_end(&mut text)?;
        let journal: Self = serde_json::from_slice(&text)?;
        if journal.format != FORMAT {
            return Err(io::Error::other("its journal is of another version of clawsnap"));
        }
        journal.root().map(|_| Some(journal))
    }

    /// Says in `dir` that all is done, which must be durable by now.
    ///
    /// # Errors
    /// Those of the kernel; it is not said then.
    pub(super) fn conclude(&mut self, dir: &Dir) -> io::Result<()> {
        let dir = dir.unstoppable();
        self.is_done = true;
        self.put(&dir)?;
        // Should a power cut take it away, the inodes tell.
        let _later: io::Result<()> = dir.sync();
        Ok(())
    }

    /// Removes the one in `dir`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn remove(dir: &Dir) -> io::Result<()> {
        dir.unlink(JOURNAL)
    }

    /// Carries out what is pending; where one thing cannot be done, what this call did is taken back.
    ///
    /// # Errors
    /// The first that cannot be done.
    pub(super) fn carry_out(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        let mut done = Vec::new();
        for step in &self.moves {
            match step.carry_out(ground, dir) {
                Ok(true) => done.push(step),
                Ok(false) => {}
                Err(error) => {
                    take_back(done.into_iter(), ground, dir);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Carries out what is pending, as far as that can be done.
    ///
    /// # Errors
    /// The first thing that could not.
    pub(super) fn complete(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        if self.is_done {
            return Ok(());
        }
        self.moves.iter().map(|step| step.carry_out(ground, dir).map(drop)).fold(Ok(()), Result::and)
    }

    /// Takes back what was done, as far as it can be; [`Journal::is_begun`] tells whether anything stays.
    pub(super) fn take_back(&self, ground: &Ground, dir: &Dir) {
        take_back(self.moves.iter(), ground, dir);
    }

    /// Whether anything that was at the root's side is beside the journal, and must be kept. In doubt, it is.
    pub(super) fn is_begun(&self, dir: &Dir) -> bool {
        self.is_way_back || self.moves.iter().any(|step| !step.is_pending(dir).unwrap_or(false))
    }

    /// Whether it leads back, and it is not known that this came to its end.
    pub(super) fn is_interrupted_way_back(&self) -> bool {
        self.is_way_back && !self.is_done
    }

    /// Whether it is known that everything was carried out.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether anything is left to be carried out.
    pub(super) fn is_pending(&self, ground: &Ground, dir: &Dir) -> bool {
        if self.is_done {
            return false;
        }
        let would = |step: &Move| -> io::Result<bool> {
            Ok(step.is_pending(dir)? && ground.live(&step.path()?)?.inode()? != step.after)
        };
        self.moves.iter().any(|step| would(step).unwrap_or(true))
    }

    /// What was done of it the other way round, as things are now.
    ///
    /// # Errors
    /// Those of the kernel; nothing was done.
    pub(super) fn reversed(&self, dir: &Dir) -> io::Result<Self> {
        let (mut moves, mut coming) = (Vec::new(), BTreeSet::new());
        for step in self.moves.iter().rev() {
            // Of two logs that a database had one after the other, the later one is its own now.
            if (self.is_done || !step.is_pending(dir)?) && !coming.contains(&step.path()?) {
                let back = Move::of(step.path.clone(), step.aside.clone(), dir)?;
                coming.extend(back.after.map(|_| back.path()).transpose()?);
                moves.push(back);
            }
        }
        if moves.is_empty() {
            return Err(io::Error::other("nothing that was there before is in it"));
        }
        let (root, file) = (self.root.clone(), self.file.clone());
        Ok(Self { format: FORMAT, root, file, is_done: false, is_way_back: true, moves })
    }
}

/// The bytes of a name that leads nowhere else; it may be empty.
fn one_name(name: &Name) -> Option<Vec<u8>> {
    name.bytes().filter(|name| !name.contains(&b'/') && !matches!(&name[..], b"." | b".."))
}

/// Whatever has moved on since stays as it is.
fn take_back<'a>(moves: impl DoubleEndedIterator<Item = &'a Move>, ground: &Ground, dir: &Dir) {
    let (ground, dir) = (ground.unstoppable(), dir.unstoppable());
    for step in moves.rev() {
        // What stays is kept: the directory is not removed while anything of the root's is in it.
        let _stays: io::Result<()> = step.take_back(&ground, &dir);
    }
}

impl Move {
    /// The exchange that puts at `path` what lies there beside the journal now, or lies `aside`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn of(path: Name, aside: Option<Name>, dir: &Dir) -> io::Result<Self> {
        let mut step = Self { path, aside, after: None };
        step.after = step.drafted(dir)?.inode()?;
        Ok(step)
    }

    /// The one that takes away what is at `path`, and puts nothing there.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn away(path: &[u8], dir: &Dir) -> io::Result<Self> {
        let step = Self::of(Name::new(path), None, dir)?;
        if step.after.is_none() {
            return Ok(step);
        }
        let aside = format!("aside-{}", sys::random_hex(4)?);
        Self::of(step.path, Some(Name::new(aside.as_bytes())), dir)
    }

    pub(super) fn path(&self) -> io::Result<Vec<u8>> {
        self.path.bytes().ok_or_else(|| io::Error::other("the journal has a name that is none"))
    }

    /// The place beside the journal.
    pub(super) fn drafted(&self, dir: &Dir) -> io::Result<Spot> {
        if let Some(aside) = &self.aside {
            let name = one_name(aside).ok_or_else(|| io::Error::other("the journal has a name that is none"))?;
            return Ok(Spot::new(dir.clone(), &name));
        }
        let drafted = joined(TREE, &self.path()?);
        let (above, name) = split(&drafted);
        Ok(Spot::new(dir.open_dir(above)?, name))
    }

    pub(super) fn is_pending(&self, dir: &Dir) -> io::Result<bool> {
        Ok(self.drafted(dir)?.inode()? == self.after)
    }

    /// Whether there was anything to do.
    fn carry_out(&self, ground: &Ground, dir: &Dir) -> io::Result<bool> {
        if !self.is_pending(dir)? {
            return Ok(false);
        }
        let named = |error: io::Error| match self.path() {
            Ok(path) if !path.is_empty() && !crate::gate::is_cancelled(&error) => {
                io::Error::new(error.kind(), format!("{}: {error}", shown(&path)))
            }
            _ => error,
        };
        ground.live(&self.path()?).and_then(|live| live.exchange(&self.drafted(dir)?)).map_err(named)?;
        Ok(true)
    }

    fn take_back(&self, ground: &Ground, dir: &Dir) -> io::Result<()> {
        let (live, drafted) = (ground.live(&self.path()?)?, self.drafted(dir)?);
        if live.inode()? == self.after && drafted.inode()? != self.after { live.exchange(&drafted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{CancelFlag, Realm};
    use std::sync::Arc;

    #[test]
    fn a_journal_leads_to_its_directory_or_to_one_name_in_it() {
        let top = tempfile::tempdir().expect("a directory");
        let ground = |root: &str, file: Option<&str>| {
            let journal = serde_json::json!({ "format": 1, "root": root, "file": file, "moves": [] });
            let journal: Journal = serde_json::from_value(journal).expect("is one");
            let host = Dir::open(top.path(), Realm::Output, Arc::new(CancelFlag::new())).expect("opens");
            journal.ground(host, Path::new("/h")).map(|ground| ground.path().to_owned())
        };
        for (root, file, path) in [("", None, "/h"), ("r", None, "/h/r"), ("", Some("f"), "/h/f")] {
            assert_eq!(ground(root, file).expect("leads there"), Path::new(path));
        }
        for (root, file) in [("..", None), ("a/b", None), ("", Some("..")), ("", Some("a/b")), ("", Some(""))] {
            assert!(ground(root, file).is_err(), "{root} {file:?}");
        }
        assert!(ground("r", Some("f")).is_err(), "a root is one thing, and a file in a directory another");
    }
}
