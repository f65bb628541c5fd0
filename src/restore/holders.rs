//! Who has something open that is about to be exchanged.

use std::fs;
use std::path::{Path, PathBuf};

/// A process that has a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: u32,
    pub(super) command: String,
    pub(super) file: PathBuf,
}

/// The first process but ours, of those that we may look at, that has something at or below `path` open.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|process| !is_ours(*process)).find_map(|process| held_by(process, path))
}

/// Whether it is this process, or a fork of it that has not become another program yet: that one has open what we have.
fn is_ours(process: u32) -> bool {
    let us = std::process::id();
    let program = |process: u32| fs::read_link(format!("/proc/{process}/exe")).ok();
    process == us || (parent(process) == Some(us) && program(process) == program(us))
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn held_by(process: u32, path: &Path) -> Option<Holder> {
    // A process that ended meanwhile, or is not ours to look at, holds nothing that we could know of.
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut files = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let file = files.find(|file| file.starts_with(path))?;
    let command = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default().trim().to_owned();
    Some(Holder { process, command, file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_has_a_file_open_is_found_and_we_are_not() {
        let top = tempfile::tempdir().expect("a directory");
        let (held, free) = (top.path().join("held"), top.path().join("free"));
        for dir in [&held, &free] {
            fs::create_dir(dir).expect("makes");
            fs::write(dir.join("file"), b"x").expect("writes");
        }
        let _ours = fs::File::open(free.join("file")).expect("opens");
        let input = Stdio::from(fs::File::open(held.join("file")).expect("opens"));
        let mut child = Command::new("sleep").arg("60").stdin(input).spawn().expect("runs");
        let found = holder(&held);
        let none = holder(&free);
        child.kill().and_then(|()| child.wait()).expect("ends");
        let expected = Holder { process: child.id(), command: "sleep".to_owned(), file: held.join("file") };
        assert_eq!((found, none), (Some(expected), None));
    }
}
