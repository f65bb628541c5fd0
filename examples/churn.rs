//! `churn`: makes a sample OpenClaw state directory, and changes one as a busy gateway does.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

#[path = "../tests/churn/mod.rs"]
mod churn;

use churn::{Books, Churn, Load, Sample, audit, try_sample_state};

const HELP: &str = "\
churn sample DIR [--agents N] [--sessions N] [--seed S] [--no-databases]
    Makes a sample OpenClaw state in DIR, which must be empty or missing.
churn run DIR [--seconds N] [--load light|heavy] [--seed S]
    Changes the sessions below DIR until a signal, the end of the time, or the end of stdin where that is a pipe
    or a terminal. Then prints one line that says what it did. Never point it at a state that somebody needs.
churn audit DIR
    Checks the databases of a sample that was extracted below DIR.
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("churn: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> Result<String, String> {
    let mut args = Args(args);
    if args.flag("--help") || args.flag("-h") {
        return Ok(HELP.to_owned());
    }
    match args.word().as_deref() {
        Some("sample") => sample(args),
        Some("run") => churn_until_told(args),
        Some("audit") => audit(&args.only_dir()?),
        Some(other) => Err(format!("no such command: {other}\n{HELP}")),
        None => Err(format!("what shall it do?\n{HELP}")),
    }
}

fn sample(mut args: Args) -> Result<String, String> {
    let usual = Sample::default();
    let spec = Sample {
        agents: args.number("--agents", usual.agents)?,
        sessions_per_agent: args.number("--sessions", usual.sessions_per_agent)?,
        seed: args.number("--seed", usual.seed)?,
        databases: !args.flag("--no-databases"),
        ..usual
    };
    let dir = args.only_dir()?;
    if dir.read_dir().is_ok_and(|mut inside| inside.next().is_some()) {
        return Err(format!("{} is not empty", dir.display()));
    }
    try_sample_state(&dir, &spec).map_err(|error| format!("cannot make the sample: {error}"))?;
    let sessions = spec.agents * spec.sessions_per_agent;
    Ok(format!("made {} with {} agents and {sessions} sessions", dir.display(), spec.agents))
}

fn churn_until_told(mut args: Args) -> Result<String, String> {
    let seconds: f64 = args.number("--seconds", f64::INFINITY)?;
    let load = match args.value("--load")?.as_deref() {
        None | Some("light") => Load::light(),
        Some("heavy") => Load::heavy(),
        Some(other) => return Err(format!("--load is light or heavy, not {other}")),
    };
    let load = load.seed(args.number("--seed", u64::from(std::process::id()))?);
    let dir = args.only_dir()?;
    if !dir.is_dir() {
        return Err(format!("{} is no directory", dir.display()));
    }
    let told = listen()?;
    let churn = Churn::try_start(&dir, load).map_err(|error| format!("cannot churn {}: {error}", dir.display()))?;
    let books = Books::open(&dir).map_err(|error| format!("cannot open the databases: {error}"))?;
    wait(&told, seconds);
    let (log, commits) = (churn.stop(), books.stop()?);
    let summary = format!("{}, {commits} commits to each database", log.summary().trim_end());
    if log.errors().is_empty() { Ok(summary) } else { Err(summary) }
}

/// Hears signals and the end of stdin. Called before any other thread begins, so that all inherit the mask.
fn listen() -> Result<Receiver<()>, String> {
    let (tell, told) = channel();
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    let from_signal = tell.clone();
    thread::spawn(move || signals.wait().map(|_| from_signal.send(())));
    if stdin_can_end() {
        thread::spawn(move || drain_stdin(&tell));
    }
    Ok(told)
}

/// A shell gives its background jobs `/dev/null`, which ends at once and means nothing.
fn stdin_can_end() -> bool {
    use std::os::unix::fs::FileTypeExt;
    let piped = std::fs::metadata("/dev/stdin").is_ok_and(|found| found.file_type().is_fifo());
    piped || io::stdin().is_terminal()
}

fn drain_stdin(tell: &Sender<()>) {
    let mut scratch = [0; 4096];
    while io::stdin().read(&mut scratch).is_ok_and(|count| count > 0) {}
    tell.send(()).ok();
}

fn wait(told: &Receiver<()>, seconds: f64) {
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) => told.recv_timeout(time).unwrap_or(()),
        Err(_) => told.recv().unwrap_or(()),
    }
}

/// What was typed, and not yet understood.
struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|word| word == name);
        found.map(|at| self.0.remove(at)).is_some()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|word| word == name) else {
            return Ok(None);
        };
        if at + 1 == self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        self.0.remove(at);
        Ok(Some(self.0.remove(at)))
    }

    fn number<N: FromStr>(&mut self, name: &str, usual: N) -> Result<N, String> {
        match self.value(name)? {
            None => Ok(usual),
            Some(text) => text.parse().map_err(|_| format!("{name} needs a number, not {text}")),
        }
    }

    fn word(&mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// The one word that is left.
    fn only_dir(mut self) -> Result<PathBuf, String> {
        let dir = self.word().filter(|word| !word.starts_with('-'));
        match (dir, self.0.as_slice()) {
            (Some(dir), []) => Ok(PathBuf::from(dir)),
            (None, _) => Err(format!("which directory?\n{HELP}")),
            (Some(_), [other, ..]) => Err(format!("what is {other}?\n{HELP}")),
        }
    }
}
