//! What the fuzzers found worth keeping, played again through the same ways in: `scripts/fuzz` adds to it.

use std::fs;
use std::path::Path;

use clawsnap::verify::fuzzing;

/// Plays all of a corpus.
fn play(target: &str, entry: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).expect("lists").map(|file| file.expect("an entry").path());
    let mut count = 0;
    for file in files {
        // Named before it is played: a panic does not tell which it was.
        println!("{target}/{}", file.file_name().expect("has a name").display());
        entry(&fs::read(&file).expect("reads"));
        count += 1;
    }
    assert!(count >= 10, "{target}: {count} files");
}

#[test]
fn every_archive_that_a_fuzzer_kept_is_read_without_a_panic() {
    play("tar_reader", fuzzing::tar_reader);
}

#[test]
fn every_inventory_that_a_fuzzer_kept_is_read_without_a_panic() {
    play("inventory", fuzzing::inventory);
}

#[test]
fn every_manifest_that_a_fuzzer_kept_is_read_without_a_panic() {
    play("manifest", fuzzing::manifest);
}
