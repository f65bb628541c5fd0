//! The line on a terminal that shows how far the run is.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::style::TemplateError;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::terminal::{self, Paint};
use crate::event::{Event, Observer};

/// Lines redrawn in a second, at most.
const REDRAWS: u8 = 10;

/// How often the line moves even if nothing is told.
const TICK: Duration = Duration::from_millis(100);

/// One line on standard error that is redrawn, and gone when the run is over. Clones draw the same line.
#[derive(Clone)]
pub(super) struct Bars {
    line: ProgressBar,
    seen: Arc<Seen>,
    colours: bool,
    /// What an archive that is read is read for, before it is proven and after.
    reading: [&'static str; 2],
    /// What is done with what was frozen.
    writing: &'static str,
}

/// What the freeze told last. It tells from several threads, out of order.
#[derive(Default)]
struct Seen {
    files: AtomicU64,
    directories: AtomicU64,
    round: AtomicU64,
    restless: AtomicU64,
    proven: AtomicBool,
}

impl Bars {
    /// A line that says `verb` while files are counted, once it is [started](Self::start).
    fn still(verb: &'static str, paint: Paint) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
        let line = ProgressBar::with_draw_target(None, target).with_message(verb);
        let bars =
            Self { line, seen: Arc::default(), colours: paint.colours, reading: ["reading back"; 2], writing: "" };
        bars.restyle(|bars| bars.counting());
        bars
    }

    /// Moves from now on, by a thread of its own: not before signals are held back, as one that came to that thread would
    /// end the process.
    pub(super) fn start(&self) {
        self.line.enable_steady_tick(TICK);
    }

    /// A line that says `verb` while files are counted, and what is done afterwards, once it is [started](Self::start).
    pub(super) fn writing(verb: &'static str, writing: &'static str, paint: Paint) -> Self {
        Self { writing, ..Self::still(verb, paint) }
    }

    /// A line for an archive that is read, and what for, before it is proven and after; none where nobody would see it.
    pub(super) fn of_reading(quiet: bool, reading: [&'static str; 2]) -> Option<Self> {
        let stderr = io::stderr();
        let lively = !quiet && terminal::is_lively(&stderr);
        let bars = lively.then(|| Self { reading, ..Self::still("reading", terminal::paint(&stderr)) });
        bars.inspect(Self::start)
    }

    /// Without the line, while `ask` has the terminal.
    pub(super) fn suspended<T>(&self, ask: impl FnOnce() -> T) -> T {
        self.line.suspend(ask)
    }

    /// Says that the run is being given up.
    pub(super) fn stopping(&self) {
        self.restyle(|bars| bars.spinner("{msg}"));
        self.line.set_message("stopping and cleaning up (once more leaves at once)");
    }

    /// Removes the line.
    pub(super) fn end(&self) {
        self.line.finish_and_clear();
    }

    fn copying(&self, done: u64, all: u64) {
        self.restyle(|bars| bars.spinner("{msg}"));
        self.line.set_message(format!("copying databases, {done} of {all} done"));
    }

    fn bytes(&self, verb: &'static str, total: u64) {
        self.restyle(|bars| bars.measuring());
        self.line.set_message(verb);
        self.line.set_length(total);
        self.line.reset();
    }

    /// A template that indicatif does not understand leaves the line as it was; a test reads them all.
    fn restyle(&self, style: impl FnOnce(&Self) -> Result<ProgressStyle, TemplateError>) {
        if let Ok(style) = style(self) {
            self.line.set_style(style);
        }
    }

    fn counting(&self) -> Result<ProgressStyle, TemplateError> {
        let seen = Arc::clone(&self.seen);
        let told = move |_: &ProgressState, out: &mut dyn Write| seen.tell(out);
        Ok(self.spinner("{msg} {told}")?.with_key("told", told))
    }

    fn spinner(&self, rest: &str) -> Result<ProgressStyle, TemplateError> {
        let spinner = if self.colours { "{spinner:.cyan}" } else { "{spinner}" };
        Ok(ProgressStyle::with_template(&format!("{spinner} {rest}"))?.tick_chars(r"-\|/ "))
    }

    fn measuring(&self) -> Result<ProgressStyle, TemplateError> {
        let bar = if self.colours { "{wide_bar:.cyan/dim}" } else { "{wide_bar}" };
        let template = format!("{{msg}} [{bar}] {{share}} {{pace}}");
        let style = ProgressStyle::with_template(&template)?.progress_chars("=> ");
        Ok(style.with_key("share", share).with_key("pace", pace))
    }
}

impl Observer for Bars {
    fn on(&self, event: Event) {
        match event {
            Event::Waiting { over } => self.line.set_message(if over { "freezing" } else { "waiting for another run" }),
            Event::Freezing { files, directories } => self.seen.count(files, directories),
            Event::Settling { round, restless } => self.seen.settling(round, restless),
            Event::Copying { done, all } => self.copying(done, all),
            Event::Frozen { bytes, .. } => self.bytes(self.writing, bytes),
            Event::Sealed { bytes } => self.bytes(self.reading[usize::from(self.seen.proven.load(Relaxed))], bytes),
            Event::Proven => self.seen.proven.store(true, Relaxed),
            Event::Archived { bytes } | Event::ReadBack { bytes } => self.line.set_position(bytes),
            Event::Handed => self.end(),
            Event::Settled { .. } | Event::Published => {}
        }
    }
}

impl Seen {
    fn count(&self, files: u64, directories: u64) {
        self.files.fetch_max(files, Relaxed);
        self.directories.fetch_max(directories, Relaxed);
    }

    fn settling(&self, round: u32, restless: u64) {
        self.round.store(round.into(), Relaxed);
        self.restless.store(restless, Relaxed);
    }

    fn tell(&self, out: &mut dyn Write) {
        let count = |number: &AtomicU64| HumanCount(number.load(Relaxed));
        let (files, directories) = (count(&self.files), count(&self.directories));
        // A terminal that cannot be written to is indicatif's to deal with.
        let _told = match self.round.load(Relaxed) {
            0 => write!(out, "{files} files, {directories} directories"),
            round => write!(out, "{files} files, settling, round {round}, {} restless", count(&self.restless)),
        };
    }
}

fn share(state: &ProgressState, out: &mut dyn Write) {
    let _told = write!(out, "{}", share_of(state.pos(), state.len().unwrap_or(0)));
}

/// Both numbers in the unit of the whole: short, and easy to compare.
fn share_of(done: u64, all: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(size, _)| all >= *size) {
        Some((size, unit)) => format!("{:.1} of {:.1} {unit}", done as f64 / size as f64, all as f64 / size as f64),
        None => format!("{done} of {all} B"),
    }
}

/// Rate and time left; at the end, that the end takes its time.
fn pace(state: &ProgressState, out: &mut dyn Write) {
    let rate = state.per_sec() as u64;
    let _told = match state.pos() {
        done if done >= state.len().unwrap_or(0) => write!(out, "finishing"),
        _ if rate == 0 => Ok(()),
        _ => write!(out, "{}/s, {} left", HumanBytes(rate), clock(state.eta().as_secs() + 1)),
    };
}

/// Seconds as a clock shows them.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(colours: bool) -> Bars {
        Bars {
            line: ProgressBar::hidden(),
            seen: Arc::default(),
            colours,
            reading: ["reading back"; 2],
            writing: "archiving",
        }
    }

    #[test]
    fn indicatif_understands_every_template() {
        for colours in [false, true] {
            let bars = hidden(colours);
            assert!(bars.counting().is_ok() && bars.measuring().is_ok() && bars.spinner("{msg}").is_ok());
        }
    }

    #[test]
    fn the_line_goes_from_counts_to_bytes() {
        let bars = hidden(false);
        bars.on(Event::Freezing { files: 7, directories: 2 });
        bars.on(Event::Freezing { files: 5, directories: 1 });
        bars.on(Event::Settling { round: 3, restless: 2 });
        let mut told = String::new();
        bars.seen.tell(&mut told);
        assert_eq!(told, "7 files, settling, round 3, 2 restless");
        bars.on(Event::Frozen { files: 7, bytes: 100 });
        bars.on(Event::Archived { bytes: 40 });
        assert_eq!((bars.line.length(), bars.line.position()), (Some(100), 40));
        bars.on(Event::Sealed { bytes: 30 });
        assert_eq!((bars.line.length(), bars.line.position()), (Some(30), 0));
    }

    #[test]
    fn how_much_is_done_is_told_in_the_unit_of_the_whole() {
        assert_eq!(share_of(46_000_000, 92_884_992), "43.9 of 88.6 MiB");
        assert_eq!(share_of(0, 12), "0 of 12 B");
    }

    #[test]
    fn time_left_is_shown_as_a_clock() {
        assert_eq!([clock(5), clock(65), clock(3_725)], ["0:05", "1:05", "1:02:05"]);
    }
}
