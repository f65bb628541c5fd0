//! What shells and readers of manuals are told of the command, from the same definitions.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{Completions, EXAMPLES, Manual, Typed};
use super::say;

/// `clawsnap completions`.
pub(super) fn completions(typed: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(typed.shell, &mut whole(), "clawsnap", &mut script);
    shown("script", &script)
}

/// `clawsnap man`.
pub(super) fn manual(typed: &Manual) -> ExitCode {
    let whole = whole();
    let command = match &typed.command {
        None => Some(whole),
        Some(name) => whole.find_subcommand(name).cloned(),
    };
    let Some(command) = command else {
        return say::failed("there is no such command: see clawsnap --help", 2);
    };
    let mut page = Vec::new();
    match clap_mangen::Man::new(command).render(&mut page) {
        Ok(()) => shown("page", &page),
        Err(error) => say::failed(&format!("cannot make the page: {error}"), 1),
    }
}

/// The command with all that people use of it, each under its full name.
fn whole() -> clap::Command {
    let typed = Typed::command();
    let shown = typed.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut whole = clap::Command::new("clawsnap").version(env!("CARGO_PKG_VERSION")).after_help(EXAMPLES);
    whole = whole.about(typed.get_about().cloned().unwrap_or_default()).subcommands(shown);
    whole.build();
    whole
}

fn shown(what: &str, text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    say::delivered(what, out.write_all(text).and_then(|()| out.flush()));
    ExitCode::SUCCESS
}
