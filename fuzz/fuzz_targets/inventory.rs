//! The lines of an inventory.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clawsnap::verify::fuzzing::inventory(bytes));
