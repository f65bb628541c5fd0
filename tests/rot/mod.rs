//! How a disk rots: nothing tells but the contents.

#![allow(unreachable_pub, reason = "a module of tests")]

use std::fs::{self, File};
use std::path::Path;

/// Turns one bit over, and puts the time back.
pub fn rot(path: &Path) {
    let modified = fs::metadata(path).and_then(|found| found.modified()).expect("has a time");
    let mut bytes = fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("writes");
    let file = File::options().write(true).open(path).expect("opens");
    file.set_modified(modified).expect("sets the time");
}
