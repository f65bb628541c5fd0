//! `scripts/bench-peers`, as far as it measures nothing: what it computes, what it draws, what it is told wrongly.

use std::path::Path;
use std::process::{Command, Output};

fn bench_peers(words: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench-peers");
    Command::new(script).args(words).output().expect("starts; scripts/test installs python3")
}

#[test]
fn its_own_test_holds() {
    let output = bench_peers(&["--self-test"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_option_is_told_before_anything_is_done() {
    let peers = [&["--pairs", "0"][..], &["--peers", "rsync"], &["--cases", "tiny"], &["--frobnicate"]];
    let owner = [&["--owner", "tiny"][..], &["--scale", "10,x"]];
    for words in peers.into_iter().chain(owner) {
        let output = bench_peers(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("error: "), "{words:?}: {said}");
    }
}
