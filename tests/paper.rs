//! Completions and manual pages say what `--help` says.
#![cfg(feature = "cli")]

mod stage;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use stage::{Stage, text};

/// The long options that a command's help lists.
fn options(stage: &Stage, command: &str) -> BTreeSet<String> {
    let help = text(&stage.run(&format!("{command} --help")).stdout);
    let words = help.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(str::split_whitespace);
    words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches(',').to_owned()).collect()
}

const COMMANDS: [&str; 5] = ["create", "verify", "list", "restore", "sweep"];

#[test]
fn every_shell_is_told_of_every_option_and_not_of_what_is_hidden() {
    let stage = Stage::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = stage.run(&format!("completions {shell}"));
        let script = text(&output.stdout);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{shell}");
        assert!(!script.contains("__database"), "{shell}");
        for option in COMMANDS.iter().flat_map(|command| options(&stage, command)) {
            assert!(script.contains(option.trim_start_matches("--")), "{shell} knows nothing of {option}");
        }
    }
    assert_eq!(stage.run("completions tcsh").status.code(), Some(2));
}

#[test]
fn bash_takes_its_script_and_completes_with_it() {
    let stage = Stage::new();
    let script = stage.run("completions bash").stdout;
    let ask = "\nCOMP_WORDS=(clawsnap sw) COMP_CWORD=1; _clawsnap clawsnap sw clawsnap; echo \"${COMPREPLY[@]}\"\n";
    let bash = Command::new("bash").args(["--norc", "-s"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut bash) = bash else {
        println!("skipped: bash is not installed");
        return;
    };
    let mut input = bash.stdin.take().expect("is piped");
    input.write_all(&[&script[..], ask.as_bytes()].concat()).expect("is read");
    drop(input);
    assert_eq!(text(&bash.wait_with_output().expect("ends").stdout).trim(), "sweep");
}

#[test]
fn manual_pages_tell_of_every_option() {
    let stage = Stage::new();
    let whole = text(&stage.run("man").stdout);
    assert!(whole.contains(".TH clawsnap 1") && whole.contains("sweep") && !whole.contains("__database"), "{whole}");
    for command in COMMANDS {
        let page = text(&stage.run(&format!("man {command}")).stdout).replace("\\-", "-");
        assert!(page.contains(&format!("clawsnap-{command}")), "{page}");
        for option in options(&stage, command) {
            assert!(page.contains(&option), "{command} {option}: {page}");
        }
    }
    for unknown in ["melt", "__database"] {
        assert_eq!(stage.run(&format!("man {unknown}")).status.code(), Some(2), "{unknown}");
    }
}
