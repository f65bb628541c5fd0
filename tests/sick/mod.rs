//! A filesystem that can fall ill: one call about one of its files gets an errno, or no answer until it is well again.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

#[path = "../inode/mod.rs"]
mod inode;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    GetAttr,
    Open,
    /// From the start of the file.
    Read,
    /// From anywhere else.
    ReadOn,
    OpenDir,
    /// From the start of the directory.
    ReadDir,
    /// From anywhere else: some names are told by then.
    ReadDirOn,
    /// In a directory.
    MakeDir,
}

/// What an ill filesystem answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Errno(Errno),
    /// Nothing, until it is well again.
    Silence,
    /// The right one, with each name of a listing twice.
    Twice,
}

/// A filesystem that is mounted, with a directory for each path in `files` that needs one.
pub struct Sick {
    at: PathBuf,
    ward: Arc<Ward>,
    /// Serves it to the end.
    _session: BackgroundSession,
}

impl Sick {
    /// Mounts one.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn mount(at: &Path, files: &[(&str, impl AsRef<[u8]>)]) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let ward = Arc::new(Ward { tree: Tree::of(files), state: Mutex::default() });
        let session = fuser::spawn_mount(Served(Arc::clone(&ward)), at, &Config::default());
        let session = session.map_err(|error| format!("FUSE: {error}"))?;
        Ok(Self { at: at.to_owned(), ward, _session: session })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on `call` about what has this path gets this answer.
    pub fn fall_ill(&self, call: Call, path: &str, answer: Answer) {
        let inode = self.ward.tree.inode(path);
        self.ward.state().illness = Some((call, inode, answer));
    }

    /// All who wait get the right answer, and so does everybody who asks from now on.
    pub fn get_well(&self) {
        let mut state = self.ward.state();
        state.illness = None;
        state.waiting.drain(..).for_each(|answer| answer());
    }

    /// How many wait for an answer.
    pub fn waiting(&self) -> usize {
        self.ward.state().waiting.len()
    }
}

impl Drop for Sick {
    fn drop(&mut self) {
        self.get_well();
        // Who waited for an answer may still be about to end.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

struct Ward {
    tree: Tree,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    illness: Option<(Call, INodeNo, Answer)>,
    waiting: Vec<Box<dyn FnOnce() + Send>>,
}

impl Ward {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody failed with it")
    }
}

/// Nodes by their inode numbers, counted from 1; the first is the root.
struct Tree(Vec<Node>);

struct Node {
    path: PathBuf,
    contents: Option<Vec<u8>>,
}

impl Tree {
    fn of(files: &[(&str, impl AsRef<[u8]>)]) -> Self {
        let mut nodes = BTreeMap::from([(PathBuf::new(), None)]);
        for (path, contents) in files {
            let path = Path::new(path);
            nodes.extend(path.ancestors().skip(1).map(|above| (above.to_owned(), None)));
            nodes.insert(path.to_owned(), Some(contents.as_ref().to_vec()));
        }
        Self(nodes.into_iter().map(|(path, contents)| Node { path, contents }).collect())
    }

    fn inode(&self, path: &str) -> INodeNo {
        self.find(Path::new(path)).expect("is in the tree")
    }

    fn find(&self, path: &Path) -> Option<INodeNo> {
        self.0.iter().position(|node| node.path == path).map(|index| INodeNo(index as u64 + 1))
    }

    fn node(&self, inode: INodeNo) -> &Node {
        &self.0[usize::try_from(inode.0).expect("is small") - 1]
    }

    fn children(&self, inode: INodeNo) -> impl Iterator<Item = (INodeNo, &Node)> {
        let parent = &self.node(inode).path;
        let nodes = self.0.iter().enumerate().filter(move |(_, node)| node.path.parent() == Some(parent));
        nodes.map(|(index, node)| (INodeNo(index as u64 + 1), node))
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let file = self.node(inode).contents.as_ref().map(|contents| contents.len() as u64);
        inode::attributes(inode, file, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }
}

impl Node {
    fn kind(&self) -> FileType {
        if self.contents.is_some() { FileType::RegularFile } else { FileType::Directory }
    }
}

struct Served(Arc<Ward>);

impl Served {
    /// Answers as the filesystem feels.
    fn treat<R: Send + 'static>(
        &self,
        call: Call,
        inode: INodeNo,
        reply: R,
        refuse: fn(R, Errno),
        answer: impl FnOnce(&Tree, R) + Send + 'static,
    ) {
        let mut state = self.0.state();
        match state.illness.filter(|(ill, about, _)| (*ill, *about) == (call, inode)) {
            None | Some((_, _, Answer::Twice)) => answer(&self.0.tree, reply),
            Some((_, _, Answer::Errno(errno))) => refuse(reply, errno),
            Some((_, _, Answer::Silence)) => {
                let ward = Arc::clone(&self.0);
                state.waiting.push(Box::new(move || answer(&ward.tree, reply)));
            }
        }
    }
}

/// Nothing is remembered by the kernel: each call is asked.
const NOT_AT_ALL: Duration = Duration::ZERO;

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = &self.0.tree;
        match tree.find(&tree.node(parent).path.join(name)) {
            Some(inode) => reply.entry(&NOT_AT_ALL, &tree.attributes(inode), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.treat(Call::GetAttr, inode, reply, ReplyAttr::error, move |tree, reply| {
            reply.attr(&NOT_AT_ALL, &tree.attributes(inode));
        });
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.treat(Call::Open, inode, reply, ReplyOpen::error, |_, reply| {
            // Each read is asked, and none is guessed ahead.
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let call = if offset == 0 { Call::Read } else { Call::ReadOn };
        self.treat(call, inode, reply, ReplyData::error, move |tree, reply| {
            let bytes = tree.node(inode).contents.as_deref().unwrap_or_default();
            reply.data(inode::part(bytes, offset, size));
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        self.treat(Call::MakeDir, parent, reply, ReplyEntry::error, |_, reply| reply.error(Errno::EROFS));
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.treat(Call::OpenDir, inode, reply, ReplyOpen::error, |_, reply| {
            reply.opened(FileHandle(0), FopenFlags::empty());
        });
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        let is_twice =
            |ill: &(_, _, Answer)| (ill.0, ill.1) == (Call::ReadDir, inode) && matches!(ill.2, Answer::Twice);
        let times = 1 + usize::from(self.0.state().illness.as_ref().is_some_and(is_twice));
        let call = if offset == 0 { Call::ReadDir } else { Call::ReadDirOn };
        self.treat(call, inode, reply, ReplyDirectory::error, move |tree, mut reply| {
            let children = std::iter::repeat_n((), times).flat_map(|()| tree.children(inode)).enumerate();
            for (index, (child, node)) in children.skip(usize::try_from(offset).expect("is small")) {
                let name = node.path.file_name().expect("has a name");
                if reply.add(child, index as u64 + 1, node.kind(), name) {
                    break;
                }
            }
            reply.ok();
        });
    }
}
