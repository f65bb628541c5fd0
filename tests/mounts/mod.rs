//! Filesystems that are made for one test and mounted for as long as it takes.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something mounted, until it is dropped.
pub struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

/// Runs a command; says why the test is skipped where that fails.
pub fn can(words: &[&str]) -> bool {
    match Command::new(words[0]).args(&words[1..]).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("skipped: {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("skipped: {}: {error}", words.join(" "));
            false
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary directory has a plain name")
}

/// Mounts at a directory that is made for it.
pub fn mount(words: &[&str], at: &Path) -> Option<Mount> {
    fs::create_dir_all(at).expect("makes");
    can(&[&["mount"], words, &[text(at)]].concat()).then(|| Mount(at.to_owned()))
}

/// A fresh filesystem of 400 MiB, mounted.
pub fn mounted(top: &Path, kind: &str) -> Option<(Mount, PathBuf)> {
    made(top, kind, 400, &[])
}

/// A fresh filesystem of so many MiB, made with these options, mounted.
pub fn made(top: &Path, kind: &str, mebibytes: u64, options: &[&str]) -> Option<(Mount, PathBuf)> {
    let (image, at) = (top.join(format!("{kind}.img")), top.join(kind));
    fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("makes an image");
    if !can(&[&[format!("mkfs.{kind}").as_str()], options, &[text(&image)]].concat()) {
        return None;
    }
    Some((mount(&["-o", "loop", text(&image)], &at)?, at))
}

/// The directory `from`, seen at `to` as well.
pub fn bound(from: &Path, to: &Path, options: &str) -> Option<Mount> {
    let mount = mount(&["--bind", text(from)], to)?;
    can(&["mount", "-o", &format!("remount,bind,{options}"), text(to)]).then_some(mount)
}
