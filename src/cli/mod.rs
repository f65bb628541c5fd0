//! What was typed, what it means, and what is shown. Nothing else imports this module, and it alone prints.

mod after;
mod args;
mod attend;
mod bars;
mod chart;
mod create;
mod deputy;
mod dry_run;
mod duration;
mod early;
mod guard;
mod helper;
mod hooks;
mod intent;
mod keep;
mod launcher;
mod list;
mod page;
mod paper;
mod place;
mod prune;
mod ran;
mod restore;
mod run;
mod say;
mod sessions;
mod show;
mod signals;
mod stage;
mod status;
mod stdout;
mod summary;
mod sweep;
mod terminal;
mod verify;
mod when;

use std::process::ExitCode;

use clap::Parser;

use args::{Typed, Verb};

/// The command: reads what was typed, does it, shows how it went.
pub fn main() -> ExitCode {
    hooks::install();
    let verb = Typed::parse().verb;
    deputy::stands_in(&verb).unwrap_or_else(|| act(verb))
}

fn act(verb: Verb) -> ExitCode {
    match verb {
        Verb::Create(typed) => create::create(*typed),
        Verb::Guard(typed) => guard::run(&typed),
        Verb::Stage(typed) => stage::run(&typed),
        Verb::Restore(typed) => restore::restore(&typed),
        Verb::List(typed) => list::list(&typed),
        Verb::Prune(typed) => prune::prune(&typed),
        Verb::Status(typed) => status::status(&typed),
        Verb::Verify(typed) => verify::verify(&typed),
        Verb::Sweep(typed) => sweep::run(&typed),
        Verb::Completions(typed) => paper::completions(&typed),
        Verb::Man(typed) => paper::manual(&typed),
        Verb::Database => helper::serve(),
        Verb::Launch(typed) => launcher::launch(&typed),
        Verb::Deputy(typed) => deputy::deputise(&typed, act),
    }
}
