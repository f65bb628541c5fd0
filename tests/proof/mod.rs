//! How much was proven of the promise in DESIGN.md, in lines that a program can add up.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

/// A sentence of the promise.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    Instant,
    Whole,
    Fate,
    Untouched,
    Name,
}

impl Promise {
    fn word(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Whole => "whole",
            Self::Fate => "fate",
            Self::Untouched => "untouched",
            Self::Name => "name",
        }
    }
}

/// Tells that this many trials found no violation: one that does has panicked before.
pub fn proven(promises: &[Promise], trials: u64, by: &str) {
    for promise in promises {
        println!("proof: {} trials={trials} violations=0 by={by}", promise.word());
    }
}

/// Tells what this machine cannot do.
pub fn skipped(what: &str, why: &str) {
    println!("skipped: {what}: {why}");
}
