//! Manifests and reports, ours and OpenClaw's.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clawsnap::verify::fuzzing::manifest(bytes));
