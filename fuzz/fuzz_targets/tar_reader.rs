//! An archive that is unpacked already.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clawsnap::verify::fuzzing::tar_reader(bytes));
